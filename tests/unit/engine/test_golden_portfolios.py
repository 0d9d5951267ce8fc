"""Portfolio margin of the portfolios the field always names, with isolated margin beside it."""

from __future__ import annotations

import json

import pytest
from golden_portfolios import CALL, GOLDEN, PORTFOLIOS, PUT, SCENARIOS, legs_of, margined
from portfolio_worlds import market_and_tables

USD6 = 1_000_000


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, int]]:
    return margined()


def test_terms_are_the_golden_numbers(found: dict[str, dict[str, int]]) -> None:
    """Within 1e-6: the last units may move with a better approximation of a price."""
    golden = json.loads(GOLDEN.read_text())
    assert found.keys() == golden.keys()
    for name, terms in golden.items():
        for term, value in terms.items():
            assert found[name][term] == pytest.approx(value, rel=1e-6, abs=2), (name, term)


@pytest.mark.parametrize("name", PORTFOLIOS)
def test_portfolio_margin_is_at_most_isolated_margin(name: str, found: dict[str, dict[str, int]]) -> None:
    """Every term is subadditive; each leg alone rounds up once more."""
    assert found[name]["maintenance_margin_usd6"] <= found[name]["isolated_maintenance_usd6"]


def test_synthetic_forward_is_margined_as_one(found: dict[str, dict[str, int]]) -> None:
    """Long call + short put of a strike is the future of 10 units at 100: 15 % of 40 % of 1,000 USD, the same ES."""
    future = found["long future"]
    long, short = found["long call, short put, one strike"], found["long put, short call, one strike"]
    assert long["stress_loss_usd6"] == pytest.approx(60 * USD6, rel=2e-3)
    assert short["stress_loss_usd6"] == pytest.approx(60 * USD6, rel=2e-3)
    assert long["expected_shortfall_usd6"] == pytest.approx(future["expected_shortfall_usd6"], rel=1e-3)
    assert long["short_option_minimum_usd6"] == short["short_option_minimum_usd6"] == 0
    for terms in (long, short):
        assert terms["maintenance_margin_usd6"] < 0.95 * terms["isolated_maintenance_usd6"]


def test_near_zero_delta_book_and_isolated_margin(found: dict[str, dict[str, int]]) -> None:
    """The short straddle still bears gamma and volatility: far from nothing, far below isolated; the minimum counts."""
    short = found["short straddle hedged with the perpetual"]
    long = found["long straddle hedged with the perpetual"]
    assert short["short_option_minimum_usd6"] == 20 * USD6
    assert long["short_option_minimum_usd6"] == 0
    assert short["maintenance_margin_usd6"] > long["maintenance_margin_usd6"] > 0
    assert short["maintenance_margin_usd6"] < 0.8 * short["isolated_maintenance_usd6"]


def test_boxes_and_conversions_have_next_to_no_shortfall(found: dict[str, dict[str, int]]) -> None:
    """Their payoff is a constant: what is left is rounding and the rate, below a cent on 1,000 USD a leg; with the
    charge on gross notional they still need a margin."""
    for name in ("long box", "short box", "conversion: long future, long put, short call",
                 "reversal: short future, short put, long call"):  # fmt: skip
        terms = found[name]
        assert abs(terms["expected_shortfall_usd6"]) < 0.5 * USD6, name
        assert terms["maintenance_margin_usd6"] >= terms["add_ons_usd6"] > 0
        assert terms["maintenance_margin_usd6"] < 0.2 * terms["isolated_maintenance_usd6"]


def test_parity_of_marks() -> None:
    """Call - put = forward - strike at the tables' own marks, to their rounding: the market of the golden numbers."""
    catalogue, tables, _ = market_and_tables(scenarios=SCENARIOS)
    legs = legs_of(catalogue, [{CALL: 1, PUT: -1}])
    value = (tables.columns_usd9[0, legs.leg_instrument] * legs.leg_lots).sum()
    assert abs(int(value)) <= 2
