"""kernels.black76 against a plain twin, against decimal arithmetic in the wings, at its limits, and by properties."""

import hashlib
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import black76

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
INFINITY = math.inf
GOLDEN_DIGEST = "08691bc71edbb884019f64dd225b19ff3ef6347fec8279e622e1c863bac11eaa"
EPSILON = 2.0**-52

MONEY = st.one_of(st.just(0.0), st.floats(1e-12, 1e9), st.floats(1.0, 2e5))
VOLS = st.one_of(st.just(0.0), st.floats(0.0, 5.0), st.floats(5.0, 1e6), st.just(INFINITY))
YEARS = st.one_of(st.just(0.0), st.floats(0.0, 1e-4), st.floats(1e-4, 30.0))
RATES = st.floats(-0.5, 1.0)
OPTIONS = st.tuples(MONEY, MONEY, VOLS, YEARS, RATES, st.booleans())

# Options an ordinary quote describes: everything is far from rounding and from the ends of the number range.
ORDINARY = st.tuples(
    st.floats(10.0, 1e5), st.floats(0.5, 2.0), st.floats(0.1, 3.0), st.floats(0.02, 3.0), RATES, st.booleans()
).map(lambda o: (o[0], o[0] * o[1], *o[2:]))


def twin_price(forward: float, strike: float, vol: float, years: float, rate: float, is_call: bool) -> float:
    """The textbook formula D*(F N(d1) - K N(d2)) with the library's functions; positive arguments only."""
    stddev = vol * math.sqrt(years)
    d1 = math.log(forward / strike) / stddev + 0.5 * stddev
    d2 = d1 - stddev
    sign = 1.0 if is_call else -1.0
    first, second = (0.5 * math.erfc(-sign * d / math.sqrt(2.0)) for d in (d1, d2))
    return math.exp(-rate * years) * sign * (forward * first - strike * second)


def exact_tail(x: Decimal) -> Decimal:
    """1 - N(x): power series of N around 0 for |x| < 5, Laplace's continued fraction beyond."""
    if x < 0:
        return 1 - exact_tail(-x)
    density = (-x * x / 2).exp() / (2 * PI).sqrt()
    if x < 5:
        term = total = x
        for odd in range(3, 500, 2):
            term *= x * x / odd
            total += term
        return Decimal("0.5") - density * total
    fraction = x
    for n in range(400, 0, -1):
        fraction = x + n / fraction
    return density / fraction


def exact_out_of_the_money_value(absolute_log_moneyness: float, stddev: float) -> Decimal:
    with localcontext() as context:
        context.prec = 75
        x, v = Decimal(absolute_log_moneyness), Decimal(stddev)
        return exact_tail(x / v - v / 2) - x.exp() * exact_tail(x / v + v / 2)


@pytest.mark.parametrize("x", [0.0, 1e-4, 0.01, 0.1, 0.5, 1.0, 3.0, 6.0])
@pytest.mark.parametrize("v", [0.01, 0.05, 0.3, 0.59, 0.61, 1.0, 1.5, 2.0, 4.0, 9.0, 20.0])
def test_out_of_the_money_value_is_accurate(x: float, v: float) -> None:
    exact = exact_out_of_the_money_value(x, v)
    value = Decimal(black76.out_of_the_money_value(x, v))
    if exact > Decimal("1e-300"):
        assert abs(value / exact - 1) < Decimal("2e-12")
    assert abs(value - exact) < Decimal("1.5e-15")


@pytest.mark.parametrize("a", [-0.3 - 1e-9, -0.3, -0.3 + 1e-9])
@pytest.mark.parametrize("v", [0.7, 1.7, 3.0])
def test_no_step_where_the_formula_changes(a: float, v: float) -> None:
    x = max((a + 0.5 * v) * v, 0.0)
    assert abs(Decimal(black76.out_of_the_money_value(x, v)) - exact_out_of_the_money_value(x, v)) < Decimal("1.5e-15")


@settings(deadline=None)  # the first call compiles
@given(ORDINARY)
def test_price_equals_twin(option: tuple[float, float, float, float, float, bool]) -> None:
    forward, strike = option[:2]
    assert black76.price(*option) == pytest.approx(twin_price(*option), rel=1e-12, abs=1e-13 * max(forward, strike))


@pytest.mark.parametrize(
    ("option", "call", "put"),
    [
        ((100.0, 80.0, 0.0, 1.0, 0.0), 20.0, 0.0),  # no volatility: intrinsic value
        ((80.0, 100.0, 0.0, 1.0, 0.0), 0.0, 20.0),
        ((100.0, 100.0, 0.0, 1.0, 0.0), 0.0, 0.0),
        ((100.0, 80.0, 0.5, 0.0, 0.3), 20.0, 0.0),  # expired now: intrinsic value, no discount
        ((100.0, 100.0, 0.5, 0.0, 0.0), 0.0, 0.0),
        ((100.0, 0.0, 0.5, 1.0, 0.0), 100.0, 0.0),  # strike 0
        ((100.0, 0.0, 0.0, 0.0, 0.0), 100.0, 0.0),
        ((0.0, 100.0, 0.5, 1.0, 0.0), 0.0, 100.0),  # forward 0
        ((0.0, 0.0, 0.5, 1.0, 0.0), 0.0, 0.0),
        ((100.0, 120.0, INFINITY, 1.0, 0.0), 100.0, 120.0),  # upper bounds
        ((100.0, 120.0, 1e6, 1.0, 0.0), 100.0, 120.0),
        ((100.0, 0.0, INFINITY, 1.0, 0.0), 100.0, 0.0),
        ((100.0, 120.0, 1e-9, 1e-9, 0.0), 0.0, 20.0),  # far below any density
        ((1e-300, 1e300, 0.5, 1.0, 0.0), 0.0, 1e300),  # forward/strike underflows
        ((1e300, 1e-300, 0.5, 1.0, 0.0), 1e300, 0.0),
    ],
)
def test_limits_are_exact(option: tuple[float, float, float, float, float], call: float, put: float) -> None:
    assert black76.price(*option, True) == call
    assert black76.price(*option, False) == put


@pytest.mark.parametrize("position", range(5))
def test_nan_in_gives_nan_out(position: int) -> None:
    option = [100.0, 110.0, 0.5, 0.3, 0.02]
    option[position] = math.nan
    assert math.isnan(black76.price(*option, True))
    assert math.isnan(black76.price(*option, False))


@settings(deadline=None)  # the first call compiles
@given(OPTIONS)
def test_price_is_within_its_bounds(option: tuple[float, float, float, float, float, bool]) -> None:
    forward, strike, _, years, rate, is_call = option
    value = black76.price(*option)
    discount = math.exp(-rate * years)
    intrinsic, maximum = max(forward - strike, 0.0), forward
    if not is_call:
        intrinsic, maximum = max(strike - forward, 0.0), strike
    assert discount * intrinsic * (1 - 1e-15) <= value <= discount * maximum * (1 + 1e-15)


@settings(deadline=None)  # the first call compiles
@given(OPTIONS)
def test_put_call_parity(option: tuple[float, float, float, float, float, bool]) -> None:
    forward, strike, vol, years, rate, _ = option
    call, put = (black76.price(forward, strike, vol, years, rate, is_call) for is_call in (True, False))
    parity = math.exp(-rate * years) * (forward - strike)
    assert abs(call - put - parity) <= 4 * EPSILON * math.exp(-rate * years) * max(forward, strike)


@settings(deadline=None)  # the first call compiles
@given(OPTIONS, st.floats(0.0, 2.0))
def test_price_does_not_fall_with_vol(option: tuple[float, float, float, float, float, bool], more: float) -> None:
    forward, strike, vol, years, rate, is_call = option
    higher = black76.price(forward, strike, vol + more, years, rate, is_call)
    # Either price may be off by 1.33e-15 of the larger of forward and strike, at the money most.
    rounding = 12 * EPSILON * math.exp(-rate * years) * max(forward, strike)
    assert higher >= black76.price(*option) - rounding


@settings(deadline=None)  # the first call compiles
@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6), st.floats(0.0, 4.0))
def test_a_put_is_the_call_with_forward_and_strike_exchanged(forward: float, strike: float, stddev: float) -> None:
    x = math.log(forward / strike)
    call = black76.undiscounted_price(forward, strike, x, stddev, True)
    assert call == black76.undiscounted_price(strike, forward, -x, stddev, False)


@settings(deadline=None)  # the first call compiles
@given(OPTIONS)
def test_greeks_are_numbers_with_the_right_signs(option: tuple[float, float, float, float, float, bool]) -> None:
    value, delta, gamma, vega, theta, rho = black76.greeks(*option)
    _, _, _, years, rate, is_call = option
    assert value == black76.price(*option)
    assert all(math.isfinite(greek) for greek in (delta, gamma, vega, theta, rho))
    low, high = (0.0, 1.0) if is_call else (-1.0, 0.0)
    discount = math.exp(-rate * years) * (1 + 1e-14)
    assert low * discount <= delta <= high * discount
    assert gamma >= 0.0
    assert vega >= 0.0
    assert theta <= max(rate * value, 0.0)
    assert rho <= 0.0


@settings(deadline=None)  # the first call compiles
@given(ORDINARY)
def test_greeks_are_the_derivatives_of_the_price(option: tuple[float, float, float, float, float, bool]) -> None:
    forward, strike, vol, years, rate, is_call = option
    _, delta, gamma, vega, theta, rho = black76.greeks(*option)
    scale = math.exp(-rate * years) * max(forward, strike)

    def slope(position: int, step: float) -> float:
        """Fourth-order central difference of the twin."""

        def moved(steps: float) -> float:
            arguments = list(option)
            arguments[position] += steps * step
            return twin_price(*arguments)

        return (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * step)

    assert delta == pytest.approx(slope(0, 1e-3 * forward * vol * math.sqrt(years)), abs=1e-8 * scale / forward)
    assert vega == pytest.approx(slope(2, 1e-3 * vol), abs=1e-8 * scale)
    assert -theta == pytest.approx(slope(3, 1e-3 * years), rel=1e-8, abs=1e-8 * scale / years)
    assert rho == pytest.approx(slope(4, 1e-3), abs=1e-8 * scale * max(years, 1.0))
    step = 1e-3 * forward * vol * math.sqrt(years)
    up, down = (black76.greeks(forward + move, strike, vol, years, rate, is_call)[1] for move in (step, -step))
    assert gamma * step == pytest.approx(0.5 * (up - down), abs=1e-8)


@pytest.mark.parametrize(("forward", "exercised"), [(120.0, 1.0), (80.0, 0.0), (100.0, 0.5)])
def test_greeks_without_randomness(forward: float, exercised: float) -> None:
    call = black76.greeks(forward, 100.0, 0.0, 2.0, 0.0, True)
    put = black76.greeks(forward, 100.0, 0.0, 2.0, 0.0, False)
    assert call[1] == pytest.approx(exercised, abs=1e-15)
    assert put[1] == pytest.approx(exercised - 1.0, abs=1e-15)
    assert call[2:5] == put[2:5] == (0.0, 0.0, 0.0)


def test_arrays_equal_scalars_bit_for_bit() -> None:
    random = np.random.default_rng(3)
    n = 257
    forward, strike = random.uniform(10, 200, n), random.uniform(10, 200, n)
    vol, years, rate = random.uniform(0, 3, n), random.uniform(0, 2, n), random.uniform(-0.1, 0.1, n)
    is_call = random.random(n) < 0.5
    columns = (forward, strike, vol, years, rate, is_call)
    out, table = np.empty(n), np.empty((6, n))
    black76.prices(*columns, out)
    black76.greeks_table(*columns, table)
    rows = list(zip(*(column.tolist() for column in columns)))
    assert np.array_equal(out, np.array([black76.price(*row) for row in rows]))
    assert np.array_equal(table.T, np.array([black76.greeks(*row) for row in rows]))


def test_bits_are_the_recorded_ones() -> None:
    """SHA-256 of prices and Greeks on a grid of binary fractions: a changed last bit on any machine changes it."""
    index = np.arange(4096)
    forward = 1000.0 + index * 37 % 4001 / 4.0
    strike = 1000.0 + index * 91 % 4003 / 4.0
    vol = (1.0 + index * 53 % 255) / 128.0
    years = (index * 17 % 129) / 64.0
    rate = (index % 33 - 16) / 256.0
    table = np.empty((6, 4096))
    black76.greeks_table(forward, strike, vol, years, rate, index % 2 == 0, table)
    assert hashlib.sha256(table.tobytes()).hexdigest() == GOLDEN_DIGEST
