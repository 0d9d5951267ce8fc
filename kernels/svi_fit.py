"""Least-squares fit of one raw SVI slice to the quotes of one expiry.

For given (m, sigma, rho) the slice is linear in its minimum variance and its slope,

    w(k) = minimum + b * shape(k),   shape(k) = rho*(k-m) + sqrt((k-m)**2 + sigma**2) - sigma*sqrt(1-rho**2) >= 0,

and the constraints minimum >= 0 (no negative variance) and 0 <= b <= 2/(1+|rho|) (Lee's bound on the wings) are a box,
so the inner problem is solved exactly by looking at its edges. The outer search over (m, ln sigma, artanh rho) is a
Nelder-Mead simplex started at the best point of a fixed grid. The split follows De Marco and Martini, "Quasi-explicit
calibration of Gatheral's SVI model" (Zeliade, 2009), with rho moved to the outer problem to make the constraints
linear. No randomness: the same quotes give the same bits.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.normal import exponential, logarithm

FITTED = 0
TOO_FEW_POINTS = 1
INVALID_INPUT = 2

MINIMUM_POINTS = 5
"""A slice has five parameters; fewer distinct quotes cannot determine it."""

WING_SLOPE_MAXIMUM = 2.0
RHO_MAXIMUM = 0.999
SIGMA_MINIMUM = 1e-4
SIGMA_MAXIMUM = 10.0

_SIMPLEX_STEPS = 400
_SIMPLEX_ROUNDS = 3  # a collapsed simplex restarts around its best point
_RELATIVE_TOLERANCE = 1e-9

FloatArray = NDArray[np.float64]


@njit(cache=True, nogil=True, error_model="numpy")
def _minimum_and_slope(
    weight_sum: float, mean_shape: float, mean_w: float, variance: float, covariance: float, b_maximum: float
) -> tuple[float, float]:
    """Minimiser (minimum, b) of sum weight*(minimum + b*shape - w)**2 on minimum >= 0, 0 <= b <= ``b_maximum``.

    Up to a constant that sum is weight_sum*(minimum + b*mean_shape - mean_w)**2 + b*b*variance - 2*b*covariance.
    """
    b = covariance / variance if variance > 0.0 else 0.0
    minimum = mean_w - b * mean_shape
    if 0.0 <= b <= b_maximum and minimum >= 0.0:
        return minimum, b
    best = np.inf
    on_floor = (weight_sum * mean_shape * mean_w + covariance) / (weight_sum * mean_shape * mean_shape + variance)
    for edge in range(3):
        edge_b = min(max(on_floor, 0.0), b_maximum) if edge == 0 else (0.0 if edge == 1 else b_maximum)
        edge_minimum = 0.0 if edge == 0 else max(mean_w - edge_b * mean_shape, 0.0)
        gap = edge_minimum + edge_b * mean_shape - mean_w
        loss = weight_sum * gap * gap + edge_b * edge_b * variance - 2.0 * edge_b * covariance
        if loss < best:
            best, minimum, b = loss, edge_minimum, edge_b
    return minimum, b


@njit(cache=True, nogil=True, error_model="numpy")
def _fit_inner(
    k: FloatArray, w: FloatArray, weight: FloatArray, m: float, sigma: float, rho: float, shape: FloatArray
) -> tuple[float, float, float]:
    """(squared error, minimum, b) of the best slice with the given m, sigma, rho; ``shape`` is scratch of length k."""
    floor = sigma * np.sqrt(1.0 - rho * rho)
    weight_sum, mean_shape, mean_w = 0.0, 0.0, 0.0
    for i in range(k.shape[0]):
        x = k[i] - m
        shape[i] = rho * x + np.sqrt(x * x + sigma * sigma) - floor
        weight_sum += weight[i]
        mean_shape += weight[i] * shape[i]
        mean_w += weight[i] * w[i]
    mean_shape /= weight_sum
    mean_w /= weight_sum
    variance, covariance = 0.0, 0.0
    for i in range(k.shape[0]):
        deviation = shape[i] - mean_shape
        variance += weight[i] * deviation * deviation
        covariance += weight[i] * deviation * (w[i] - mean_w)
    b_maximum = WING_SLOPE_MAXIMUM / (1.0 + abs(rho))
    minimum, b = _minimum_and_slope(weight_sum, mean_shape, mean_w, variance, covariance, b_maximum)
    error = 0.0
    for i in range(k.shape[0]):
        residual = minimum + b * shape[i] - w[i]
        error += weight[i] * residual * residual
    return error, minimum, b


@njit(inline="always", cache=True, nogil=True, error_model="numpy")
def _constrained(point: FloatArray, k_low: float, k_high: float) -> tuple[float, float, float]:
    """(m, sigma, rho) of a simplex point (m, ln sigma, artanh rho), moved into the bounds."""
    width = k_high - k_low
    m = min(max(point[0], k_low - width), k_high + width)
    sigma = min(max(exponential(point[1]), SIGMA_MINIMUM), SIGMA_MAXIMUM)
    decay = exponential(-2.0 * abs(point[2]))
    magnitude = min((1.0 - decay) / (1.0 + decay), RHO_MAXIMUM)
    return m, sigma, magnitude if point[2] >= 0.0 else -magnitude


@njit(cache=True, nogil=True, error_model="numpy")
def _loss(point: FloatArray, k: FloatArray, w: FloatArray, weight: FloatArray, shape: FloatArray) -> float:
    m, sigma, rho = _constrained(point, k.min(), k.max())
    return _fit_inner(k, w, weight, m, sigma, rho, shape)[0]


@njit(cache=True, nogil=True, error_model="numpy")
def _grid_start(k: FloatArray, w: FloatArray, weight: FloatArray, shape: FloatArray) -> FloatArray:
    """Best point of a fixed grid: 5 centres x 4 widths x 5 slopes, the first two in units of the quotes' range."""
    width = k.max() - k.min()
    point, best_point = np.empty(3), np.zeros(3)
    best = np.inf
    for centre in range(5):
        for relative_sigma in (0.03, 0.1, 0.3, 0.8):
            for slope in (-0.9, -0.4, 0.0, 0.4, 0.9):
                point[0] = k.min() + width * (0.1 + 0.2 * centre)
                point[1] = logarithm(relative_sigma * width)
                point[2] = slope
                loss = _loss(point, k, w, weight, shape)
                if loss < best:
                    best = loss
                    best_point[:] = point
    return best_point


@njit(cache=True, nogil=True, error_model="numpy")
def _sort_simplex(simplex: FloatArray, loss: FloatArray) -> None:
    """Insertion sort of the four corners by loss, ties in place."""
    for i in range(1, 4):
        for j in range(i, 0, -1):
            if loss[j] >= loss[j - 1]:
                break
            loss[j], loss[j - 1] = loss[j - 1], loss[j]
            for axis in range(3):
                simplex[j, axis], simplex[j - 1, axis] = simplex[j - 1, axis], simplex[j, axis]


@njit(cache=True, nogil=True, error_model="numpy")
def _simplex_step(
    simplex: FloatArray, loss: FloatArray, k: FloatArray, w: FloatArray, weight: FloatArray, shape: FloatArray
) -> None:
    """One Nelder-Mead step on a sorted simplex (coefficients 1, 2, 1/2, 1/2; Nelder and Mead, 1965)."""
    centre = (simplex[0] + simplex[1] + simplex[2]) / 3.0
    trial = centre + (centre - simplex[3])
    trial_loss = _loss(trial, k, w, weight, shape)
    if trial_loss < loss[0]:
        further = centre + 2.0 * (centre - simplex[3])
        further_loss = _loss(further, k, w, weight, shape)
        if further_loss < trial_loss:
            trial, trial_loss = further, further_loss
    elif trial_loss >= loss[2]:
        inner = centre + 0.5 * ((trial if trial_loss < loss[3] else simplex[3]) - centre)
        inner_loss = _loss(inner, k, w, weight, shape)
        if inner_loss >= min(trial_loss, loss[3]):
            for corner in range(1, 4):
                simplex[corner] = simplex[0] + 0.5 * (simplex[corner] - simplex[0])
                loss[corner] = _loss(simplex[corner], k, w, weight, shape)
            return
        trial, trial_loss = inner, inner_loss
    simplex[3] = trial
    loss[3] = trial_loss


@njit(cache=True, nogil=True, error_model="numpy")
def _search(start: FloatArray, k: FloatArray, w: FloatArray, weight: FloatArray, shape: FloatArray) -> FloatArray:
    """Nelder-Mead from ``start``, restarted around its best point."""
    best = start.copy()
    simplex, loss = np.empty((4, 3)), np.empty(4)
    step = (0.1 * (k.max() - k.min()), 0.4, 0.25)
    for _ in range(_SIMPLEX_ROUNDS):
        for corner in range(4):
            simplex[corner] = best
            if corner > 0:
                simplex[corner, corner - 1] += step[corner - 1]
            loss[corner] = _loss(simplex[corner], k, w, weight, shape)
        _sort_simplex(simplex, loss)
        for _step in range(_SIMPLEX_STEPS):
            if loss[3] - loss[0] <= _RELATIVE_TOLERANCE * loss[0]:
                break
            _simplex_step(simplex, loss, k, w, weight, shape)
            _sort_simplex(simplex, loss)
        best = simplex[0].copy()
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def _input_status(k: FloatArray, w: FloatArray, weight: FloatArray) -> int:
    """Whether the quotes are finite, not negative, and at least ``MINIMUM_POINTS`` distinct k with positive weight."""
    if not (k.shape[0] == w.shape[0] == weight.shape[0]):
        return INVALID_INPUT
    distinct = 0
    for i in range(k.shape[0]):
        if not (np.isfinite(k[i]) and 0.0 <= w[i] < np.inf and 0.0 <= weight[i] < np.inf):
            return INVALID_INPUT
        is_new = weight[i] > 0.0
        for j in range(i):
            is_new = is_new and not (k[j] == k[i] and weight[j] > 0.0)
        distinct += 1 if is_new else 0
    return FITTED if distinct >= MINIMUM_POINTS else TOO_FEW_POINTS


@njit(cache=True, nogil=True, error_model="numpy")
def fit_slice(
    log_moneyness: FloatArray, total_variance: FloatArray, weight: FloatArray
) -> tuple[FloatArray, float, int]:
    """(parameters, root mean square error, status) of the slice closest to the quotes of one expiry.

    ``log_moneyness`` = ln(strike/forward), ``total_variance`` = vol**2 * years >= 0, ``weight`` >= 0 of the squared
    errors; equally long. ``parameters`` = (a, b, rho, m, sigma) of ``kernels.svi`` with b >= 0, |rho| <= 0.999,
    1e-4 <= sigma <= 10, b*(1+|rho|) <= 2 and a + b*sigma*sqrt(1-rho**2) >= 0 (to one rounding). The error is in
    units of total variance, weighted. Unless status is ``FITTED`` parameters and error are NaN: ``TOO_FEW_POINTS``
    (fewer than five distinct log-moneynesses of positive weight) or ``INVALID_INPUT`` (not finite, negative, or of
    different lengths). Freedom from butterfly arbitrage is not imposed: see ``kernels.svi.durrleman_minimum``.
    """
    parameters = np.full(5, np.nan)
    status = _input_status(log_moneyness, total_variance, weight)
    if status != FITTED:
        return parameters, np.nan, status
    used = weight > 0.0
    k, w, q = log_moneyness[used], total_variance[used], weight[used]
    shape = np.empty(k.shape[0])
    point = _search(_grid_start(k, w, q, shape), k, w, q, shape)
    m, sigma, rho = _constrained(point, k.min(), k.max())
    error, minimum, b = _fit_inner(k, w, q, m, sigma, rho, shape)
    weight_sum = 0.0
    for i in range(q.shape[0]):
        weight_sum += q[i]
    parameters[:] = (minimum - b * sigma * np.sqrt(1.0 - rho * rho), b, rho, m, sigma)
    return parameters, np.sqrt(error / weight_sum), FITTED
