"""Chains that reorganise: a tree of blocks as inputs, and what the same chain would be had it never done so."""

from __future__ import annotations

import random
from typing import Any

from engine_worlds import (
    ACCOUNTS,
    Inputs,
    block,
    cash,
    coins,
    event,
    fill,
    genesis_ticks,
    listings,
    option,
    option_name,
    quote,
    spot,
    time_of,
)

from schemas.risk_parameters import RiskParameters, parameters_document
from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, ORACLE_TICKS
from streams.engine.sequence import partition_of

Branch = int  # 0: the first one; each reorganisation begins another


def branch_hash(number: int, branch: Branch) -> str:
    return "0x" + (branch << 64 | number + 1).to_bytes(32, "big").hex()


class Tree:
    """Draws blocks of branches. Ticks belong to no branch: each is produced once, whoever closes its time."""

    def __init__(self, seed: int, depth: int = 64, parameters: RiskParameters | None = None) -> None:
        self.rng = random.Random(seed)
        document = parameters_document(parameters or RiskParameters(finality_depth_blocks=depth))
        near = time_of(4) - 200
        self.listed = [*listings(), event("parameters", "p-1", document=document), option(100, "call", near)]
        self.names = [x["instrument"] for x in self.listed if x["type"] == "instrument" and x["kind"] != "spot"]
        self.ticks: dict[int, list[dict]] = {}
        self.chain: list[tuple[Branch, dict, list[dict]]] = []  # of the present branch: block and events
        self.branch, self.price = 0, 100.0

    def _ticks_of(self, number: int) -> list[dict]:
        """Ticks of a block's second, the same on every branch."""
        if number not in self.ticks:
            found = genesis_ticks() if number == 0 else []
            self.price *= 1 + self.rng.gauss(0, 0.02)
            found.append(spot(f"x{number}", "X", time_of(number) - 300, self.price))
            if number % 3 == 0:
                name = option_name(100, "call")
                found.append(quote(f"q{number}", time_of(number) - 50, name, self.rng.uniform(2, 6)))
            self.ticks[number] = found
        return self.ticks[number]

    def _events_of(self, number: int, block_hash: str) -> list[dict]:
        found: list[dict[str, Any]] = []
        for n in range(30 if number == 0 else self.rng.randrange(5)):
            account = self.rng.choice(ACCOUNTS) if self.rng.random() < 0.9 else f"new-{self.rng.randrange(30)}"
            name, lots = self.rng.choice(self.names), self.rng.randrange(-1_500, 1_500)
            # the same ids on every branch: as a transaction that is mined again
            found.append(fill(f"f{number}-{n}", number, account, name, lots, self.rng.uniform(1, 9)))
        if number == 0:
            found += [cash(f"c{a}", number, a, self.rng.choice([20, 60, 400])) for a in ACCOUNTS]
        found.append(coins(f"k{number}", number, self.rng.choice(ACCOUNTS), "X", self.rng.randrange(90), "set"))
        return [one | {"block_hash": block_hash} for one in found]

    def grow(self) -> tuple[dict, list[dict], list[dict]]:
        """The next block of the present branch: (block, events, ticks that are new)."""
        number = len(self.chain)
        block_hash = branch_hash(number, self.branch)
        parent = self.chain[-1][1]["hash"] if self.chain else branch_hash(-1, 0)
        fresh = [] if number in self.ticks else self._ticks_of(number)
        events, ticks = self._events_of(number, block_hash), self._ticks_of(number)
        listed = len(self.listed)
        made = block(number, time_of(number), len(events), len(ticks), listed) | {
            "hash": block_hash,
            "parent_hash": parent,
        }
        self.chain.append((self.branch, made, events))
        return made, events, fresh

    def reorganise(self, depth: int) -> None:
        """The last `depth` blocks are no longer of the chain."""
        del self.chain[len(self.chain) - depth :]
        self.branch += 1

    def straight(self) -> Inputs:
        """The inputs of the present chain alone."""
        inputs = Inputs()
        inputs.add_listings(self.listed)
        for number, (_, made, events) in enumerate(self.chain):
            add(inputs, made, events, self.ticks[number])
        return inputs


def add(inputs: Inputs, made: dict, events: list[dict], ticks: list[dict]) -> None:
    for tick in ticks:
        inputs.add(ORACLE_TICKS, tick)
    for one in events:
        inputs.add(ACCOUNT_FILLS, one, partition_of(one["account"], 4))
    inputs.add(CHAIN_BLOCKS, made)


def branching_world(seed: int, blocks: int = 12, deepest: int = 6, chance: float = 0.3) -> tuple[Inputs, Tree]:
    """`blocks` blocks at the end, with reorganisations of random depth on the way."""
    tree, inputs = Tree(seed), Inputs()
    inputs.add_listings(tree.listed)
    while len(tree.chain) < blocks:
        add(inputs, *tree.grow())
        if 2 < len(tree.chain) < blocks and tree.rng.random() < chance:
            tree.reorganise(tree.rng.randint(1, min(deepest, len(tree.chain) - 1)))
    return inputs, tree
