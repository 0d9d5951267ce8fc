"""An account.log made for measuring: a venue of any number of accounts, then packed fills of any number a record.

A demo venue's genesis block comes from the sequencer; its accounts are copied until there are enough of them, spread
over the partitions. What follows is packed directly, record by record as the sequencer would: fills at the marks of the
genesis block, then a market tick, and a barrier at the end of each block. Every byte is a function of the arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from oracles.scenario_set import ScenarioSet
from schemas import log_records as records
from schemas.topics import ACCOUNT_LOG
from streams.engine.risk import Risk
from streams.simulate.demo_world import demo_world
from streams.simulate.in_process import Pipeline

SEED, BLOCK_MS = 7, 1_000
ORIGINALS = 1_000  # accounts drawn; the others are copies of them
HELD, STRIDE = 8, 17  # an account trades so many of the contracts, spread over them
RICH_USD6 = 10**14  # cash that no fill of a benchmark can bring near a line
MOVES_E6 = np.array([0, 300, -200, 500, -900, 100, 400, -100])  # of all prices, from their start, block after block


@dataclass(frozen=True)
class Shape:
    """What a log consists of. `accounts`, `calls` (accounts whose state changes in every block): over all partitions.
    moving: prices change with every block; rich: nobody but those who are called can come near a line.
    """

    accounts: int
    partitions: int = 1
    blocks: int = 10
    records_a_block: int = 40
    fills_a_record: int = 250
    calls: int = 0
    moving: bool = False
    rich: bool = True
    scenarios: int = 1_024

    @property
    def fills(self) -> int:
        return self.partitions * self.blocks * self.records_a_block * self.fills_a_record


class Block(NamedTuple):
    """The records of one block of one partition; the last of them is its barrier."""

    events: list[bytes]
    barrier: bytes


class Original(NamedTuple):
    """The venue with its first accounts: the machine after the genesis block, and the records that led there."""

    risk: Risk
    scenario_set: ScenarioSet
    listings: list[bytes]
    genesis: records.Events
    barrier: bytes


@functools.lru_cache(maxsize=2)
def original(accounts: int, scenarios: int) -> Original:
    """The demo venue's genesis block in one partition."""
    world = demo_world(seed=SEED, scenarios=scenarios, blocks=1, accounts=accounts)
    run = Pipeline({world.scenario_set.digest: world.scenario_set}, 1)
    run.push_listings(world.listings)
    first = next(iter(world.blocks))
    run.push_block(first.block, first.events, first.ticks)
    *listings, events, barrier = run.logs[ACCOUNT_LOG, 0]
    genesis = records.read_events(events, records.read_header(events))
    return Original(run.risks[0], world.scenario_set, listings, genesis, barrier)


class SpineLog:
    """Records of every partition, block after block."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.original = original(min(shape.accounts // shape.partitions, ORIGINALS), shape.scenarios)
        self.scenario_set = self.original.scenario_set

    def genesis(self, partition: int) -> list[bytes]:
        """Listings, all positions, the first barrier."""
        events, barrier = self._copied(), self.original.barrier
        header = records.read_header(barrier)
        head = _header(records.EVENTS, header.number, header, len(events.rows), partition)
        first = records.read_barrier(barrier, header)._replace(
            counts=np.full(self.shape.partitions, len(events.rows), np.int64)
        )
        closing = _header(records.BARRIER, header.number, header, self.shape.partitions)
        return [*self.original.listings, records.pack_events(head, events), records.pack_barrier(closing, first)]

    @property
    def copies(self) -> int:
        """How often the original accounts stand in each partition."""
        return self.shape.accounts // self.shape.partitions // len(self.original.risk.book.accounts)

    def _copied(self) -> records.Events:
        names, rows = self.names(), np.tile(self.original.genesis.rows, self.copies)
        row_of = np.array([self.original.risk.book.row_of[name] for name in self.original.genesis.names])
        rows["account"] = row_of[rows["account"]]
        count = len(self.original.risk.book.accounts)
        rows["account"] += np.repeat(np.arange(self.copies) * count, len(self.original.genesis.rows)).astype(np.uint32)
        return records.Events(names, rows)

    def names(self) -> list[str]:
        """Accounts of a partition in the order of their rows."""
        return [f"{name}-{copy}" for copy in range(self.copies) for name in self.original.risk.book.accounts]

    def blocks(self, partition: int) -> Iterator[Block]:
        """What follows the genesis block."""
        writer = _Writer(self, partition)
        return (writer.block(number) for number in range(1, self.shape.blocks + 1))


def _header(
    kind: int, number: int, of: records.Header, entries: int, partition: int = records.EVERY_PARTITION
) -> bytes:
    return records.pack_header(kind, number, of.block, of.time_ms, of.block_hash, entries=entries, partition=partition)


class _Writer:
    """Packs the blocks of one partition."""

    def __init__(self, log: SpineLog, partition: int) -> None:
        self.shape, self.partition, self.risk = log.shape, partition, log.original.risk
        self.rng = np.random.default_rng([SEED, partition])
        self.names = np.array(log.names(), object)
        self.number, self.time_ms = self.risk.number, self.risk.market.time_ms
        tables = self.risk._tables()
        assert tables is not None
        self.marks_usd9 = _unit_marks_usd9(self.risk, tables.columns_usd9[0])
        self.traded = np.flatnonzero(self.marks_usd9 > 0)
        margins, calls = self.risk.margins, log.shape.calls // log.shape.partitions
        self.called = np.flatnonzero((margins.state == 0) & (margins.initial_margin_usd6 > 10**9))[:calls]
        self.others = np.setdiff1d(np.arange(len(self.names)), self.called)  # who trades
        between = (margins.initial_margin_usd6 + margins.maintenance_margin_usd6) // 2  # a margin call, no more
        self.taken_usd6 = (margins.nlv_usd6 - between)[self.called]

    def block(self, number: int) -> Block:
        """Records of a block: cash first, then fills, each but the last followed by a tick."""
        packed, count = [], 0
        for place in range(self.shape.records_a_block):
            self.number += 1
            now_ms = self.time_ms + (place + 1) * BLOCK_MS // self.shape.records_a_block
            rows = self._fills() if place else np.concatenate([self._cash(number), self._fills()])
            packed.append(self._events(number, now_ms, rows))
            count += len(rows)
            if place < self.shape.records_a_block - 1:
                packed.append(self._market(number, now_ms))
        self.time_ms += BLOCK_MS
        return Block(packed, self._barrier(number, count))

    def _events(self, block: int, time_ms: int, rows: np.ndarray) -> bytes:
        used, place = np.unique(rows["account"], return_inverse=True)
        rows["account"] = place
        head = self._header(records.EVENTS, block, time_ms, len(rows), self.partition)
        return records.pack_events(head, records.Events(self.names[used].tolist(), rows))

    def _fills(self) -> np.ndarray:
        rows = np.zeros(self.shape.fills_a_record, records.EVENT_ROW)
        rows["kind"] = records.FILL
        rows["account"] = self.others[self.rng.integers(0, len(self.others), len(rows))]
        contract = rows["account"].astype(np.int64) * HELD + self.rng.integers(0, HELD, len(rows))
        rows["instrument"] = self.traded[contract * STRIDE % len(self.traded)]
        rows["lots"] = self.rng.choice([-2, -1, 1, 2], len(rows))
        rows["price_usd9"] = self.marks_usd9[rows["instrument"]]
        return rows

    def _cash(self, block: int) -> np.ndarray:
        """Who is to be called loses cash in odd blocks and has it back in even ones; in block 1 the others are rich."""
        others = self.others if self.shape.rich and block == 1 else self.others[:0]
        rows = np.zeros(len(self.called) + len(others), records.EVENT_ROW)
        rows["kind"], rows["instrument"] = records.CASH, -1
        rows["account"] = np.concatenate([self.called, others])
        moved = -self.taken_usd6 if block % 2 else self.taken_usd6
        rows["cash_usd6"] = np.concatenate([moved, np.full(len(others), RICH_USD6)])
        return rows

    def _header(
        self, kind: int, block: int, time_ms: int, entries: int, partition: int = records.EVERY_PARTITION
    ) -> bytes:
        of = records.Header(kind, partition, entries, self.number, block, time_ms, block.to_bytes(32, "big"))
        return _header(kind, self.number, of, entries, partition)

    def _prices(self, block: int) -> records.Market:
        """All prices and forwards at the block, moved together."""
        market, move_e6 = self.risk.market, int(MOVES_E6[block % len(MOVES_E6)]) if self.shape.moving else 0
        spots = np.zeros(len(market.spot_usd9), records.SPOT_ROW)
        spots["underlying"], spots["volatility_e9"] = np.arange(len(spots)), market.volatility_e9
        spots["spot_usd9"] = market.spot_usd9 + market.spot_usd9 // 10**6 * move_e6
        expiries = np.zeros(len(market.expiries) if move_e6 else 0, records.EXPIRY_ROW)
        if move_e6:
            expiries["expiry"] = np.arange(len(expiries))
            for column, name in enumerate(records.EXPIRY_ROW.names[2:]):
                expiries[name] = market.expiries[:, column]
            expiries["forward_usd9"] = market.expiries[:, 0] + market.expiries[:, 0] // 10**6 * move_e6
        return records.Market(spots, expiries)

    def _market(self, block: int, time_ms: int) -> bytes:
        market = self._prices(block)
        return records.pack_market(self._header(records.MARKET, block, time_ms, len(market.spots)), market)

    def _barrier(self, block: int, count: int) -> bytes:
        counts = np.full(self.shape.partitions, count, np.int64)
        nothing = np.zeros(0, records.SETTLEMENT_ROW)
        head = self._header(records.BARRIER, block, self.time_ms, len(counts))
        return records.pack_barrier(head, records.Barrier(counts, self._prices(block), nothing, True))


def _unit_marks_usd9(risk: Risk, lot_marks_usd9: np.ndarray) -> np.ndarray:
    """Mark of one unit of each contract, 0 for collateral coins and what has none."""
    listed = risk.catalogue.columns()
    spot = risk.market.spot_usd9[listed.underlying]
    per_unit = [
        int(mark) * 10 ** -int(e) if e < 0 else int(mark) // 10 ** int(e)
        for mark, e in zip(lot_marks_usd9, listed.lot_exponent, strict=True)
    ]
    return np.where(listed.kind == 1, spot, np.where(listed.kind >= 3, np.array(per_unit, np.int64), 0))


def small_shape(shape: Shape) -> Shape:
    """The same for tests: few accounts, few records."""
    few = {"accounts": 40 * shape.partitions, "blocks": min(shape.blocks, 4), "scenarios": 128}
    return replace(shape, **few, records_a_block=min(shape.records_a_block, 3), fills_a_record=min(
        shape.fills_a_record, 30))  # fmt: skip
