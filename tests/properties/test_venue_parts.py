"""Stress of the venue in the stream: parts of any number of partitions give the figures of all accounts together."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import orjson
import pytest
from engine_worlds import Inputs, interleaved, random_world, scenario_set
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.risk_parameters import VenueStress
from schemas.topics import BLOCKS_DONE, MARGIN_CALLS, VENUE_PARTS, VENUE_STRESS
from streams.engine.enforcement import Enforcement
from streams.engine.venue_parts import combined, read_part
from streams.engine.venue_stress import VIEWS, Group, group_of, rows_named, uncovered, venue_tables, views_of
from streams.simulate.in_process import Pipeline

ASKED = VenueStress(confidence_e6=990_000)
BLOCKS = 6


def world(seed: int, asked: VenueStress = ASKED) -> Inputs:
    return random_world(seed, BLOCKS, whales=seed % 3 == 0, venue=asked)


def said(pipeline: Pipeline) -> list[dict[str, Any]]:
    return [orjson.loads(raw) for raw in pipeline.values(VENUE_STRESS)]


def plain(value: Any) -> Any:
    return orjson.loads(msgspec.json.encode(value))


def of_all_accounts(pipeline: Pipeline) -> tuple[list[dict[str, Any]], int]:
    """Views and fund as one group after the other gives them, from the machines as they stand."""
    groups: list[Group] = []
    for risk in pipeline.risks:
        p = risk.parameters
        tables = risk.cache.get(risk.catalogue, risk.keyframe, p, risk.scenario_digest)
        book = risk.book
        groups.append(group_of(book.legs(), book.accounts, book.cash(), book.entry_by_account(), tables, p))
    venue = venue_tables(tables, risk.catalogue, p)
    found = {name: uncovered(groups, venue, name) for name in VIEWS}
    views, fund = views_of(found, tables.scenarios.weights, rows_named(p), ASKED.confidence_e6, None)
    return plain(views), fund


@given(st.integers(0, 40), st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_figures_do_not_depend_on_partitions_or_arrival(seed: int, order: int) -> None:
    inputs = world(seed)
    one, many = inputs.pipeline(1), inputs.pipeline(3, interleaved(inputs, random.Random(order)))
    assert [record["block"] for record in said(one)] == [0, BLOCKS - 1]
    views, fund_usd6 = of_all_accounts(many)
    last = said(many)[-1]
    assert (last["views"], last["fund_usd6"], last["partitions"]) == (views, fund_usd6, 3)
    assert last["scenario_digest"] == scenario_set(2).digest != said(many)[0]["scenario_digest"]
    for left, right in zip(said(one), said(many), strict=True):
        assert figures(left) == figures(right)


def figures(record: dict[str, Any]) -> Any:
    """Without the names: of two equal losses the lowest partition's leads."""
    views = [
        {name: value["uncovered_usd6"] if name.startswith("cover") else value for name, value in view.items()}
        | {"rows": [row["uncovered_usd6"] for row in view["rows"]]}
        for view in record["views"]
    ]
    return [record["block"], record["accounts"], record["fund_usd6"], sorted(record["unpriced_accounts"]), views]


@given(st.integers(0, 40), st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_enforcement_says_the_same_whatever_the_order_and_the_restarts(seed: int, order: int) -> None:
    pipeline, rng = world(seed).pipeline(3), random.Random(order)
    logs = {(topic, p): pipeline.logs[topic, p] for topic in (MARGIN_CALLS, BLOCKS_DONE, VENUE_PARTS) for p in range(3)}
    machine, out = Enforcement(3, checkpoint_every=1), []
    while readable := [log for log, values in logs.items() if machine.read[log] < len(values)]:
        log = rng.choice(readable)
        for found in machine.steps(*log, machine.read[log], logs[log][machine.read[log]]):
            out += [output.value for output in found if output.topic == VENUE_STRESS]
        if rng.random() < 0.2:
            machine = Enforcement.load(machine.dump())
    assert out == pipeline.values(VENUE_STRESS)


def test_a_halted_partition_holds_nobody_back() -> None:
    pipeline = world(1).pipeline(3)
    machine, said_of = Enforcement(3), []
    done = {"version": 1, "partition": 2, "seq": 1, "block": 0, "halted": "broken", "calls": 0, "time_ms": 0}
    for partition in range(2):
        for found in machine.steps(VENUE_PARTS, partition, 0, pipeline.logs[VENUE_PARTS, partition][0]):
            said_of += found
    assert not said_of
    for found in machine.steps(BLOCKS_DONE, 2, 0, orjson.dumps(done)):
        said_of += found
    [record] = [orjson.loads(output.value or b"") for output in said_of if output.topic == VENUE_STRESS]
    parts = [read_part(pipeline.logs[VENUE_PARTS, p][0]) for p in range(2)]
    assert record == plain(combined(parts, 1))
    assert record["partitions"] == 2


def test_a_stated_fund_is_the_fund() -> None:
    [record, _] = said(world(2, VenueStress(fund_usd6=7_000_000)).pipeline(2))
    assert (record["fund_usd6"], record["fund_given"], record["confidence_e6"]) == (7_000_000, True, 999_000)


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_is_said_where_the_document_does_not_ask(seed: int) -> None:
    pipeline = random_world(seed).pipeline(2)
    assert not pipeline.values(VENUE_PARTS)
    assert not pipeline.values(VENUE_STRESS)
