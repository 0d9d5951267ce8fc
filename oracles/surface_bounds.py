"""Bounds on jumps: how far a slice may move from the last recorded one before it is held back.

A held surface keeps the last good slice and puts its expiry into a degraded mode, which raises margins
(``RiskParameters.degraded_volatility_e6``). The allowance grows with every slice held, so that a move that persists is
believed after a while and a single bad print never is.
"""

from __future__ import annotations

import math

import numpy as np

from kernels.svi import total_variances
from schemas.quantities import MILLISECONDS_PER_YEAR, ONE_E6, ONE_E9

STANDARD_MONEYNESS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
MOVE_MAX_E6 = 10**12

SliceE9 = tuple[int, int, int, int, int]


def surface_move_e6(before: SliceE9, before_ms: int, after: SliceE9, after_ms: int) -> int:
    """Largest relative change of volatility at the forward and half and one standard deviation around it, 1e-6.

    `before_ms` and `after_ms` are the times to expiry at which the slices were recorded: each is read at its own
    standardised moneyness, so that time passing is no move.
    """
    first, second = _volatilities(before, before_ms), _volatilities(after, after_ms)
    if not (first > 0).all():
        return MOVE_MAX_E6
    return min(math.ceil(float(np.abs(second / first - 1.0).max()) * ONE_E6), MOVE_MAX_E6)


def is_within(move_e6: int, allowed_e6: int, held: int) -> bool:
    """May a slice be taken that moved so far, after `held` in a row were held back? `allowed_e6` 0: every move may."""
    return allowed_e6 == 0 or move_e6 <= allowed_e6 * (1 + held)


def _volatilities(slice_e9: SliceE9, remaining_ms: int) -> np.ndarray:
    values, variance = np.array(slice_e9, np.float64) / ONE_E9, np.empty(1)
    total_variances(values, np.zeros(1), variance)
    found = np.empty(len(STANDARD_MONEYNESS))
    total_variances(values, STANDARD_MONEYNESS * math.sqrt(variance[0]), found)
    return np.sqrt(found / (max(remaining_ms, 1) / MILLISECONDS_PER_YEAR))
