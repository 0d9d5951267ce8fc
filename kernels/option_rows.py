"""One strike of one expiry under many shocks at once: the undiscounted value of the option that is out of the money.

A call and its put share this row: each adds its own intrinsic value (put-call parity), and so does any other lot size.
Under shock s the log-moneyness is k_s = ln(K/F) - x_s and the standard deviation to the end of the shock's horizon

    v_s = sqrt(w(k_s)) * m_s * max(0.1, 1 + (skew_s + curvature_s * c_s) * c_s),        c_s = clip(k_s, -1, 1),

w the SVI slice, m_s, skew_s and curvature_s those of the expiry (``expiry_loadings``). Curvature zero gives the bits
of the formula without it. Under Merton's model w is the diffusion's total variance and so v_s is the diffusion's.
"""

from __future__ import annotations

import numpy as np

from kernels.black76 import doubled_distances, value_at_distances
from kernels.black76 import undiscounted_price as black76_price
from kernels.compiling import compiled, inlined
from kernels.layout import MarketTable
from kernels.merton import jump_terms, value_after_jumps
from kernels.merton import undiscounted_price as merton_price
from kernels.normal import doubled_density, fma, logarithm
from kernels.svi import total_variance

SKEW_MULTIPLIER_MINIMUM = 0.1
"""Floor of what skew and curvature multiply volatility by, so that no scenario turns one negative."""
SKEW_LOG_MONEYNESS_LIMIT = 1.0
"""Skew and curvature act on log-moneyness clipped to this, so that far wings stay finite."""
FACTOR_YEARS = 30.0 / 365.0
"""Time to expiry at which factors are stated: there the level is the whole parallel move, and smile loadings are 1."""
ROOT_RATIO_LIMIT = 3.0
"""Largest sqrt(30 days / time to expiry) of the loadings: below 3.3 days they grow no further."""
_STDDEV_MINIMUM = 1e-300  # stands for zero: a shock that takes all volatility away


@inlined
def expiry_loadings(years: float) -> tuple[float, float]:
    """(term, smile) loadings of an expiry, ``years`` > 0: what its volatility has of factors stated at 30 days.

    With r = min(sqrt(30 days / years), 3): term 1 - r, from -2 to 1, multiplies the term factor, so that a positive one
    lifts the far end and lowers the near one; smile r, beyond 30 days r**2, multiplies the skew, its square the
    curvature. Why these: infra/docs/scenarios.md.
    """
    root = np.sqrt(FACTOR_YEARS / years)
    root = ROOT_RATIO_LIMIT if root > ROOT_RATIO_LIMIT else root
    return 1.0 - root, root if root > 1.0 else root * root


@inlined
def shocked_stddev(total_variance_value, log_moneyness, skew, curvature, multiplier):  # type: ignore[no-untyped-def]
    """sqrt(w) * multiplier * max(0.1, 1 + (skew + curvature * k) * k), k = clip(log_moneyness, -1, 1), scalars."""
    limit = SKEW_LOG_MONEYNESS_LIMIT
    k = limit if log_moneyness > limit else log_moneyness
    k = -limit if k < -limit else k
    smile = 1.0 + fma(curvature, k, skew) * k  # in this order: without curvature the bits are those of 1 + skew * k
    smile = SKEW_MULTIPLIER_MINIMUM if smile < SKEW_MULTIPLIER_MINIMUM else smile
    return np.sqrt(total_variance_value) * (multiplier * smile)


@compiled
def has_jumps(market: MarketTable, underlying: int) -> bool:
    """Whether the options of the underlying are priced by Merton's model."""
    return underlying < market.jumps.shape[0] and market.jumps[underlying, 0] > 0.0


@compiled
def undiscounted_price_now(forward, strike, is_call, svi, years, market, underlying):  # type: ignore[no-untyped-def]
    """Price of an option without any shock, by the model of its underlying; intrinsic value at ``years`` 0."""
    log_forward_over_strike = logarithm(forward / strike)
    w = total_variance(svi[0], svi[1], svi[2], svi[3], svi[4], -log_forward_over_strike)
    stddev = np.sqrt(w) if years > 0.0 else 0.0
    if not has_jumps(market, underlying):
        return black76_price(forward, strike, log_forward_over_strike, stddev, is_call)
    intensity, mean, deviation = market.jumps[underlying]
    terms = jump_terms(intensity, mean, deviation, years)
    return merton_price(forward, strike, log_forward_over_strike, stddev, is_call, terms)


@compiled
def _fill_stddev(log_strike_over_forward, svi, log_return, multiplier, skew, curvature, out) -> None:  # type: ignore[no-untyped-def]
    """v_s. A pass of its own: its square roots beside the polynomials of the value are slower than both apart."""
    a, b, rho, m, sigma = svi[0], svi[1], svi[2], svi[3], svi[4]
    for s in range(out.shape[0]):
        k = log_strike_over_forward - log_return[s]
        v = shocked_stddev(total_variance(a, b, rho, m, sigma, k), k, skew[s], curvature[s], multiplier[s])
        out[s] = _STDDEV_MINIMUM if v < _STDDEV_MINIMUM else v


@compiled
def fill_black76(log_strike_over_forward, strike, log_return, moved, stddev, out) -> None:  # type: ignore[no-untyped-def]
    """Fill ``out`` [S] as ``out_of_the_money_row`` does, with the deviations given, each >= 1e-300.

    In two passes: the second need not wait for the divisions and exponentials of the first.
    """
    near, far, density = np.empty(out.shape[0]), np.empty(out.shape[0]), np.empty(out.shape[0])
    for s in range(out.shape[0]):
        near[s], far[s] = doubled_distances(abs(log_strike_over_forward - log_return[s]), stddev[s])
        density[s] = doubled_density(near[s])
    for s in range(out.shape[0]):
        smaller = moved[s] if moved[s] < strike else strike
        out[s] = smaller * value_at_distances(near[s], far[s], density[s])


@compiled
def _add_term(log_strike_over_forward, strike, log_return, moved, stddev, term, out) -> None:  # type: ignore[no-untyped-def]
    p, factor, log_factor, jump_variance = term[0], term[1], term[2], term[3]
    for s in range(out.shape[0]):
        x, variance = log_return[s] - log_strike_over_forward, stddev[s] * stddev[s]
        out[s] += p * value_after_jumps(moved[s], strike, x, variance, factor, log_factor, jump_variance)


@compiled
def out_of_the_money_row(  # type: ignore[no-untyped-def]
    forward, strike, svi, years, market, underlying, log_return, moved, multiplier, skew, curvature, out
) -> None:
    """Fill ``out`` [S] with the undiscounted value of the call where moved[s] <= strike, else of the put.

    Args:
        forward, strike: today's, USD; ``svi`` the slice of today's total variance.
        years: time to expiry that is left under the shocks, > 0 (jumps happen in it).
        log_return, moved, multiplier, skew, curvature: [S], of the forward, the shocked forward, m_s, skew_s,
            curvature_s.
    """
    log_strike_over_forward = -logarithm(forward / strike)
    stddev = np.empty(out.shape[0])
    _fill_stddev(log_strike_over_forward, svi, log_return, multiplier, skew, curvature, stddev)
    if not has_jumps(market, underlying):
        fill_black76(log_strike_over_forward, strike, log_return, moved, stddev, out)
        return
    intensity, mean, deviation = market.jumps[underlying]
    terms = jump_terms(intensity, mean, deviation, years)
    out[:] = 0.0
    for n in range(terms.shape[0]):
        _add_term(log_strike_over_forward, strike, log_return, moved, stddev, terms[n], out)
