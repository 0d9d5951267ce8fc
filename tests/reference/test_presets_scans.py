"""Scanning rules against worked examples: SPAN (McMillan), Dederi, Paradex' published rows, Opyn's naked margin."""

import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from oracles.presets.case import Case, Expiry, Future, Market, Option, Positions
from oracles.presets.document import (
    AddOnRule,
    Group,
    MarginRule,
    Parameters,
    PresetDocument,
    Row,
    TimeValueBound,
    VolRule,
    check_document,
    preset,
)
from oracles.presets.evaluate import evaluate, worst_loss

VECTORS = Path(__file__).parent / "vectors"
WORKED = json.loads((VECTORS / "span_and_dederi_worked_examples.json").read_text())
PARADEX = json.loads((VECTORS / "published_scenario_sets.json").read_text())["paradex"]
OPYN = json.loads((VECTORS / "opyn_naked_margin.json").read_text())
WEEK_SECONDS = 7 * 86_400


def document_of(rows: list[Row], **parameters: object) -> PresetDocument:
    document = PresetDocument(
        preset="example", version=1, summary="", source="", groups=(Group(name="rows", rows=tuple(rows)),),
        parameters=Parameters(**parameters),  # type: ignore[arg-type]
    )  # fmt: skip
    check_document(document)
    return document


# -- SPAN


def test_our_16_rows_give_the_published_array_of_a_future() -> None:
    """Printed to ten dollars."""
    printed, scan_range = WORKED["span"]["long_future"], 0.15
    price = WORKED["span"]["expected"]["long_future"] / scan_range
    case = Case(id="future", positions=Positions(perp_quantity=1.0), market=Market(spot=price, perp_price=price))
    found = evaluate(case, preset("span-scan"))
    assert list(found.scenario_pnl) == pytest.approx(printed, abs=5)
    assert found.risk == pytest.approx(WORKED["span"]["expected"]["long_future"], rel=1e-12)


def test_the_scan_of_the_published_risk_arrays() -> None:
    span = WORKED["span"]
    future, call = np.array(span["long_future"], float), np.array(span["long_dec410_call"], float)
    covered = future - call
    assert covered.tolist() == span["published_covered_write"]
    assert worst_loss([future]) == span["expected"]["long_future"]
    assert worst_loss([call]) == span["expected"]["long_call"]
    assert worst_loss([covered]) == span["expected"]["covered_write"]


# -- Dederi, Paradex


def test_dederi_future() -> None:
    given, expected = WORKED["dederi"]["input"], WORKED["dederi"]["expected"]
    seconds, index = given["days"] * 86_400, given["index"]
    forward = index * float(np.exp(given["annualised_basis"] * given["days"] / 365))
    assert forward == pytest.approx(expected["forward"], abs=0.06)
    rows = [Row(name=f"{shock:+.0%}", reason="shock", spot_multiplier=1 + shock) for shock in given["shocks"]]
    document = document_of(rows, add_ons=AddOnRule(roll_minimum=given["contingency_factor"]))
    future = Future(seconds_to_expiry=seconds, quantity=given["quantity"], price=forward)
    case = Case(id="dederi", positions=Positions(futures=(future,)), market=Market(spot=index))
    found = evaluate(case, document)
    assert list(found.scenario_pnl) == pytest.approx(expected["pnl"], abs=WORKED["dederi"]["tolerance"])
    assert list(found.scenario_pnl) == pytest.approx(WORKED["dederi"]["independent_check"]["pnl"], rel=1e-9, abs=1e-9)
    assert found.roll == pytest.approx(expected["contingency"], abs=0.05)


def test_another_venues_published_rows_are_a_document() -> None:
    """Paradex: 24 rows of (spot %, vol %, weight); the vol shocks are the document's ranges."""
    rows = [
        Row(name=f"{spot:+} {vol:+}", reason="published", spot_multiplier=1 + spot / 100,
            vol_shock="up" if vol > 0 else "down", weight=weight)
        for spot, vol, weight in PARADEX["scenarios"]
    ]  # fmt: skip
    vol = VolRule(
        range_up=0.40, range_down=0.22, short_term_power=0.30, long_term_power=0.13, dte_floor_days=1.0,
    )  # fmt: skip
    document = document_of(rows, vol=vol, margin=MarginRule(mm_loss_factor=0.5))
    market = Market(spot=100.0, perp_price=100.0)
    for size, worst in ((1.0, 16.0), (-1.0, 16.0)):
        found = evaluate(Case(id="perp", positions=Positions(perp_quantity=size), market=market), document)
        assert found.risk == pytest.approx(worst)
        assert found.maintenance_requirement == pytest.approx(0.5 * worst)
    option = Option(seconds_to_expiry=WEEK_SECONDS, strike=300.0, type="call", quantity=-1.0, mark_vol=0.6)
    expiry = Expiry(seconds_to_expiry=WEEK_SECONDS, forward=100.0)
    far = evaluate(Case(id="far", positions=Positions(options=(option,)), market=market, expiries=(expiry,)), document)
    assert far.binding == "rows: +500 +40"
    assert far.risk == pytest.approx(0.032 * 300.0, rel=1e-6)


# -- Opyn


@pytest.mark.parametrize(
    "vector", OPYN["cases"], ids=lambda v: f"{'put' if v['put'] else 'call'} x{v['amount']:g} {v['upper_bound']}"
)
def test_opyn_naked_margin(vector: dict) -> None:
    """A put's margin is USD; a call's is coins at the shocked price, so it is counted in coins here as well."""
    kind, spot, strike = "put" if vector["put"] else "call", vector["spot"], vector["strike"]
    base = preset("isolated")
    bounds = (TimeValueBound(days=7, bound=vector["upper_bound"]),)
    document = replace(
        base, numeraire="usd" if vector["put"] else "coin",
        parameters=replace(base.parameters, time_value_bounds=bounds),
    )  # fmt: skip
    option = Option(seconds_to_expiry=WEEK_SECONDS, strike=strike, type=kind, quantity=-vector["amount"], mark_vol=1.0)
    case = Case(
        id="opyn", positions=Positions(options=(option,)), market=Market(spot=spot),
        expiries=(Expiry(seconds_to_expiry=WEEK_SECONDS, forward=spot),),
    )  # fmt: skip
    margin = -evaluate(case, document).initial_margin_balance / (1.0 if vector["put"] else spot)
    assert margin == pytest.approx(vector["computed"], rel=1e-12)
    if vector["printed"] is not None:
        assert margin == pytest.approx(vector["printed"], abs=0.1)  # the tolerance of the upstream test
        assert margin == pytest.approx(vector["printed"], rel=2e-4)


def test_the_isolated_document_shocks_as_opyn_does() -> None:
    shocks = {row.scope: row.spot_multiplier for row in preset("isolated").groups[0].rows}
    assert shocks["put"] == OPYN["cases"][0]["spot_shock"]
    assert shocks["call"] == pytest.approx(1 / OPYN["cases"][0]["spot_shock"])
    bounds = {entry.days: entry.bound for entry in preset("isolated").parameters.time_value_bounds}
    assert {case["upper_bound"] for case in OPYN["cases"]} <= set(bounds.values())
