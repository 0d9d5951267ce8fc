"""The forward of an expiry from put-call parity: robust against stale, wide and crossed quotes.

Undiscounted, C - P = F - K at every strike, so each strike with a call and a put gives a forward, known as well as its
two spreads allow; the forward is the weighted median of the strikes nearest to the money. Prices of inverse contracts
are in coin, worth the forward: c - p = (F - K) / F.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

PAIRS_MIN = 3
PAIRS_NEAREST = 9
BASIS_POINT = 1e-4
PARITY_SPREAD_MAX_BP = 25.0  # strikes that disagree by more give no forward: the one told is taken


class Side(NamedTuple):
    """One option: kind, strike in USD, bid and ask (0: none) in the unit of the contract."""

    is_call: bool
    strike_usd: float
    bid: float
    ask: float


class Forward(NamedTuple):
    """A forward, from how many strikes, and how far apart they are (interquartile range, basis points)."""

    price_usd: float
    pairs: int
    spread_bp: float


def parity_forward(sides: list[Side], near_usd: float, growth: float = 1.0, *, inverse: bool = False) -> Forward | None:
    """Forward from the strikes nearest to `near_usd`; None where fewer than three have two-sided, uncrossed markets.

    `growth` makes a price of today undiscounted (exp(rate x years)); prices of `inverse` contracts are in coin.
    """
    found = []
    for strike, call, put in _pairs(sides):
        difference, half = _middle(call) - _middle(put), (call.ask - call.bid + put.ask - put.bid) / 2
        if inverse:
            forward, error = (strike / (1 - difference), half * strike) if difference < 1 else (math.nan, 0.0)
        else:
            forward, error = strike + difference * growth, half * growth
        if forward > 0 and math.isfinite(forward):
            found.append((abs(strike - near_usd), forward, 1 / (error * error + (BASIS_POINT * near_usd) ** 2)))
    nearest = sorted(found)[:PAIRS_NEAREST]
    if len(nearest) < PAIRS_MIN:
        return None
    _, forwards, weights = (np.array(column) for column in zip(*nearest, strict=True))
    price, low, high = (weighted_quantile(forwards, weights, q) for q in (0.5, 0.25, 0.75))
    return Forward(price, len(nearest), (high - low) / price / BASIS_POINT)


def weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The smallest value with at least `share` of the weight at or below it: a value that was there."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulated, share * cumulated[-1])])


def _pairs(sides: list[Side]) -> list[tuple[float, Side, Side]]:
    """(strike, call, put) of the strikes where both have a two-sided market that is not crossed."""
    usable = {(s.strike_usd, s.is_call): s for s in sides if 0 < s.bid <= s.ask}
    strikes = sorted({strike for strike, _ in usable})
    return [(k, usable[k, True], usable[k, False]) for k in strikes if (k, True) in usable and (k, False) in usable]


def _middle(side: Side) -> float:
    return (side.bid + side.ask) / 2
