"""`dpme trace`: the story of an account is what the engine said, and nothing else."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import orjson
import pytest
from demo_runs import PARTITIONS, DemoRun, small_demo_run
from rich.console import Console

from schemas.events import Fill
from schemas.margin_batch import decode_batch
from streams.cli.errors import CommandError
from streams.cli.trace import _follow, show
from streams.cli.tracing import Tracer, told, with_liquidations
from streams.engine.sequence import partition_of


def log_of(run: DemoRun, account: str) -> list[tuple[int, bytes]]:
    return list(enumerate(run.pipeline.logs["account.log", partition_of(account, PARTITIONS)]))


@lru_cache(maxsize=8)
def story_of(account: str) -> list[dict[str, Any]]:
    run = small_demo_run()
    sets = {run.world.scenario_set.digest: run.world.scenario_set}
    return Tracer(account, partition_of(account, PARTITIONS), sets).follow(log_of(run, account))


def said(run: DemoRun, topic: str, account: str) -> list[dict[str, Any]]:
    events = [event for raw in run.pipeline.values(topic) for event in orjson.loads(raw)["events"]]
    return [event for event in events if event["account"] == account]


def _triggers(run: DemoRun, account: str) -> set[str]:
    return {event["trigger"] for event in said(run, "margin.warnings", account)}


@pytest.fixture(scope="module")
def liquidated(demo_run: DemoRun) -> str:
    """An account that was warned, flagged and traded in a block."""
    flagged = [e["account"] for raw in demo_run.pipeline.values("liquidations") for e in orjson.loads(raw)["events"]]
    traded = {e.account for inputs in demo_run.inputs[1:] for e in inputs.events if isinstance(e, Fill)}
    return next(a for a in flagged if a in traded and _triggers(demo_run, a) >= {"tick"})


def test_warnings_and_calls_are_those_of_the_run(demo_run: DemoRun, liquidated: str) -> None:
    story = story_of(liquidated)
    for step, topic in (("warning", "margin.warnings"), ("call", "margin.calls")):
        expected = said(demo_run, topic, liquidated)
        assert expected
        assert [s["event"] for s in story if s["step"] == step] == expected


def test_margins_are_those_of_every_batch(demo_run: DemoRun, liquidated: str) -> None:
    found = {s["block"]: s["margin"] for s in story_of(liquidated) if s["step"] == "margin"}
    expected = {}
    for raw in demo_run.pipeline.logs["margin.batches", partition_of(liquidated, PARTITIONS)]:
        head, table = decode_batch(raw)
        for row in table.to_pylist():
            if row["account"] == liquidated:
                expected[head.block] = row
    assert len(expected) == 45
    assert found.keys() == expected.keys()
    for block, row in expected.items():
        for name in ("nlv_usd6", "initial_margin_usd6", "maintenance_margin_usd6", "expected_shortfall_usd6"):
            assert found[block][name] == row[name]


def test_fills_are_those_sent_with_greeks_around_them(demo_run: DemoRun, liquidated: str) -> None:
    story = story_of(liquidated)
    for inputs in demo_run.inputs[1:]:
        sent = sorted(
            (e for e in inputs.events if isinstance(e, Fill) and e.account == liquidated),
            key=lambda e: (e.time_ms, e.id),
        )
        steps = [s for s in story if s["step"] == "events" and s["block"] == inputs.block.number]
        found = [event for s in steps for event in s["events"]]
        assert [(e["instrument"], e["lots"], e["price_usd9"]) for e in found] == [
            (e.instrument, e.lots, e.price_usd9) for e in sent
        ]
        for step in steps:
            assert step["greeks_before"] != step["greeks_after"]


def test_estimate_before_a_warning_was_above_it(demo_run: DemoRun, liquidated: str) -> None:
    """On a tick the estimate comes down through the line."""
    on_tick = [s for s in story_of(liquidated) if s["step"] == "warning" and s["event"]["trigger"] == "tick"]
    assert on_tick
    for step in on_tick:
        assert step["estimate_before_usd6"] > step["event"]["estimate_usd6"]


def test_liquidation_comes_last_in_its_block(demo_run: DemoRun, liquidated: str) -> None:
    events = said(demo_run, "liquidations", liquidated)
    story = with_liquidations(story_of(liquidated), events)
    assert [s["event"] for s in story if s["step"] == "liquidation"] == events
    for at, step in enumerate(story):
        if step["step"] == "liquidation":
            assert at + 1 == len(story) or story[at + 1]["block"] > step["block"]
            assert any(s["step"] == "call" and s["block"] == step["block"] for s in story[:at])


def test_only_what_matters_is_told(demo_run: DemoRun, liquidated: str) -> None:
    story = story_of(liquidated)
    shorter = told(story)
    assert len(shorter) < len(story)
    assert [s for s in shorter if s["step"] != "margin"] == [s for s in story if s["step"] != "margin"]
    margins = [s["block"] for s in shorter if s["step"] == "margin"]
    assert (margins[0], margins[-1]) == (0, 44)


@pytest.mark.parametrize("width", [80, 120])
def test_story_is_printed(demo_run: DemoRun, liquidated: str, width: int) -> None:
    file = io.StringIO()
    story = with_liquidations(story_of(liquidated), said(demo_run, "liquidations", liquidated))
    show(Console(file=file, width=width), liquidated, story)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for word in ("fill", "Greeks", "breach", "exact at once", "ES ", "flag", "liquidation", "cure: deposit"):
        assert word in text


def test_unknown_account_names_some_that_exist(demo_run: DemoRun) -> None:
    notes = Console(file=io.StringIO())
    log = log_of(demo_run, "retail-00")
    with pytest.raises(CommandError, match=r"no account 'retail-00'; some that exist: retail-00\d\d"):
        _follow(notes, PARTITIONS, "retail-00", log, {})
