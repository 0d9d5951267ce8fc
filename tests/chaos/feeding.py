"""A producer that behaves badly: sends again, in any order, with other bytes, and things that are no events at all."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from msgspec.structs import replace

from schemas.codec import encode
from schemas.events import Fill
from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, FILL_PARTITIONS, INPUTS, INSTRUMENTS, ORACLE_TICKS
from streams.engine.sequence import partition_of
from streams.pipeline.feed import Feeder
from streams.replay.world import BlockInputs, World
from tests.chaos.watching import ChaosObserver

EVENTS_PER_RECORD = 8
AGAIN, AGAIN_LATER = 0.05, 0.05  # chances of a record
SWAPPED, GARBAGE, CONFLICT = 0.15, 0.15, 0.2  # chances of a block
LATER_BLOCKS = (1, 90)  # beyond the sequencer's memory of ids, too
CONFLICT_AFTER_BLOCKS = 6
BACKLOG_BLOCKS = 40
DONE_LIMIT_S = 300.0  # of waiting for blocks
GARBAGE_BYTES = (
    b"\xff\x00not json", b"", b"[]", b"3", b'{"type":"no such event","version":1}', b'{"type":"fill","version":7}',
    b'{"type":"spot","version":1,"id":"x","source":"s","underlying":"BTC","price_usd9":NaN}',
)  # fmt: skip


class Record(NamedTuple):
    topic: str
    partition: int
    raw: bytes


def records_of(inputs: BlockInputs, chance: random.Random) -> list[Record]:
    """A block's inputs as records of a few events each, the announcement last."""
    events: dict[tuple[str, int], list[bytes]] = {(ORACLE_TICKS, 0): [encode(tick) for tick in inputs.ticks]}
    for event in inputs.events:
        log = (ACCOUNT_FILLS, partition_of(account_of(event), FILL_PARTITIONS))
        events.setdefault(log, []).append(encode(event))
    made = []
    for (topic, partition), encoded in events.items():
        while encoded:
            size = chance.randint(1, EVENTS_PER_RECORD)
            part, encoded = encoded[:size], encoded[size:]
            made.append(Record(topic, partition, part[0] if len(part) == 1 else b"[" + b",".join(part) + b"]"))
    return [*made, Record(CHAIN_BLOCKS, 0, encode(inputs.block))]


def account_of(event: Any) -> str:
    return str(event.get("account", "") if isinstance(event, dict) else getattr(event, "account", ""))


class BadProducer:
    """Sends a world's blocks at a steady pace. `sent_s`: block hash -> when its last input was acknowledged."""

    def __init__(self, feeder: Feeder, observer: ChaosObserver, seed: int, disturbed: bool) -> None:
        self.feeder, self.observer, self.disturbed = feeder, observer, disturbed
        self.chance = random.Random(seed)
        self.sent_s: dict[str, float] = {}
        self.garbage: dict[bytes, bytes] = {}  # quarantine key -> the bytes that must be there
        self.count = {"sent_again": 0, "swapped_blocks": 0, "garbage": 0, "conflicts": 0, "reorganisations": 0}
        self.needs_s: Callable[[], float] = lambda: 0.0  # the feeding does not end before that
        self._later: dict[int, list[Record]] = {}

    async def begin(self, world: World, genesis: BlockInputs) -> None:
        """Listings and the first block, in good order."""
        await self.feeder.send_listings(world)
        await self._send(records_of(genesis, self.chance))

    async def run(self, world: World, blocks: list[BlockInputs], interval_s: float) -> None:
        """The blocks behind the first, as it comes; a block may change places with the next one. They come slower
        than asked for where more is to happen than they would last.
        """
        held: list[Record] = []
        hashes: list[str] = []
        for place, (before, inputs) in enumerate(pairwise(blocks), 1):
            after, number = blocks[place + 1] if place + 1 < len(blocks) else None, inputs.block.number
            due_s = time.monotonic() + max(interval_s, self.needs_s() / (len(blocks) - place))
            if number <= before.block.number:  # another branch: both runs must have closed as much of the one left
                self.count["reorganisations"] += 1
                await self.observer.wait_for(lambda: self.observer.has_done(before.block), DONE_LIMIT_S)  # noqa: B023
            hashes.append(inputs.block.hash)
            parts = records_of(inputs, self.chance)
            if self.disturbed:
                parts = self._disturb(world, inputs, parts)
                in_line = after is not None and after.block.number == number + 1
                if not held and in_line and self.chance.random() < SWAPPED:
                    held = parts
                    self.count["swapped_blocks"] += 1
                    continue
            await self._send([*parts, *held])
            self.sent_s |= dict.fromkeys(hashes, time.time())
            held, hashes = [], []
            await self._keep_pace(number, due_s)

    async def _keep_pace(self, block: int, due_s: float) -> None:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        behind = block - BACKLOG_BLOCKS
        if behind >= 0:
            await self.observer.wait_for(lambda: self.observer.is_done(behind), DONE_LIMIT_S)

    def _disturb(self, world: World, inputs: BlockInputs, parts: list[Record]) -> list[Record]:
        chance, number = self.chance, inputs.block.number
        extra = self._later.pop(number, [])
        for part in parts:
            if chance.random() < AGAIN:
                extra.append(part)
            if chance.random() < AGAIN_LATER:
                self._later.setdefault(number + chance.randint(*LATER_BLOCKS), []).append(part)
        if chance.random() < AGAIN:
            extra.append(Record(INSTRUMENTS, 0, encode(chance.choice(world.listings))))
        self.count["sent_again"] += len(extra)
        if chance.random() < GARBAGE:
            topic = chance.choice(INPUTS)
            partition = chance.randrange(FILL_PARTITIONS) if topic == ACCOUNT_FILLS else 0
            extra.append(Record(topic, partition, chance.choice(GARBAGE_BYTES)))
        if chance.random() < CONFLICT and (twisted := _twisted(inputs)) is not None:
            self._later.setdefault(number + CONFLICT_AFTER_BLOCKS, []).append(twisted)
            self.count["conflicts"] += 1
        mixed = [*parts, *extra]
        chance.shuffle(mixed)
        return mixed

    async def _send(self, parts: list[Record]) -> None:
        settings, waiting = self.feeder.settings, []
        for part in parts:
            sent = await self.feeder.producer.send(settings.topic(part.topic), part.raw, partition=part.partition)
            waiting.append((part, sent))
        for part, sent in waiting:
            at = await sent
            if part.raw in GARBAGE_BYTES:
                self.garbage[f"{part.topic}/{part.partition}/{at.offset}/0".encode()] = part.raw
                self.count["garbage"] += 1


def _twisted(inputs: BlockInputs) -> Record | None:
    """A fill of the block under its own id with other lots: a conflict."""
    for event in inputs.events:
        if isinstance(event, Fill):
            twisted = replace(event, lots=event.lots + 1)
            return Record(ACCOUNT_FILLS, partition_of(event.account, FILL_PARTITIONS), encode(twisted))
    return None
