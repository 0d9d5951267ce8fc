"""kernels.svi_fit: recovers slices, keeps its constraints on any quotes, is no worse than scipy, refuses bad input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import least_squares

from kernels import svi
from kernels.svi_fit import (
    FITTED,
    INVALID_INPUT,
    MINIMUM_POINTS,
    RHO_MAXIMUM,
    SIGMA_MAXIMUM,
    SIGMA_MINIMUM,
    TOO_FEW_POINTS,
    WING_SLOPE_MAXIMUM,
    fit_slice,
)

FloatArray = NDArray[np.float64]
SLICES = {
    "vogt": (-0.041, 0.1331, 0.306, 0.3586, 0.4153),
    "monthly": (0.01, 0.1, -0.4, 0.02, 0.1),
    "weekly": (0.001, 0.05, -0.7, 0.05, 0.15),
    "steep": (0.04, 0.2, 0.3, 0.0, 0.02),
    "daily": (0.0001, 0.01, 0.0, 0.0, 0.1),
}


def quotes(raw: tuple[float, ...], points: int = 31) -> tuple[FloatArray, FloatArray, FloatArray]:
    k = np.linspace(-0.6, 0.5, points)
    w = np.empty(points)
    svi.total_variances(np.array(raw), k, w)
    return k, w, np.ones(points)


def weighted_error(parameters: FloatArray, k: FloatArray, w: FloatArray, weight: FloatArray) -> float:
    a, b, rho, m, sigma = parameters.tolist()
    model = [a + b * (rho * (x - m) + math.hypot(x - m, sigma)) for x in k.tolist()]
    return math.sqrt(sum(q * (v - y) ** 2 for q, v, y in zip(weight, model, w)) / sum(weight))


def assert_constraints(parameters: FloatArray) -> None:
    a, b, rho, _, sigma = parameters.tolist()
    assert b >= 0.0
    assert abs(rho) <= RHO_MAXIMUM < 1.0
    assert SIGMA_MINIMUM <= sigma <= SIGMA_MAXIMUM
    assert b * (1.0 + abs(rho)) <= WING_SLOPE_MAXIMUM * (1.0 + 1e-15)
    assert a + b * sigma * math.sqrt(1.0 - rho * rho) >= -1e-15 * (1.0 + abs(a))


@pytest.mark.parametrize("name", SLICES)
def test_exact_quotes_return_their_slice(name: str) -> None:
    parameters, error, status = fit_slice(*quotes(SLICES[name]))
    assert status == FITTED
    assert parameters == pytest.approx(np.array(SLICES[name]), rel=1e-6, abs=1e-8)
    assert error < 1e-10


@pytest.mark.parametrize("name", SLICES)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_worse_than_scipy_started_at_the_truth(name: str, seed: int) -> None:
    k, w, weight = quotes(SLICES[name])
    random = np.random.default_rng(seed)
    w = w * np.exp(random.normal(0.0, 0.02, k.shape[0]))
    weight = random.uniform(0.2, 2.0, k.shape[0])

    def residuals(p: FloatArray) -> FloatArray:
        return np.sqrt(weight) * (p[0] + p[1] * (p[2] * (k - p[3]) + np.hypot(k - p[3], p[4])) - w)

    bounds = ([-np.inf, 0.0, -0.999, -1.7, 1e-4], [np.inf, 2.0, 0.999, 1.6, 10.0])
    best = least_squares(residuals, SLICES[name], bounds=bounds, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    parameters, error, status = fit_slice(k, w, weight)
    assert status == FITTED
    assert_constraints(parameters)
    assert error <= math.sqrt(2.0 * best.cost / weight.sum()) * (1.0 + 1e-4)


@settings(deadline=None, max_examples=60)  # the first call compiles
@given(st.lists(st.tuples(st.floats(-2.0, 2.0), st.floats(0.0, 3.0), st.floats(0.0, 10.0)), min_size=0, max_size=25))
def test_constraints_hold_for_any_quotes(points: list[tuple[float, float, float]]) -> None:
    k, w, weight = np.array(points, dtype=np.float64).reshape(-1, 3).T.copy()
    parameters, error, status = fit_slice(k, w, weight)
    distinct = len({x for x, _, q in points if q > 0.0})
    assert status == (FITTED if distinct >= MINIMUM_POINTS else TOO_FEW_POINTS)
    if status == FITTED:
        assert_constraints(parameters)
        assert error == pytest.approx(weighted_error(parameters, k, w, weight), rel=1e-6, abs=1e-12)
        flat = math.sqrt(float(np.average((w - np.average(w, weights=weight)) ** 2, weights=weight)))
        assert error <= flat * (1.0 + 1e-9) + 1e-12
    else:
        assert np.isnan(parameters).all()
        assert math.isnan(error)


def test_quotes_without_weight_have_no_influence() -> None:
    k, w, weight = quotes(SLICES["monthly"])
    w[7], weight[7] = 5.0, 0.0
    parameters, error, status = fit_slice(k, w, weight)
    assert status == FITTED
    assert parameters == pytest.approx(np.array(SLICES["monthly"]), rel=1e-6)
    assert error < 1e-10


def test_steep_wings_are_limited_by_lees_bound() -> None:
    k = np.linspace(-1.0, 1.0, 21)
    parameters, _, status = fit_slice(k, 5.0 * np.abs(k), np.ones(21))
    assert status == FITTED
    assert parameters[1] * (1.0 + abs(parameters[2])) == pytest.approx(WING_SLOPE_MAXIMUM, rel=1e-3)


def test_same_quotes_give_the_same_bits() -> None:
    k, w, weight = quotes(SLICES["weekly"])
    w = w * np.exp(np.random.default_rng(5).normal(0.0, 0.05, k.shape[0]))
    first, second = fit_slice(k, w, weight), fit_slice(k.copy(), w.copy(), weight.copy())
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1] == second[1]


@pytest.mark.parametrize(("column", "value"), [(0, math.nan), (0, math.inf), (1, -0.01), (1, math.nan), (2, -1.0)])
def test_invalid_quotes_are_refused(column: int, value: float) -> None:
    columns = quotes(SLICES["monthly"])
    columns[column][3] = value
    parameters, error, status = fit_slice(*columns)
    assert status == INVALID_INPUT
    assert np.isnan(parameters).all()
    assert math.isnan(error)


def test_columns_of_different_lengths_are_refused() -> None:
    k, w, weight = quotes(SLICES["monthly"])
    assert fit_slice(k, w[:-1], weight)[2] == INVALID_INPUT


def test_too_few_distinct_quotes() -> None:
    k, w, weight = quotes(SLICES["monthly"], 8)
    k[4:] = k[3]
    assert fit_slice(k, w, weight)[2] == TOO_FEW_POINTS
    assert fit_slice(np.empty(0), np.empty(0), np.empty(0))[2] == TOO_FEW_POINTS
