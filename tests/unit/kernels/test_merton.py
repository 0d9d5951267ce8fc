"""kernels.merton: a plain twin, limits, parity, Greeks as differences; option rows and tables under jumps."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_worlds import World, small_world

from kernels import black76, merton, reprice
from kernels.instrument_greeks import instrument_greeks
from kernels.layout import CALL, empty_pnl_table
from kernels.stress import stress_table
from kernels.svi import total_variance

JUMPS = (4.0, -0.05, 0.1)
OPTIONS = st.tuples(
    st.floats(10.0, 1e5), st.floats(0.4, 2.5), st.floats(0.05, 3.0), st.floats(0.002, 2.0), st.floats(-0.2, 0.5),
    st.booleans(), st.floats(0.0, 8.0), st.floats(-0.2, 0.2), st.floats(0.0, 0.4),
).map(lambda o: (o[0], o[0] * o[1], *o[2:]))  # fmt: skip
Option = tuple[float, float, float, float, float, bool, float, float, float]


def twin(option: Option) -> float:
    """Merton's series with 150 terms of the textbook formula."""
    forward, strike, vol, years, rate, is_call, intensity, mean, stddev = option
    kappa, expected, total = math.expm1(mean + stddev**2 / 2), intensity * years, 0.0
    for n in range(150):
        weight = math.exp(-expected + n * math.log(expected) - math.lgamma(n + 1)) if expected else float(n == 0)
        moved = forward * math.exp(n * (mean + stddev**2 / 2) - expected * kappa)
        v = math.sqrt(vol**2 * years + n * stddev**2)
        d1, sign = math.log(moved / strike) / v + v / 2, 1.0 if is_call else -1.0
        first, second = (0.5 * math.erfc(-sign * d / math.sqrt(2)) for d in (d1, d1 - v))
        total += weight * sign * (moved * first - strike * second)
    return math.exp(-rate * years) * total


@settings(deadline=None)  # the first call compiles
@given(OPTIONS)
def test_price_equals_the_twin(option: Option) -> None:
    assert merton.price(*option) == pytest.approx(twin(option), rel=1e-11, abs=1e-12 * max(option[:2]))


@settings(deadline=None)
@given(OPTIONS)
def test_put_call_parity_and_bounds(option: Option) -> None:
    forward, strike, vol, years, rate, _, *jumps = option
    call, put = (merton.price(forward, strike, vol, years, rate, c, *jumps) for c in (True, False))
    discount = math.exp(-rate * years)
    assert call - put == pytest.approx(discount * (forward - strike), abs=1e-13 * discount * max(forward, strike))
    # Jumps of mean one added to a diffusion raise every convex payoff's value.
    assert call >= black76.price(forward, strike, vol, years, rate, True) - 1e-12 * discount * max(forward, strike)
    assert call <= discount * forward * (1 + 1e-13)


@settings(deadline=None)
@given(OPTIONS)
def test_without_jumps_it_is_black76_bit_for_bit(option: Option) -> None:
    assert merton.price(*option[:6], 0.0, 0.0, 0.0) == pytest.approx(black76.price(*option[:6]), rel=3e-16, abs=1e-300)


@pytest.mark.parametrize("expected", [0.0, 1e-6, 0.3, 5.0, 20.0, 60.0, 800.0, 1e6])
def test_terms_hold_the_whole_mass(expected: float) -> None:
    """Mass and forward are 1 but for what is left out; beyond the largest number the last term carries the rest."""
    terms = merton.jump_terms(expected, -0.05, 0.1, 1.0)
    assert 1 <= len(terms) <= merton.MAXIMUM_TERMS
    assert terms[:, 0].sum() == pytest.approx(1.0, abs=3e-14)
    assert (terms[:, 0] * terms[:, 1]).sum() == pytest.approx(1.0, abs=3e-14)
    assert np.isfinite(terms).all()


@pytest.mark.parametrize(("forward", "is_call", "value"), [(90.0, True, 0.0), (110.0, True, 10.0), (90.0, False, 10.0)])
def test_expired_now_is_the_intrinsic_value(forward: float, is_call: bool, value: float) -> None:
    assert merton.price(forward, 100.0, 0.5, 0.0, 0.1, is_call, *JUMPS) == value
    assert merton.greeks(forward, 100.0, 0.5, 0.0, 0.1, is_call, *JUMPS)[2:5] == (0.0, 0.0, 0.1 * value)


@pytest.mark.parametrize("is_call", [True, False])
@pytest.mark.parametrize("strike", [80.0, 100.0, 130.0])
def test_greeks_are_the_derivatives_of_the_price(strike: float, is_call: bool) -> None:
    option = [100.0, strike, 0.5, 0.3, 0.04, is_call, *JUMPS]
    value, delta, gamma, vega, theta, rho = merton.greeks(*option)

    def slope(position: int, step: float) -> float:
        up, down = list(option), list(option)
        up[position] += step
        down[position] -= step
        return (merton.price(*up) - merton.price(*down)) / (2 * step)

    assert value == pytest.approx(merton.price(*option), rel=1e-14)
    assert delta == pytest.approx(slope(0, 1e-3), abs=1e-8)
    assert vega == pytest.approx(slope(2, 1e-5), abs=1e-6)
    assert -theta == pytest.approx(slope(3, 1e-6), abs=1e-5)
    assert rho == pytest.approx(slope(4, 1e-5), abs=1e-6)
    up, down = (merton.greeks(100.0 + move, *option[1:])[1] for move in (1e-3, -1e-3))
    assert gamma == pytest.approx((up - down) / 2e-3, abs=1e-8)


@pytest.fixture(scope="module")
def jumpy() -> World:
    """ETH (underlying 1) jumps, the others do not."""
    world = small_world()
    jumps = np.zeros((len(world.market.spot), 3))
    jumps[1] = JUMPS
    return world._replace(market=world.market._replace(jumps=jumps))


def test_tables_use_the_model_of_each_underlying(jumpy: World) -> None:
    plain = small_world()
    instruments, market = jumpy.instruments, jumpy.market
    out, without = (empty_pnl_table(len(instruments.kind), len(jumpy.scenarios.weights)) for _ in range(2))
    assert reprice.pnl_table(*jumpy, out) == reprice.pnl_table(*plain, without) == 0
    priced = (instruments.kind >= CALL) & instruments.alive & (market.years[instruments.expiry] > 0)
    other = priced & (instruments.underlying == 1)
    same = (out.values == without.values).all(axis=1)
    assert same[~other].all()
    assert not same[other & (market.years[instruments.expiry] > jumpy.scenarios.horizon_years)].any()
    price = reprice.price_now(instruments, market)
    for i in np.flatnonzero(other):
        e = instruments.expiry[i]
        w = total_variance(*market.svi[e], math.log(instruments.strike[i] / market.forward[e]))
        vol, years, call = math.sqrt(w / market.years[e]), market.years[e], instruments.kind[i] == CALL
        expected = merton.price(
            market.forward[e], instruments.strike[i], vol, years, market.rate[e], bool(call), *JUMPS
        )
        assert price[i] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_scenario_rows_equal_the_scalar_price(jumpy: World) -> None:
    instruments, market, scenarios = jumpy
    out = empty_pnl_table(len(instruments.kind), len(scenarios.weights))
    reprice.pnl_table(*jumpy, out)
    price = reprice.price_now(instruments, market)
    (rows,) = np.nonzero((instruments.kind >= CALL) & (instruments.expiry == 1) & instruments.alive)
    for i in rows.tolist():
        remaining = float(market.years[1] - scenarios.horizon_years)
        for s in range(5):
            forward = float(market.forward[1]) * math.exp(scenarios.spot_log_return[1, s])
            k = math.log(instruments.strike[i] / forward)
            smile = max(0.1, 1.0 + float(scenarios.skew[1, s]) * min(max(k, -1.0), 1.0))
            vol = math.sqrt(total_variance(*market.svi[1], k) / market.years[1]) * math.exp(scenarios.level_log[1, s])
            rate = float(market.rate[1] + scenarios.rate_shift[1, s])
            is_call = bool(instruments.kind[i] == CALL)
            moved = merton.price(forward, float(instruments.strike[i]), vol * smile, remaining, rate, is_call, *JUMPS)
            expected = (moved - price[i]) * instruments.lot_size[i] * 1e9
            found = int(out.values[i, s]) << int(out.exponent[i])
            assert found == pytest.approx(expected, abs=1e-10 * forward * 1e8 + 2.0 ** int(out.exponent[i]))


def test_stress_and_greeks_follow_the_model(jumpy: World) -> None:
    plain = small_world()
    shocks = (np.full((2, 4), 0.8), np.array([1.0, 0.0]), np.zeros(2))  # the second takes all diffusion away
    with_jumps, without = stress_table(*jumpy[:2], *shocks), stress_table(*plain[:2], *shocks)
    rows = (jumpy.instruments.kind >= CALL) & (jumpy.instruments.expiry == 1)
    assert (with_jumps[~rows] == without[~rows]).all()
    assert (with_jumps[rows] != without[rows]).any()
    greeks, others = instrument_greeks(*jumpy[:2]), instrument_greeks(*plain[:2])
    assert (greeks.theta_usd9[rows] < others.theta_usd9[rows]).any()
    assert (greeks.delta_usd9[~rows] == others.delta_usd9[~rows]).all()
