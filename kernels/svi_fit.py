"""Least-squares fit of one raw SVI slice to the quotes of one expiry, free of arbitrage where asked.

The slice is written with its minimum variance instead of a,

    w(k) = minimum + b*(rho*(k-m) + sqrt((k-m)**2 + sigma**2) - sigma*sqrt(1-rho**2)),

so that the constraints (no negative variance, Lee's bound on the wings) are bounds of single parameters. The search
starts at the best point of a fixed grid over (m, sigma, rho), where minimum and b are linear and found exactly (De
Marco and Martini, "Quasi-explicit calibration of Gatheral's SVI model", Zeliade, 2009), and goes on with
Levenberg-Marquardt steps in (minimum, b, rho, m, ln sigma), parameters at a bound held there (More, "The
Levenberg-Marquardt algorithm", 1978, with his scaling). ``sigma`` is at most twice the width of the quotes: beyond, the
hyperbola is a parabola over the quotes, nothing tells its parameters apart, and its wings run away.

``fit_free_slice`` adds one-sided squares, what g (``kernels.svi.durrleman_g``) lacks to zero and what w lacks to a
floor, with a weight that rises until both hold; what is left is removed by flattening towards the variance at the
forward, a flat slice being free of butterfly arbitrage, and by lifting the slice. No randomness: equal quotes give
equal bits.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.compiling import compiled, inlined
from kernels.loops import assign
from kernels.normal import exponential
from kernels.svi import BUTTERFLY_POINTS, butterfly_minimum, butterfly_points, durrleman_g, raw_total_variance

FITTED = 0
TOO_FEW_POINTS = 1
INVALID_INPUT = 2
NOT_REPAIRED = 3

MINIMUM_POINTS = 5
"""A slice has five parameters; fewer distinct quotes cannot determine it."""

WING_SLOPE_MAXIMUM = 2.0
RHO_MAXIMUM = 0.999
SIGMA_MINIMUM = 1e-4
SIGMA_MAXIMUM = 10.0
SIGMA_PER_WIDTH = 2.0

BUTTERFLY_MARGIN = 1e-3
"""g that a repaired slice is drawn to, so that rounding to recorded integers cannot take it below zero."""

_STEPS = 120
_DAMPING_START, _DAMPING_LEAST, _DAMPING_MOST = 1e-3, 1e-14, 1e8
_RELATIVE_TOLERANCE = 1e-9
_PENALTY_ROUNDS, _PENALTY_STEPS, _PENALTY_GROWTH = 5, 15, 20.0  # the last bits are not worth their time there
_DIFFERENCE = 1e-6  # relative step of the derivatives of g

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@compiled
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


@compiled
def fit_minimum_and_slope(
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


@compiled
def _range(k: FloatArray, count: int) -> tuple[float, float]:
    """(smallest, largest) of the first ``count``."""
    low, high = k[0], k[0]
    for i in range(count):
        low, high = min(low, k[i]), max(high, k[i])
    return low, high


@compiled
def _grid_start(k: FloatArray, w: FloatArray, weight: FloatArray, point: FloatArray) -> None:
    """Best of 3 centres x 3 widths x 3 slopes, the first two in units of the quotes' range, into ``point``."""
    low, high = _range(k, k.shape[0])
    width, shape, best = high - low, np.empty(k.shape[0]), np.inf
    for relative_m in (0.25, 0.5, 0.75):
        for relative_sigma in (0.05, 0.2, 0.8):
            for rho in (-0.5, 0.0, 0.5):
                m, sigma = low + relative_m * width, min(max(relative_sigma * width, SIGMA_MINIMUM), SIGMA_MAXIMUM)
                error, minimum, b = fit_minimum_and_slope(k, w, weight, m, sigma, rho, shape)
                if error < best:
                    best = error
                    point[0], point[1], point[2], point[3], point[4] = minimum, b, rho, m, sigma


@compiled
def _sigma_maximum(width: float) -> float:
    return min(max(SIGMA_PER_WIDTH * width, SIGMA_MINIMUM), SIGMA_MAXIMUM)


@compiled
def _constrain(point: FloatArray, k_low: float, k_high: float, least: float) -> None:
    """Move (minimum, b, rho, m, sigma) into the bounds; ``least`` is the lowest minimum allowed."""
    width = k_high - k_low
    point[0] = max(point[0], least)
    point[2] = min(max(point[2], -RHO_MAXIMUM), RHO_MAXIMUM)
    point[1] = min(max(point[1], 0.0), WING_SLOPE_MAXIMUM / (1.0 + abs(point[2])))
    point[3] = min(max(point[3], k_low - width), k_high + width)
    point[4] = min(max(point[4], SIGMA_MINIMUM), _sigma_maximum(width))


@compiled
def _free_parameters(
    point: FloatArray, slope: FloatArray, k_low: float, k_high: float, least: float, free: BoolArray
) -> None:
    """Which parameters may move: not those at a bound whose descent points outside."""
    width = k_high - k_low
    b_maximum = WING_SLOPE_MAXIMUM / (1.0 + abs(point[2]))
    bounds = (
        (least, np.inf), (0.0, b_maximum), (-RHO_MAXIMUM, RHO_MAXIMUM), (k_low - width, k_high + width),
        (SIGMA_MINIMUM, _sigma_maximum(width)),
    )  # fmt: skip
    for n in range(5):
        low, high = bounds[n]
        free[n] = not ((point[n] <= low and slope[n] > 0.0) or (point[n] >= high and slope[n] < 0.0))


@inlined
def _add_square(weight: float, residual: float, row: FloatArray, matrix: FloatArray, slope: FloatArray) -> None:
    """One squared residual into the lower half of the normal matrix and half the gradient."""
    for n in range(5):
        scaled = weight * row[n]
        slope[n] += scaled * residual
        for other in range(n + 1):
            matrix[n, other] += scaled * row[other]


@compiled
def _raw(point: FloatArray) -> tuple[float, float, float, float, float]:
    """(a, b, rho, m, sigma) of (minimum, b, rho, m, sigma)."""
    b, rho, sigma = point[1], point[2], point[4]
    return point[0] - b * sigma * np.sqrt(1.0 - rho * rho), b, rho, point[3], sigma


@compiled
def _butterfly_squares(
    point: FloatArray, penalty: float, row: FloatArray, matrix: FloatArray, slope: FloatArray
) -> float:
    """Penalised squares of what g lacks to ``BUTTERFLY_MARGIN``, added to the normal equations; their sum."""
    a, b, rho, m, sigma = _raw(point)
    where, moved, loss = np.empty(BUTTERFLY_POINTS), np.empty(5), 0.0
    moved[0], moved[1], moved[2], moved[3], moved[4] = a, b, rho, m, sigma
    butterfly_points(moved, where)
    for i in range(BUTTERFLY_POINTS):
        lack = BUTTERFLY_MARGIN - durrleman_g(a, b, rho, m, sigma, where[i])
        if not lack > 0.0:
            continue
        for n in range(5):
            assign(moved, point)
            step = _DIFFERENCE * (1.0 if n in (2, 3) else point[n] + 1e-12)
            moved[n] += step
            p, q, r, s, t = _raw(moved)
            derivative = (BUTTERFLY_MARGIN - durrleman_g(p, q, r, s, t, where[i]) - lack) / step
            row[n] = derivative * point[4] if n == 4 else derivative
        loss += penalty * lack * lack
        _add_square(penalty, lack, row, matrix, slope)
    return loss


@compiled
def _normal_equations(
    point: FloatArray, k: FloatArray, w: FloatArray, weight: FloatArray, quotes: int, penalty: float,
    matrix: FloatArray, slope: FloatArray,
) -> float:  # fmt: skip
    """Sum of squares at ``point``, its normal matrix (lower half) and half its gradient in (.., m, ln sigma).

    From the ``quotes``-th on the points are floors: they count, times ``penalty``, only where w lies below them.
    """
    matrix[:] = 0.0
    slope[:] = 0.0
    minimum, b, rho, m, sigma = point[0], point[1], point[2], point[3], point[4]
    loss, complement, row = 0.0, np.sqrt(1.0 - rho * rho), np.empty(5)
    row[0] = 1.0
    for i in range(k.shape[0]):
        x = k[i] - m
        root = np.sqrt(x * x + sigma * sigma)
        row[1] = rho * x + root - sigma * complement
        residual = minimum + b * row[1] - w[i]
        q = weight[i]
        if i >= quotes:
            if residual >= 0.0:
                continue
            q *= penalty
        row[2] = b * (x + sigma * rho / complement)
        row[3] = -b * (rho + x / root)
        row[4] = b * sigma * (sigma / root - complement)
        loss += q * residual * residual
        _add_square(q, residual, row, matrix, slope)
    if penalty > 0.0:
        loss += _butterfly_squares(point, penalty, row, matrix, slope)
    return loss


@compiled
def _solve(
    matrix: FloatArray, slope: FloatArray, free: BoolArray, damping: float, root: FloatArray, step: FloatArray
) -> bool:
    """Marquardt's step: (M + damping*diag(M)) step = -slope over the free parameters, by Cholesky; False: singular."""
    step[:] = 0.0
    for n in range(5):
        if not free[n]:
            continue
        for other in range(n + 1):
            if not free[other]:
                continue
            value = matrix[n, other] * (1.0 + damping if n == other else 1.0)
            for inner in range(other):
                if free[inner]:
                    value -= root[n, inner] * root[other, inner]
            if n == other and not value > 0.0:
                return False
            root[n, other] = np.sqrt(value) if n == other else value / root[other, other]
    for n in range(5):
        if free[n]:
            value = -slope[n]
            for other in range(n):
                value -= root[n, other] * step[other] if free[other] else 0.0
            step[n] = value / root[n, n]
    for n in range(4, -1, -1):
        if free[n]:
            value = step[n]
            for other in range(n + 1, 5):
                value -= root[other, n] * step[other] if free[other] else 0.0
            step[n] = value / root[n, n]
    return True


@compiled
def _descend(
    point: FloatArray, k: FloatArray, w: FloatArray, weight: FloatArray, quotes: int, penalty: float, least: float,
    steps: int,
) -> float:  # fmt: skip
    """Levenberg-Marquardt from ``point`` (moved in place), at most so many ``steps``; the sum of squares there."""
    k_low, k_high = _range(k, quotes)
    matrix, new_matrix, slope, new_slope = np.empty((5, 5)), np.empty((5, 5)), np.empty(5), np.empty(5)
    root, step, trial, free = np.zeros((5, 5)), np.zeros(5), np.empty(5), np.empty(5, np.bool_)
    _constrain(point, k_low, k_high, least)
    loss = _normal_equations(point, k, w, weight, quotes, penalty, matrix, slope)
    damping, small = _DAMPING_START, 0
    for _ in range(steps):
        _free_parameters(point, slope, k_low, k_high, least, free)
        if _solve(matrix, slope, free, damping, root, step):
            for n in range(4):
                trial[n] = point[n] + step[n]
            trial[4] = point[4] * exponential(min(max(step[4], -1.0), 1.0))
            _constrain(trial, k_low, k_high, least)
            new_loss = _normal_equations(trial, k, w, weight, quotes, penalty, new_matrix, new_slope)
            if new_loss < loss:
                small = small + 1 if loss - new_loss <= _RELATIVE_TOLERANCE * loss else 0
                assign(point, trial)
                matrix, new_matrix, slope, new_slope, loss = new_matrix, matrix, new_slope, slope, new_loss
                damping = max(0.1 * damping, _DAMPING_LEAST)
                if small >= 2:
                    break
                continue
            damping *= 4.0
        else:
            damping *= 100.0
        if damping > _DAMPING_MOST:
            break
    return loss


@compiled
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


@compiled
def _error(parameters: FloatArray, k: FloatArray, w: FloatArray, weight: FloatArray) -> float:
    """Weighted root mean square of w(k) - w."""
    total, weight_sum = 0.0, 0.0
    for i in range(k.shape[0]):
        fitted = raw_total_variance(parameters[0], parameters[1], parameters[2], parameters[3], parameters[4], k[i])
        total += weight[i] * (fitted - w[i]) ** 2
        weight_sum += weight[i]
    return np.sqrt(total / weight_sum)


def fit_slice(
    log_moneyness: FloatArray, total_variance: FloatArray, weight: FloatArray
) -> tuple[FloatArray, float, int]:
    """(parameters, root mean square error, status) of the slice closest to the quotes of one expiry.

    ``log_moneyness`` = ln(strike/forward), ``total_variance`` = vol**2 * years >= 0, ``weight`` >= 0 of the squared
    errors; equally long. ``parameters`` = (a, b, rho, m, sigma) of ``kernels.svi`` with b >= 0, |rho| <= 0.999,
    1e-4 <= sigma <= 10 and at most twice the quotes' range, b*(1+|rho|) <= 2 and a + b*sigma*sqrt(1-rho**2) >= 0 (to
    one rounding). The error is in units of total variance, weighted. Unless status is ``FITTED`` parameters and error
    are NaN: ``TOO_FEW_POINTS`` (fewer than five distinct log-moneynesses of positive weight) or ``INVALID_INPUT`` (not
    finite, negative, or of different lengths). Freedom from butterfly arbitrage is not imposed: ``fit_free_slice``.
    """
    parameters = np.full(5, np.nan)
    status = _input_status(log_moneyness, total_variance, weight)
    if status != FITTED:
        return parameters, np.nan, status
    used = weight > 0.0
    k, w, q = log_moneyness[used], total_variance[used], weight[used]
    point = np.empty(5)
    _grid_start(k, w, q, point)
    _descend(point, k, w, q, k.shape[0], 0.0, 0.0, _STEPS)
    parameters[:] = _raw(point)
    return parameters, _error(parameters, k, w, q), FITTED


@compiled
def lowest_above(parameters: FloatArray, floor_k: FloatArray, floor_w: FloatArray) -> float:
    """Smallest w(k) - floor over the floor's points; infinite without any."""
    lowest = np.inf
    for i in range(floor_k.shape[0]):
        w = raw_total_variance(
            parameters[0], parameters[1], parameters[2], parameters[3], parameters[4], floor_k[i]
        )  # fmt: skip
        lowest = min(lowest, w - floor_w[i])
    return lowest


@compiled
def flatten(parameters: FloatArray) -> bool:
    """Shrink b, the variance at the forward held, until g >= ``BUTTERFLY_MARGIN``/2 everywhere; False: no variance.

    Bisection for the largest share of b: a flat slice has g = 1.
    """
    a, b, rho, m, sigma = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4]
    at_forward = raw_total_variance(a, b, rho, m, sigma, 0.0)
    if not at_forward > 0.0:
        return False
    low, high, trial = 0.0, 1.0, parameters.copy()
    for _ in range(40):
        share = 0.5 * (low + high)
        trial[1] = share * b
        trial[0] = at_forward - share * (at_forward - a)
        if butterfly_minimum(trial)[0] >= 0.5 * BUTTERFLY_MARGIN:
            low = share
        else:
            high = share
    parameters[1], parameters[0] = low * b, at_forward - low * (at_forward - a)
    return True


@compiled
def is_free(parameters: FloatArray, floor_k: FloatArray, floor_w: FloatArray) -> bool:
    """No butterfly arbitrage, and never below the floor."""
    return butterfly_minimum(parameters)[0] >= 0.0 and lowest_above(parameters, floor_k, floor_w) >= 0.0


def _penalised(
    point: FloatArray, k: FloatArray, w: FloatArray, weight: FloatArray, floor_k: FloatArray, floor_w: FloatArray
) -> FloatArray:
    """Parameters after rounds of rising penalties, from ``point``; the first free of arbitrage, or the last."""
    quotes, scale, square = k.shape[0], 0.0, 1e-300
    for i in range(quotes):
        scale += weight[i]
        square += weight[i] * w[i] * w[i]
    all_k, all_w = np.concatenate((k, floor_k)), np.concatenate((w, floor_w))
    # g has no unit: a floor's lack counts in units of the quotes' variance
    all_weight = np.concatenate((weight, np.full(floor_k.shape[0], scale / square)))
    penalty, least, parameters = 1e-3 * square, 1e-3 * np.sqrt(square / scale), np.empty(5)
    for _ in range(_PENALTY_ROUNDS):
        _descend(point, all_k, all_w, all_weight, quotes, penalty, least, _PENALTY_STEPS)
        parameters[:] = _raw(point)
        if is_free(parameters, floor_k, floor_w):
            break
        penalty *= _PENALTY_GROWTH
    return parameters


def fit_free_slice(
    log_moneyness: FloatArray, total_variance: FloatArray, weight: FloatArray, floor_k: FloatArray, floor_w: FloatArray
) -> tuple[FloatArray, float, int, bool]:
    """(parameters, error, status, repaired): as ``fit_slice``, without butterfly arbitrage and nowhere below the floor.

    ``floor_w`` is the total variance of the expiry before at log-moneynesses ``floor_k`` (equally long, maybe empty):
    w may not fall below it (calendar arbitrage; Gatheral and Jacquier, 2014, lemma 2.1). ``repaired``: the closest
    slice had an arbitrage, this one is the closest found without. ``NOT_REPAIRED`` (parameters NaN): none was found.
    """
    parameters, error, status = fit_slice(log_moneyness, total_variance, weight)
    if status != FITTED or is_free(parameters, floor_k, floor_w):
        return parameters, error, status, False
    used = weight > 0.0
    k, w, q = log_moneyness[used], total_variance[used], weight[used]
    a, b, rho, m, sigma = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4]
    point = np.array([a + b * sigma * np.sqrt(1.0 - rho * rho), b, rho, m, sigma])
    parameters = _penalised(point, k, w, q, floor_k, floor_w)
    for _ in range(3):  # lifting may cost the butterfly what flattening has won
        if is_free(parameters, floor_k, floor_w):
            return parameters, _error(parameters, k, w, q), FITTED, True
        if butterfly_minimum(parameters)[0] < 0.0 and not flatten(parameters):
            break
        parameters[0] += max(-lowest_above(parameters, floor_k, floor_w), 0.0) * (1.0 + 1e-9)
    if is_free(parameters, floor_k, floor_w):
        return parameters, _error(parameters, k, w, q), FITTED, True
    return np.full(5, np.nan), np.nan, NOT_REPAIRED, True
