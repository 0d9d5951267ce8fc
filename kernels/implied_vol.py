"""Implied volatility of an undiscounted Black-76 price by a bracketed Newton iteration.

The search runs on the out-of-the-money value b(v) in [0, 1] (``black76.out_of_the_money_value``), whose slope
b'(v) = n(a) is largest at v_c = sqrt(2 |ln(F/K)|), its only inflection. Newton's method is nearly linear

* below b(v_c): for ln b as a function of 1/v**2 (b ~ exp(-ln(F/K)**2 / (2 v**2)) in the wing);
* above b(v_c): for ln(1-b) as a function of v (1-b is a normal tail).

Each step that would leave the bracket is replaced by its midpoint, so the iteration cannot diverge. Following the
change of variables of Jaeckel, "Let's Be Rational" (2013), section 3, not his starting values or his step.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.black76 import log_ratio, out_of_the_money_value
from kernels.normal import logarithm, normal_density

CONVERGED = 0
BELOW_INTRINSIC = 1
ABOVE_MAXIMUM = 2
NOT_CONVERGED = 3
INVALID_INPUT = 4

_MAXIMUM_STEPS = 100
_STEP_TOLERANCE = 4e-16  # a smaller move of v cannot be seen in b, whose absolute rounding error is about 1e-16

FloatArray = NDArray[np.float64]


@njit(inline="always", cache=True, nogil=True, error_model="numpy")
def _newton_candidate(v: float, b: float, target: float, slope: float, below_inflection: bool) -> float:
    """Next stddev by Newton's method in the variables of the module's docstring; may be NaN or outside the bracket."""
    if below_inflection:
        inverse_square = 1.0 / (v * v) + 2.0 * b * logarithm(b / target) / (slope * v * v * v)
        return 1.0 / np.sqrt(inverse_square)
    return v + (1.0 - b) * logarithm((1.0 - b) / (1.0 - target)) / slope


@njit(cache=True, nogil=True, error_model="numpy")
def implied_stddev(target: float, absolute_log_moneyness: float) -> tuple[float, int]:
    """(v, status) with ``out_of_the_money_value(absolute_log_moneyness, v)`` = ``target``, 0 < target < 1."""
    inflection = np.sqrt(2.0 * absolute_log_moneyness)
    below_inflection = target < out_of_the_money_value(absolute_log_moneyness, inflection)
    low = 0.0 if below_inflection else inflection
    # At the upper end a = -9: the option's distance to its maximum, N(-9), is below the resolution of b.
    high = inflection if below_inflection else 9.0 + np.sqrt(81.0 + 2.0 * absolute_log_moneyness)
    v = inflection if inflection > 0.0 else target
    for _ in range(_MAXIMUM_STEPS):
        b = out_of_the_money_value(absolute_log_moneyness, v)
        if b == target:
            return v, CONVERGED
        if b < target:
            low = v
        else:
            high = v
        slope = normal_density(absolute_log_moneyness / v - 0.5 * v)
        candidate = _newton_candidate(v, b, target, slope, below_inflection)
        if not (low < candidate < high):
            candidate = 0.5 * (low + high)
        tolerance = _STEP_TOLERANCE * (1.0 + v)
        if abs(candidate - v) <= tolerance or high - low <= tolerance:
            return candidate, CONVERGED
        v = candidate
    return np.nan, NOT_CONVERGED


@njit(cache=True, nogil=True, error_model="numpy")
def implied_vol(price: float, forward: float, strike: float, years: float, is_call: bool) -> tuple[float, int]:
    """(vol, status) of an undiscounted price; vol is NaN unless status is ``CONVERGED``.

    ``price`` in the unit of ``forward`` and ``strike``; ``forward``, ``strike``, ``years`` > 0. A price equal to the
    intrinsic value has vol 0. Refusals, in this order: ``INVALID_INPUT`` (an argument not finite or not positive),
    ``BELOW_INTRINSIC``, ``ABOVE_MAXIMUM`` (the forward for a call, the strike for a put, or so close that the
    difference is lost in rounding). The answer is as good as the price carries it: the vol's error is about the
    price's absolute rounding error, 1e-16 * max(price, forward, strike), divided by vega.
    """
    finite = price - price == 0.0 and forward - forward == 0.0 and strike - strike == 0.0 and years - years == 0.0
    if not (finite and forward > 0.0 and strike > 0.0 and years > 0.0):
        return np.nan, INVALID_INPUT
    difference = forward - strike if is_call else strike - forward
    value = price - max(difference, 0.0)
    if value < 0.0:
        return np.nan, BELOW_INTRINSIC
    target = value / min(forward, strike)
    if price >= (forward if is_call else strike) or target >= 1.0:
        return np.nan, ABOVE_MAXIMUM
    if target == 0.0:
        return 0.0, CONVERGED
    stddev, status = implied_stddev(target, abs(log_ratio(forward, strike)))
    return stddev / np.sqrt(years), status


@njit(cache=True, nogil=True, error_model="numpy")
def implied_vols(
    price: FloatArray,
    forward: FloatArray,
    strike: FloatArray,
    years: FloatArray,
    is_call: NDArray[np.bool_],
    vol: FloatArray,
    status: NDArray[np.int8],
) -> None:
    """``vol[i], status[i] = implied_vol(price[i], ...)`` for equally long one-dimensional arrays."""
    for i in range(vol.shape[0]):
        vol[i], status[i] = implied_vol(price[i], forward[i], strike[i], years[i], is_call[i])
