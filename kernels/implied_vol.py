"""Implied volatility of an undiscounted Black-76 price by a bracketed Halley iteration, and of Merton's diffusion.

The search runs on the out-of-the-money value b(v) in [0, 1] (``black76.out_of_the_money_value``), whose slope
b'(v) = n(a) is largest at v_c = sqrt(2 |ln(F/K)|), its only inflection; b''(v) = b'(v) a c / v with a, c of
``kernels.black76``. The problem is nearly linear

* below b(v_c): for ln b as a function of u = 1/v**2 (b ~ exp(-ln(F/K)**2 / (2 v**2)) in the wing);
* above b(v_c): for ln(1-b) as a function of v (1-b is a normal tail).

Halley's step in these variables converges cubically from v_c: 3 to 4 values of b on average. A step that leaves the
bracket is replaced by its midpoint, so the iteration cannot diverge. Following the change of variables of Jaeckel,
"Let's Be Rational" (2013), section 3, not his starting values.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.black76 import SMALLEST_STDDEV, doubled_distances, log_ratio, tails_at_distances
from kernels.black76 import undiscounted_greeks as black76_greeks
from kernels.compiling import compiled, inlined
from kernels.merton import jump_terms
from kernels.normal import doubled_density, exponential, logarithm

CONVERGED = 0
BELOW_INTRINSIC = 1
ABOVE_MAXIMUM = 2
NOT_CONVERGED = 3
INVALID_INPUT = 4

_MAXIMUM_STEPS = 100
_LAST_STEP = 1e-6  # relative: Halley's next error is of the order of its cube
_RESOLUTION = 4e-16  # a smaller move of v cannot be seen in b, whose absolute rounding error is about 1e-16

FloatArray = NDArray[np.float64]


@inlined
def _candidate_below(v: float, b: float, slope: float, bend: float, log_target: float) -> float:
    """Next stddev by Halley's step for ln b in u = 1/v**2; ``bend`` = b''/b'. May be NaN or outside the bracket.

    With p = b'/b: dlnb/du = -p v**3 / 2, d2lnb/du2 = v**5 (v p (bend - p) + 3 p) / 4.
    """
    p = slope / b
    first = -0.5 * p * v * v * v
    second = 0.25 * v * v * v * v * v * (p * (bend - p) * v + 3.0 * p)
    step = (log_target - logarithm(b)) / first
    return 1.0 / np.sqrt(1.0 / (v * v) + step / (1.0 + 0.5 * step * second / first))


@inlined
def _candidate_above(v: float, rest: float, slope: float, bend: float, log_target: float) -> float:
    """Next stddev by Halley's step for ln(1-b), ``rest`` = 1-b.

    With r = b'/rest: dln(1-b)/dv = -r, d2ln(1-b)/dv2 = -r (bend + r).
    """
    r = slope / rest
    step = (logarithm(rest) - log_target) / r
    return v + step / (1.0 + 0.5 * step * (bend + r))


@compiled
def implied_stddev(target: float, absolute_log_moneyness: float) -> tuple[float, int]:
    """(v, status) with ``out_of_the_money_value(absolute_log_moneyness, v)`` = ``target``, 0 < target < 1."""
    inflection = np.sqrt(2.0 * absolute_log_moneyness)
    flat = inflection < SMALLEST_STDDEV
    # There a = 0 and the first term of b is N(0).
    near, far = doubled_distances(absolute_log_moneyness, SMALLEST_STDDEV if flat else inflection)
    _, tail = tails_at_distances(near, far, doubled_density(near))
    below = not flat and target < 0.5 - tail
    low = 0.0 if below else inflection
    # At the upper end a = -9: the option's distance to its maximum, N(-9), is below the resolution of b.
    high = inflection if below else 9.0 + np.sqrt(81.0 + 2.0 * absolute_log_moneyness)
    log_target = logarithm(target if below else 1.0 - target)
    v = target if flat else inflection
    for _ in range(_MAXIMUM_STEPS):
        near, far = doubled_distances(absolute_log_moneyness, v)
        density = doubled_density(near)
        first, second = tails_at_distances(near, far, density)
        e = first - second  # b, or b - 1 for a < 0
        b = 1.0 + e if near < 0.0 else e
        if b == target:
            return v, CONVERGED
        if b < target:
            low = v
        else:
            high = v
        slope, bend = 0.5 * density, 0.25 * near * far / v
        if below:
            candidate = _candidate_below(v, b, slope, bend, log_target)
        else:
            candidate = _candidate_above(v, -e if near < 0.0 else 1.0 - e, slope, bend, log_target)
        if abs(candidate - v) <= _LAST_STEP * v:
            return candidate, CONVERGED
        v = candidate if low < candidate < high else 0.5 * (low + high)
        if high - low <= _RESOLUTION * (1.0 + v):
            return v, CONVERGED
    return np.nan, NOT_CONVERGED


@inlined
def _out_of_the_money_target(
    price: float, forward: float, strike: float, years: float, is_call: bool
) -> tuple[float, int]:
    """(time value per min(forward, strike), status), NaN where refused."""
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
    return target, CONVERGED


@compiled
def implied_vol(price: float, forward: float, strike: float, years: float, is_call: bool) -> tuple[float, int]:
    """(vol, status) of an undiscounted price; vol is NaN unless status is ``CONVERGED``.

    ``price`` in the unit of ``forward`` and ``strike``; ``forward``, ``strike``, ``years`` > 0. A price equal to the
    intrinsic value has vol 0. Refusals, in this order: ``INVALID_INPUT`` (an argument not finite or not positive),
    ``BELOW_INTRINSIC``, ``ABOVE_MAXIMUM`` (the forward for a call, the strike for a put, or so close that the
    difference is lost in rounding). The answer is as good as the price carries it: the vol's error is about the
    price's absolute rounding error, 1e-16 * max(price, forward, strike), divided by vega.
    """
    target, status = _out_of_the_money_target(price, forward, strike, years, is_call)
    if status != CONVERGED or target == 0.0:
        return target, status
    stddev, status = implied_stddev(target, abs(log_ratio(forward, strike)))
    return stddev / np.sqrt(years), status


@compiled
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


@compiled
def merton_implied_vol(
    price: float, forward: float, strike: float, years: float, is_call: bool,
    intensity: float, mean: float, stddev: float,
) -> tuple[float, int]:  # fmt: skip
    """(vol of the diffusion, status) of an undiscounted price under Merton's model; the jumps as in ``kernels.merton``.

    Refusals as in ``implied_vol``; ``BELOW_INTRINSIC`` also where the jumps alone are worth more than the price.
    Newton's method on the time value, bracketed by 0 and the Black-76 volatility (which holds the jumps as well).
    """
    target, status = _out_of_the_money_target(price, forward, strike, years, is_call)
    if status != CONVERGED:
        return np.nan, status
    log_moneyness = log_ratio(forward, strike)
    terms = jump_terms(intensity, mean, stddev, years)
    lowest, _ = _jump_time_value(log_moneyness, 0.0, terms)
    if target <= lowest:
        return (0.0, CONVERGED) if target == lowest else (np.nan, BELOW_INTRINSIC)
    low, (high, status) = 0.0, implied_stddev(target, abs(log_moneyness))
    v = high
    for _ in range(_MAXIMUM_STEPS):
        value, slope = _jump_time_value(log_moneyness, v, terms)
        if value < target:
            low = v
        else:
            high = v
        candidate = v - (value - target) / slope
        if abs(candidate - v) <= _RESOLUTION * v:
            return candidate / np.sqrt(years), CONVERGED
        v = candidate if low < candidate < high else 0.5 * (low + high)
        if high - low <= _RESOLUTION * (1.0 + v):
            return v / np.sqrt(years), CONVERGED
    return np.nan, NOT_CONVERGED


@compiled
def _jump_time_value(log_moneyness: float, stddev: float, terms: FloatArray) -> tuple[float, float]:
    """(undiscounted out-of-the-money price per min(F, K), its derivative by the diffusion's ``stddev``)."""
    is_call = log_moneyness <= 0.0
    forward, strike = (1.0, exponential(-log_moneyness)) if is_call else (exponential(log_moneyness), 1.0)
    value, slope = 0.0, 0.0
    for n in range(terms.shape[0]):
        p, factor, log_factor = terms[n, 0], terms[n, 1], terms[n, 2]
        v = np.sqrt(stddev * stddev + terms[n, 3])
        b, _, _, by_stddev = black76_greeks(forward * factor, strike, log_moneyness + log_factor, v, is_call)
        value += p * b
        slope += 0.0 if by_stddev == 0.0 else p * (by_stddev * (stddev / v))
    return value, slope
