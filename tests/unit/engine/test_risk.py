"""The risk machine: warnings once a crossing, halts, expiry, changes of scenarios, parameters and listings mid-run."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from engine_worlds import (
    Inputs,
    cash,
    coins,
    event,
    fill,
    genesis_ticks,
    instrument,
    listings,
    option,
    option_name,
    scenario_set,
    spot,
    surface,
    time_of,
    underlying,
)

from schemas import log_records as records
from schemas.margin_batch import decode_batch
from schemas.risk_parameters import RiskParameters, parameters_document
from schemas.topics import ACCOUNT_LOG, BLOCKS_DONE, MARGIN_BATCHES, MARGIN_CALLS, MARGIN_WARNINGS, QUARANTINE
from streams.engine.output import Output
from streams.engine.risk import Risk
from streams.engine.tables import TableCache
from streams.simulate.in_process import Pipeline


def events_of(run: Pipeline, topic: str) -> list[dict]:
    return [e for value in run.values(topic) for e in orjson.loads(value)["events"]]


def done_of(run: Pipeline) -> list[dict]:
    return [orjson.loads(value) for value in run.values(BLOCKS_DONE)]


def margins_of(run: Pipeline) -> dict[tuple[int, str], dict[str, Any]]:
    found = {}
    for value in run.values(MARGIN_BATCHES):
        head, table = decode_batch(value)
        found.update({(head.block, row["account"]): row for row in table.to_pylist()})
    return found


class Story:
    """One account `a`, long 100 lots (1 unit) of X-PERP from 100 USD, and a price path."""

    def __init__(self, cash_usd: float = 30.0, extra: list[dict] | None = None, **parameters: Any) -> None:
        self.inputs, self.number = Inputs(), 0
        self.listed = listings(RiskParameters(**parameters))
        self.inputs.add_listings(self.listed)
        seeding = [cash("c0", 0, "a", cash_usd), fill("f0", 0, "a", "X-PERP", 100, 100), *(extra or [])]
        self.inputs.add_block(0, seeding, genesis_ticks(), len(self.listed))

    def block(
        self, prices: list[float] | None = None, events: list[dict] | None = None, ticks: list[dict] | None = None
    ) -> None:
        """A block with prices of X, 150 ms apart."""
        self.number += 1
        start = time_of(self.number - 1) + 150
        path = [spot(f"p{self.number}-{n}", "X", start + 150 * n, p) for n, p in enumerate(prices or [])]
        self.inputs.add_block(self.number, events or [], path + (ticks or []), len(self.listed))

    def list(self, *found: dict) -> None:
        self.inputs.add_listings(list(found))
        self.listed += found

    def run(self, partitions: int = 1) -> Pipeline:
        return self.inputs.pipeline(partitions)


def price_at_line() -> float:
    """Where NLV = 30 + price - 100 meets IM, which moves in proportion to the price."""
    ratio = margins_of(Story().run())[0, "a"]["initial_margin_usd6"] / 100e6
    return 70 / (1 - ratio)


def test_warning_once_a_crossing_and_again_after_recovery() -> None:
    """NLV = cash + price - 100. Through IM: one warning however often it crosses below 1.05 x IM; armed again above."""
    story = Story()
    at = price_at_line()
    story.block([at - 0.3, at - 0.6, at + 0.05, at - 0.4, at + 0.1])
    story.block([at - 0.2, at + 0.1])
    story.block([at + 1.0, at - 0.3])
    found = events_of(story.run(), MARGIN_WARNINGS)
    assert [(w["block"], w["line"], w["trigger"]) for w in found] == [(1, "IM", "tick"), (3, "IM", "tick")]
    assert [w["seq"] for w in found] == [1, 2]
    for warning in found:
        assert warning["margin"]["nlv_usd6"] < warning["margin"]["initial_margin_usd6"]
        assert warning["greeks"][0]["underlying"] == "X"


def test_fall_through_both_lines_is_one_warning_of_the_lower() -> None:
    story = Story()
    story.block([74.0, 73.0])
    found = events_of(story.run(), MARGIN_WARNINGS)
    assert [(w["line"], w["margin"]["nlv_usd6"]) for w in found] == [("MM", 4_000_000)]


def test_no_second_warning_where_the_barrier_called_until_the_state_changes() -> None:
    """Called at block 1 below IM: no warning for IM while called, one for MM when that is crossed."""
    story = Story()
    at = price_at_line()
    story.block([at - 0.3])
    story.block([at - 0.4, at + 0.1, at - 0.2])
    story.block([72.0])
    run = story.run()
    assert [(w["block"], w["line"]) for w in events_of(run, MARGIN_WARNINGS)] == [(1, "IM"), (3, "MM")]
    calls = events_of(run, MARGIN_CALLS)
    assert [(c["block"], c["from"], c["to"]) for c in calls] == [
        (1, "healthy", "margin_call"),
        (3, "margin_call", "liquidatable"),
    ]


def test_a_fill_is_a_trigger_and_a_release_ends_a_call() -> None:
    story = Story()
    story.block([100.0, 99.9], [fill("f1", 1, "a", "X-PERP", 500, 100, time_ms=time_of(0) + 250)])
    story.block([100.0], [cash("c2", 2, "a", 500)])
    run = story.run()
    assert [(w["block"], w["line"], w["trigger"]) for w in events_of(run, MARGIN_WARNINGS)] == [(1, "MM", "fill")]
    calls = events_of(run, MARGIN_CALLS)
    assert [(c["from"], c["to"]) for c in calls] == [("healthy", "liquidatable"), ("liquidatable", "healthy")]
    assert calls[0]["cure"]["deposit_usd6"] == (
        calls[0]["margin"]["initial_margin_usd6"] - calls[0]["margin"]["nlv_usd6"]
    )
    assert calls[0]["positions"] == [{"instrument": "X-PERP", "lots": 600, "value_usd6": -600_000}]
    assert calls[1]["cure"] is None


def test_perpetual_entered_at_the_mark_has_no_value() -> None:
    row = margins_of(Story().run())[0, "a"]
    assert row["nlv_usd6"] == row["equity_usd6"] == 30_000_000


def test_coins_count_with_their_factor_and_a_debt_of_coins_in_full() -> None:
    extra = [coins("k1", 0, "rich", "X", 100), coins("k2", 0, "poor", "X", -100)]
    rows = margins_of(Story(extra=extra).run())
    assert (rows[0, "rich"]["nlv_usd6"], rows[0, "rich"]["equity_usd6"]) == (90_000_000, 100_000_000)
    assert (rows[0, "poor"]["nlv_usd6"], rows[0, "poor"]["equity_usd6"]) == (-100_000_000, -100_000_000)


def test_account_with_only_cash_and_account_with_debt_only() -> None:
    """The second crosses zero between barriers: its margin is computed with no instrument at all."""
    story = Story(extra=[cash("c1", 0, "b", 5), cash("c2", 0, "d", 5)])
    withdrawal = cash("c3", 1, "d", -6, time_ms=time_of(0) + 10)
    story.block([100.1, 100.2], [withdrawal])
    run = story.run()
    rows = margins_of(run)
    assert (rows[1, "b"]["state"], rows[1, "d"]["state"], rows[1, "d"]["maintenance_margin_usd6"]) == (0, 3, 0)
    assert [(w["account"], w["line"]) for w in events_of(run, MARGIN_WARNINGS)] == [("d", "MM")]


@pytest.mark.parametrize(("at_expiry", "call", "put"), [(112.5, 12.5, 0.0), (87.25, 0.0, 12.75), (100.0, 0.0, 0.0)])
def test_expiry_settles_at_the_last_index_before_it_and_conserves_money(
    at_expiry: float, call: float, put: float
) -> None:
    near = time_of(2) - 500
    story = Story(settlement_window_ms=0)
    story.list(option(100, "call", near), option(100, "put", near), instrument("X-NEAR", "X", "future", expiry_ms=near))
    names = {option_name(100, "call", near): call, option_name(100, "put", near): put, "X-NEAR": at_expiry - 100}
    opening = [
        fill(f"o{n}{side}", 1, side, name, lots, 100 if name == "X-NEAR" else 5)
        for n, name in enumerate(names)
        for side, lots in (("long", 333), ("short", -333))
    ]
    story.block([100.0], opening, [surface("near", time_of(0) + 5, near, 0.01)])
    before, after = spot("e1", "X", near - 1, at_expiry), spot("e2", "X", near + 1, at_expiry * 2)
    story.block([], [], [before, after])
    story.block([100.0], [fill("late", 3, "long", "X-NEAR", 1, 100)])
    run = story.run()
    rows = margins_of(run)
    paid = sum(5 for name in names if name != "X-NEAR")
    gained = round(3.33 * (sum(names.values()) - paid) * 1e6)
    assert rows[2, "long"]["nlv_usd6"] == gained
    assert rows[2, "short"]["nlv_usd6"] == -gained
    assert rows[2, "long"]["maintenance_margin_usd6"] == 0
    assert [orjson.loads(v)["reason"] for v in run.values(QUARANTINE)] == ["instrument_expired"]


def test_account_that_loses_its_hedge_by_expiry_is_computed_first() -> None:
    """No bound holds for lots that settled: a cleared account would get its call late."""
    near = time_of(2) - 500
    story = Story()
    story.list(instrument("X-NEAR", "X", "future", expiry_ms=near))
    hedged = [cash("ch", 1, "h", 4), fill("h1", 1, "h", "X-PERP", 100, 100), fill("h2", 1, "h", "X-NEAR", -100, 100)]
    story.block([100.0], hedged)
    story.block([])
    log = story.run().logs[ACCOUNT_LOG, 0]
    risk, last = machine(), place_of(log, records.BARRIER, 2)
    feed(risk, log[:last])
    first, rest = risk.steps(ACCOUNT_LOG, 0, risk.next_offset, log[last])
    assert [e["account"] for o in first for e in orjson.loads(o.value or b"")["events"]] == ["h"]
    assert MARGIN_CALLS not in [o.topic for o in rest]


def test_fill_before_the_first_price_is_refused_at_its_own_time() -> None:
    """Priced only later in the same block: the barrier counts as the market tick in between took it."""
    story = Story()
    story.list(underlying("Z"), instrument("Z-PERP", "Z", "perpetual"))
    early = fill("z1", 1, "b", "Z-PERP", 1, 50, time_ms=time_of(0) + 100)
    late = fill("z2", 1, "b", "Z-PERP", 1, 50, time_ms=time_of(0) + 700)
    story.block([101.0], [early, late], [spot("z", "Z", time_of(0) + 600, 50)])
    run = story.run()
    assert [(d["events"], d["halted"]) for d in done_of(run)] == [(2, ""), (1, "")]
    assert [orjson.loads(v)["reason"] for v in run.values(QUARANTINE)] == ["instrument_unpriced"]


def test_listings_that_lose_an_id_conflict_are_listed_nowhere() -> None:
    """The risk machines must give what comes behind them the same index as the sequencer does."""
    story = Story()
    first, twin = instrument("A", "X", "perpetual"), instrument("B", "Y", "perpetual")
    story.list(first, {**twin, "id": first["id"]}, instrument("C", "Y", "perpetual"))
    story.block([100.0], [fill("c1", 1, "b", "C", 100, 10), cash("c2", 1, "b", 5)])
    run = story.run()
    rows = margins_of(run)
    assert [orjson.loads(v)["reason"] for v in run.values(QUARANTINE)] == ["identity_conflict"]
    assert [i.symbol for i in run.risks[0].catalogue.instruments[-2:]] == ["A", "C"]
    assert run.risks[0].catalogue.to_listings() == run.sequencer.catalogue.to_listings()
    assert rows[1, "b"]["nlv_usd6"] == 5_000_000


def test_change_of_scenarios_and_parameters_mid_run_reaches_every_margin() -> None:
    """A document with the same version number but other content is another document: nothing of the old one is kept."""
    story = Story(cash_usd=1_000)
    story.block([100.0])
    document = parameters_document(
        RiskParameters(initial_margin_multiplier_e6=2_000_000, expected_shortfall_level_e6=950_000)
    )
    story.list(event("parameters", "p-2", document=document))
    story.block([100.0])
    story.list(event("scenario_set", "s-2", digest=scenario_set(2).digest))
    story.block([100.0])
    run = story.run()
    rows, done = margins_of(run), done_of(run)
    add_ons = rows[1, "a"]["add_ons_usd6"]
    assert rows[2, "a"]["initial_margin_usd6"] - add_ons == 2 * (rows[2, "a"]["maintenance_margin_usd6"] - add_ons)
    assert rows[2, "a"]["expected_shortfall_usd6"] < rows[1, "a"]["expected_shortfall_usd6"]
    assert rows[3, "a"]["expected_shortfall_usd6"] != rows[2, "a"]["expected_shortfall_usd6"]
    assert [d["scenario_digest"] == scenario_set(2).digest for d in done] == [False, False, False, True]
    assert [d["halted"] for d in done] == [""] * 4


def test_underlying_and_instruments_listed_mid_run() -> None:
    """An underlying that the scenario set does not know is margined by the stress rows alone."""
    story = Story()
    story.block([100.0])
    story.list(underlying("Z"), instrument("Z-PERP", "Z", "perpetual"), option(95, "put"))
    story.block(
        [100.0], [fill("z", 2, "b", "Z-PERP", 100, 50), cash("c", 2, "b", 100)], [spot("z0", "Z", time_of(2) - 900, 50)]
    )
    story.block([100.0], [fill("y", 3, "b", option_name(95, "put"), -10, 3)])
    run = story.run()
    rows = margins_of(run)
    assert (rows[2, "b"]["expected_shortfall_usd6"], rows[2, "b"]["stress_loss_usd6"]) == (0, 3_000_000)
    assert rows[3, "b"]["short_option_minimum_usd6"] > 0
    assert [d["halted"] for d in done_of(run)] == [""] * 4


def test_blocks_without_events_empty_partitions_and_large_numbers() -> None:
    inputs, first = Inputs(), 2**52
    inputs.add_listings(listings())
    for number in range(3):
        ticks = genesis_ticks() if number == 0 else []
        inputs.add_block(first + number, [], ticks, len(listings()), time_ms=time_of(number))
    run = inputs.pipeline(3)
    assert [(d["block"] - first, d["accounts"], d["halted"]) for d in done_of(run)] == [
        (0, 0, ""),
        (1, 0, ""),
        (2, 0, ""),
    ] * 3


def test_market_of_extremes_halts_nothing() -> None:
    """The highest price and shortest time there are; wide accounts of either side; states follow the exact numbers."""
    near = time_of(1) + 1
    story = Story()
    story.list(option(100, "call", near))
    events = [
        fill("w1", 1, "whale", "X-PERP", 2**32, 100), fill("w2", 1, "small", "X-PERP", -(2**32), 100),
        fill("w3", 1, "late", option_name(100, "call", near), -(2**29), 0.001),
    ]  # fmt: skip
    story.block([100.0], events, [surface("n", time_of(0) + 5, near, 0.0001)])
    story.block([10_000_000.0])
    story.block([0.000001])
    run = story.run()
    assert [d["halted"] for d in done_of(run)] == [""] * 4
    assert run.values(QUARANTINE) == []
    rows = margins_of(run)
    assert [rows[n, "whale"]["state"] for n in (1, 2, 3)] == [2, 0, 3]
    assert [rows[n, "small"]["state"] for n in (1, 2, 3)] == [2, 3, 0]
    assert rows[1, "whale"]["wide"]
    assert rows[1, "whale"]["equity_usd6"] == 0
    assert rows[2, "whale"]["equity_usd6"] == 2**62  # shown saturated


# -- the log contradicts itself


def machine() -> Risk:
    return Risk(0, TableCache({s.digest: s for s in (scenario_set(), scenario_set(2))}.__getitem__))


def feed(risk: Risk, log: list[bytes]) -> list[Output]:
    return [o for raw in log for step in risk.steps(ACCOUNT_LOG, 0, risk.next_offset, raw) for o in step]


def log_of_story() -> list[bytes]:
    story = Story()
    story.block([99.0], [fill("f1", 1, "a", "X-PERP", 1, 99)])
    story.block([98.0])
    return story.run().logs[ACCOUNT_LOG, 0]


def halting(log: list[bytes]) -> tuple[Risk, list[dict]]:
    risk = machine()
    outputs = feed(risk, log)
    return risk, [d for o in outputs if o.topic == BLOCKS_DONE and (d := orjson.loads(o.value or b""))["halted"]]


def place_of(log: list[bytes], kind: int, block: int) -> int:
    return next(n for n, raw in enumerate(log) if (h := records.read_header(raw)).kind == kind and h.block == block)


def other_bytes(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


def test_whole_log_does_not_halt() -> None:
    risk, halted = halting(log_of_story())
    assert (risk.halted, halted, risk.block) == ("", [], 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda log, e, b: log.insert(b, other_bytes(log[e])), "other bytes"),
        (lambda log, e, b: log.insert(b + 1, other_bytes(log[b])), "other bytes"),
        (lambda log, e, b: log.pop(e), "events came"),
        (lambda log, e, b: log.pop(b), "log number"),
        (lambda log, e, b: log.__setitem__(e, log[e][:80]), "ends at byte"),
        (lambda log, e, b: log.insert(e, b"short"), "shorter than a header"),
        (lambda log, e, b: log.__setitem__(e, b"\x00" + log[e][1:]), "version 0"),
        (lambda log, e, b: log.__setitem__(e, log[e][:2] + b"\x07\x00" + log[e][4:]), "partition 7"),
    ],
    ids=["events differ", "barrier differs", "events lost", "barrier lost", "cut", "no header", "version", "partition"],
)  # fmt: skip
def test_contradiction_halts_loudly_and_for_good(change: Any, says: str) -> None:
    log = log_of_story()
    change(log, place_of(log, records.EVENTS, 1), place_of(log, records.BARRIER, 1))
    risk, halted = halting(log)
    assert len(halted) == 1
    assert says in halted[0]["halted"]
    assert halted[0]["block"] in (1, 2)
    assert risk.next_offset == len(log)
    assert Risk.load(risk.dump(), machine().cache).halted == risk.halted
    assert feed(risk, log_of_story()) == []


def test_repeated_records_change_nothing() -> None:
    log = log_of_story()
    once, twice = machine(), machine()
    first, second = feed(once, log), feed(twice, [raw for raw in log for _ in (0, 1)])
    assert [o for o in second if o.value] == first
    assert twice.state_digest() == once.state_digest()
    assert np.array_equal(twice.margins.nlv_usd6, once.margins.nlv_usd6)
