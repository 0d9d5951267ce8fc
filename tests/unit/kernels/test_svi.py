"""kernels.svi: formula, limits, and Durrleman's g against finite differences of the density."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import black76, svi

SLICES = st.tuples(
    st.floats(0.0, 0.5), st.floats(0.0, 0.8), st.floats(-0.99, 0.99), st.floats(-1.0, 1.0), st.floats(1e-3, 2.0)
)
EXAMPLE = (0.02, 0.1, -0.4, 0.05, 0.2)


def twin(a: float, b: float, rho: float, m: float, sigma: float, k: float) -> float:
    return a + b * (rho * (k - m) + math.hypot(k - m, sigma))


@settings(deadline=None)  # the first call compiles
@given(SLICES, st.floats(-8.0, 8.0))
def test_total_variance_equals_twin(raw: tuple[float, float, float, float, float], k: float) -> None:
    expected = max(twin(*raw, k), svi.TOTAL_VARIANCE_MINIMUM)
    assert svi.total_variance(*raw, k) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(("k", "limit"), [(9.0, 8.0), (math.inf, 8.0), (-8.5, -8.0), (-math.inf, -8.0), (1e300, 8.0)])
def test_flat_beyond_the_limit(k: float, limit: float) -> None:
    assert svi.total_variance(*EXAMPLE, k) == svi.total_variance(*EXAMPLE, limit)
    assert svi.total_variance(*EXAMPLE, 0.99 * limit) != svi.total_variance(*EXAMPLE, limit)


def test_variance_does_not_fall_below_its_floor() -> None:
    assert svi.total_variance(-0.5, 0.1, 0.0, 0.0, 0.2, 0.0) == svi.TOTAL_VARIANCE_MINIMUM
    assert svi.raw_total_variance(-0.5, 0.1, 0.0, 0.0, 0.2, 0.0) == pytest.approx(-0.48)


@pytest.mark.parametrize("position", range(6))
def test_nan_in_gives_nan_out(position: int) -> None:
    arguments = [*EXAMPLE, 0.1]
    arguments[position] = math.nan
    assert math.isnan(svi.total_variance(*arguments))


@settings(deadline=None)
@given(SLICES, st.floats(-2.0, 2.0), st.floats(-2.0, 2.0))
def test_slice_is_convex_and_within_its_wing_slopes(
    raw: tuple[float, float, float, float, float], first: float, second: float
) -> None:
    low, high = svi.raw_total_variance(*raw, first), svi.raw_total_variance(*raw, second)
    middle = svi.raw_total_variance(*raw, 0.5 * (first + second))
    assert middle <= 0.5 * (low + high) + 1e-14
    _, b, rho, _, _ = raw
    assert abs(high - low) <= b * (1 + abs(rho)) * abs(second - first) + 1e-14


@pytest.mark.parametrize("k", [-0.8, -0.2, 0.0, 0.05, 0.4, 1.0])
def test_durrleman_g_is_the_density_of_the_forward(k: float) -> None:
    """g(k) n(d2)/sqrt(w) is the density of ln(F_T/F), so K * d2C/dK2 with F = 1 (Gatheral and Jacquier, section 2)."""

    def call(strike: float) -> float:
        log_moneyness = math.log(strike)
        stddev = math.sqrt(svi.raw_total_variance(*EXAMPLE, log_moneyness))
        return black76.undiscounted_price(1.0, strike, -log_moneyness, stddev, True)

    strike, step = math.exp(k), 2e-3 * math.exp(k)
    differences = [call(strike + i * step) for i in range(-2, 3)]
    curvature = (-differences[0] + 16 * differences[1] - 30 * differences[2] + 16 * differences[3] - differences[4]) / (
        12 * step * step
    )
    w = svi.raw_total_variance(*EXAMPLE, k)
    d2 = -k / math.sqrt(w) - 0.5 * math.sqrt(w)
    density = svi.durrleman_g(*EXAMPLE, k) * math.exp(-0.5 * d2 * d2) / math.sqrt(2.0 * math.pi * w)
    assert strike * curvature == pytest.approx(density, rel=1e-5, abs=1e-8)


def test_durrleman_minimum_finds_the_smallest_grid_point() -> None:
    grid = np.linspace(-1.0, 1.0, 41)
    values = [svi.durrleman_g(*EXAMPLE, k) for k in grid.tolist()]
    smallest, where = svi.durrleman_minimum(np.array(EXAMPLE), -1.0, 1.0, 41)
    assert smallest == pytest.approx(min(values), rel=1e-12)
    assert where == pytest.approx(grid[int(np.argmin(values))], abs=1e-12)


def test_flat_slice_has_g_one_everywhere() -> None:
    assert svi.durrleman_minimum(np.array([0.04, 0.0, 0.0, 0.0, 0.1]), -2.0, 2.0, 11)[0] == 1.0


def test_arrays_equal_scalars() -> None:
    k = np.linspace(-10.0, 10.0, 101)
    out = np.empty(101)
    svi.total_variances(np.array(EXAMPLE), k, out)
    assert out.tolist() == [svi.total_variance(*EXAMPLE, v) for v in k.tolist()]
