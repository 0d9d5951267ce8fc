"""Quotes of one expiry, examined: what each says about total variance, how well, and what is wrong with it, by name.

Only out-of-the-money quotes say anything. The value is the mark; its weight is one over the squared half spread in
units of total variance, the whole price where bid and ask cannot be trusted. Nothing here is ever NaN: a quote is a
point or a named defect, or both (a crossed market's mark counts, its bid and ask do not).
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from kernels.implied_vol import CONVERGED, implied_vol, merton_implied_vol
from schemas.quantities import MILLISECONDS_PER_YEAR, ONE_E6, ONE_E9, USD9_PER_USD

JumpsE = tuple[int, int, int]
NO_JUMPS: JumpsE = (0, 0, 0)
VOLATILITY_MIN, VOLATILITY_MAX = 0.01, 5.0  # at or beyond these a quote is a boundary value of its source
SPREAD_FLOOR = 0.01  # of the price: no market is taken to be tighter
SPREAD_UNKNOWN = 3.0  # times the price: half spread of a quote that is not two-sided


class Quote(NamedTuple):
    """One option's mark, with bid and ask where there are any (0: none); nano-USD."""

    is_call: bool
    strike_usd9: int
    mark_usd9: int
    bid_usd9: int
    ask_usd9: int


class Defect(StrEnum):
    """What can be wrong with a quote or an expiry, and what is done about it."""

    MARK_NOT_POSITIVE = "mark not above zero"  # dropped
    STRIKE_NOT_POSITIVE = "strike not above zero"  # dropped
    BOUNDARY_VOLATILITY = "implied volatility at a boundary"  # dropped: <= 1 % or >= 500 %
    NO_VOLATILITY = "no implied volatility"  # dropped: the price is none of an option, or jumps alone exceed it
    CROSSED = "bid above ask"  # both ignored: weight of a quote without bid and ask
    ONE_SIDED = "one side only"  # weight of a quote without bid and ask
    MARK_OUTSIDE = "mark outside bid and ask"  # bid and ask ignored: one of the three is wrong
    DUPLICATE = "strike quoted twice"  # the first counts
    TOO_FEW_STRIKES = "too few strikes"  # two parameters, or flat at the highest
    ONE_WING = "strikes on one side of the forward only"  # fitted; the other wing follows from the same slice
    NEAR_EXPIRY = "expiry within minutes"  # flat at the highest of the nearest strikes
    NO_QUOTES = "no usable quote"  # the last slice stays
    NO_FORWARD = "no forward"  # the last slice stays
    HELD = "held back"  # moved too far, or its quotes gave none: degraded, the last slice stays
    NOT_REPAIRED = "no arbitrage-free slice"  # the last slice stays


DROPPED = (Defect.MARK_NOT_POSITIVE, Defect.STRIKE_NOT_POSITIVE, Defect.BOUNDARY_VOLATILITY, Defect.NO_VOLATILITY)


class Points(NamedTuple):
    """Usable quotes, by log-moneyness; all f64[n]. The weight is one over the squared half spread in total variance."""

    log_moneyness: np.ndarray
    total_variance: np.ndarray
    weight: np.ndarray


class Finding(NamedTuple):
    """A defect and the strike it was seen at (0: of the whole expiry)."""

    defect: Defect
    strike_usd9: int


class Terms(NamedTuple):
    """What a price is inverted with: forward and rate as recorded, time to expiry, jumps of the underlying."""

    forward_usd9: int
    rate_e9: int
    remaining_ms: int
    jumps: JumpsE = NO_JUMPS

    @property
    def years(self) -> float:
        return self.remaining_ms / MILLISECONDS_PER_YEAR

    @property
    def growth(self) -> float:
        """From a price today to an undiscounted one."""
        return math.exp(self.rate_e9 / ONE_E9 * self.years)


def examine(quotes: list[Quote], terms: Terms) -> tuple[Points, list[Finding]]:
    """-> (usable out-of-the-money points, defects of the out-of-the-money quotes in their order)."""
    rows: dict[float, tuple[float, float]] = {}
    findings: list[Finding] = []
    for quote in sorted(quotes):
        if quote.strike_usd9 > 0 and quote.is_call != (quote.strike_usd9 >= terms.forward_usd9):
            continue
        point, found = _point(quote, terms)
        findings += [Finding(defect, quote.strike_usd9) for defect in found]
        if point is not None and point[0] in rows:
            findings.append(Finding(Defect.DUPLICATE, quote.strike_usd9))
        elif point is not None:
            rows[point[0]] = point[1:]
    columns = np.array([(k, *values) for k, values in sorted(rows.items())], np.float64).reshape(-1, 3)
    return Points(*np.ascontiguousarray(columns.T)), findings


def implied_volatility(price_usd9: int, quote: Quote, terms: Terms) -> float:
    """Volatility at which the quoted option has this price today; NaN where there is none."""
    price, forward, strike = (v / USD9_PER_USD for v in (price_usd9, terms.forward_usd9, quote.strike_usd9))
    option, jumps = (price * terms.growth, forward, strike, terms.years, quote.is_call), terms.jumps
    if jumps[0]:
        found, status = merton_implied_vol(*option, jumps[0] / ONE_E6, jumps[1] / ONE_E9, jumps[2] / ONE_E9)
    else:
        found, status = implied_vol(*option)
    return found if status == CONVERGED else math.nan


def _point(quote: Quote, terms: Terms) -> tuple[tuple[float, float, float] | None, list[Defect]]:
    """((log-moneyness, total variance, weight) or None, defects) of an out-of-the-money quote."""
    if quote.strike_usd9 <= 0:
        return None, [Defect.STRIKE_NOT_POSITIVE]
    if quote.mark_usd9 <= 0:
        return None, [Defect.MARK_NOT_POSITIVE]
    half_usd9, defects = _half_spread(quote)
    volatility = implied_volatility(quote.mark_usd9, quote, terms)
    if not volatility > 0.0:
        return None, [*defects, Defect.NO_VOLATILITY]
    if not VOLATILITY_MIN < volatility < VOLATILITY_MAX:
        return None, [*defects, Defect.BOUNDARY_VOLATILITY]
    log_moneyness = math.log(quote.strike_usd9 / terms.forward_usd9)
    stddev = volatility * math.sqrt(terms.years)
    distance = -log_moneyness / stddev + stddev / 2
    vega = terms.forward_usd9 * math.exp(-distance * distance / 2) / math.sqrt(2 * math.pi)  # per unit of stddev
    variance = stddev * stddev
    half = min(2 * stddev * half_usd9 * terms.growth / max(vega, 1e-300), variance)
    return (log_moneyness, variance, 1 / (half * half)), defects


def _half_spread(quote: Quote) -> tuple[float, list[Defect]]:
    """(half spread in nano-USD, defects)."""
    mark, bid, ask = quote.mark_usd9, quote.bid_usd9, quote.ask_usd9
    unknown = SPREAD_UNKNOWN * mark
    if bid <= 0 and ask <= 0:
        return unknown, []
    if bid <= 0 or ask <= 0:
        return unknown, [Defect.ONE_SIDED]
    if bid > ask:
        return unknown, [Defect.CROSSED]
    if not bid <= mark <= ask:
        return unknown, [Defect.MARK_OUTSIDE]
    return max((ask - bid) / 2, SPREAD_FLOOR / 2 * mark), []
