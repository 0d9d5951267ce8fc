"""kernels.reprice against a plain twin in Python floats and integers, row subsets, limits, change bounds."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_worlds import World, small_world
from numba import njit

from kernels import reprice
from kernels.layout import CALL, FUTURE, INVALID_EXPONENT, INVALID_USD9, PUT, SPOT, PnlTable, empty_pnl_table
from kernels.option_rows import SKEW_MULTIPLIER_MINIMUM, expiry_loadings, shocked_stddev


def twin_option(forward: float, strike: float, stddev: float, discount: float, is_call: bool) -> float:
    sign = 1.0 if is_call else -1.0
    if stddev <= 0.0:
        return discount * max(sign * (forward - strike), 0.0)
    d1 = math.log(forward / strike) / stddev + stddev / 2
    first, second = (0.5 * math.erfc(-sign * d / math.sqrt(2)) for d in (d1, d1 - stddev))
    return discount * sign * (forward * first - strike * second)


def twin_price(world: World, i: int, s: int | None) -> float:
    """Price of instrument i in scenario s, or today for None, from the formulas of the module's docstring."""
    instruments, market, scenarios = world
    if not instruments.alive[i]:
        return 0.0
    kind, u, e = int(instruments.kind[i]), int(instruments.underlying[i]), int(instruments.expiry[i])
    x = 0.0 if s is None else float(scenarios.spot_log_return[u, s])
    if kind < FUTURE:
        return float(market.spot[u]) * math.exp(x)
    forward = float(market.forward[e]) * math.exp(x)
    if kind == FUTURE:
        return forward
    o = int(scenarios.option_row[u])
    level, skew, shift = (
        (float(factor[o, s]) if s is not None and o >= 0 else 0.0)
        for factor in (scenarios.level_log, scenarios.skew, scenarios.rate_shift)
    )
    years = float(market.years[e])
    remaining = years if s is None else max(years - scenarios.horizon_years, 0.0)
    strike = float(instruments.strike[i])
    k = math.log(strike / forward)
    a, b, rho, m, sigma = market.svi[e].tolist()
    w = max(a + b * (rho * (k - m) + math.hypot(k - m, sigma)), 1e-12)
    stddev = 0.0
    if years > 0.0:
        c, term = min(max(k, -1.0), 1.0), 0.0
        curvature = 0.0
        if s is not None and o >= 0 and scenarios.curvature.size:
            root = min(math.sqrt(30 / 365 / years), 3.0)
            c *= root if root > 1 else root**2
            curvature, term = float(scenarios.curvature[o, s]), float(scenarios.term[o, s]) * (1 - root)
        smile, level = max(0.1, 1.0 + skew * c + curvature * c * c), level + term
        stddev = math.sqrt(w / years) * math.exp(level) * smile * math.sqrt(remaining)
    return twin_option(forward, strike, stddev, math.exp(-(market.rate[e] + shift) * remaining), kind == CALL)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "shaped"])
def world(request: pytest.FixtureRequest) -> World:
    return small_world(shaped=request.param)


def table_of(world: World) -> PnlTable:
    out = empty_pnl_table(len(world.instruments.kind), len(world.scenarios.weights))
    assert reprice.pnl_table(*world, out) == 0
    return out


@pytest.fixture(scope="module")
def table(world: World) -> PnlTable:
    return table_of(world)


def bytes_of(table: PnlTable) -> list[bytes]:
    return [column.tobytes() for column in table]


def test_a_set_without_curvature_and_term_has_the_bits_it_had_before_there_were_any() -> None:
    """The digest is that of the code before; recorded logs are replayed to their bytes."""
    found = hashlib.blake2b(b"".join(bytes_of(table_of(small_world()))), digest_size=16).hexdigest()
    assert found == "482bfdafbcaf8f5549228a4e114f708b"


def test_shape_factors_of_zero_change_no_bit() -> None:
    plain = small_world()
    zero = np.zeros_like(plain.scenarios.skew)
    flat = plain._replace(scenarios=plain.scenarios._replace(skew=zero))
    shaped = flat._replace(scenarios=flat.scenarios._replace(curvature=zero, term=zero))
    assert bytes_of(table_of(shaped)) == bytes_of(table_of(flat))
    at_thirty_days = plain.market._replace(years=np.array([30 / 365, 30 / 365, *plain.market.years[2:]]))
    with_skew = plain._replace(market=at_thirty_days)
    shaped = with_skew._replace(scenarios=with_skew.scenarios._replace(curvature=zero, term=zero))
    assert bytes_of(table_of(shaped)) == bytes_of(table_of(with_skew)), "where factors are stated, loadings are 1"


def test_call_less_put_is_the_forward_in_every_scenario(world: World, table: PnlTable) -> None:
    instruments, market, scenarios = world
    price = reprice.price_now(instruments, market)
    for call in np.flatnonzero((instruments.kind == CALL) & instruments.alive).tolist():
        put, e, u = call + 1, instruments.expiry[call], instruments.underlying[call]
        if not instruments.alive[put]:
            continue
        assert (instruments.kind[put], instruments.strike[put]) == (PUT, instruments.strike[call])
        o, remaining = int(scenarios.option_row[u]), max(float(market.years[e] - scenarios.horizon_years), 0.0)
        rate = market.rate[e] + (scenarios.rate_shift[o] if o >= 0 else 0.0)
        moved = market.forward[e] * np.exp(scenarios.spot_log_return[u]) - instruments.strike[call]
        expected = (np.exp(-rate * remaining) * moved - (price[call] - price[put])) * instruments.lot_size[call] * 1e9
        values = [table.values[i] * 2.0 ** table.exponent[i] for i in (call, put)]
        slack = 0.51 * (2.0 ** table.exponent[call] + 2.0 ** table.exponent[put])
        slack += 1e-14 * float(market.forward[e]) * 1e9 * 100
        np.testing.assert_allclose(values[0] - values[1], expected, rtol=0, atol=slack)


@njit
def _scalars(w: float, k: float, skew: float, curvature: float, multiplier: float, years: float):  # type: ignore[no-untyped-def]
    term, smile = expiry_loadings(years)
    return term, smile, shocked_stddev(w, k, skew * smile, curvature * smile * smile, multiplier)


@settings(deadline=None, max_examples=300)
@given(
    st.floats(0.0, 1e6), st.floats(-1e3, 1e3) | st.just(math.inf) | st.just(-math.inf), st.floats(-1.0, 1.0),
    st.floats(-2.0, 2.0), st.floats(0.0, 1e4), st.floats(1e-12, 1e3),
)  # fmt: skip
def test_no_factors_within_their_limits_make_a_volatility_negative_or_none(
    w: float, k: float, skew: float, curvature: float, multiplier: float, years: float
) -> None:
    term, smile, stddev = _scalars(w, k, skew, curvature, multiplier, years)
    assert -2.0 <= term <= 1.0
    assert 0.0 <= smile <= 3.0
    lowest, highest = SKEW_MULTIPLIER_MINIMUM, 1.0 + 3.0 + 2.0 * 9.0
    plain = math.sqrt(w) * multiplier
    assert lowest * plain * (1 - 1e-12) <= stddev <= highest * plain * (1 + 1e-12)


def test_loadings_are_stated_at_thirty_days_and_bounded() -> None:
    assert _scalars(1.0, 0.0, 0.0, 0.0, 1.0, 30 / 365)[:2] == (0.0, 1.0)
    assert _scalars(1.0, 0.0, 0.0, 0.0, 1.0, 120 / 365)[:2] == pytest.approx((0.5, 0.25))
    assert _scalars(1.0, 0.0, 0.0, 0.0, 1.0, 7.5 / 365)[:2] == pytest.approx((-1.0, 2.0))
    assert _scalars(1.0, 0.0, 0.0, 0.0, 1.0, 1e-9)[:2] == (-2.0, 3.0)


def test_prices_and_marks_equal_the_twin(world: World) -> None:
    price = reprice.price_now(world.instruments, world.market)
    mark, collateral = reprice.marks(world.instruments, world.market)
    for i in range(len(price)):
        expected = twin_price(world, i, None)
        assert price[i] == pytest.approx(expected, rel=1e-11, abs=1e-9)
        assert mark[i] == pytest.approx(expected * world.instruments.lot_size[i] * 1e9, rel=1e-11, abs=2)
        factor = 0.9 if world.instruments.kind[i] == SPOT else 1.0
        assert collateral[i] == pytest.approx(mark[i] * factor, abs=1)


def test_every_scenario_of_every_row_equals_the_twin(world: World, table: PnlTable) -> None:
    for i in range(table.values.shape[0]):
        scale = float(world.instruments.lot_size[i] * world.instruments.factor[i]) * 1e9
        now = twin_price(world, i, None)
        slack = 1e-10 * max(now, float(world.market.spot[world.instruments.underlying[i]])) * scale
        for s in range(table.values.shape[1]):
            expected = (twin_price(world, i, s) - now) * scale
            assert int(table.values[i, s]) << int(table.exponent[i]) == pytest.approx(
                expected, abs=slack + 0.51 * 2.0 ** table.exponent[i]
            ), (i, s)


def test_the_exponent_is_the_smallest_that_fits(table: PnlTable) -> None:
    largest = np.abs(table.values.astype(np.int64)).max(axis=1)
    assert (largest < 2**31).all()
    assert (largest[table.exponent > 0] >= 2**30 - 1).all()
    assert table.exponent.max() > 0
    assert (table.exponent == 0).any()


def test_row_columns_are_the_extremes_of_the_row(table: PnlTable) -> None:
    full = table.values.astype(np.int64) << table.exponent.astype(np.int64)[:, None]
    assert (table.minimum_usd9 == full.min(axis=1)).all()
    assert (table.maximum_usd9 == full.max(axis=1)).all()
    assert (table.absolute_maximum == np.abs(table.values.astype(np.int64)).max(axis=1)).all()


def test_dead_rows_are_zero(world: World, table: PnlTable) -> None:
    dead = ~world.instruments.alive
    assert dead.any()
    assert (table.values[dead] == 0).all()
    assert (reprice.marks(world.instruments, world.market)[0][dead] == 0).all()


def test_a_subset_of_rows_gives_the_same_bytes_and_touches_no_other(world: World, table: PnlTable) -> None:
    rows = np.array([31, 2, 12, 8, 38], np.int64)
    out = empty_pnl_table(*table.values.shape)
    reprice.pnl_table(*world, out, rows)
    for part, whole in zip(out, table):
        assert part[rows].tobytes() == whole[rows].tobytes()
        assert (np.delete(part, rows, axis=0) == 0).all()


def test_expired_options_are_worth_their_payoff(world: World) -> None:
    price = reprice.price_now(world.instruments, world.market)
    expired = (world.instruments.expiry == 3) & world.instruments.alive
    sign = np.where(world.instruments.kind[expired] == CALL, 1.0, -1.0)
    payoff = np.maximum(sign * (world.market.forward[3] - world.instruments.strike[expired]), 0.0)
    assert price[expired].tolist() == payoff.tolist()


def test_an_unusable_market_makes_invalid_rows_and_marks(world: World) -> None:
    spot = world.market.spot.copy()
    spot[2] = np.nan
    broken = world._replace(market=world.market._replace(spot=spot))
    out = empty_pnl_table(len(world.instruments.kind), len(world.scenarios.weights))
    out.values[:] = 7
    assert reprice.pnl_table(*broken, out) == 2  # the coin and its perpetual
    invalid = np.flatnonzero(out.exponent == INVALID_EXPONENT)
    assert world.instruments.underlying[invalid].tolist() == [2, 2]
    assert (out.values[invalid] == 0).all()
    assert (reprice.marks(broken.instruments, broken.market)[0][invalid] == INVALID_USD9).all()


def test_a_lot_above_the_largest_exponent_is_invalid(world: World) -> None:
    lot_size = world.instruments.lot_size.copy()
    lot_size[0] = 1e9
    huge = world._replace(instruments=world.instruments._replace(lot_size=lot_size))
    out = empty_pnl_table(len(lot_size), len(world.scenarios.weights))
    assert reprice.pnl_table(*huge, out) == 1
    assert out.exponent[0] == INVALID_EXPONENT


def test_change_bounds_are_the_exact_extremes_across_exponents(world: World, table: PnlTable) -> None:
    moved = world._replace(market=world.market._replace(spot=world.market.spot * 1.7, forward=world.market.forward * 2))
    new = empty_pnl_table(*table.values.shape)
    reprice.pnl_table(*moved, new)
    assert (new.exponent != table.exponent).any()
    rows = np.array([5, 0, 14, 22], np.int64)
    low, high = reprice.pnl_change_bounds(new, table, rows)
    for j, i in enumerate(rows.tolist()):
        change = [
            (int(v) << int(new.exponent[i])) - (int(w) << int(table.exponent[i]))
            for v, w in zip(new.values[i], table.values[i])
        ]
        assert (low[j], high[j]) == (min(change), max(change))


def test_change_bounds_of_an_invalid_row_bound_nothing(table: PnlTable) -> None:
    exponent = table.exponent.copy()
    exponent[4] = INVALID_EXPONENT
    low, high = reprice.pnl_change_bounds(table._replace(exponent=exponent), table)
    assert (low[4], high[4]) == (-(2**62), 2**62)
    assert (np.delete(low, 4) == 0).all()


def test_rounding_is_half_to_even() -> None:
    out = empty_pnl_table(1, 6)
    reprice._quantise(np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2147483646.5]), out, 0)
    assert out.values[0].tolist() == [0, 2, 2, 0, -2, 2147483646]
    reprice._quantise(np.array([2147483647.5, 0.0, 1.0, 3.0, -1.0, 5.0]), out, 0)
    assert out.exponent[0] == 1
    assert out.values[0].tolist() == [1073741824, 0, 0, 2, 0, 2]
