"""A machine that keeps bounds against one that computes everything: same states and calls, never less margin."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_risk import PARTITION, SEEDS, account_log, cache, feed

from schemas import log_records as records
from schemas.margin_batch import decode_batch
from schemas.topics import BLOCKS_DONE, MARGIN_BATCHES, MARGIN_CALLS
from streams.engine.margin import Margins, account_sums, compute, empty_margins
from streams.engine.output import Output
from streams.engine.risk import Risk

BOUND_COLUMNS = (
    "initial_margin_usd6", "maintenance_margin_usd6", "expected_shortfall_usd6", "stress_loss_usd6",
)  # fmt: skip
BOUND_ONLY = {*BOUND_COLUMNS, "binding", "stress_row", "keyframe_block"}


def govern(machine: Risk, interval: int) -> None:
    """Bounds allowed from one account on."""
    machine.parameters = msgspec.structs.replace(
        machine.parameters, bound_accounts_min=1, exact_interval_blocks=interval
    )


def values(outputs: list[Output], topic: str) -> list[bytes]:
    return [o.value or b"" for o in outputs if o.topic == topic]


def events(outputs: list[Output]) -> list[dict]:
    return [e for value in values(outputs, MARGIN_CALLS) for e in orjson.loads(value)["events"]]


def compare(block: int, exact: list[dict], found: list[dict], interval: int) -> int:
    """Rows that keep a bound; each held against its exact row."""
    bound = 0
    for expected, row in zip(exact, found, strict=True):
        assert 0 <= block - row["keyframe_block"] < interval or row["keyframe_block"] == block
        if row["keyframe_block"] == block:
            assert row == expected
            continue
        bound += 1
        assert row["state"] == expected["state"] == 0
        assert {n: v for n, v in row.items() if n not in BOUND_ONLY} == {
            n: v for n, v in expected.items() if n not in BOUND_ONLY
        }
        assert all(row[name] >= expected[name] for name in BOUND_COLUMNS)
    return bound


@given(SEEDS, st.integers(1, 7))
@settings(max_examples=15)
def test_bounds_hide_no_change_of_state_and_are_never_below_the_margin(seed: int, interval: int) -> None:
    calm, machine, bound = Risk(PARTITION, cache()), Risk(PARTITION, cache()), 0
    for raw in account_log(seed):
        govern(machine, interval)
        expected = [o for step in feed(calm, raw) for o in step]
        found = [o for step in feed(machine, raw) for o in step]
        for one, other in zip(values(expected, MARGIN_BATCHES), values(found, MARGIN_BATCHES), strict=True):
            head, table = decode_batch(one)
            rows = decode_batch(other)[1].to_pylist()
            in_block = compare(head.block, table.to_pylist(), rows, interval)
            (done,) = (orjson.loads(value) for value in values(found, BLOCKS_DONE))
            assert done["bound"] == in_block
            assert sum(done["stages"].values()) == done["accounts"]
            bound += in_block
        assert events(found) == events(expected)
    assert machine.halted == calm.halted == ""
    assert bound or interval == 1
    assert interval > 1 or not bound


def brute_force(machine: Risk, block: int) -> Margins:
    """Exact margins of everybody at the barrier just passed, from nothing."""
    book, p, tables = machine.book, machine.parameters, machine._tables()
    assert tables is not None
    legs, margins = book.legs(), empty_margins(len(book.accounts))
    sums = account_sums(legs, book.cash(), book.entry_by_account(), tables, p)
    compute(legs, np.arange(len(book.accounts)), sums, tables, p, margins, block)
    return margins


@given(SEEDS, st.sampled_from([0, 3, 64]))
@settings(max_examples=12)
def test_every_margin_of_a_block_is_out_before_the_next_exact_or_marked_with_its_keyframe(
    seed: int, interval: int
) -> None:
    """Flagged accounts first: their calls are all of the first step. Then everybody. Interval 0: no bounds at all."""
    machine = Risk(PARTITION, cache())
    for raw in account_log(seed):
        if interval:
            govern(machine, interval)
        steps = feed(machine, raw)
        if raw[1] != records.BARRIER:
            assert not values([o for step in steps for o in step], MARGIN_BATCHES)
            continue
        first, last = steps
        assert {o.topic for o in first} <= {MARGIN_CALLS}
        assert [o.topic for o in last] == [MARGIN_BATCHES, BLOCKS_DONE]
        head, table = decode_batch(values(last, MARGIN_BATCHES)[0])
        block = records.read_header(raw).block
        done = orjson.loads(values(last, BLOCKS_DONE)[0])
        assert head.block == done["block"] == block
        rows, exact = table.to_pylist(), brute_force(machine, block)
        assert [row["account"] for row in rows] == machine.book.accounts
        names = [name for name in table.column_names if name != "account"]
        expected = [
            {"account": account} | {name: int(getattr(exact, name)[place]) for name in names}
            for place, account in enumerate(machine.book.accounts)
        ]
        assert compare(block, expected, rows, max(interval, 1)) == done["bound"]


def test_accounts_that_traded_keep_a_bound_and_their_calls() -> None:
    """Over some worlds; what such rows say is held against brute force above."""
    found: dict[str, int] = {}
    for seed in range(6):
        machine = Risk(PARTITION, cache())
        for raw in account_log(seed):
            govern(machine, 64)
            for value in values([o for step in feed(machine, raw) for o in step], BLOCKS_DONE):
                stages = orjson.loads(value)["stages"]
                found = {name: found.get(name, 0) + stages.get(name, 0) for name in {*found, *stages}}
    assert found["bound_traded"] > 10
    assert found["bound_sup"] > 10


@given(SEEDS)
@settings(max_examples=6)
def test_bounds_survive_a_checkpoint_at_any_record(seed: int) -> None:
    shared, place = cache(), np.random.default_rng(seed)
    calm, restarted = Risk(PARTITION, shared), Risk(PARTITION, shared)
    for raw in account_log(seed):
        for machine in (calm, restarted):
            govern(machine, 4)
        assert feed(restarted, raw) == feed(calm, raw)
        if place.random() < 0.5:
            restarted = Risk.load(restarted.dump(), shared)
        assert restarted.dump() == calm.dump()


def test_threads_change_nothing() -> None:
    with ThreadPoolExecutor(2) as pool:
        alone, together = Risk(PARTITION, cache()), Risk(PARTITION, cache(), spread=pool.map)
        for raw in account_log(3):
            assert feed(together, raw) == feed(alone, raw)
        assert together.dump() == alone.dump()
