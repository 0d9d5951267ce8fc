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
from schemas.topics import (
    ACCOUNT_FILLS,
    BLOCKS_DONE,
    CHAIN_BLOCKS,
    INPUT_BYTES_MAX,
    INPUTS,
    INSTRUMENTS,
    MARKET_LOG,
    ORACLE_TICKS,
    QUARANTINE,
    RECORD_BYTES_MAX,
)
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
    is_event = case.reason != refusals.MALFORMED
    counted = case.topic == ACCOUNT_FILLS and b'"block":1' in bad and is_event
    ticked = case.topic == ORACLE_TICKS and isinstance(case.bad, dict) and time_of(0) < case.bad["time_ms"] < 2**43
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
    governed = {refusals.UNKNOWN_REPORTER}  # test_reporters.py: only where reporters are governed
    assert {case.reason for case in CASES} | governed == set(refusals.REASONS)


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


def test_own_bytes_of_one_bad_event_among_many() -> None:
    """Neither its neighbours nor another spelling of it: the slice of the record."""
    inputs = Inputs()
    inputs.add_listings(listings())
    good = orjson.dumps(cash("c0", 0, "a", 1_000))
    bad = b'{ "type" : "fill", "lots": 1.50e0, "lots": 1.50e0 }'
    inputs.add(ACCOUNT_FILLS, b"[" + good + b" , " + bad + b', 7,"\xc3\xa9"]', 0)
    inputs.add_block(0, [], genesis_ticks(), len(listings()), count=1)
    run = inputs.pipeline(1)
    found = [orjson.loads(value) for value in run.values(QUARANTINE)]
    own = [(q["index"], base64.b64decode(q["bytes_base64"])) for q in found]
    assert own == [(1, bad), (2, b"7"), (3, b'"\xc3\xa9"')]
    assert orjson.loads(run.values(BLOCKS_DONE)[0])["events"] == 1


def test_a_record_of_16_megabytes_is_refused_and_its_beginning_kept() -> None:
    raw = b'{"type":"' + b"x" * (RECORD_BYTES_MAX - 100) + b'"}'
    run = Pipeline({}, 1)
    run.push(ORACLE_TICKS, 0, raw)
    (value,) = run.values(QUARANTINE)
    found = orjson.loads(value)
    assert (found["reason"], found["bytes_total"]) == (refusals.MALFORMED, len(raw))
    assert base64.b64decode(found["bytes_base64"]) == raw[:INPUT_BYTES_MAX]
    assert len(value) < RECORD_BYTES_MAX


@pytest.mark.parametrize(("topic", "raw"), [(ORACLE_TICKS, b'"type":"' + b"y" * 10**6 + b'"'),
                                            (ACCOUNT_FILLS, b'"type":"fill","' + b"z" * 10**6 + b'":1')])  # fmt: skip
def test_what_is_shown_of_long_names_is_short(topic: str, raw: bytes) -> None:
    run = Pipeline({}, 1)
    run.push(topic, 0, b"{" + raw + b"}")
    found = orjson.loads(run.values(QUARANTINE)[0])
    assert len(found["field"]) + len(found["detail"]) < 500


@pytest.mark.parametrize("block_of", [True, 1.0, 2**53, -1, "1", None])
def test_only_a_block_number_counts_towards_its_block(block_of: object) -> None:
    """Python takes true for 1: block 1 must not close for it."""
    inputs = Inputs()
    inputs.add_listings(listings())
    inputs.add_block(0, [], genesis_ticks(), len(listings()))
    inputs.add(ACCOUNT_FILLS, {**cash("bad", 1, "a", 1), "block": block_of}, 0)
    inputs.add_block(1, [], [], None, count=1)
    run = inputs.pipeline(1)
    assert [orjson.loads(v)["block"] for v in run.values(BLOCKS_DONE)] == [0]
    run.push(ACCOUNT_FILLS, 0, orjson.dumps(cash("good", 1, "a", 1)))
    assert [orjson.loads(v)["block"] for v in run.values(BLOCKS_DONE)] == [0, 1]


def test_the_id_of_a_refused_event_is_free_for_a_corrected_one_and_taken_after_that() -> None:
    inputs = Inputs()
    inputs.add_listings(listings())
    wrong, right = fill("f", 0, "a", "Z", 1, 100), fill("f", 1, "a", "X-PERP", 1, 100)
    other = fill("f", 2, "a", "X-PERP", 2, 100)
    inputs.add_block(0, [wrong], genesis_ticks(), len(listings()))
    inputs.add(ACCOUNT_FILLS, wrong, 2)  # a repeat, after it was refused
    inputs.add_block(1, [right], [], None)
    inputs.add(ACCOUNT_FILLS, right, 2)
    inputs.add(ACCOUNT_FILLS, wrong, 2)  # no repeat of what has the id now
    inputs.add_block(2, [other], [], None)
    run = inputs.pipeline(1)
    assert [orjson.loads(v)["events"] for v in run.values(BLOCKS_DONE)] == [0, 1, 0]
    found = [orjson.loads(value) for value in run.values(QUARANTINE)]
    conflict = refusals.IDENTITY_CONFLICT
    assert [q["reason"] for q in found] == [refusals.UNKNOWN_INSTRUMENT, conflict, conflict]


def test_a_refused_listing_may_come_again_under_its_id_once_it_fits() -> None:
    early = event("instrument", "i", instrument="N", underlying="NEW", kind="perpetual", lot_exponent=0)
    later = {**early, "lot_exponent": -1}
    inputs = Inputs()
    inputs.add_listings([*listings(), early, event("underlying", "u", underlying="NEW"), later])
    inputs.add_block(0, [], genesis_ticks(), len(listings()) + 1)
    inputs.add_block(1, [], [], len(listings()) + 3)
    run = inputs.pipeline(1)
    assert [orjson.loads(v)["reason"] for v in run.values(QUARANTINE)] == [refusals.LISTING_REFUSED]
    assert run.sequencer.catalogue.instrument_index["N"]


def test_waiting_listings_beyond_one_record_become_several() -> None:
    """20 documents of 1 MB: none fits the engine, and none may stop it."""
    inputs = Inputs()
    wide = [event("parameters", f"p{n}", document={"version": "x" * 10**6}) for n in range(20)]
    inputs.add_listings([*wide, *listings()])
    inputs.add_block(0, [], genesis_ticks(), 20 + len(listings()))
    run = inputs.pipeline(1)
    assert [orjson.loads(v)["reason"] for v in run.values(QUARANTINE)] == [refusals.LISTING_REFUSED] * 20
    assert max(len(value) for value in run.values(MARKET_LOG)) < RECORD_BYTES_MAX
    assert len(run.values(BLOCKS_DONE)) == 1
