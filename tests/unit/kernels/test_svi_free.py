"""fit_free_slice: no butterfly arbitrage on a dense grid, never below the floor, near the quotes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import svi
from kernels.svi_fit import FITTED, NOT_REPAIRED, TOO_FEW_POINTS, fit_free_slice, fit_slice, flatten, lowest_above

NONE = np.empty(0)
VOGT = np.array([-0.041, 0.1331, 0.306, 0.3586, 0.4153])


def g_twin(raw: list[float], k: float) -> float:
    """Gatheral and Jacquier (2014), eq. 2.1, from first and second derivatives written out."""
    a, b, rho, m, sigma = raw
    root = math.hypot(k - m, sigma)
    w = a + b * (rho * (k - m) + root)
    first, second = b * (rho + (k - m) / root), b * sigma**2 / root**3
    return (1 - k * first / (2 * w)) ** 2 - first**2 / 4 * (1 / w + 0.25) + second / 2


def smallest_g(raw: np.ndarray) -> float:
    return min(g_twin(raw.tolist(), k) for k in np.linspace(-8, 8, 16_001).tolist())


def curve(raw: np.ndarray, k: np.ndarray) -> np.ndarray:
    w = np.empty(len(k))
    svi.total_variances(raw, k, w)
    return w


def test_the_minimum_of_g_is_found_where_a_dense_grid_has_it() -> None:
    for raw in (VOGT, np.array([0.01, 0.1, -0.4, 0.02, 0.1]), np.array([1e-5, 0.004, 0.2, 0.001, 0.004])):
        g, k = svi.butterfly_minimum(raw)
        assert g == pytest.approx(g_twin(raw.tolist(), k), rel=1e-9, abs=1e-12)
        assert g <= smallest_g(raw) + 1e-9


def test_a_slice_that_touches_zero_has_an_arbitrage() -> None:
    assert svi.butterfly_minimum(np.array([-0.02 - 1e-9, 0.2, 0.0, 0.1, 0.1]))[0] == -math.inf


def test_vogts_slice_is_repaired_near_itself() -> None:
    k = np.linspace(-1.5, 1.5, 61)
    parameters, error, status, repaired = fit_free_slice(k, curve(VOGT, k), np.ones(61), NONE, NONE)
    assert (status, repaired) == (FITTED, True)
    assert smallest_g(parameters) >= 0.0
    assert error < 0.003  # total variance, of 0.02 to 0.3


def test_a_slice_without_arbitrage_is_left_as_it_is() -> None:
    raw = np.array([0.01, 0.1, -0.4, 0.02, 0.1])
    k = np.linspace(-0.6, 0.5, 31)
    plain = fit_slice(k, curve(raw, k), np.ones(31))
    free = fit_free_slice(k, curve(raw, k), np.ones(31), NONE, NONE)
    assert free[0].tobytes() == plain[0].tobytes()
    assert free[3] is False


def test_a_floor_lifts_the_slice() -> None:
    raw, k = np.array([0.01, 0.1, -0.4, 0.02, 0.1]), np.linspace(-0.4, 0.4, 21)
    floor = curve(raw, k) * (1 + 0.1 * (k > 0.1))
    parameters, _, status, repaired = fit_free_slice(k, curve(raw, k), np.ones(21), k, floor)
    assert (status, repaired) == (FITTED, True)
    assert lowest_above(parameters, k, floor) >= 0.0
    assert smallest_g(parameters) >= 0.0


def test_flattening_keeps_the_variance_at_the_forward() -> None:
    raw = VOGT.copy()
    at_forward = svi.raw_total_variance(*raw, 0.0)
    assert flatten(raw)
    assert svi.raw_total_variance(*raw, 0.0) == pytest.approx(at_forward, rel=1e-12)
    assert smallest_g(raw) >= 0.0
    assert not flatten(np.array([0.0, 0.0, 0.0, 0.0, 0.1]))


@settings(deadline=None, max_examples=80)  # the first call compiles
@given(
    st.lists(st.tuples(st.floats(-1.0, 1.0), st.floats(1e-4, 1.0), st.floats(0.1, 10.0)), min_size=5, max_size=25),
    st.booleans(),
)
def test_no_quotes_lead_to_an_arbitrage(points: list[tuple[float, float, float]], with_floor: bool) -> None:
    k, w, weight = np.array(points).T.copy()
    floor_k = np.linspace(-0.5, 0.5, 9) if with_floor else NONE
    floor_w = np.full(len(floor_k), 0.05)
    parameters, error, status, _ = fit_free_slice(k, w, weight, floor_k, floor_w)
    if status == FITTED:
        assert np.isfinite(parameters).all()
        assert math.isfinite(error)
        assert smallest_g(parameters) >= -1e-9
        assert lowest_above(parameters, floor_k, floor_w) >= 0.0
    else:
        assert status in (NOT_REPAIRED, TOO_FEW_POINTS)
        assert np.isnan(parameters).all()
