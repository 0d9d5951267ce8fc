"""GARCH(1,1) and GJR-GARCH(1,1) with normal, Student t or skewed t innovations: filter, likelihood, scores, fit.

    e_t = x_t - mu,   z_t = e_t / sqrt(h_t)
    h_(t+1) = omega + (alpha + gamma [e_t < 0]) e_t**2 + beta h_t

Both pre-sample values, h and e**2, are the mean of e**2 over the sample; another start gives visibly other estimates
(back-casting changes alpha of the DEM/GBP benchmark from 0.153 to 0.146), so it is part of the definition.

The density is Hansen's skewed t of unit variance; skew 0 is the t, ``KIND_NORMAL`` its limit. The fit maximises the
likelihood by BFGS with exact scores from the outer product of scores (BHHH), over coordinates in which every point is
a stationary model. Loops in one fixed order, our own logarithm and exponential: the same bits everywhere.

Sources: Bollerslev (1986); Glosten, Jagannathan, Runkle (1993); Hansen, "Autoregressive conditional density
estimation" (1994), eqs. 10-13; Berndt, Hall, Hall, Hausman (1974); Fiorentini, Calzolari, Panattoni (1996).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.compiling import compiled, inlined
from kernels.layout import FloatArray
from kernels.normal import exponential, logarithm

KIND_NORMAL, KIND_T, KIND_SKEW_T = 0, 1, 2
MU, OMEGA, ALPHA, GAMMA, BETA, DEGREES, SKEW = range(7)
PARAMETERS = 7

DEGREES_MIN = 2.05
"""Below this the variance, to which the density is scaled, all but ceases to exist."""
ITERATIONS_MAX = 200
IndexArray = NDArray[np.int64]

_HALF_LOG_TWO_PI = 0.9189385332046727
_LOG_PI = 1.1447298858494002
_SHAPE = 9  # a, b, ln(b c) and their slopes, see _shape
_STEP_MAX = 2.0  # a coordinate moves by no more at once
_LENGTH_MIN = 1e-4
_GAIN_MIN = 2e-14  # of the likelihood: below it the sum's own rounding decides
_STIRLING_FROM = 12.0
_COORDINATE_MAX = np.array([10.0, 2.0, 3.0, 6.0, 4.0, 5.0, 4.0])
_COORDINATE_MIN = np.array([-10.0, -9.2, -18.0, -9.0, -4.0, -4.0, -4.0])  # -9.2: persistence 0.9999


@compiled
def log_gamma(x: float) -> float:
    """ln Gamma(x) for x > 0: shifted up to 12 and beyond, then Stirling's series; relative error near 1e-15."""
    product = 1.0
    while x < _STIRLING_FROM:
        product *= x
        x += 1.0
    y = 1.0 / (x * x)
    series = (1.0 / 12 - y * (1.0 / 360 - y * (1.0 / 1260 - y * (1.0 / 1680 - y / 1188.0)))) / x
    return (x - 0.5) * logarithm(x) - x + _HALF_LOG_TWO_PI + series - logarithm(product)


@compiled
def _hansen(degrees: float, skew: float) -> tuple[float, float, float]:
    """(a, b, ln(b c)) of the skewed t: f(z) = b c (1 + y**2 / (d**2 (degrees - 2)))**(-(degrees + 1) / 2), y = b z + a,
    d = 1 - skew left of y = 0 and 1 + skew right of it."""
    log_c = log_gamma(0.5 * (degrees + 1.0)) - log_gamma(0.5 * degrees)
    log_c -= 0.5 * (_LOG_PI + logarithm(degrees - 2.0))
    a = 4.0 * skew * exponential(log_c) * (degrees - 2.0) / (degrees - 1.0)
    b = np.sqrt(1.0 + 3.0 * skew * skew - a * a)
    return a, b, logarithm(b) + log_c


@compiled
def _shape(degrees: float, skew: float, out: FloatArray) -> None:
    """out[0:3] = (a, b, ln(b c)), [3:6] slopes by degrees, [6:9] slopes by skew (central differences)."""
    out[0], out[1], out[2] = _hansen(degrees, skew)
    step = 1e-5 * (degrees - 2.0)
    up, down = _hansen(degrees + step, skew), _hansen(degrees - step, skew)
    for k in range(3):
        out[3 + k] = (up[k] - down[k]) / (2.0 * step)
    up, down = _hansen(degrees, skew + 1e-5), _hansen(degrees, skew - 1e-5)
    for k in range(3):
        out[6 + k] = (up[k] - down[k]) / 2e-5


@inlined
def _density(kind: int, z: float, degrees: float, skew: float, shape: FloatArray) -> tuple[float, float, float, float]:
    """(ln f, d ln f / dz, d ln f / d degrees, d ln f / d skew)."""
    if kind == KIND_NORMAL:
        return -0.5 * z * z - _HALF_LOG_TWO_PI, -z, 0.0, 0.0
    y = shape[1] * z + shape[0]
    sign = -1.0 if y < 0.0 else 1.0
    d, scale = 1.0 + sign * skew, degrees - 2.0
    per_y = y / (d * d * scale)
    q = y * per_y
    log_q = logarithm(1.0 + q)
    outer = -0.5 * (degrees + 1.0) / (1.0 + q)
    by_degrees = shape[5] - 0.5 * log_q + outer * (2.0 * per_y * (shape[4] * z + shape[3]) - q / scale)
    by_skew = shape[8] + outer * (2.0 * per_y * (shape[7] * z + shape[6]) - 2.0 * q * sign / d)
    return shape[2] - 0.5 * (degrees + 1.0) * log_q, outer * 2.0 * per_y * shape[1], by_degrees, by_skew


@compiled
def mean(x: FloatArray) -> float:
    """Summed in the order of time, which no library's mean promises."""
    total = 0.0
    for t in range(x.shape[0]):
        total += x[t]
    return total / x.shape[0]


@compiled
def mean_square(x: FloatArray, mu: float) -> float:
    """Mean of (x - mu)**2, the pre-sample variance."""
    total = 0.0
    for t in range(x.shape[0]):
        total += (x[t] - mu) * (x[t] - mu)
    return total / x.shape[0]


@inlined
def next_variance(e: float, h: float, omega: float, alpha: float, gamma: float, beta: float) -> float:
    """The recursion, one step."""
    return omega + (alpha + (gamma if e < 0.0 else 0.0)) * (e * e) + beta * h


@compiled
def variance_path(x: FloatArray, theta: FloatArray, start: float) -> FloatArray:
    """Forecasts float64[T]: out[t] is the variance of x[t + 1] by x[0..t]; ``start`` is the variance of x[0]."""
    out = np.empty(x.shape[0])
    h = start
    for t in range(x.shape[0]):
        h = next_variance(x[t] - theta[MU], h, theta[OMEGA], theta[ALPHA], theta[GAMMA], theta[BETA])
        out[t] = h
    return out


@compiled
def log_likelihood(x: FloatArray, theta: FloatArray, kind: int) -> float:
    """Sum of ln f(x_t) given the past; ``theta`` float64[7] in the order of this module's names."""
    shape = np.zeros(_SHAPE)
    if kind != KIND_NORMAL:
        shape[0], shape[1], shape[2] = _hansen(theta[DEGREES], theta[SKEW])
    before = mean_square(x, theta[MU])
    # Both pre-sample values are the same, and half of gamma is the mean effect of an unknown sign.
    h = theta[OMEGA] + (theta[ALPHA] + 0.5 * theta[GAMMA] + theta[BETA]) * before
    total = 0.0
    for t in range(x.shape[0]):
        e = x[t] - theta[MU]
        total += _density(kind, e / np.sqrt(h), theta[DEGREES], theta[SKEW], shape)[0] - 0.5 * logarithm(h)
        h = next_variance(e, h, theta[OMEGA], theta[ALPHA], theta[GAMMA], theta[BETA])
    return total


@compiled
def _add_scores(
    x: FloatArray, theta: FloatArray, kind: int, with_outer: bool, gradient: FloatArray, outer: FloatArray
) -> float:
    """Add the gradient of the likelihood and, if asked, the outer products of its terms' scores; -> the likelihood."""
    shape, score, dh = np.zeros(_SHAPE), np.zeros(PARAMETERS), np.zeros(5)
    if kind != KIND_NORMAL:
        _shape(theta[DEGREES], theta[SKEW], shape)
    alpha, gamma, beta = theta[ALPHA], theta[GAMMA], theta[BETA]
    before = mean_square(x, theta[MU])
    through = alpha + 0.5 * gamma + beta
    h = theta[OMEGA] + through * before
    dh[MU] = through * -2.0 * (mean(x) - theta[MU])
    dh[OMEGA], dh[ALPHA], dh[GAMMA], dh[BETA] = 1.0, before, 0.5 * before, before
    total = 0.0
    for t in range(x.shape[0]):
        e = x[t] - theta[MU]
        root = np.sqrt(h)
        z = e / root
        log_f, by_z, score[DEGREES], score[SKEW] = _density(kind, z, theta[DEGREES], theta[SKEW], shape)
        total += log_f - 0.5 * logarithm(h)
        by_h = -0.5 * (1.0 + z * by_z) / h
        for k in range(5):
            score[k] = by_h * dh[k]
        score[MU] -= by_z / root
        for i in range(PARAMETERS):
            gradient[i] += score[i]
        if with_outer:
            for i in range(PARAMETERS):
                for j in range(i + 1):
                    outer[i, j] += score[i] * score[j]
        square = e * e
        below = square if e < 0.0 else 0.0
        slope = alpha + (gamma if e < 0.0 else 0.0)
        dh[MU] = beta * dh[MU] - 2.0 * slope * e
        dh[OMEGA] = beta * dh[OMEGA] + 1.0
        dh[ALPHA] = beta * dh[ALPHA] + square
        dh[GAMMA] = beta * dh[GAMMA] + below
        dh[BETA] = beta * dh[BETA] + h
        h = theta[OMEGA] + slope * square + beta * h
    return total


@compiled
def _parameters(q: FloatArray, scale: float, out: FloatArray) -> None:
    """Coordinates -> parameters. q: mu / s, ln -ln persistence, ln omega / s**2, logit of the share of the last square
    in persistence, atanh of the asymmetry, ln(degrees - min), atanh skew; s**2 = ``scale``."""
    persistence = exponential(-exponential(q[1]))
    weight = persistence / (1.0 + exponential(-q[3]))
    asymmetry = _tanh(q[4])
    out[MU] = q[0] * np.sqrt(scale)
    out[OMEGA] = scale * exponential(q[2])
    out[ALPHA], out[GAMMA] = weight * (1.0 - asymmetry), 2.0 * weight * asymmetry
    out[BETA] = persistence - weight
    out[DEGREES] = DEGREES_MIN + exponential(q[5])
    out[SKEW] = _tanh(q[6])


@compiled
def _tanh(x: float) -> float:
    return 1.0 - 2.0 / (1.0 + exponential(2.0 * x))


@compiled
def _likelihood_at(q: FloatArray, x: FloatArray, kind: int, scale: float) -> float:
    theta = np.empty(PARAMETERS)
    _parameters(q, scale, theta)
    return log_likelihood(x, theta, kind)


@compiled
def _jacobian(q: FloatArray, free: IndexArray, scale: float) -> FloatArray:
    """[F,7]: parameters by the free coordinates, central differences."""
    up, down, out = np.empty(PARAMETERS), np.empty(PARAMETERS), np.empty((free.shape[0], PARAMETERS))
    for f in range(free.shape[0]):
        moved = q.copy()
        moved[free[f]] = q[free[f]] + 1e-5
        _parameters(moved, scale, up)
        moved[free[f]] = q[free[f]] - 1e-5
        _parameters(moved, scale, down)
        for k in range(PARAMETERS):
            out[f, k] = (up[k] - down[k]) / 2e-5
    return out


@compiled
def _scores_at(
    q: FloatArray, free: IndexArray, x: FloatArray, kind: int, scale: float, gradient: FloatArray, outer: FloatArray
) -> float:
    """Fill the gradient [F] and, where ``outer`` is not empty, the outer product of scores [F,F]; -> likelihood."""
    theta, natural, products = np.empty(PARAMETERS), np.zeros(PARAMETERS), np.zeros((PARAMETERS, PARAMETERS))
    _parameters(q, scale, theta)
    value = _add_scores(x, theta, kind, outer.shape[0] > 0, natural, products)
    jacobian = _jacobian(q, free, scale)
    for f in range(free.shape[0]):
        gradient[f] = 0.0
        for k in range(PARAMETERS):
            gradient[f] += jacobian[f, k] * natural[k]
    for f in range(outer.shape[0]):
        for g in range(f + 1):
            total = 0.0
            for i in range(PARAMETERS):
                for j in range(PARAMETERS):
                    total += jacobian[f, i] * products[max(i, j), min(i, j)] * jacobian[g, j]
            outer[f, g] = outer[g, f] = total
    return value


@compiled
def _invert(matrix: FloatArray, out: FloatArray) -> None:
    """Inverse of a symmetric positive matrix by Gauss-Jordan; its diagonal is raised a little first."""
    size = matrix.shape[0]
    work = matrix.copy()
    out[:] = 0.0
    for i in range(size):
        work[i, i] = work[i, i] * (1.0 + 1e-9) + 1e-12
        out[i, i] = 1.0
    for p in range(size):
        pivot = 1.0 / work[p, p]
        for j in range(size):
            work[p, j] *= pivot
            out[p, j] *= pivot
        for i in range(size):
            factor = work[i, p]
            if i != p and factor != 0.0:
                for j in range(size):
                    work[i, j] -= factor * work[p, j]
                    out[i, j] -= factor * out[p, j]


@compiled
def _direction(q: FloatArray, free: IndexArray, gradient: FloatArray, inverse: FloatArray, step: FloatArray) -> float:
    """step = inverse @ gradient over coordinates not held at a bound (their gradient becomes 0); -> step . gradient."""
    for i in range(step.shape[0]):
        k = free[i]
        low, high = q[k] <= _COORDINATE_MIN[k], q[k] >= _COORDINATE_MAX[k]
        if (low and gradient[i] < 0.0) or (high and gradient[i] > 0.0):
            gradient[i] = 0.0
    slope, longest = 0.0, 0.0
    for i in range(step.shape[0]):
        step[i] = 0.0
        for j in range(step.shape[0]):
            step[i] += inverse[i, j] * gradient[j] if gradient[i] != 0.0 else 0.0
        slope += step[i] * gradient[i]
        longest = max(longest, abs(step[i]))
    if longest > _STEP_MAX:
        for i in range(step.shape[0]):
            step[i] *= _STEP_MAX / longest
        slope *= _STEP_MAX / longest
    return slope


@compiled
def _moved(q: FloatArray, free: IndexArray, step: FloatArray, length: float) -> FloatArray:
    out = q.copy()
    for f in range(free.shape[0]):
        k = free[f]
        out[k] = min(max(q[k] + length * step[f], _COORDINATE_MIN[k]), _COORDINATE_MAX[k])
    return out


@compiled
def _update_inverse(inverse: FloatArray, step: FloatArray, change: FloatArray) -> None:
    """BFGS: the inverse of the negative Hessian after ``step`` changed the gradient by ``-change``."""
    size = step.shape[0]
    curvature = 0.0
    for i in range(size):
        curvature += step[i] * change[i]
    if curvature <= 1e-14:
        return
    product = np.zeros(size)
    for i in range(size):
        for j in range(size):
            product[i] += inverse[i, j] * change[j]
    quadratic = 0.0
    for i in range(size):
        quadratic += change[i] * product[i]
    for i in range(size):
        for j in range(size):
            inverse[i, j] += (1.0 + quadratic / curvature) * step[i] * step[j] / curvature
            inverse[i, j] -= (product[i] * step[j] + step[i] * product[j]) / curvature


def _climb(q: FloatArray, free: IndexArray, x: FloatArray, kind: int, scale: float) -> tuple[FloatArray, float, int]:
    """-> (coordinates of the maximum, likelihood, iterations)."""
    size = free.shape[0]
    gradient, found_gradient, step = np.empty(size), np.empty(size), np.empty(size)
    inverse, outer, none = np.empty((size, size)), np.empty((size, size)), np.empty((0, 0))
    value = _scores_at(q, free, x, kind, scale, gradient, outer)
    _invert(outer, inverse)
    for iteration in range(ITERATIONS_MAX):
        slope = _direction(q, free, gradient, inverse, step)
        if slope < _GAIN_MIN * (1.0 + abs(value)):  # twice what a Newton step would gain
            return q, value, iteration
        length, moved = 1.0, _moved(q, free, step, 1.0)
        found = _scores_at(moved, free, x, kind, scale, found_gradient, none)
        while not found >= value + 1e-4 * length * slope:  # Armijo; a likelihood that is not a number is no gain
            length *= 0.5
            if length < _LENGTH_MIN:
                return q, value, iteration
            moved = _moved(q, free, step, length)
            found = _likelihood_at(moved, x, kind, scale)
        if length < 1.0:
            _scores_at(moved, free, x, kind, scale, found_gradient, none)
        taken = moved[free] - q[free]
        change = np.where(gradient != 0.0, gradient - found_gradient, 0.0)
        _update_inverse(inverse, taken, change)
        q, value = moved, found
        gradient[:] = found_gradient
    return q, value, ITERATIONS_MAX


def _best_start(x: FloatArray, kind: int, scale: float) -> FloatArray:
    """The best of a coarse grid of persistence (0.6, 0.95, 0.993) and share of the last square."""
    centre = mean(x) / np.sqrt(scale)
    best, at = -np.inf, np.zeros(PARAMETERS)
    for persistence in (-0.67, -2.97, -5.0):
        for share in (-3.0, -1.9):
            q = np.array([centre, persistence, persistence, share, 0.0, 1.1, 0.0])
            found = _likelihood_at(q, x, kind, scale)
            if found > best:
                best, at = found, q
    return at


def fit(x: FloatArray, kind: int, with_mean: bool, with_asymmetry: bool) -> tuple[FloatArray, float, int]:
    """Maximum likelihood -> (theta float64[7], log-likelihood, iterations).

    ``x`` float64[T] finite and not constant (the caller checks). Without mean mu is 0, without asymmetry gamma; degrees
    and skew stay at 5.05 and 0 where the kind does not use them. Iterations ``ITERATIONS_MAX`` means: not converged.
    """
    use = np.array([with_mean, True, True, True, with_asymmetry, kind >= KIND_T, kind == KIND_SKEW_T])
    free = np.nonzero(use)[0]
    scale = mean_square(x, mean(x) if with_mean else 0.0)
    start = _best_start(x, kind, scale)
    if not with_mean:
        start[0] = 0.0
    q, value, iterations = _climb(start, free, x, kind, scale)
    theta = np.empty(PARAMETERS)
    _parameters(q, scale, theta)
    return theta, value, iterations
