"""Black-76 prices and Greeks of European options on a forward, defined for every input a venue can produce.

Prices are per unit of underlying, in the currency of ``forward`` and ``strike`` (US dollars here). All functions are
float64 and bit-identical on every IEEE machine with a fused multiply-add (see ``kernels.normal``). The generalised
Black-Scholes-Merton model of Haug (1998) is reached with forward = spot * exp((rate - dividend_yield) * years).

With h = |ln(F/K)| / v, a = h - v/2, c = h + v/2, v = vol*sqrt(years), the out-of-the-money option is worth, per
min(F, K),

    b = N(-a) - exp(|ln(F/K)|) N(-c) = 2 n(a) (H(a) - H(c)),        H(x) = (1 - N(x)) / (2 n(x)) = P(x) / Q(x),

because exp(|ln(F/K)|) n(c) = n(a): one exponential, and no large numbers cancel in the wings. For a < 0 the first term
is 1 - 2 n(a) H(-a), so the formula holds for every v. The difference is taken over one denominator. The in-the-money
option adds its intrinsic value, so put-call parity holds to one rounding and calls and puts are symmetric to the bit.

A loop over many prices is quickest in two passes (``kernels.option_rows``): ``doubled_distances`` with the density for
all, then ``value_at_distances`` for all; each is short enough for a processor to have several of them in flight.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.compiling import compiled, inlined
from kernels.normal import doubled_density, exponential, logarithm, mills_fraction

SMALLEST_STDDEV = 1e-300  # stands for zero: a finite division follows
# Stands for infinity: |ln(F/K)| <= 1455 for numbers, so that a < -65 here and the option is worth its upper bound.
_LARGEST_STDDEV = 150.0
# Bounds 2h. Where it acts on numbers v < 23, so a > 37.5 and the value is 0; where ln(F/K) is infinite, min(F, K) is
# nothing beside the intrinsic value.
_LARGEST_DOUBLED_DISTANCE = 128.0

FloatArray = NDArray[np.float64]


@inlined
def _divisor(stddev: float) -> float:
    """``stddev`` or the smallest one by which ln(F/K) can be divided."""
    return SMALLEST_STDDEV if stddev < SMALLEST_STDDEV else stddev


@inlined
def doubled_distances(absolute_log_moneyness: float, stddev: float) -> tuple[float, float]:
    """(2a, 2c) of the module's docstring for ``stddev`` >= 1e-300; doubled, the deviation need not be halved."""
    v = _LARGEST_STDDEV if stddev > _LARGEST_STDDEV else stddev
    h = (absolute_log_moneyness + absolute_log_moneyness) / v
    h = _LARGEST_DOUBLED_DISTANCE if h > _LARGEST_DOUBLED_DISTANCE else h
    return h - v, h + v


@inlined
def value_at_distances(near: float, far: float, density: float) -> float:
    """b of the module's docstring at 2a = ``near``, 2c = ``far``, 2 n(a) = ``density``."""
    near_p, near_q = mills_fraction(abs(near))
    far_p, far_q = mills_fraction(far)
    p = near_p * far_q
    p = -p if near < 0.0 else p
    b = (density * (p - far_p * near_q)) / (near_q * far_q)
    b = 1.0 + b if near < 0.0 else b
    # Rounding of the difference can leave -1e-17 where the true value is a few 1e-17.
    return 0.0 if b < 0.0 else b


@inlined
def tails_at_distances(near: float, far: float, density: float) -> tuple[float, float]:
    """(+-N(-|a|) with the sign of a, exp(|ln(F/K)|) N(-c)), arguments as in ``value_at_distances``."""
    near_p, near_q = mills_fraction(abs(near))
    far_p, far_q = mills_fraction(far)
    tail = density * (near_p / near_q)
    return -tail if near < 0.0 else tail, density * (far_p / far_q)


@inlined
def out_of_the_money_value(absolute_log_moneyness: float, stddev: float) -> float:
    """Undiscounted out-of-the-money price per min(forward, strike), in [0, 1].

    ``absolute_log_moneyness`` = |ln(forward/strike)| >= 0 (infinity allowed), ``stddev`` = vol*sqrt(years) >= 0
    (infinity allowed). Increasing in ``stddev`` but for rounding, 0 at stddev 0; values below 1e-306 become 0. Absolute
    error below 1.5e-15 everywhere (most at the money), relative error below 2e-12 for stddev >= 0.01 and values above
    1e-300 (measured: see the tests).
    """
    near, far = doubled_distances(absolute_log_moneyness, _divisor(stddev))
    return value_at_distances(near, far, doubled_density(near))


@inlined
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


@inlined
def log_ratio(forward: float, strike: float) -> float:
    """ln(forward/strike) for non-negative arguments; 0 when both are 0 (an option on nothing at no price)."""
    return 0.0 if forward == strike else logarithm(forward / strike)


@inlined
def stddev_to_expiry(vol: float, years: float) -> float:
    """vol*sqrt(years); 0 at expiry, whatever the vol."""
    return 0.0 if years == 0.0 else vol * np.sqrt(years)


@inlined
def price(forward: float, strike: float, vol: float, years: float, rate: float, is_call: bool) -> float:
    """Discounted Black-76 price, exp(-rate*years) times the undiscounted one. ``years`` 0 gives the intrinsic value."""
    stddev = stddev_to_expiry(vol, years)
    value = undiscounted_price(forward, strike, log_ratio(forward, strike), stddev, is_call)
    return exponential(-rate * years) * value


@inlined
def undiscounted_greeks(
    forward: float, strike: float, log_forward_over_strike: float, stddev: float, is_call: bool
) -> tuple[float, float, float, float]:
    """(price, dV/dF, d2V/dF2, dV/dstddev) of the undiscounted price, arguments as in ``undiscounted_price``.

    With s = min(F, K): F n(d1) = s n(a), N(d1) = N(-a) for F <= K and 1 - (K/F) exp(x) N(-c) above. At stddev 0 the
    limits: dV/dF the exercise indicator (1/2 at the money), the others 0.
    """
    a, c = doubled_distances(abs(log_forward_over_strike), _divisor(stddev))
    density = doubled_density(a)
    b = value_at_distances(a, c, density)
    near, far = tails_at_distances(a, c, density)  # N(-a) or -N(a), exp(x) N(-c)
    near = 1.0 + near if a < 0.0 else near
    flat = stddev < SMALLEST_STDDEV or forward == 0.0  # nothing is random: no density of the future
    density = 0.0 if flat else 0.5 * density
    below = forward <= strike
    smaller = forward if below else strike
    difference = forward - strike if is_call else strike - forward
    intrinsic = 0.0 if difference < 0.0 else difference
    divisor = 1.0 if forward == 0.0 else forward
    inverse = 1.0 / divisor
    lesser = near if below else far * (strike * inverse)  # N(d1) below the strike, N(-d1) above
    exercised = lesser if below == is_call else 1.0 - lesser
    delta = exercised if is_call else -exercised
    slope = smaller * density
    return intrinsic + smaller * b, delta, slope * inverse / (divisor * _divisor(stddev)), slope


@inlined
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
    discount = exponential(-rate * years)
    value, delta, gamma, slope = undiscounted_greeks(
        forward, strike, log_ratio(forward, strike), stddev_to_expiry(vol, years), is_call
    )
    root_years = np.sqrt(years)
    decay = 0.0 if slope == 0.0 else 0.5 * discount * slope * vol / root_years
    value *= discount
    return (
        value,
        discount * delta,
        discount * gamma,
        discount * slope * root_years,
        rate * value - decay,
        -years * value,
    )


@compiled
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


@compiled
def greeks_table(
    forward: FloatArray,
    strike: FloatArray,
    vol: FloatArray,
    years: FloatArray,
    rate: FloatArray,
    is_call: NDArray[np.bool_],
    out: FloatArray,
) -> None:
    """``out[:, i] = greeks(forward[i], ...)``; ``out`` has six rows, in the order of ``greeks``."""
    for i in range(out.shape[1]):
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i], out[5, i] = greeks(
            forward[i], strike[i], vol[i], years[i], rate[i], is_call[i]
        )
