"""The integer path of every preset: never above the float twin, and within its stated bound of it; and other laws.

The twin is compared as an exact fraction: no tolerance hides a balance that is too high.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from oracles.presets.case import Case, Collateral, Expiry, Future, Market, Option, Positions, check_case
from oracles.presets.document import NAMES, PresetDocument, preset
from oracles.presets.evaluate import evaluate
from oracles.presets.exact import evaluate_exactly

SPOT = 60_000.0
SECONDS = (0, 600, 3_000, 7 * 86_400, 30 * 86_400, 400 * 86_400)
quantities = st.one_of(
    st.integers(-50, 50).map(float), st.floats(-500, 500, allow_nan=False).map(lambda q: round(q, 9))
)
options = st.builds(
    Option,
    seconds_to_expiry=st.sampled_from(SECONDS),
    strike=st.integers(5, 300).map(lambda thousands: thousands * 1_000.0),
    type=st.sampled_from(["call", "put"]),
    quantity=quantities,
    mark_vol=st.floats(0.0, 3.0),
)
coins = st.builds(
    Collateral,
    name=st.just("BTC"),
    quantity=st.floats(0, 100).map(lambda q: round(q, 8)),
    price=st.just(SPOT),
    confidence=st.floats(0, 1),
    offsets_risk=st.booleans(),
    mm_haircut=st.floats(0, 1),
    im_extra_haircut=st.floats(0, 1),
)
futures = st.builds(
    Future,
    seconds_to_expiry=st.sampled_from(SECONDS),
    quantity=quantities,
    price=st.floats(55_000, 65_000),
    unrealised_pnl=st.floats(-1e5, 1e5),
)
positions = st.builds(
    Positions,
    cash=st.floats(-1e6, 1e6),
    perp_quantity=quantities,
    perp_unrealised_pnl=st.floats(-1e5, 1e5),
    options=st.lists(options, max_size=6).map(tuple),
    futures=st.lists(futures, max_size=2).map(tuple),
    collateral=st.lists(coins, max_size=2).map(tuple),
    other_initial_margin=st.floats(0, 1e4),
)
markets = st.builds(
    Market,
    spot=st.just(SPOT),
    spot_confidence=st.floats(0, 1),
    stable_price=st.floats(0.9, 1.1),
    perp_price=st.floats(55_000, 65_000),
    perp_confidence=st.floats(0, 1),
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    expiries = tuple(
        Expiry(seconds_to_expiry=seconds, forward=draw(st.floats(50_000, 75_000)), rate=draw(st.floats(-0.2, 0.4)))
        for seconds in SECONDS
    )
    case = Case(id="drawn", positions=draw(positions), market=draw(markets), expiries=expiries)
    check_case(case)
    return case


def small(document: PresetDocument) -> PresetDocument:
    """The same rules; drawn groups of 256 rows are enough for a law and much faster."""
    groups = [replace(g, draw=replace(g.draw, scenarios=256)) if g.draw is not None else g for g in document.groups]
    return replace(document, groups=tuple(groups))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_integers_are_never_above_the_twin_and_within_the_bound(name: str, case: Case) -> None:
    document = small(preset(name))
    found, exact = evaluate(case, document), evaluate_exactly(case, document)
    for twin, integer in (
        (found.initial_margin_balance, exact.initial_margin_balance_usd6),
        (found.maintenance_margin_balance, exact.maintenance_margin_balance_usd6),
    ):
        gap_usd6 = Fraction(twin) * 1_000_000 - integer
        assert 0 <= gap_usd6 <= exact.bound_usd6


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(case=cases(), cash=st.floats(-1e6, 1e6))
def test_cash_moves_balances_one_for_one(name: str, case: Case, cash: float) -> None:
    document = small(preset(name))
    moved = replace(case, positions=replace(case.positions, cash=case.positions.cash + cash))
    before, after = evaluate(case, document), evaluate(moved, document)
    assert after.initial_requirement == pytest.approx(before.initial_requirement, rel=1e-12, abs=1e-6)
    assert after.initial_margin_balance - before.initial_margin_balance == pytest.approx(cash, rel=1e-9, abs=1e-3)


@pytest.mark.parametrize("name", ["es", "stress", "span-scan", "derive-pm2"])
@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_maintenance_is_at_most_initial(name: str, case: Case) -> None:
    found = evaluate(case, small(preset(name)))
    assert found.maintenance_margin_balance >= found.initial_margin_balance
    assert min(found.risks.values()) >= 0


@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_netting_never_asks_more_than_positions_alone(case: Case) -> None:
    """Under the same rows: worst of a sum is at most the sum of the worst."""
    alone = replace(preset("stress"), netting="position")
    assert evaluate(case, preset("stress")).risks["stress"] <= evaluate(case, alone).risks["stress"] * (1 + 1e-9) + 1e-6
