"""Explanations of portfolios whose story is known, against sums written out."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from engine_worlds import EXPIRY_MS, option_name
from msgspec.structs import replace
from portfolio_worlds import account_of, market_and_tables

from schemas.catalogue import Catalogue
from streams.engine.book import Book
from streams.engine.explain import Explanation, explain
from streams.engine.output import Fault

USD6 = 1_000_000
CALL, PUT, HIGH = option_name(100, "call"), option_name(100, "put"), option_name(120, "call")


def account(catalogue: Catalogue, lots: dict[str, int], cash_usd6: int = 0, entry_usd6: int = 0) -> Book:
    return account_of(catalogue, {catalogue.instrument_index[n]: q for n, q in lots.items()}, cash_usd6, entry_usd6)


def explained(lots: dict[str, int], stressed: bool = True, **parameters: int) -> Explanation:
    catalogue, tables, p = market_and_tables(stressed)
    return explain(account(catalogue, lots), catalogue, tables, replace(p, **parameters))


def rows(told: Explanation) -> dict[str, int]:
    return {row.name: row.maintenance_usd6 for row in told.contributions}


def test_shortfall_contributions_are_tail_weighted_losses() -> None:
    """Each row against the definition in fractions; the hedge contributes less than nothing."""
    catalogue, tables, p = market_and_tables(stressed=False)
    lots = {"X-PERP": 1_000, CALL: -900, "Y-PERP": 500}
    told = explain(account(catalogue, lots), catalogue, tables, p)
    assert told.assessment.margin.binding == "expected_shortfall"
    for name, held in lots.items():
        i = catalogue.instrument_index[name]
        value = [int(v) << int(tables.pnl.exponent[i]) for v in tables.pnl.values[i]]
        mean = Fraction(sum(row.weight * -held * value[row.scenario] for row in told.tail), told.tail_mass)
        assert rows(told)[name] == round(mean / 1_000), name
    assert rows(told)[CALL] < 0 < rows(told)["X-PERP"]
    for row in told.contributions[:3]:
        assert row.initial_usd6 == pytest.approx(1.25 * row.maintenance_usd6, abs=1)


def test_stress_contributions_are_weighted_losses_of_the_worst_row() -> None:
    catalogue, tables, p = market_and_tables()
    told = explained({"X-PERP": 1_000, HIGH: -5_000})
    assert told.assessment.margin.binding == "stress"
    assert told.stress is not None
    assert told.stress.name == told.assessment.margin.stress
    (row,) = [n for n, stress in enumerate(p.stress_rows) if stress.name == told.stress.name]
    for name, held in (("X-PERP", 1_000), (HIGH, -5_000)):
        loss = -held * int(tables.stress[catalogue.instrument_index[name], row])
        assert rows(told)[name] == round(Fraction(loss * told.stress.weight_e6, 10**9))
    weighted = told.stress.loss_usd6 * told.stress.weight_e6 / USD6
    assert told.assessment.margin.stress_loss_usd6 == pytest.approx(weighted, abs=2)


def test_short_option_minimum_is_told_by_expiry() -> None:
    """10 units net short at 100: at a ratio of 1 the minimum is the notional, in one row."""
    told = explained({CALL: -1_500, PUT: 500}, short_option_minimum_e6=1_000_000)
    assert told.assessment.margin.binding == "short_option_minimum"
    assert [row.kind for row in told.contributions] == ["expiry", "add_on", "rounding"]
    assert rows(told)[f"X {EXPIRY_MS}"] == 1_000 * USD6


def test_a_degraded_surface_has_a_row_of_its_own() -> None:
    """1,500 lots times the add-on of a lot; the rows still sum to the margin."""
    catalogue, tables, p = market_and_tables()
    degraded = np.zeros(len(tables.option_expiry), np.int64)
    degraded[catalogue.instrument_index[CALL]] = 7_000_001
    told = explain(
        account(catalogue, {CALL: -1_500, PUT: 500}), catalogue, dataclasses.replace(tables, degraded_usd9=degraded), p
    )
    assert rows(told)["degraded oracle"] == -(-1_500 * 7_000_001 // 1_000)
    assert sum(rows(told).values()) == told.assessment.margin.maintenance_margin_usd6
    plain = explain(account(catalogue, {CALL: -1_500, PUT: 500}), catalogue, tables, p)
    rise = told.assessment.margin.initial_margin_usd6 - plain.assessment.margin.initial_margin_usd6
    assert rise == pytest.approx(1_500 * 7_000.001, abs=1)


def test_collateral_has_its_share_and_its_haircut() -> None:
    told = explained({"X": 1_000, CALL: -1_000})
    assert told.collateral_maintenance_usd6 == rows(told)["X"]
    holdings = {row.name: row for row in told.holdings}
    assert holdings["X"].equity_usd6 == 1_000 * USD6
    assert holdings["X"].nlv_usd6 == 900 * USD6
    assert holdings[CALL].equity_usd6 == holdings[CALL].nlv_usd6 < 0


def test_cash_and_profit_since_entry_make_up_equity() -> None:
    """Ten units at 100, entered at 900 in all: 100 of profit."""
    catalogue, tables, p = market_and_tables()
    told = explain(account(catalogue, {"X-PERP": 1_000}, 50 * USD6, 900 * USD6), catalogue, tables, p)
    assert [(row.kind, row.equity_usd6) for row in told.holdings] == [
        ("cash", 50 * USD6), ("perpetual", 100 * USD6), ("rounding", 0),
    ]  # fmt: skip
    assert told.assessment.margin.equity_usd6 == 150 * USD6


def test_tail_scenarios_say_what_happens_to_what_is_held() -> None:
    catalogue, tables, _ = market_and_tables()
    told = explained({"X-PERP": 1_000, CALL: 1})
    worst = told.tail[0]
    x = catalogue.underlying_index["X"]
    assert worst.spot_log_return == {"X": tables.scenarios.spot_log_return[x, worst.scenario]}
    assert worst.spot_log_return["X"] < 0 < worst.loss_usd6
    assert worst.volatility_log == {"X": tables.scenarios.level_log[0, worst.scenario]}
    assert worst.surface["X"].keys() == {"skew", "rate"}


def test_tail_scenarios_say_every_factor_of_the_surface() -> None:
    catalogue, tables, p = market_and_tables(shaped=True)
    told = explain(account(catalogue, {"X-PERP": 1_000, CALL: -1}), catalogue, tables, p)
    moves, s = told.tail[0].surface["X"], told.tail[0].scenario
    for kind in ("skew", "curvature", "term"):
        assert moves[kind] == getattr(tables.scenarios, kind)[0, s] != 0.0
    assert moves["rate"] == tables.scenarios.rate_shift[0, s]


def test_nothing_held_is_nothing_asked() -> None:
    told = explained({})
    assert rows(told) == {"charge on gross notional": 0, "rounding, against the account": 0}
    assert (told.tail, told.stress, told.one_more_lot) == ((), None, ())


def test_any_instrument_may_be_asked_for() -> None:
    catalogue, tables, p = market_and_tables()
    also = catalogue.instrument_index["Y-PERP"]
    told = explain(account(catalogue, {"X-PERP": 1_000}), catalogue, tables, p, [also])
    more = {row.instrument: row for row in told.one_more_lot}
    assert (more["X-PERP"].held_lots, more["Y-PERP"].held_lots) == (1_000, 0)
    assert more["X-PERP"].maintenance_long_usd6 > 0 > more["X-PERP"].maintenance_short_usd6


def test_an_explanation_is_plain_json() -> None:
    told = explained({"X-PERP": 1_000, "X": 5, CALL: -7})
    assert msgspec.json.decode(msgspec.json.encode(told), type=Explanation) == told


def test_what_cannot_be_priced_is_a_fault() -> None:
    catalogue, tables, p = market_and_tables.__wrapped__()  # tables of its own
    tables.pnl.exponent[0] = -1
    with pytest.raises(Fault, match="cannot be priced"):
        explain(account(catalogue, {"X-PERP": 1}), catalogue, tables, p)
