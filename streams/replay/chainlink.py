"""Replay of recorded Chainlink rounds: a block a slot that has a round, against seeded perpetuals and collateral."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from schemas.events import (
    AccountEvent,
    CollateralMove,
    Fill,
    InstrumentListing,
    ParametersListing,
    ScenarioSetListing,
    SpotTick,
    UnderlyingListing,
)
from schemas.quantities import divide_half_even
from schemas.risk_parameters import RiskParameters, parameters_document
from streams.replay.blocks import BlockChain
from streams.replay.files import SAMPLES, ReplayError, check_limit, find_files, read_rows
from streams.replay.seeding import BUFFER_RULE, buffer_facts, seed_cash
from streams.replay.volatility import scenario_set_of, staked_volatilities
from streams.replay.world import BlockInputs, World

NAME = "chainlink"
ETH, STETH, PERPETUAL = "ETH", "stETH", "ETH-PERP"
PATTERN = "*chainlink_ETHUSD_rounds*.csv*"
STAKED_PATTERN = "*chainlink_stETHETH_rounds*.csv*"
WANTED = "Chainlink ETH/USD rounds (chainlink_ETHUSD_rounds*.csv or .csv.gz: round, answer, start, update)"
COLUMNS = ("round", "answer", "update")
BEACON_GENESIS_S, SLOT_S = 1_606_824_023, 12
ETH_USD_SCALE, STETH_ETH_SCALE = 10, 10**18  # answers: USD in 1e-8, ETH in 1e-18
GENESIS_LEAD_MS = 12_000
ACCOUNTS = 200
LOT_EXPONENT = -2
FACTORS_E6 = {ETH: 950_000, STETH: 900_000}
SHARES = {"long": 0.40, "short": 0.35}  # the rest borrow against their coins
SIZE_MEDIAN_ETH, SIZE_SIGMA, COLLATERAL_SHARE = 20.0, 1.2, 0.30
SEEDING_RULE = (
    "Of 200 accounts 40 % are long and 35 % short the ETH perpetual, entered at the first round with zero value; "
    "the rest hold coins and owe USD. Sizes are lognormal (median 20 ETH, sigma 1.2). Borrowers, and 30 % of the "
    "others, hold collateral of such a size, half of them ETH (factor 0.95), half stETH (factor 0.90; ETH alone where "
    "the source has no stETH rounds). " + BUFFER_RULE
)


class Round(NamedTuple):
    """An oracle answer and the second at which it was stored."""

    time_s: int
    answer: int


def chainlink_world(source: Path | None, seed: int, scenarios: int, limit: int | None = None) -> World:
    """World of recorded rounds (None: the generated sample), the first `limit` slots if given."""
    check_limit(limit)
    path, staked_path = _paths(source)
    rounds = read_rounds(path)
    slots = rounds_by_slot(rounds)[:limit]
    staked = [] if staked_path is None else read_rounds(staked_path)
    prices = Prices(slots, staked)
    coins = [ETH, STETH] if prices.ratio else [ETH]
    scenario_set = scenario_set_of(staked_volatilities(ETH, coins[1:]), seed, scenarios)
    parameters = RiskParameters()
    listings: list[Struct] = [
        ParametersListing(version=1, id="parameters", document=parameters_document(parameters)),
        *_listings(coins),
        ScenarioSetListing(version=1, id="scenario-set", digest=scenario_set.digest),
    ]
    time_ms = slots[0].time_s * 1000 - GENESIS_LEAD_MS
    ticks = prices.first_marks(time_ms)
    events = seeded_events(coins, ticks[0].price_usd9, seed, time_ms)
    cash = seed_cash(listings, scenario_set, time_ms, events, ticks, seed)
    chain = BlockChain(NAME, len(listings))
    start = chain.block(0, time_ms, [*events, *cash.moves(0)], ticks)
    return World(
        name=NAME,
        listings=listings,
        scenario_set=scenario_set,
        parameters=parameters,
        block_count=len(slots) + 1,
        blocks=_blocks(start, slots, prices, chain),
        facts={**_facts(source, path, rounds, slots, staked), **buffer_facts(cash), "seeding_rule": SEEDING_RULE},
    )


def _paths(source: Path | None) -> tuple[Path, Path | None]:
    """The ETH/USD file, and the stETH/ETH file beside it if there is one."""
    found = find_files(source, SAMPLES, PATTERN, WANTED)
    if len(found) > 1:
        raise ReplayError(f"{len(found)} recordings found ({', '.join(map(str, found))}): give --source one of them")
    staked = sorted(found[0].parent.glob(STAKED_PATTERN))
    return found[0], staked[0] if staked else None


def read_rounds(path: Path) -> list[Round]:
    """Rounds in order of time; rows of zeros, as unset rounds are stored, are dropped."""
    rounds = []
    for line, row in enumerate(read_rows(path, COLUMNS, WANTED), start=2):
        try:
            found = (int(row["round"]), Round(int(row["update"]), int(row["answer"])))
        except ValueError as error:
            raise ReplayError(f"{path} line {line}: round, answer and update must be integers") from error
        if found[1].time_s > 0 and found[1].answer > 0:
            rounds.append(found)
    if not rounds:
        raise ReplayError(f"{path} holds no rounds: {WANTED} are expected")
    return [round_ for _, round_ in sorted(rounds, key=lambda pair: (pair[1].time_s, pair[0]))]


def slot_of(time_s: int) -> int:
    """Number of the slot that a second belongs to."""
    return (time_s - BEACON_GENESIS_S) // SLOT_S


def rounds_by_slot(rounds: list[Round]) -> list[Round]:
    """One round a slot: of several the last wins."""
    return list({slot_of(round_.time_s): round_ for round_ in rounds}.values())


class Prices:
    """Prices in nano-USD at any recorded time: ETH as told, stETH as its last ratio times the last ETH price."""

    def __init__(self, slots: list[Round], staked: list[Round]) -> None:
        self.slots = slots
        first = slots[0].time_s
        before = [round_ for round_ in staked if round_.time_s <= first] or staked[:1]
        self.ratio = before[-1].answer if before else 0  # 0: the source has no stETH rounds
        self.later = [round_ for round_ in staked if first < round_.time_s <= slots[-1].time_s]

    def first_marks(self, time_ms: int) -> list[SpotTick]:
        return self._ticks(time_ms, self.slots[0].answer * ETH_USD_SCALE, self.ratio, eth_told=True)

    def block_ticks(self) -> Iterator[list[SpotTick]]:
        """Ticks of each slot: stETH rounds since the slot before at their own time, then the slot's ETH round."""
        ratio, price, at = self.ratio, self.slots[0].answer * ETH_USD_SCALE, 0
        for slot in self.slots:
            ticks = []
            while at < len(self.later) and self.later[at].time_s <= slot.time_s:
                ratio = self.later[at].answer
                if self.later[at].time_s < slot.time_s:
                    ticks += self._ticks(self.later[at].time_s * 1000, price, ratio, eth_told=False)
                at += 1
            price = slot.answer * ETH_USD_SCALE
            yield ticks + self._ticks(slot.time_s * 1000, price, ratio, eth_told=True)

    def _ticks(self, time_ms: int, eth_usd9: int, ratio: int, *, eth_told: bool) -> list[SpotTick]:
        told = [(ETH, eth_usd9)] if eth_told else []
        if self.ratio:
            told.append((STETH, divide_half_even(eth_usd9 * ratio, STETH_ETH_SCALE)))
        return [
            SpotTick(version=1, id=f"{time_ms}-{name}", source=NAME, time_ms=time_ms, underlying=name, price_usd9=price)
            for name, price in told
        ]


def _blocks(start: BlockInputs, slots: list[Round], prices: Prices, chain: BlockChain) -> Iterator[BlockInputs]:
    """Blocks are numbered without gaps, as the log wants them; a block's time says its slot."""
    yield start
    for number, (slot, ticks) in enumerate(zip(slots, prices.block_ticks()), start=1):
        yield chain.block(number, slot.time_s * 1000, [], ticks)


def _listings(coins: list[str]) -> list[UnderlyingListing | InstrumentListing]:
    found: list[UnderlyingListing | InstrumentListing] = [
        UnderlyingListing(version=1, id=f"underlying-{coin}", underlying=coin) for coin in coins
    ]
    perpetual = InstrumentListing(
        version=1, id="perpetual", instrument=PERPETUAL, underlying=ETH, kind="perpetual", lot_exponent=LOT_EXPONENT
    )
    return [*found, perpetual, *(_coin_listing(coin) for coin in coins)]


def _coin_listing(coin: str) -> InstrumentListing:
    return InstrumentListing(
        version=1, id=f"coin-{coin}", instrument=coin, underlying=coin, kind="spot", lot_exponent=LOT_EXPONENT,
        collateral_factor_e6=FACTORS_E6[coin],
    )  # fmt: skip


def seeded_events(coins: list[str], price_usd9: int, seed: int, time_ms: int) -> list[AccountEvent]:
    """Positions and collateral of SEEDING_RULE as events of block 0."""
    generator = np.random.default_rng([seed, ACCOUNTS])
    events: list[AccountEvent] = []
    for i in range(ACCOUNTS):
        kind = _kind((i + 0.5) / ACCOUNTS)
        common: dict[str, Any] = {"version": 1, "block": 0, "time_ms": time_ms, "account": f"{kind}-{i:04d}"}
        sizes = SIZE_MEDIAN_ETH * np.exp(SIZE_SIGMA * generator.standard_normal(2)) / 10.0**LOT_EXPONENT
        position, collateral = (max(1, round(float(size))) for size in sizes)
        holds_collateral, coin = generator.random() < COLLATERAL_SHARE, coins[generator.integers(len(coins))]
        if kind != "borrower":
            lots = position if kind == "long" else -position
            trade: dict[str, Any] = {"instrument": PERPETUAL, "lots": lots, "price_usd9": price_usd9}
            events.append(Fill(**common, id=f"0-{len(events):05d}", **trade))
        if kind == "borrower" or holds_collateral:
            events.append(CollateralMove(**common, id=f"0-{len(events):05d}", instrument=coin, lots=collateral))
    return events


def _kind(place: float) -> str:
    if place < SHARES["long"]:
        return "long"
    return "short" if place < sum(SHARES.values()) else "borrower"


def _facts(
    source: Path | None, path: Path, rounds: list[Round], slots: list[Round], staked: list[Round]
) -> dict[str, Any]:
    return {
        "source": path.name + (" (generated sample)" if source is None else ""),
        "rounds": len(rounds),
        "slots": len(slots),
        "first_slot": slot_of(slots[0].time_s),
        "last_slot": slot_of(slots[-1].time_s),
        "staked_rounds": len(staked),
        "accounts": ACCOUNTS,
    }
