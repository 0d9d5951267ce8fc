"""Documents and cases of the margin presets: what is refused, by which field; and the kernels' decision agrees."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from kernels.decision import Margins, PlainTerms, decisions
from kernels.expected_shortfall import FAST
from kernels.layout import PnlTable
from oracles.presets.case import Case, CaseError, parse_cases
from oracles.presets.charges import maintenance_charges, short_option_minimum
from oracles.presets.document import (
    NAMES,
    DocumentError,
    VolRule,
    document_digest,
    parse_document,
    preset,
)
from oracles.presets.evaluate import evaluate
from oracles.presets.exact import TABLE_SLACK_UNITS, evaluate_exactly, outward, quantised_down
from oracles.presets.netting import Valued, valued
from schemas.risk_parameters import default_stress_rows
from streams.engine.margin import empty_margins

PORTFOLIOS = parse_cases(files("oracles.presets.documents").joinpath("portfolios.json").read_bytes())
LOT = 1e-3
CASE: dict[str, Any] = {
    "id": "a",
    "market": {"spot": 100.0, "perp_price": 100.0},
    "expiries": [{"seconds_to_expiry": 864_000, "forward": 101.0}],
    "positions": {
        "perp_quantity": 1.0,
        "options": [{"seconds_to_expiry": 864_000, "strike": 100.0, "type": "call", "quantity": -1.0, "mark_vol": 0.5}],
    },
}


def changed(value: Any, path: str, to: Any) -> Any:
    """A deep copy with one field set (or taken away: None)."""
    copy = json.loads(json.dumps(value))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at = copy
    for part in parents:
        at = at[part]
    if to is None:
        del at[last]
    else:
        at[last] = to
    return copy


# -- documents


@pytest.mark.parametrize("name", NAMES)
def test_every_document_is_whole(name: str) -> None:
    document = preset(name)
    assert document.preset == name
    assert document.source
    assert len(document.summary) <= 140
    for group in document.groups:
        assert len({row.name for row in group.rows}) == len(group.rows)
        assert all(row.reason for row in group.rows)
    assert parse_document(msgspec.json.encode(document)) == document


def test_a_digest_names_the_content() -> None:
    document = preset("stress")
    assert document_digest(document) == document_digest(parse_document(msgspec.json.encode(document)))
    assert document_digest(document) != document_digest(replace(document, version=2))


def test_the_stress_rows_are_those_of_the_engine() -> None:
    engine = [
        row
        for row in default_stress_rows()
        if row.scope == "all" and not (row.skew_e6 or row.funding_e6 or row.crowded)
    ]
    for name in ("stress", "es"):
        rows = preset(name).groups[-1].rows
        assert [row.name for row in rows] == [row.name for row in engine]
        for row, other in zip(rows, engine, strict=True):
            assert round((row.spot_multiplier - 1) * 1e6) == other.spot_move_e6
            assert round((row.vol_multiplier - 1) * 1e6) == other.volatility_move_e6
            assert round(row.rate_shift * 1e6) == other.rate_shift_e6
            assert round(row.weight * 1e6) == other.weight_e6


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(DocumentError, match="no preset 'span'; there are es, stress"):
        preset("span")


STRESS = json.loads(files("oracles.presets.documents").joinpath("stress.json").read_bytes())
ES = json.loads(files("oracles.presets.documents").joinpath("es.json").read_bytes())
ISOLATED = json.loads(files("oracles.presets.documents").joinpath("isolated.json").read_bytes())
PM2 = json.loads(files("oracles.presets.documents").joinpath("derive-pm2.json").read_bytes())


@pytest.mark.parametrize(
    ("document", "path", "to", "named"),
    [
        (STRESS, "version", 0, r"\$.version"),
        (STRESS, "groups.0.rows.3.spot_multiplier", 0, r"\$.groups\[0\].rows\[3\].spot_multiplier"),
        (STRESS, "groups.0.rows.3.reason", None, "missing required field `reason`"),
        (STRESS, "groups.0.rows.3.spot", 1.0, "unknown field `spot`"),
        (STRESS, "groups.0.rows.3.vol_shock", "up", r"groups\[0\].rows\[3\].vol_shock: up needs parameters.vol"),
        (STRESS, "groups.0.rows", [], r"groups\[0\]: give either rows or draw"),
        (STRESS, "groups.0.aggregation", "expected-shortfall", "come together"),
        (STRESS, "netting", "nothing", r"\$.netting"),
        (ES, "groups.0.draw.scenarios", 1000, "1000 is no power of two"),
        (ES, "netting", "position", "needs netting account"),
        (ISOLATED, "parameters.time_value_bounds", [], "time_value_bounds: repricing upper-bound needs them"),
        (ISOLATED, "parameters.time_value_bounds.0.days", 90, "days must rise"),
        (PM2, "parameters.margin.short_static_discount", None, "come together"),
        (PM2, "netting", "position", "parameters.basis"),
        (PM2, "parameters.vol", None, "needs parameters.vol"),
    ],
)
def test_a_bad_document_is_refused_by_field(document: dict, path: str, to: Any, named: str) -> None:
    with pytest.raises(DocumentError, match=named):
        parse_document(json.dumps(changed(document, path, to)).encode())


# -- cases


@pytest.mark.parametrize(
    ("path", "to", "named"),
    [
        ("market.spot", 0, r"\$.cases\[0\].market.spot"),
        ("market.spot", "high", r"\$.cases\[0\].market.spot"),
        ("market.spot", 1e300, r"\$.cases\[0\].market.spot"),
        ("positions.options.0.quantity", 1e13, r"options\[0\].quantity"),
        ("positions.cash", -1e13, r"positions.cash"),
        ("expiries.0.rate", 50, r"expiries\[0\].rate"),
        ("market.perp_price", None, "case a: market.perp_price: a perpetual is held"),
        ("market", None, "missing required field `market`"),
        ("positions.options.0.strike", -1, r"positions.options\[0\].strike"),
        ("positions.options.0.type", "straddle", r"positions.options\[0\].type"),
        ("positions.options.0.mark_vol", 1e6, "mark_vol"),
        ("positions.options.0.mark_vol", None, r"case a: positions.options\[0\].mark_vol is missing"),
        ("positions.options.0.seconds_to_expiry", 1, "1 is not among the expiries"),
        ("positions.collateral", [{"name": "X", "quantity": -1, "price": 1}], r"collateral\[0\].quantity"),
        ("scenarios", [{"spot_multiplier": 1, "vol_shock": "sideways"}], r"scenarios\[0\].vol_shock"),
        ("parameters", {"vol": {}}, "parameters"),
    ],
)
def test_a_bad_case_is_refused_by_field(path: str, to: Any, named: str) -> None:
    with pytest.raises(CaseError, match=named):
        parse_cases(json.dumps({"cases": [changed(CASE, path, to)]}).encode())


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"", "truncated"),
        (b"{}", "cases"),
        (b'{"cases": []}', "cases"),
        (json.dumps({"cases": [CASE, CASE]}).encode(), "id stands twice"),
        (json.dumps({"cases": [changed(CASE, "expiries", CASE["expiries"] * 2)]}).encode(), "stands twice"),
        (json.dumps({"cases": [CASE]}).replace("101.0", "1e999").encode(), "forward"),
    ],
)
def test_a_bad_file_is_refused(raw: bytes, named: str) -> None:
    with pytest.raises(CaseError, match=named):
        parse_cases(raw)


def test_an_account_of_cash_alone_asks_nothing() -> None:
    (case,) = parse_cases(b'{"cases": [{"id": "cash", "positions": {"cash": 5}, "market": {"spot": 1}}]}')
    for name in NAMES:
        found = evaluate(case, preset(name))
        assert (found.initial_margin_balance, found.maintenance_margin_balance) == (5.0, 5.0)
        assert evaluate_exactly(case, preset(name)).initial_margin_balance_usd6 in (4_999_999, 5_000_000)


@pytest.mark.parametrize("rule", [evaluate, evaluate_exactly])
def test_what_has_no_finite_value_is_refused(rule: Any) -> None:
    (case,) = parse_cases(json.dumps({"cases": [CASE]}).encode())
    greeks = preset("greeks")
    rows = tuple(replace(row, vol_shock="up") for row in greeks.groups[1].rows)
    vol = VolRule(range_up=1e300, range_down=0, short_term_power=400, long_term_power=0, dte_floor_days=1)
    document = replace(
        greeks,
        groups=(greeks.groups[0], replace(greeks.groups[1], rows=rows)),
        parameters=replace(greeks.parameters, vol=vol),
    )
    with pytest.raises(CaseError, match=r"case a: positions.options\[0\] has no finite value in row 'vol \+25 %'"):
        rule(case, document)


def test_only_some_presets_take_a_cases_own_rules() -> None:
    bare = parse_cases(json.dumps({"cases": [CASE]}).encode())[0]
    rows = [{"spot_multiplier": 1.5, "vol_shock": "up"}]
    own = parse_cases(json.dumps({"cases": [{**CASE, "scenarios": rows}]}).encode())[0]
    assert evaluate(own, preset("stress")) == evaluate(bare, preset("stress"))
    assert len(evaluate(own, preset("derive-pm2")).scenario_pnl) == 1


# -- the kernels' decision


@pytest.mark.parametrize("case", PORTFOLIOS, ids=lambda case: case.id)
def test_the_decision_kernel_asks_what_the_integer_path_asks(case: Case) -> None:
    """`es` again by `kernels.decision`: the quantised table, and one leg more that pays what shorts were rounded down.

    The kernel's rows are of lots of 1e-3, the path's of units: they differ by a few table units a lot.
    """
    drawn, written = preset("es").groups
    assert drawn.draw is not None
    smaller = replace(drawn, draw=replace(drawn.draw, scenarios=512))
    document = replace(preset("es"), groups=(smaller, written))
    held = replace(case, positions=replace(case.positions, options=case.positions.options[:20]))
    found, twin, exact = valued(held, document), evaluate(held, document), evaluate_exactly(held, document)
    lots, margins = decided(found)
    slack_usd9 = 4 * int(np.abs(lots).sum()) + 1_000
    charges_usd9 = sum(charge.usd for charge in maintenance_charges(held, found.options, found.parameters)) * 1e9
    assert int(margins.maintenance_margin_usd6[0]) * 1_000 == pytest.approx(
        exact.risk_usd9 + charges_usd9, abs=slack_usd9
    )
    shortfall_usd9 = int(margins.es_usd9[0])
    assert 0 <= shortfall_usd9 - twin.risks["expected shortfall"] * 1e9 <= 3 * slack_usd9
    assert document.groups[1].rows[int(margins.stress_row[0])].name in twin.binding or "minimum" in twin.binding


def decided(found: Valued) -> tuple[np.ndarray, Margins]:
    """(lots, what `kernels.decision.decisions` makes of the account)."""
    (drawn, sets), (written, _) = found.groups
    legs = [leg for expiry in sets[0].expiries for leg in expiry.legs]
    quantities = [leg.option.quantity for leg in legs] + [leg.quantity for leg in sets[0].linear]
    lots = np.array([round(quantity / LOT) for quantity in quantities], np.int64)
    pnl = quantised_down(unit_pnl(found, 0) * LOT)
    paid = sum(-int(q) * TABLE_SLACK_UNITS << int(e) for q, e in zip(lots, pnl.exponent, strict=True) if q < 0)
    low, high = outward(unit_pnl(found, 1) * LOT)
    stress = np.where(lots[:, None] >= 0, low, high).astype(np.int64)
    stress = np.vstack([stress, np.zeros((1, stress.shape[1]), np.int64)])
    none, one = np.zeros(len(lots) + 1, np.int64), np.zeros(1, np.int64)
    table = PnlTable(
        np.vstack([pnl.values, np.full((1, pnl.values.shape[1]), -1, np.int32)]), np.append(pnl.exponent, np.int8(0)),
        none, none, np.append(np.abs(pnl.values.astype(np.int64)).max(axis=1), 1),
    )  # fmt: skip
    charged = [
        np.array([math.ceil(sum(charge.usd for charge in charges) * 1e9)])
        for charges in (
            short_option_minimum(found.case, found.options, found.parameters),
            maintenance_charges(found.case, found.options, found.parameters),
        )
    ]
    margins, status = empty_margins(1), np.zeros(1, np.int8)
    decisions(
        np.array([0, len(lots) + 1]), np.arange(len(lots) + 1, dtype=np.int32), np.append(lots, paid), np.array([0]),
        table, drawn.shocks.probability, drawn.shocks.tail_mass, stress,
        np.rint(written.shocks.weight * 1e6).astype(np.int64), PlainTerms(one, one, *charged), 1_250_000,
        np.zeros(1, np.bool_), 0, margins, status,
    )  # fmt: skip
    assert status[0] == FAST
    return lots, margins


def unit_pnl(found: Valued, group: int) -> np.ndarray:
    """P&L of one unit of every leg in every row of a group, USD [L,S]: options by expiry, then linear legs."""
    rows, (netted,) = found.groups[group]
    options = [
        values - leg.value for expiry in netted.expiries for leg, values in zip(expiry.legs, expiry.values, strict=True)
    ]
    return np.array(options + [leg.price * (rows.shocks.spot_multiplier - 1.0) for leg in netted.linear])
