"""The skew of a recorded surface at a constant maturity: one number an underlying, comparable from bar to bar."""

from __future__ import annotations

from collections.abc import Sequence

from kernels.svi import total_variance
from oracles.surface_fit import LEVEL_HORIZON_MS, Slice
from schemas.quantities import ONE_E9

DIFFERENCE = 1e-3
"""Of log-moneyness, on both sides of the forward."""


def slice_skew(one: Slice) -> float:
    """Relative slope of volatility by log-moneyness at the forward, w'(0) / 2 w(0), what a scenario's skew moves."""
    a, b, rho, m, sigma = (value / ONE_E9 for value in one[1:])
    below, at, above = (total_variance(a, b, rho, m, sigma, k) for k in (-DIFFERENCE, 0.0, DIFFERENCE))
    return float((above - below) / (4.0 * DIFFERENCE * at))


def skew_e9(slices: Sequence[Slice], time_ms: int) -> int | None:
    """Skew at 30 days in 1e-9, linear in time between the expiries around it, beyond them that of the nearest one.

    None: no slice is alive.
    """
    alive = sorted(s for s in slices if s.expiry_ms > time_ms and (s.a_e9 or s.b_e9))
    if not alive:
        return None
    at_ms = time_ms + LEVEL_HORIZON_MS
    before = [s for s in alive if s.expiry_ms <= at_ms]
    after = [s for s in alive if s.expiry_ms > at_ms]
    if not before or not after:
        return round(slice_skew(before[-1] if before else after[0]) * ONE_E9)
    near, far = before[-1], after[0]
    share = (at_ms - near.expiry_ms) / (far.expiry_ms - near.expiry_ms)
    return round(((1.0 - share) * slice_skew(near) + share * slice_skew(far)) * ONE_E9)
