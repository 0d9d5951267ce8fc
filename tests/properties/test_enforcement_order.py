"""Bids by market.log: whatever the order of arrival, of branches and of restarts, enforcement says one thing."""

from __future__ import annotations

import random

import msgspec
import orjson
import pytest
from engine_worlds import (
    ACCOUNTS,
    Inputs,
    block,
    event,
    hash_of,
    interleaved,
    listings,
    random_world,
    scenario_set,
    time_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import log_records as records
from schemas import refusals
from schemas.risk_parameters import RiskParameters
from schemas.topics import (
    AUCTION_BIDS,
    BLOCKS_DONE,
    CHAIN_BLOCKS,
    INSTRUMENTS,
    LIQUIDATIONS,
    MARGIN_CALLS,
    MARKET_LOG,
    QUARANTINE,
)
from streams.engine.enforcement import Enforcement
from streams.engine.output import Fault
from streams.engine.sequence import Sequencer
from streams.simulate.in_process import Pipeline

SEEDS = st.integers(0, 2**32)
BLOCKS = 6


def bid(event_id: str, number: int, time_ms: int, **fields: object) -> dict:
    rest = {"account": "keeper", "target": ACCOUNTS[0], "fraction_e6": 500_000, "price_usd6": -7}
    return event("bid", event_id, block=number, time_ms=time_ms, **{**rest, **fields})


def with_bids(seed: int) -> tuple[Inputs, dict[int, list[dict]]]:
    """A random world whose blocks have bids; repeats, and ids that were taken, among them. -> (inputs, by block)."""
    inputs, rng = random_world(seed, blocks=BLOCKS), random.Random(seed)
    by_block: dict[int, list[dict]] = {}
    order, logs = inputs.order, inputs.logs[CHAIN_BLOCKS, 0]
    inputs.order, place = [], 0
    for log in order:
        if log == (CHAIN_BLOCKS, 0):
            closing, place = orjson.loads(logs[place]), place + 1
            number = closing["number"]
            found = [
                bid(f"b{number}-{n}", number, time_of(number) - rng.randrange(5), price_usd6=rng.randrange(-9, 9))
                for n in range(rng.randrange(5))
            ]
            for one in found:
                inputs.add(AUCTION_BIDS, one)
                if rng.random() < 0.3:
                    inputs.add(AUCTION_BIDS, one)
            by_block[number] = sorted(found, key=lambda b: (b["time_ms"], b["id"]))
            logs[place - 1] = orjson.dumps(closing | {"event_count": closing["event_count"] + len(found)})
        inputs.order.append(log)
    return inputs, by_block


def bids_said(values: list[bytes]) -> dict[int, list[str]]:
    """Block -> ids of the bids in its records."""
    said: dict[int, list[str]] = {}
    for raw in values:
        record = orjson.loads(raw)
        if "bids" in record:
            assert record["block"] not in said
            said[record["block"]] = [one["id"] for one in record["bids"]]
    return said


@given(st.integers(0, 19), SEEDS)
@settings(max_examples=15)
def test_bids_stand_in_their_blocks_record_whatever_the_order_of_arrival(world: int, seed: int) -> None:
    inputs, by_block = with_bids(world)
    calm = inputs.pipeline(3)
    shuffled = inputs.pipeline(3, interleaved(inputs, random.Random(seed)))
    assert bids_said(calm.values(LIQUIDATIONS)) == {n: [b["id"] for b in bids] for n, bids in by_block.items() if bids}
    assert shuffled.values(LIQUIDATIONS) == calm.values(LIQUIDATIONS)
    assert shuffled.logs[MARKET_LOG, 0] == calm.logs[MARKET_LOG, 0]
    assert shuffled.values(BLOCKS_DONE) == calm.values(BLOCKS_DONE)


def with_headers(pipeline: Pipeline) -> list[tuple[bytes, tuple[tuple[str, bytes], ...]]]:
    """market.log as a broker would have it after a rival's life: its fence, its decisions that are void, repeats."""
    log = [(raw, (("token", b"in-process"),)) for raw in pipeline.logs[MARKET_LOG, 0]]
    fence = records.pack_header(records.FENCE, 0, 0, 0, records.NO_HASH)
    half = len(log) // 2
    rival, back = (fence + b"rival", ()), (fence + b"in-process", ())
    late = [(raw, (("token", b"in-process"),)) for raw, _ in log[half : half + 3]]
    return [*log[:half], rival, *late, back, *log[max(1, half - 3) : half], *log[half:]]


@given(st.integers(0, 19), SEEDS, SEEDS)
@settings(max_examples=20)
def test_two_replicas_with_random_arrival_say_one_thing(world: int, one: int, other: int) -> None:
    """Each reads its logs in an order of its own, and is restored from its own checkpoints."""
    inputs, _ = with_bids(world)
    pipeline = inputs.pipeline(3)
    logs = {
        (topic, p): [(raw, ()) for raw in pipeline.logs[topic, p]]
        for topic in (MARGIN_CALLS, BLOCKS_DONE)
        for p in range(3)
    }
    logs[MARKET_LOG, 0] = with_headers(pipeline)
    said = [replica(logs, random.Random(seed)) for seed in (one, other)]
    assert said[0] == said[1] == pipeline.values(LIQUIDATIONS)


def replica(logs: dict, rng: random.Random) -> list[bytes]:
    machine, out = Enforcement(3, checkpoint_every=1), []
    while readable := [log for log, values in logs.items() if machine.read[log] < len(values)]:
        log = rng.choice(readable)
        value, headers = logs[log][machine.read[log]]
        for found in machine.steps(*log, machine.read[log], value, headers):
            out += [output.value for output in found]
        if rng.random() < 0.1:
            dumped = machine.dump()
            machine = Enforcement.load(dumped)
            assert machine.dump() == dumped
    return out


def world_of(*events: tuple[str, dict], event_count: int = 0) -> Pipeline:
    pipeline = Pipeline({scenario_set().digest: scenario_set()}, 2)
    pipeline.push_listings(listings(RiskParameters()))
    for topic, one in events:
        pipeline.push(topic, 0, orjson.dumps(one))
    return pipeline


def announced(number: int, count: int, **fields: object) -> tuple[str, dict]:
    return CHAIN_BLOCKS, block(number, time_of(number), count, None, None) | fields


def test_an_id_that_was_taken_or_a_closed_block_is_refused_and_counts() -> None:
    first, again = bid("b", 0, 1), bid("b", 1, 2)
    pipeline = world_of(
        (AUCTION_BIDS, first), announced(0, 1), (AUCTION_BIDS, bid("late", 0, 3)),
        (AUCTION_BIDS, again), (AUCTION_BIDS, bid("wrong", 1, 3, fraction_e6=0)), announced(1, 2),
    )  # fmt: skip
    assert bids_said(pipeline.values(LIQUIDATIONS)) == {0: ["b"]}
    reasons = [orjson.loads(raw)["reason"] for raw in pipeline.values(QUARANTINE)]
    assert sorted(reasons) == sorted([refusals.BLOCK_CLOSED, refusals.IDENTITY_CONFLICT, refusals.OUT_OF_RANGE])
    assert [orjson.loads(raw)["block"] for raw in pipeline.values(BLOCKS_DONE)] == [0, 1, 0, 1]


def test_a_bid_and_a_fill_may_have_one_id() -> None:
    move = event("cash_move", "same", block=0, time_ms=1, account="a", amount_usd6=5)
    pipeline = world_of((AUCTION_BIDS, bid("same", 0, 1)), ("account.fills", move), announced(0, 2))
    assert bids_said(pipeline.values(LIQUIDATIONS)) == {0: ["same"]}
    assert pipeline.values(QUARANTINE) == []
    assert sum(len(risk.book.accounts) for risk in pipeline.risks) == 1


def test_a_retracted_blocks_bids_are_said_again_in_the_block_that_takes_them() -> None:
    branch = {"hash": "0x" + "7" * 64}
    pipeline = world_of(
        announced(0, 0), (AUCTION_BIDS, bid("b", 1, 5, block_hash=hash_of(1))), announced(1, 1),
        (AUCTION_BIDS, bid("b", 1, 6, block_hash=branch["hash"])), announced(1, 1, **branch),
    )  # fmt: skip
    found = [orjson.loads(raw) for raw in pipeline.values(LIQUIDATIONS)]
    assert [(r["block"], r.get("epoch", 0), [b["time_ms"] for b in r["bids"]]) for r in found] == [
        (1, 0, [5]),
        (1, 1, [6]),
    ]
    assert pipeline.enforcement.bids == {}


def test_a_partition_that_is_declared_halted_stands_still_and_the_others_go_on() -> None:
    halt = event("halt", "h", partition=1, reason="its disk is lost")
    nowhere = event("halt", "h2", partition=2, reason="there is none")
    pipeline = world_of(
        announced(0, 0), (INSTRUMENTS, halt), (INSTRUMENTS, nowhere), (AUCTION_BIDS, bid("b", 1, 5)), announced(1, 1),
        announced(2, 0),
    )  # fmt: skip
    assert "declared in market.log: its disk is lost" in pipeline.risks[1].halted
    assert (pipeline.risks[0].block, pipeline.risks[0].halted) == (2, "")
    done = [orjson.loads(raw) for raw in pipeline.logs[BLOCKS_DONE, 1]]
    assert [(d["block"], bool(d["halted"])) for d in done] == [(0, False), (1, True)]
    assert bids_said(pipeline.values(LIQUIDATIONS)) == {1: ["b"]}, "enforcement does not wait for it"
    assert [orjson.loads(raw)["reason"] for raw in pipeline.values(QUARANTINE)] == [refusals.LISTING_REFUSED]


def test_a_plan_of_more_bids_than_a_record_holds_is_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.engine.planning.RECORD_BYTES_MAX", 900)
    bids = [(AUCTION_BIDS, bid(f"b{n}", 0, 9 - n)) for n in range(8)]
    pipeline = world_of(*bids, announced(0, 8))
    kinds = [records.read_header(raw).kind for raw in pipeline.logs[MARKET_LOG, 0]]
    assert kinds.count(records.BIDS) > 1
    assert bids_said(pipeline.values(LIQUIDATIONS)) == {0: [f"b{n}" for n in reversed(range(8))]}


def test_a_checkpoint_from_before_bids_is_still_read() -> None:
    pipeline = world_of(announced(0, 0))
    plain = msgspec.msgpack.decode(pipeline.enforcement.dump())
    for name in ("decisions", "epoch", "bids", "bids_due"):
        del plain[name]
    plain["read"] = [one for one in plain["read"] if one[0] != MARKET_LOG]
    loaded = Enforcement.load(msgspec.msgpack.encode(plain))
    assert (loaded.positions()[MARKET_LOG, 0], loaded.decisions.number) == (0, 0)
    plain = msgspec.msgpack.decode(pipeline.sequencer.dump())
    for name in ("read", "judged", "inbox"):
        plain[name] = [one for one in plain[name] if one[0] != AUCTION_BIDS]
    sequencer = Sequencer.load(msgspec.msgpack.encode(plain), b"new")
    assert sequencer.positions()[AUCTION_BIDS, 0] == 0
    assert (AUCTION_BIDS, 0) in sequencer.inbox


def test_a_hole_in_market_log_is_a_fault() -> None:
    pipeline = world_of(announced(0, 0))
    machine = Enforcement(2)
    second = machine.steps(MARKET_LOG, 0, 0, pipeline.logs[MARKET_LOG, 0][2], ())
    with pytest.raises(Fault, match=r"market.log jumps to 2, expected 1"):
        next(second)
