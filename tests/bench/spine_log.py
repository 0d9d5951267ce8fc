"""An account.log made for throughput: a demo venue's genesis block, then packed fills of any number a record.

The genesis comes from the sequencer; what follows is packed directly, record by record as the sequencer would: fills at
the marks of the genesis block, then a market tick, and a barrier at the end of each block. Every number is a function
of the arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from oracles.scenario_set import ScenarioSet
from schemas import log_records as records
from schemas.topics import ACCOUNT_LOG
from streams.engine.risk import Risk
from streams.simulate.demo_world import demo_world
from streams.simulate.in_process import Pipeline

SEED = 7
BLOCK_MS = 1_000
SCENARIOS = 1_024
HELD, STRIDE = 8, 17  # an account trades so many of the contracts, spread over them
RICH_USD6 = 10**14  # cash that no fill of the benchmark can bring near a line


@dataclass(frozen=True)
class Shape:
    """What a log consists of. calls: accounts whose cash is moved in every block so that their state changes."""

    accounts: int
    partitions: int = 1
    blocks: int = 10
    records_a_block: int = 40
    fills_a_record: int = 250
    calls: int = 0


@dataclass
class SpineLog:
    """values[p]: records of account.log partition p, the first `genesis[p]` of them those of the genesis block."""

    shape: Shape
    scenario_set: ScenarioSet
    values: list[list[bytes]]
    genesis: list[int]
    fills: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def records(self) -> int:
        """Records behind the genesis block, all partitions."""
        return sum(len(values) - first for values, first in zip(self.values, self.genesis, strict=True))


def spine_log(shape: Shape) -> SpineLog:
    """The log of a shape; seconds for ten thousand accounts."""
    world = demo_world(seed=SEED, scenarios=SCENARIOS, blocks=1, accounts=shape.accounts)
    run = Pipeline({world.scenario_set.digest: world.scenario_set}, shape.partitions)
    run.push_listings(world.listings)
    first = next(iter(world.blocks))
    run.push_block(first.block, first.events, first.ticks)
    values = [list(run.logs[ACCOUNT_LOG, p]) for p in range(shape.partitions)]
    log = SpineLog(shape, world.scenario_set, values, [len(found) for found in values])
    for partition, risk in enumerate(run.risks):
        values[partition] += _Writer(risk, shape).all(first.block.time_ms)
    log.fills = shape.partitions * shape.blocks * shape.records_a_block * shape.fills_a_record
    return log


class _Writer:
    """Packs what follows the genesis block of one partition."""

    def __init__(self, risk: Risk, shape: Shape) -> None:
        self.risk, self.shape = risk, shape
        self.rng = np.random.default_rng([SEED, risk.partition])
        self.number = risk.number
        tables = risk._tables()
        assert tables is not None
        self.marks_usd9 = _unit_marks_usd9(risk, tables.columns_usd9[0])
        self.traded = np.flatnonzero(self.marks_usd9 > 0)
        self.healthy = np.flatnonzero(risk.margins.state == 0)
        excess = risk.margins.nlv_usd6 - risk.margins.initial_margin_usd6
        self.calm = self.healthy[: max(shape.calls, 0)]
        self.excess_usd6 = excess[self.calm]
        self.gap_usd6 = (risk.margins.initial_margin_usd6 - risk.margins.maintenance_margin_usd6)[self.calm]

    def all(self, time_ms: int) -> Iterator[bytes]:
        for block in range(1, self.shape.blocks + 1):
            for place in range(self.shape.records_a_block):
                self.number += 1
                now_ms = time_ms + (place + 1) * BLOCK_MS // self.shape.records_a_block
                is_last = place == self.shape.records_a_block - 1
                yield self._events(block, now_ms, place)
                yield self._barrier(block, now_ms) if is_last else self._market(block, now_ms)
            time_ms += BLOCK_MS

    def _events(self, block: int, time_ms: int, place: int) -> bytes:
        rows = self._fills()
        if place == 0:
            rows = np.concatenate([self._cash(block), rows])
        used, rows["account"] = np.unique(rows["account"], return_inverse=True)
        names = [self.risk.book.accounts[row] for row in used.tolist()]
        head = self._header(records.EVENTS, block, time_ms, len(rows), self.risk.partition)
        return records.pack_events(head, records.Events(names, rows))

    def _fills(self) -> np.ndarray:
        rows = np.zeros(self.shape.fills_a_record, records.EVENT_ROW)
        rows["kind"] = records.FILL
        rows["account"] = self.rng.integers(0, len(self.risk.book.accounts), len(rows))
        of_account = rows["account"].astype(np.int64) * HELD + self.rng.integers(0, HELD, len(rows))
        rows["instrument"] = self.traded[of_account * STRIDE % len(self.traded)]
        rows["lots"] = self.rng.choice([-2, -1, 1, 2], len(rows))
        rows["price_usd9"] = self.marks_usd9[rows["instrument"]]
        return rows

    def _cash(self, block: int) -> np.ndarray:
        """In block 1 everybody becomes rich, but those who are to change their state: they lose and get back."""
        book, called = self.risk.book, self.calm
        others = np.setdiff1d(np.arange(len(book.accounts)), called) if block == 1 else called[:0]
        amount = self.excess_usd6 + self.gap_usd6 // 2
        rows = np.zeros(len(called) + len(others), records.EVENT_ROW)
        rows["kind"], rows["instrument"] = records.CASH, -1
        rows["account"] = np.concatenate([called, others])
        rows["cash_usd6"] = np.concatenate([-amount if block % 2 else amount, np.full(len(others), RICH_USD6)])
        return rows

    def _header(self, kind: int, block: int, time_ms: int, entries: int, partition: int) -> bytes:
        block_hash = block.to_bytes(32, "big")
        return records.pack_header(
            kind, self.number, block, time_ms, block_hash, entries=entries, partition=partition
        )

    def _spots(self) -> np.ndarray:
        market = self.risk.market
        rows = np.zeros(len(market.spot_usd9), records.SPOT_ROW)
        rows["underlying"] = np.arange(len(rows))
        rows["spot_usd9"], rows["volatility_e9"] = market.spot_usd9, market.volatility_e9
        return rows

    def _market(self, block: int, time_ms: int) -> bytes:
        spots = self._spots()
        head = self._header(records.MARKET, block, time_ms, len(spots), records.EVERY_PARTITION)
        return records.pack_market(head, records.Market(spots, np.zeros(0, records.EXPIRY_ROW)))

    def _barrier(self, block: int, time_ms: int) -> bytes:
        counts = np.zeros(self.shape.partitions, np.int64)
        counts[self.risk.partition] = self.shape.records_a_block * self.shape.fills_a_record + len(self._cash(block))
        head = self._header(records.BARRIER, block, time_ms, len(counts), records.EVERY_PARTITION)
        market = records.Market(self._spots(), np.zeros(0, records.EXPIRY_ROW))
        return records.pack_barrier(head, records.Barrier(counts, market, np.zeros(0, records.SETTLEMENT_ROW), True))


def _unit_marks_usd9(risk: Risk, lot_marks_usd9: np.ndarray) -> np.ndarray:
    """Mark of one unit of each contract, 0 for collateral coins and what has none."""
    listed = risk.catalogue.columns()
    spot = risk.market.spot_usd9[listed.underlying]
    of_option = np.array(
        [
            int(mark) * 10 ** -int(e) if e < 0 else int(mark) // 10 ** int(e)
            for mark, e in zip(lot_marks_usd9, listed.lot_exponent, strict=True)
        ],
        np.int64,
    )
    return np.where(listed.kind == 1, spot, np.where(listed.kind >= 3, of_option, 0))
