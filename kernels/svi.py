"""Stochastic-volatility-inspired (SVI) slices of total implied variance: one expiry, five raw parameters.

w(k) = a + b * (rho*(k-m) + sqrt((k-m)**2 + sigma**2)),  k = ln(strike/forward),  w = vol**2 * years.

Gatheral and Jacquier, "Arbitrage-free SVI volatility surfaces" (2014), section 3.1. Domain: b >= 0, |rho| < 1,
sigma > 0, a + b*sigma*sqrt(1-rho**2) >= 0 (then w >= 0 everywhere). ``total_variance`` clips k to
+-``LOG_MONEYNESS_LIMIT`` and w at ``TOTAL_VARIANCE_MINIMUM``, so that deep wings stay finite and a slice that
touches zero cannot give a negative variance by rounding; inside these limits it is the formula above.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.compiling import compiled, inlined
from kernels.loops import sort
from kernels.normal import fma

LOG_MONEYNESS_LIMIT = 8.0
"""|ln(K/F)| beyond which the slice is continued flat: a strike 2981 times the forward (or the inverse)."""

TOTAL_VARIANCE_MINIMUM = 1e-12
"""Floor of w: a volatility of 0.0001 % over one year."""

BUTTERFLY_POINTS = 64
_GROWTH_FIRST, _GROWTH = 0.006737946999085467, 1.3806862320338231  # exp(-5), exp(10/31): 32 values of u to 5
_GOLDEN = 0.6180339887498949
_NEAR_ZERO = 0.1  # a local minimum of g above it cannot hide an arbitrage between two points

FloatArray = NDArray[np.float64]


@inlined
def raw_total_variance(a: float, b: float, rho: float, m: float, sigma: float, log_moneyness: float) -> float:
    """The SVI formula without any limit, at k = ``log_moneyness`` = ln(strike/forward)."""
    x = log_moneyness - m
    return fma(b, fma(rho, x, np.sqrt(fma(x, x, sigma * sigma))), a)


@inlined
def total_variance(a: float, b: float, rho: float, m: float, sigma: float, log_moneyness: float) -> float:
    """Total implied variance w(k) >= ``TOTAL_VARIANCE_MINIMUM``, with k = ln(strike/forward) clipped to +-8.

    Infinite k (strike or forward 0) is allowed; NaN in any argument gives NaN.
    """
    k = LOG_MONEYNESS_LIMIT if log_moneyness > LOG_MONEYNESS_LIMIT else log_moneyness
    k = -LOG_MONEYNESS_LIMIT if k < -LOG_MONEYNESS_LIMIT else k
    w = raw_total_variance(a, b, rho, m, sigma, k)
    return TOTAL_VARIANCE_MINIMUM if w < TOTAL_VARIANCE_MINIMUM else w


@compiled
def total_variances(parameters: FloatArray, log_moneyness: FloatArray, out: FloatArray) -> None:
    """``out[i] = total_variance(*parameters, log_moneyness[i])``; ``parameters`` = (a, b, rho, m, sigma)."""
    a, b, rho, m, sigma = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4]
    for i in range(out.shape[0]):
        out[i] = total_variance(a, b, rho, m, sigma, log_moneyness[i])


@compiled
def durrleman_g(a: float, b: float, rho: float, m: float, sigma: float, log_moneyness: float) -> float:
    """g(k) = (1 - k w'/(2w))**2 - w'**2/4 * (1/w + 1/4) + w''/2; no butterfly arbitrage where g >= 0 everywhere.

    Gatheral and Jacquier (2014), eq. 2.1. Evaluated on the unlimited formula; sigma > 0, w(k) > 0.
    """
    x = log_moneyness - m
    root = np.sqrt(fma(x, x, sigma * sigma))
    w = raw_total_variance(a, b, rho, m, sigma, log_moneyness)
    slope = b * (rho + x / root)
    curvature = b * sigma * sigma / (root * root * root)
    distance = 1.0 - 0.5 * log_moneyness * slope / w
    return distance * distance - 0.25 * slope * slope * (1.0 / w + 0.25) + 0.5 * curvature


@compiled
def durrleman_minimum(parameters: FloatArray, lowest: float, highest: float, points: int) -> tuple[float, float]:
    """(smallest g, its log-moneyness) on ``points`` >= 2 equidistant points from ``lowest`` to ``highest``."""
    a, b, rho, m, sigma = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4]
    step = (highest - lowest) / (points - 1)
    best, best_k = np.inf, lowest
    for i in range(points):
        k = lowest + i * step
        g = durrleman_g(a, b, rho, m, sigma, k)
        if g < best:
            best, best_k = g, k
    return best, best_k


@compiled
def butterfly_points(parameters: FloatArray, out: FloatArray) -> None:
    """``BUTTERFLY_POINTS`` log-moneynesses, in no order, at which g of this slice can be smallest.

    Half follow the hyperbola, m + sigma*sinh(u), half the forward, in units of sqrt(w(0)): g bends on these two scales
    only. Beyond +-8 the slice is continued flat (``total_variance``), so nothing is looked at there.
    """
    m, sigma = parameters[3], parameters[4]
    at_forward = raw_total_variance(parameters[0], parameters[1], parameters[2], m, sigma, 0.0)
    scale = np.sqrt(max(at_forward, TOTAL_VARIANCE_MINIMUM))
    half, growth = BUTTERFLY_POINTS // 2, _GROWTH_FIRST
    for i in range(half):
        out[i] = m + sigma * 0.5 * (growth - 1.0 / growth)
        out[half + i] = scale * (-8.0 + 16.0 * i / (half - 1))
        growth *= _GROWTH
    for i in range(out.shape[0]):
        out[i] = min(max(out[i], -LOG_MONEYNESS_LIMIT), LOG_MONEYNESS_LIMIT)
    out[0], out[half - 1] = -LOG_MONEYNESS_LIMIT, LOG_MONEYNESS_LIMIT


@compiled
def _refined_minimum(parameters: FloatArray, low: float, high: float) -> tuple[float, float]:
    """(g, its log-moneyness) at the end of a golden-section search between two log-moneynesses."""
    a, b, rho, m, sigma = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4]
    for _ in range(40):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if durrleman_g(a, b, rho, m, sigma, left) < durrleman_g(a, b, rho, m, sigma, right):
            high = right
        else:
            low = left
    k = 0.5 * (low + high)
    return durrleman_g(a, b, rho, m, sigma, k), k


@compiled
def butterfly_minimum(parameters: FloatArray) -> tuple[float, float]:
    """(smallest g, its log-moneyness) over |k| <= 8; the slice is free of butterfly arbitrage where it is >= 0.

    The smallest of ``butterfly_points``, the low ones among their local minima refined between their neighbours;
    ``parameters`` = (a, b, rho, m, sigma). A slice that touches zero variance gives -inf: it has an arbitrage there.
    """
    a, b, rho, m, sigma = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4]
    if not a + b * sigma * np.sqrt(1.0 - rho * rho) > 0.0:
        return -np.inf, m
    points, values = np.empty(BUTTERFLY_POINTS), np.empty(BUTTERFLY_POINTS)
    butterfly_points(parameters, points)
    sort(points)
    place = 0
    for i in range(BUTTERFLY_POINTS):
        values[i] = durrleman_g(a, b, rho, m, sigma, points[i])
        place = i if values[i] < values[place] else place
    best, best_k = values[place], points[place]
    for i in range(BUTTERFLY_POINTS):
        below, above = max(i - 1, 0), min(i + 1, BUTTERFLY_POINTS - 1)
        if values[i] < max(_NEAR_ZERO, 2.0 * best) and values[i] <= values[below] and values[i] <= values[above]:
            g, k = _refined_minimum(parameters, points[below], points[above])
            if g < best:
                best, best_k = g, k
    return best, best_k
