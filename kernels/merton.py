"""Merton's jump diffusion: prices and Greeks of European options on a forward that also jumps.

The forward diffuses with variance v*v to expiry and jumps `intensity` times a year (Poisson), each jump multiplying it
by a lognormal J, ln J ~ Normal(mean, stddev**2). Given n jumps it is lognormal again, so that an undiscounted price is

    V = sum_n p_n Black76(F f_n, K, sqrt(v*v + n stddev**2)),      p_n = exp(-L) L**n / n!,   L = intensity * years
    f_n = exp(n (mean + stddev**2 / 2) - L kappa),   kappa = E[J] - 1 = exp(mean + stddev**2 / 2) - 1.

Merton (1976), eqs. 16-19, on the forward; sum_n p_n f_n = 1, so put-call parity is Black-76's. The p_n, and the
p_n f_n (Poisson with L (1 + kappa)), bound what the terms from n on can be worth: K or F times their remaining mass.
The series stops where both are below ``MASS_LEFT_OUT``, or at ``MAXIMUM_TERMS``; the last term then carries the rest of
both masses. Terms are added in ascending order. Everything is float64 and bit-identical on every IEEE machine with
fused multiply-add.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.black76 import log_ratio, out_of_the_money_value, stddev_to_expiry, undiscounted_greeks
from kernels.compiling import compiled, inlined
from kernels.normal import exponential, logarithm

MAXIMUM_TERMS = 64
"""Enough for L and L (1 + kappa) up to 20 without a rest."""
MASS_LEFT_OUT = 1e-14
"""Per unit of forward or strike: what the terms that are left out may be worth."""

FloatArray = NDArray[np.float64]


@compiled
def jump_terms(intensity: float, mean: float, stddev: float, years: float) -> FloatArray:
    """Terms of the series, float64[N,4]: p_n, f_n, ln f_n, n * stddev**2; 1 <= N <= ``MAXIMUM_TERMS``.

    ``intensity`` >= 0 a year, ``mean`` and ``stddev`` >= 0 of a jump's logarithm, ``years`` >= 0. No jumps or no time
    give the one term of Black-76.
    """
    growth = mean + 0.5 * stddev * stddev
    expected = intensity * years
    expected_by_value = expected * exponential(growth)
    p, g = exponential(-expected), exponential(-expected_by_value)  # g_n = p_n f_n
    mass_left, value_left = 1.0 - p, 1.0 - g
    terms = np.empty((MAXIMUM_TERMS, 4))
    n = 0
    while True:
        shift = n * growth - (expected_by_value - expected)
        shift = 0.0 if p == 0.0 else shift  # a term below the smallest number must not multiply an infinite forward
        terms[n, 0], terms[n, 1], terms[n, 2], terms[n, 3] = p, exponential(shift), shift, n * stddev * stddev
        n += 1
        if mass_left <= MASS_LEFT_OUT and value_left <= MASS_LEFT_OUT:
            return terms[:n].copy()
        if n == MAXIMUM_TERMS:
            _carry_the_rest(terms, p + mass_left, g + value_left)
            return terms
        p *= expected / n
        g *= expected_by_value / n
        mass_left -= p
        value_left -= g


@compiled
def _carry_the_rest(terms: FloatArray, mass: float, value: float) -> None:
    """Give the last term the remaining probability and share of the forward; a mass of rounding only is left."""
    last = terms[terms.shape[0] - 1]
    if mass > MASS_LEFT_OUT and value > MASS_LEFT_OUT:
        last[0], last[1], last[2] = mass, value / mass, logarithm(value / mass)


@inlined
def value_after_jumps(
    forward: float, strike: float, log_forward_over_strike: float, variance: float,
    factor: float, log_factor: float, jump_variance: float,
) -> float:  # fmt: skip
    """Undiscounted value, given n jumps, of the option that is out of the money without them.

    ``variance`` of the diffusion to expiry; then f_n, ln f_n, n * stddev**2. A call for forward <= strike, else a put.
    """
    jumped = forward * factor
    difference = jumped - strike if forward <= strike else strike - jumped
    intrinsic = 0.0 if difference < 0.0 else difference
    smaller = jumped if jumped < strike else strike
    stddev = np.sqrt(variance + jump_variance)
    return intrinsic + smaller * out_of_the_money_value(abs(log_forward_over_strike + log_factor), stddev)


@compiled
def undiscounted_price(
    forward: float, strike: float, log_forward_over_strike: float, stddev: float, is_call: bool, terms: FloatArray
) -> float:
    """Undiscounted price in the unit of ``forward``; arguments of the diffusion, as in ``black76``."""
    value = 0.0
    for n in range(terms.shape[0]):
        p, factor, log_factor, jump_variance = terms[n, 0], terms[n, 1], terms[n, 2], terms[n, 3]
        value += p * value_after_jumps(
            forward, strike, log_forward_over_strike, stddev * stddev, factor, log_factor, jump_variance
        )
    difference = forward - strike if is_call else strike - forward
    return (0.0 if difference < 0.0 else difference) + value


@compiled
def price(
    forward: float, strike: float, vol: float, years: float, rate: float, is_call: bool,
    intensity: float, mean: float, stddev: float,
) -> float:  # fmt: skip
    """Discounted price; ``vol`` of the diffusion, the last three arguments as in ``jump_terms``."""
    terms = jump_terms(intensity, mean, stddev, years)
    diffusion = stddev_to_expiry(vol, years)
    value = undiscounted_price(forward, strike, log_ratio(forward, strike), diffusion, is_call, terms)
    return exponential(-rate * years) * value


@compiled
def greeks(
    forward: float, strike: float, vol: float, years: float, rate: float, is_call: bool,
    intensity: float, mean: float, stddev: float,
) -> tuple[float, float, float, float, float, float]:  # fmt: skip
    """(price, delta, gamma, vega, theta, rho), as ``black76.greeks``; vega per +1.00 of the diffusion's ``vol``.

    theta = -dV/dyears of D sum_n p_n B(F f_n, v_n), with dp_n/dT = p_n (n/T - intensity), df_n/dT = -f_n intensity
    kappa, dv_n/dT = vol**2 / (2 v_n). At ``years`` 0 the limits of Black-76, theta 0.
    """
    terms = jump_terms(intensity, mean, stddev, years)
    discount = exponential(-rate * years)
    drift = intensity * (exponential(mean + 0.5 * stddev * stddev) - 1.0)
    variance = stddev_to_expiry(vol, years) ** 2
    log_moneyness = log_ratio(forward, strike)
    value, delta, gamma, vega, decay = 0.0, 0.0, 0.0, 0.0, 0.0
    for n in range(terms.shape[0]):
        p, factor = terms[n, 0], terms[n, 1]
        v = np.sqrt(variance + terms[n, 3])
        b, by_forward, by_forward_twice, by_stddev = undiscounted_greeks(
            forward * factor, strike, log_moneyness + terms[n, 2], v, is_call
        )
        per_variance = 0.0 if by_stddev == 0.0 else by_stddev / v
        value += p * b
        delta += p * (factor * by_forward)
        gamma += p * (factor * factor * by_forward_twice)
        vega += p * (per_variance * vol * years)
        if years > 0.0:
            decay += p * ((n / years - intensity) * b - drift * factor * forward * by_forward)
            decay += p * (0.5 * per_variance * vol * vol)
    value *= discount
    theta = rate * value - discount * decay
    return value, discount * delta, discount * gamma, discount * vega, theta, -years * value
