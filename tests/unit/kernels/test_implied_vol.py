"""kernels.implied_vol: round trips over the venue's domain, every refusal and its precedence, arrays."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import black76
from kernels.implied_vol import (
    ABOVE_MAXIMUM,
    BELOW_INTRINSIC,
    CONVERGED,
    INVALID_INPUT,
    implied_stddev,
    implied_vol,
    implied_vols,
)

EPSILON = 2.0**-52


@settings(deadline=None)  # the first call compiles
@given(st.floats(0.0, 8.0), st.floats(1e-3, 12.0))
def test_stddev_round_trip(absolute_log_moneyness: float, stddev: float) -> None:
    """The stddev returns to the accuracy the price carries: its rounding error over the slope."""
    target = black76.out_of_the_money_value(absolute_log_moneyness, stddev)
    if not 0.0 < target < 1.0 - 1e-12:
        return
    found, status = implied_stddev(target, absolute_log_moneyness)
    assert status == CONVERGED
    slope = math.exp(-0.5 * (absolute_log_moneyness / stddev - 0.5 * stddev) ** 2) / math.sqrt(2.0 * math.pi)
    # 2e-12 relative and 5e-16 absolute are the errors of the price (test_black76).
    assert found == pytest.approx(stddev, rel=1e-12, abs=4.0 * min(5e-16, 1e-12 * target) / slope + 2e-15)


@settings(deadline=None)
@given(st.floats(1.0, 2e5), st.floats(-0.7, 0.7), st.floats(0.05, 4.0), st.floats(1.0 / 365.0, 3.0), st.booleans())
def test_out_of_the_money_quotes_return_their_vol(
    forward: float, log_moneyness: float, vol: float, years: float, is_call: bool
) -> None:
    strike = forward * math.exp(log_moneyness if is_call else -log_moneyness)
    stddev = vol * math.sqrt(years)
    value = black76.price(forward, strike, vol, years, 0.0, is_call)
    vega = black76.greeks(forward, strike, vol, years, 0.0, is_call)[3]
    found, status = implied_vol(value, forward, strike, years, is_call)
    if vega < 1e-4 * forward or stddev < 0.01:  # the price does not carry ten digits of the vol
        assert status in (CONVERGED, ABOVE_MAXIMUM)
        return
    assert status == CONVERGED
    assert found == pytest.approx(vol, abs=1e-10)


@settings(deadline=None)
@given(st.floats(1e-12, 1e9), st.floats(1e-12, 1e9), st.floats(0.0, 1.0), st.floats(1e-6, 10.0), st.booleans())
def test_every_possible_price_has_a_vol_that_returns_it(
    forward: float, strike: float, fraction: float, years: float, is_call: bool
) -> None:
    intrinsic = max(forward - strike, 0.0) if is_call else max(strike - forward, 0.0)
    value = intrinsic + fraction * min(forward, strike)
    vol, status = implied_vol(value, forward, strike, years, is_call)
    if status != CONVERGED:
        assert status == ABOVE_MAXIMUM
        assert value >= (forward if is_call else strike) * (1.0 - EPSILON) or fraction > 1.0 - 1e-15
        return
    again = black76.price(forward, strike, vol, years, 0.0, is_call)
    assert again == pytest.approx(value, rel=1e-12, abs=8.0 * EPSILON * max(forward, strike))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((5.0, 100.0, 110.0, 0.5, True), CONVERGED),
        ((9.99, 110.0, 100.0, 0.5, True), BELOW_INTRINSIC),
        ((-1e-9, 100.0, 110.0, 0.5, True), BELOW_INTRINSIC),
        ((9.99, 100.0, 110.0, 0.5, False), BELOW_INTRINSIC),
        ((100.0, 100.0, 110.0, 0.5, True), ABOVE_MAXIMUM),
        ((110.0, 100.0, 110.0, 0.5, False), ABOVE_MAXIMUM),
        ((1e9, 100.0, 110.0, 0.5, False), ABOVE_MAXIMUM),
        ((5.0, 0.0, 110.0, 0.5, True), INVALID_INPUT),
        ((5.0, 100.0, 0.0, 0.5, True), INVALID_INPUT),
        ((5.0, 100.0, -110.0, 0.5, True), INVALID_INPUT),
        ((5.0, 100.0, 110.0, 0.0, True), INVALID_INPUT),
        ((math.nan, 100.0, 110.0, 0.5, True), INVALID_INPUT),
        ((5.0, math.nan, 110.0, 0.5, True), INVALID_INPUT),
        ((5.0, 100.0, math.inf, 0.5, True), INVALID_INPUT),
        ((5.0, 100.0, 110.0, math.nan, True), INVALID_INPUT),
        ((math.inf, 100.0, 110.0, 0.5, True), INVALID_INPUT),
        ((-5.0, 100.0, 110.0, 0.0, True), INVALID_INPUT),  # invalid comes before below intrinsic
    ],
)
def test_statuses(arguments: tuple[float, float, float, float, bool], status: int) -> None:
    vol, found = implied_vol(*arguments)
    assert found == status
    assert math.isnan(vol) == (status != CONVERGED)


def test_intrinsic_value_has_no_vol() -> None:
    assert implied_vol(10.0, 110.0, 100.0, 0.5, True) == (0.0, CONVERGED)
    assert implied_vol(0.0, 100.0, 110.0, 0.5, True) == (0.0, CONVERGED)


@pytest.mark.parametrize("target", [1e-300, 1e-100, 1e-17, 1e-9, 0.3, 0.999, 1.0 - 1e-12, 1.0 - EPSILON / 2])
@pytest.mark.parametrize("absolute_log_moneyness", [0.0, 1e-300, 1e-9, 1e-3, 1.0, 30.0, 700.0])
def test_extreme_targets_converge(target: float, absolute_log_moneyness: float) -> None:
    stddev, status = implied_stddev(target, absolute_log_moneyness)
    assert status == CONVERGED
    again = black76.out_of_the_money_value(absolute_log_moneyness, stddev)
    assert again == pytest.approx(target, rel=1e-9, abs=1e-15)


def test_arrays_equal_scalars() -> None:
    random = np.random.default_rng(4)
    n = 101
    forward, strike, years = random.uniform(50, 150, n), random.uniform(50, 150, n), random.uniform(0.01, 2, n)
    value, is_call = random.uniform(-1.0, 120.0, n), random.random(n) < 0.5
    vol, status = np.empty(n), np.empty(n, np.int8)
    implied_vols(value, forward, strike, years, is_call, vol, status)
    rows = zip(*(column.tolist() for column in (value, forward, strike, years, is_call)))
    expected = [implied_vol(*row) for row in rows]
    assert set(status.tolist()) == {CONVERGED, BELOW_INTRINSIC, ABOVE_MAXIMUM}
    assert np.array_equal(vol, np.array([pair[0] for pair in expected]), equal_nan=True)
    assert status.tolist() == [pair[1] for pair in expected]
