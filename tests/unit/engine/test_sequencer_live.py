"""Live mode: nothing is declared, the sequencer takes what comes and writes its choice down."""

from __future__ import annotations

import orjson
from engine_worlds import DAY_MS, Inputs, block, cash, fill, genesis_ticks, hash_of, listings, spot, time_of

from schemas import log_records as records
from schemas.topics import ACCOUNT_FILLS, ACCOUNT_LOG, BLOCKS_DONE, CHAIN_BLOCKS, MARKET_LOG, ORACLE_TICKS, QUARANTINE


def genesis() -> Inputs:
    inputs = Inputs()
    inputs.add_listings(listings())
    inputs.add_block(0, [cash("c0", 0, "a", 50)], genesis_ticks(), None, declared=False)
    return inputs


def ticks_of(inputs: Inputs) -> list[tuple[int, int]]:
    """(milliseconds after genesis, rows changed) of every market tick in the log."""
    run = inputs.pipeline(1)
    headers = [records.read_header(raw) for raw in run.logs[MARKET_LOG, 0]]
    return [(h.time_ms - time_of(0), h.entries) for h in headers if h.kind == records.MARKET]


def done_of(inputs: Inputs) -> list[tuple[int, int]]:
    found = [orjson.loads(value) for value in inputs.pipeline(1).values(BLOCKS_DONE)]
    assert [d["halted"] for d in found] == [""] * len(found)
    return [(d["block"], d["events"]) for d in found]


def test_market_tick_at_most_every_interval_unless_the_index_moves() -> None:
    """100 ms, or 5 bp; what was held back is in the next one."""
    inputs = genesis()
    path = [(60, 100.01), (90, 100.02), (110, 100.03), (150, 100.04), (160, 100.2), (170, 100.21), (265, 100.22)]
    for when, price in path:
        inputs.add(ORACLE_TICKS, spot(f"t{when}", "X", time_of(0) + when, price))
    assert ticks_of(inputs) == [(110, 1), (160, 1), (265, 1)]


def test_events_before_a_market_tick_are_written_before_it() -> None:
    inputs = genesis()
    inputs.add(ACCOUNT_FILLS, fill("f1", 1, "a", "X-PERP", 5, 100, time_ms=time_of(0) + 100))
    inputs.add(ACCOUNT_FILLS, fill("f2", 1, "a", "X-PERP", 5, 100, time_ms=time_of(0) + 800))
    inputs.add(ORACLE_TICKS, spot("t", "X", time_of(0) + 500, 101))
    inputs.add(CHAIN_BLOCKS, block(1, time_of(1), 2, None, None))
    log = [records.read_header(raw) for raw in inputs.pipeline(1).logs[ACCOUNT_LOG, 0]]
    after = [(h.kind, h.entries) for h in log if h.block == 1]
    assert after == [(records.EVENTS, 1), (records.MARKET, 1), (records.EVENTS, 1), (records.BARRIER, 1)]
    assert done_of(inputs) == [(0, 1), (1, 2)]


def test_explicit_close_ends_a_block_that_waits_in_vain() -> None:
    inputs = genesis()
    inputs.add_block(1, [cash("c1", 1, "a", 1)], [], None, declared=False, count=2)
    assert done_of(inputs) == [(0, 1)]
    inputs.add(CHAIN_BLOCKS, {"type": "block_close", "version": 1, "number": 1, "hash": hash_of(1)})
    assert done_of(inputs) == [(0, 1), (1, 1)]


def test_block_that_waits_in_vain_closes_after_the_grace() -> None:
    inputs = genesis()
    inputs.add_block(1, [], [], None, declared=False, count=1)
    inputs.add_block(2, [], [], None, declared=False, time_ms=time_of(1) + 59_999)
    assert done_of(inputs) == [(0, 1)]
    inputs.add_block(3, [], [], None, declared=False, time_ms=time_of(1) + 60_000)
    assert done_of(inputs) == [(0, 1), (1, 0), (2, 0), (3, 0)]


def test_fills_of_later_blocks_are_held() -> None:
    inputs = genesis()
    inputs.add(ACCOUNT_FILLS, cash("c3", 3, "a", 1))
    inputs.add_block(3, [], [], None, declared=False, count=1)
    inputs.add_block(1, [], [], None, declared=False)
    assert done_of(inputs) == [(0, 1), (1, 0)]
    inputs.add_block(2, [], [], None, declared=False)
    assert done_of(inputs) == [(0, 1), (1, 0), (2, 0), (3, 1)]


def test_events_of_blocks_before_the_first_are_quarantined() -> None:
    inputs = Inputs()
    inputs.add_listings(listings())
    inputs.add(ACCOUNT_FILLS, cash("old", 6, "a", 1))
    inputs.add_block(7, [], genesis_ticks(), None, declared=False, time_ms=time_of(0))
    run = inputs.pipeline(1)
    assert [orjson.loads(v)["reason"] for v in run.values(QUARANTINE)] == ["block_closed"]


def test_a_clock_far_ahead_does_not_set_the_market() -> None:
    """One tick a day ahead waits for its day; the honest ones go on moving the market."""
    inputs = genesis()
    inputs.add(ORACLE_TICKS, spot("wrong", "X", time_of(0) + DAY_MS, 1))
    inputs.add(ORACLE_TICKS, spot("right", "X", time_of(0) + 400, 101))
    assert ticks_of(inputs) == [(400, 1)]


def test_older_tick_that_came_late_changes_nothing_and_time_does_not_go_back() -> None:
    inputs = genesis()
    inputs.add(ORACLE_TICKS, spot("t1", "X", time_of(0) + 400, 101))
    inputs.add(ORACLE_TICKS, spot("t0", "X", time_of(0) + 300, 50))
    inputs.add(ORACLE_TICKS, spot("y0", "Y", time_of(0) - 300, 10.5))
    inputs.add_block(1, [], [], None, declared=False)
    run = inputs.pipeline(1)
    barrier = [raw for raw in run.logs[ACCOUNT_LOG, 0] if raw[1] == records.BARRIER][-1]
    market = records.read_barrier(barrier, records.read_header(barrier)).market
    assert market.spots["spot_usd9"].tolist()[:2] == [101 * 10**9, 10_500_000_000]
    times = [records.read_header(raw).time_ms for raw in run.logs[MARKET_LOG, 0][1:]]
    assert times[1:] == sorted(times[1:])
