"""Quotes of one expiry -> an SVI slice as integers. Left of the logs: the result is recorded, never recomputed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from kernels.implied_vol import CONVERGED, implied_vol, merton_implied_vol
from kernels.svi import total_variance
from kernels.svi_fit import FITTED
from kernels.svi_fit import fit_slice as fit_slice_kernel
from schemas.quantities import MILLISECONDS_PER_YEAR, ONE_E6, ONE_E9, USD9_PER_USD

SliceE9 = tuple[int, int, int, int, int]
JumpsE = tuple[int, int, int]
NO_JUMPS: JumpsE = (0, 0, 0)
LEVEL_HORIZON_MS = 30 * 86_400_000
VOLATILITY_MIN, VOLATILITY_MAX = 0.01, 5.0  # beyond these a quote is a boundary value of its source
SPREAD_FLOOR = 0.01  # of the price: weight of a quote without bid and ask, and bound of a locked market's weight


class Quote(NamedTuple):
    """One option's mark, with bid and ask where there are any (0: none); nano-USD."""

    is_call: bool
    strike_usd9: int
    mark_usd9: int
    bid_usd9: int
    ask_usd9: int


class Slice(NamedTuple):
    """A recorded slice and when it expires."""

    expiry_ms: int
    a_e9: int
    b_e9: int
    rho_e9: int
    m_e9: int
    sigma_e9: int


def fit_slice(
    quotes: list[Quote], forward_usd9: int, rate_e9: int, remaining_ms: int, jumps: JumpsE = NO_JUMPS
) -> SliceE9 | None:
    """SVI slice of total variance fitted to out-of-the-money quotes, weighted by vega over spread.

    With `jumps` (as a listing has them) each quote is inverted to the volatility that Merton's diffusion must have
    beside them, and the slice is that of the diffusion; quotes that the jumps alone exceed say nothing.
    Too few usable strikes give a flat slice at their weighted mean; none at all give None (keep the last slice).
    """
    points = [p for q in quotes if (p := _point(q, forward_usd9, rate_e9, remaining_ms, jumps)) is not None]
    if not points:
        return None
    log_moneyness, variance, weight = (np.array(column) for column in zip(*sorted(points), strict=True))
    parameters, _, status = fit_slice_kernel(log_moneyness, variance, weight)
    if status != FITTED:
        flat = float((variance * weight).sum() / weight.sum())
        return (round(flat * ONE_E9), 0, 0, 0, ONE_E9 // 10)
    a, b, rho, m, sigma = (round(float(value) * ONE_E9) for value in parameters)
    return (a, max(b, 0), rho, m, max(sigma, 1))


def _point(
    quote: Quote, forward_usd9: int, rate_e9: int, remaining_ms: int, jumps: JumpsE
) -> tuple[float, float, float] | None:
    """(log-moneyness, total variance, weight) of an out-of-the-money quote, None where it says nothing."""
    forward, strike = forward_usd9 / USD9_PER_USD, quote.strike_usd9 / USD9_PER_USD
    if strike <= 0 or quote.is_call != (strike >= forward):
        return None
    years = remaining_ms / MILLISECONDS_PER_YEAR
    undiscounted = quote.mark_usd9 / USD9_PER_USD * math.exp(rate_e9 / ONE_E9 * years)
    option = (undiscounted, forward, strike, years, quote.is_call)
    if jumps[0]:
        volatility, status = merton_implied_vol(*option, jumps[0] / ONE_E6, jumps[1] / ONE_E9, jumps[2] / ONE_E9)
    else:
        volatility, status = implied_vol(*option)
    if status != CONVERGED or not VOLATILITY_MIN < volatility < VOLATILITY_MAX:
        return None
    log_moneyness, stddev = math.log(strike / forward), volatility * math.sqrt(years)
    distance = -log_moneyness / stddev + stddev / 2
    vega = math.exp(-distance * distance / 2)
    spread = max((quote.ask_usd9 - quote.bid_usd9) / quote.mark_usd9, SPREAD_FLOOR) if quote.bid_usd9 else 1.0
    return log_moneyness, stddev * stddev, vega / max(spread * undiscounted / forward, 1e-9) ** 0.5


def volatility_level_e9(slices: list[Slice], time_ms: int) -> int:
    """At-the-money volatility of the slice nearest to 30 days, 1e-9: the level that market ticks carry. 0: no slice."""
    alive = [s for s in slices if s.expiry_ms > time_ms and (s.a_e9 or s.b_e9)]
    if not alive:
        return 0
    nearest = min(alive, key=lambda s: (abs(s.expiry_ms - time_ms - LEVEL_HORIZON_MS), s.expiry_ms))
    values = [value / ONE_E9 for value in nearest[1:]]
    variance = total_variance(values[0], values[1], values[2], values[3], values[4], 0.0)
    years = (nearest.expiry_ms - time_ms) / MILLISECONDS_PER_YEAR
    return round(math.sqrt(max(variance, 0.0) / years) * ONE_E9)
