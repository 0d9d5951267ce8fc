"""Black-76 prices and Greeks of European options on a forward, defined for every input a venue can produce.

Prices are per unit of underlying, in the currency of ``forward`` and ``strike`` (US dollars here). All functions are
float64 and bit-identical on every IEEE machine with a fused multiply-add (see ``kernels.normal``). The generalised
Black-Scholes-Merton model of Haug (1998) is reached with forward = spot * exp((rate - dividend_yield) * years).

With h = |ln(F/K)| / v, a = h - v/2, c = h + v/2, v = vol*sqrt(years), the out-of-the-money option is worth, per
min(F, K),

    b = N(-a) - exp(|ln(F/K)|) N(-c) = n(a) * (M(a) - M(c)),        M the Mills ratio,

because exp(|ln(F/K)|) n(c) = n(a). No large numbers cancel in the wings, and calls and puts are symmetric to the bit.
For a < -0.3 the same with N(-a) = 1 - n(a) M(-a) is b = 1 - n(a) * (M(-a) + M(c)), for any large v. The in-the-money
option adds its intrinsic value, so put-call parity holds to one rounding.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.normal import (
    DENSITY_ARGUMENT_LIMIT,
    exponential,
    logarithm,
    mills_denominator,
    mills_numerator,
    normal_cdf,
    normal_density,
)

_SMALLEST_STDDEV = 1e-300  # stands for zero: a finite division follows
_LARGEST_STDDEV = 1e100  # stands for infinity: the option is worth its upper bound long before
_MIRRORED_BELOW = -0.3  # within the domain of the rational Mills ratio; both forms lose least when they meet here
_LARGEST_MILLS_ARGUMENT = 1e12  # M is below 1e-12 there and its polynomials are far from overflow

FloatArray = NDArray[np.float64]


@njit(inline="always", cache=True, nogil=True, error_model="numpy")
def _bounded_stddev(stddev: float) -> float:
    """``stddev`` moved into the range in which ln(F/K)/stddev is defined for every ln(F/K), infinite ones included."""
    v = _SMALLEST_STDDEV if stddev < _SMALLEST_STDDEV else stddev
    return _LARGEST_STDDEV if v > _LARGEST_STDDEV else v


@njit(inline="always", cache=True, nogil=True, error_model="numpy")
def out_of_the_money_value(absolute_log_moneyness: float, stddev: float) -> float:
    """Undiscounted out-of-the-money price per min(forward, strike), in [0, 1].

    ``absolute_log_moneyness`` = |ln(forward/strike)| >= 0 (infinity allowed), ``stddev`` = vol*sqrt(years) >= 0
    (infinity allowed). Increasing in ``stddev``, 0 at stddev 0; values below 1e-306 become 0. Absolute error below
    5e-16 everywhere; relative error below 2e-12 for stddev >= 0.01 and values above 1e-300 (measured: see the tests).
    """
    v = _bounded_stddev(stddev)
    h = absolute_log_moneyness / v
    half = 0.5 * v
    a = h - half
    c = h + half
    c = _LARGEST_MILLS_ARGUMENT if c > _LARGEST_MILLS_ARGUMENT else c
    mirrored = a < _MIRRORED_BELOW
    left = -a if mirrored else a
    left = DENSITY_ARGUMENT_LIMIT if left > DENSITY_ARGUMENT_LIMIT else left
    sign = -1.0 if mirrored else 1.0
    left_denominator = mills_denominator(left)
    right_denominator = mills_denominator(c)
    difference = sign * mills_numerator(left) * right_denominator - mills_numerator(c) * left_denominator
    b = normal_density(a) * (difference / (left_denominator * right_denominator))
    b = 1.0 + b if mirrored else b
    # Rounding of the difference can leave -1e-17 where the true value is a few 1e-17.
    return 0.0 if b < 0.0 else b


@njit(inline="always", cache=True, nogil=True, error_model="numpy")
def undiscounted_price(
    forward: float, strike: float, log_forward_over_strike: float, stddev: float, is_call: bool
) -> float:
    """Undiscounted Black-76 price E[max(+-(F_T - K), 0)] in the unit of ``forward``.

    ``forward`` >= 0, ``strike`` >= 0, ``log_forward_over_strike`` = ln(forward/strike) (the caller often has it
    already; +-infinity allowed), ``stddev`` = vol*sqrt(years) >= 0. stddev 0 gives the intrinsic value; strike 0 gives
    the forward for a call and 0 for a put; stddev infinite gives the forward for a call and the strike for a put.
    Black (1976), eq. 16 without the discount factor.
    """
    smaller = forward if forward < strike else strike
    difference = forward - strike if is_call else strike - forward
    intrinsic = 0.0 if difference < 0.0 else difference
    return intrinsic + smaller * out_of_the_money_value(abs(log_forward_over_strike), stddev)


@njit(inline="always", cache=True, nogil=True, error_model="numpy")
def log_ratio(forward: float, strike: float) -> float:
    """ln(forward/strike) for non-negative arguments; 0 when both are 0 (an option on nothing at no price)."""
    return 0.0 if forward == strike else logarithm(forward / strike)


@njit(inline="always", cache=True, nogil=True, error_model="numpy")
def stddev_to_expiry(vol: float, years: float) -> float:
    """vol*sqrt(years); 0 at expiry, whatever the vol."""
    return 0.0 if years == 0.0 else vol * np.sqrt(years)


@njit(cache=True, nogil=True, error_model="numpy")
def price(forward: float, strike: float, vol: float, years: float, rate: float, is_call: bool) -> float:
    """Discounted Black-76 price, exp(-rate*years) times the undiscounted one. ``years`` 0 gives the intrinsic value."""
    stddev = stddev_to_expiry(vol, years)
    value = undiscounted_price(forward, strike, log_ratio(forward, strike), stddev, is_call)
    return exponential(-rate * years) * value


@njit(cache=True, nogil=True, error_model="numpy")
def greeks(
    forward: float, strike: float, vol: float, years: float, rate: float, is_call: bool
) -> tuple[float, float, float, float, float, float]:
    """(price, delta, gamma, vega, theta, rho) of a discounted Black-76 option.

    delta = dV/dF and gamma = d2V/dF2 by the forward; vega per +1.00 of vol; theta = -dV/dyears, the change of value
    per year of passing time with forward, vol and rate fixed, discounting included (so the rate*V term is in it);
    rho = dV/drate with the forward fixed, -years*V. At stddev 0 the limits are returned: gamma, vega and theta's
    volatility term 0, delta the discounted exercise indicator (1/2 at the money). Haug (1998), section 2.

    The derivatives of V = D (F N(d1) - K N(d2)): delta D N(d1), gamma D n(d1)/(F v), vega D F n(d1) sqrt(years),
    theta = -D F n(d1) vol / (2 sqrt(years)) + rate V; d1 = ln(F/K)/v + v/2.
    """
    root_years = np.sqrt(years)
    stddev = stddev_to_expiry(vol, years)
    log_moneyness = log_ratio(forward, strike)
    discount = exponential(-rate * years)
    value = discount * undiscounted_price(forward, strike, log_moneyness, stddev, is_call)
    flat = stddev < _SMALLEST_STDDEV
    safe_stddev = _bounded_stddev(stddev)
    d1 = log_moneyness / safe_stddev + 0.5 * safe_stddev
    # n(d1) has no meaning as a density of the future where nothing is random.
    density = 0.0 if flat or forward == 0.0 else normal_density(d1)
    delta = discount * (normal_cdf(d1) if is_call else -normal_cdf(-d1))
    gamma = 0.0 if density == 0.0 else discount * density / (forward * safe_stddev)
    vega = discount * forward * density * root_years
    decay = 0.0 if density == 0.0 else 0.5 * discount * forward * density * vol / root_years
    return value, delta, gamma, vega, rate * value - decay, -years * value


@njit(cache=True, nogil=True, error_model="numpy")
def prices(
    forward: FloatArray,
    strike: FloatArray,
    vol: FloatArray,
    years: FloatArray,
    rate: FloatArray,
    is_call: NDArray[np.bool_],
    out: FloatArray,
) -> None:
    """``out[i] = price(forward[i], ...)`` for equally long one-dimensional arrays."""
    for i in range(out.shape[0]):
        out[i] = price(forward[i], strike[i], vol[i], years[i], rate[i], is_call[i])


@njit(cache=True, nogil=True, error_model="numpy")
def greeks_table(
    forward: FloatArray,
    strike: FloatArray,
    vol: FloatArray,
    years: FloatArray,
    rate: FloatArray,
    is_call: NDArray[np.bool_],
    out: FloatArray,
) -> None:
    """``out[i, :] = greeks(forward[i], ...)``; ``out`` has six columns, in the order of ``greeks``."""
    for i in range(out.shape[0]):
        out[i, 0], out[i, 1], out[i, 2], out[i, 3], out[i, 4], out[i, 5] = greeks(
            forward[i], strike[i], vol[i], years[i], rate[i], is_call[i]
        )
