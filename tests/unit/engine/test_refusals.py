"""What bad input gets: one reason and field each, its own bytes in quarantine, and all else goes on."""

from __future__ import annotations

import base64

import orjson
import pytest
from engine_worlds import (
    EXPIRY_MS,
    GENESIS_MS,
    Inputs,
    block,
    cash,
    event,
    fill,
    genesis_ticks,
    instrument,
    listings,
    option,
    spot,
    time_of,
)
from refusal_cases import CASES, Case

from schemas import refusals
from schemas.topics import ACCOUNT_FILLS, BLOCKS_DONE, CHAIN_BLOCKS, INPUTS, INSTRUMENTS, ORACLE_TICKS, QUARANTINE
from streams.simulate.in_process import Pipeline


def world_with(case: Case) -> tuple[Pipeline, bytes, int]:
    """Three blocks; the bad record comes after block 0 has closed, before block 1's own events. -> (run, its bytes,
    its offset)."""
    inputs = Inputs()
    listed = [
        *listings(), event("underlying", "u-Q", underlying="Q"), instrument("Q-PERP", "Q", "perpetual"),
        instrument("Q-FUT", "Q", "future", expiry_ms=EXPIRY_MS), instrument("X-HUGE", "X", "perpetual", 6),
        instrument("X-OVER", "X", "future", expiry_ms=GENESIS_MS), option(100, "call", EXPIRY_MS + 1),
        instrument("X-FAR", "X", "future", expiry_ms=2**42),
    ]  # fmt: skip
    inputs.add_listings(listed)
    inputs.add_block(
        0, [cash("c0", 0, "a", 1_000), fill("f0", 0, "a", "X-PERP", 10, 100)], genesis_ticks(), len(listed)
    )
    bad = case.bad if isinstance(case.bad, bytes) else orjson.dumps(case.bad)
    counted = case.topic == ACCOUNT_FILLS and b'"block":1' in bad
    ticked = case.topic == ORACLE_TICKS and isinstance(case.bad, dict) and case.bad.get("time_ms", 0) > time_of(0)
    inputs.add(CHAIN_BLOCKS, block(2, time_of(2), 1, 1, None))
    inputs.add(case.topic, bad, 3 if case.topic == ACCOUNT_FILLS else 0)
    offset = len(inputs.logs[inputs.order[-1]]) - 1
    ticks = [spot("t1", "X", time_of(1) - 1, 100)]
    for tick in ticks:
        inputs.add(ORACLE_TICKS, tick)
    inputs.add(ACCOUNT_FILLS, fill("f1", 1, "a", "X-PERP", 5, 101), 0)
    inputs.add(CHAIN_BLOCKS, block(1, time_of(1), 1 + counted, 1 + ticked, None))
    inputs.add(ORACLE_TICKS, spot("t2", "X", time_of(2) - 1, 102))
    inputs.add(ACCOUNT_FILLS, cash("c2", 2, "b", 5), 1)
    return inputs.pipeline(1), bad, offset


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input_is_quarantined_and_all_else_goes_on(case: Case) -> None:
    run, bad, offset = world_with(case)
    found = [orjson.loads(value) for value in run.values(QUARANTINE)]
    assert [(q["reason"], q["field"], q["topic"], q["offset"]) for q in found] == [
        (case.reason, case.field, case.topic, offset)
    ]
    assert found[0]["partition"] == (3 if case.topic == ACCOUNT_FILLS else 0)
    assert base64.b64decode(found[0]["bytes_base64"]) == bad
    assert found[0]["detail"]
    done = [orjson.loads(value) for value in run.values(BLOCKS_DONE)]
    assert [(d["block"], d["events"], d["halted"]) for d in done] == [(0, 2, ""), (1, 1, ""), (2, 1, "")]


def test_every_reason_has_a_case() -> None:
    assert {case.reason for case in CASES} == set(refusals.REASONS)


def test_one_bad_event_of_an_array_costs_only_itself() -> None:
    inputs = Inputs()
    inputs.add_listings(listings())
    events = [cash("c0", 0, "a", 1_000), {"type": "fill"}, cash("c1", 0, "a", 1)]
    inputs.add(ACCOUNT_FILLS, events, 0)
    inputs.add_block(0, [], genesis_ticks(), len(listings()), count=2)
    run = inputs.pipeline(1)
    (found,) = (orjson.loads(value) for value in run.values(QUARANTINE))
    assert (found["reason"], found["index"], base64.b64decode(found["bytes_base64"])) == (
        refusals.MISSING_FIELD,
        1,
        b'{"type":"fill"}',
    )
    assert orjson.loads(run.values(BLOCKS_DONE)[0])["events"] == 2


def test_own_bytes_are_kept_where_a_refusal_comes_late() -> None:
    """An event that decodes but names an unlisted instrument: not written again, but as it came."""
    inputs = Inputs()
    raw = orjson.dumps(fill("f", 0, "a", "Z", 1, 1), option=orjson.OPT_INDENT_2)
    inputs.add_listings(listings())
    inputs.add(ACCOUNT_FILLS, raw, 2)
    inputs.add_block(0, [], genesis_ticks(), len(listings()), count=1)
    (found,) = (orjson.loads(value) for value in inputs.pipeline(1).values(QUARANTINE))
    assert base64.b64decode(found["bytes_base64"]) == raw


@pytest.mark.parametrize("topic", INPUTS)
def test_null_record_is_malformed(topic: str) -> None:
    run = Pipeline({}, 1)
    run.push(topic, 0, None)  # type: ignore[arg-type]
    assert [orjson.loads(v)["reason"] for v in run.values(QUARANTINE)] == [refusals.MALFORMED]


def test_repeats_are_dropped_and_counted_after_the_close_too() -> None:
    inputs = Inputs()
    inputs.add_listings(listings())
    first = [cash("c0", 0, "a", 1_000), fill("f0", 0, "a", "X-PERP", 10, 100)]
    inputs.add_block(0, first, genesis_ticks(), len(listings()))
    calm = inputs.pipeline(1)
    for one in first:
        inputs.add(ACCOUNT_FILLS, one, 1)
    inputs.add(ORACLE_TICKS, genesis_ticks()[0])
    inputs.add(INSTRUMENTS, listings()[0])
    inputs.add(CHAIN_BLOCKS, block(0, time_of(0), 2, 4, len(listings())))
    run = inputs.pipeline(1)
    assert run.values(QUARANTINE) == []
    assert run.sequencer.intake.repeats == 5
    assert run.values(BLOCKS_DONE) == calm.values(BLOCKS_DONE)


def test_conflict_over_two_partitions_is_settled_by_position() -> None:
    """Both contents are there before the close: the lower partition's counts, whichever was read first."""
    one, other = cash("c", 0, "a", 1), cash("c", 0, "a", 2)
    results = []
    for first, second in ((0, 1), (1, 0)):
        inputs = Inputs()
        inputs.add_listings(listings())
        for partition in (first, second):
            inputs.add(ACCOUNT_FILLS, (one, other)[partition], partition)
        inputs.add_block(0, [], genesis_ticks(), len(listings()), count=2)
        run = inputs.pipeline(1)
        (found,) = (orjson.loads(value) for value in run.values(QUARANTINE))
        results.append((found, run.values(BLOCKS_DONE)))
        assert (found["reason"], found["partition"]) == (refusals.IDENTITY_CONFLICT, 1)
    assert results[0] == results[1]
