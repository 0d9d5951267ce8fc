"""The shape of a recorded surface at a constant maturity: numbers of an underlying that compare from bar to bar.

What the factors of a scenario set move (``kernels.option_rows``), measured where they are stated, at 30 days. Skew and
curvature are those of the parabola through the volatilities at the forward and ``WIDTH`` on both sides of it: closer to
the forward they are the noise of two quotes, further out those of wings that hardly trade.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from kernels.option_rows import FACTOR_YEARS, expiry_loadings
from kernels.svi import total_variance
from oracles.surface_fit import LEVEL_HORIZON_MS, Slice
from schemas.quantities import MILLISECONDS_PER_YEAR, ONE_E9

WIDTH = 0.15
"""Of log-moneyness: one standard deviation of 30 days at a volatility of 52 %."""
NEAR_YEARS, FAR_YEARS = FACTOR_YEARS / 2.25, FACTOR_YEARS * 4.0
"""Between these (13.3 and 120 days, or as much of it as expiries span) the term slope is taken."""
SPAN_LEAST = 0.25
"""Of the term's loading: expiries that span less say nothing of a slope."""


class Shape(NamedTuple):
    """In 1e-9, None where the surface says nothing: relative change of volatility per unit of log-moneyness, and per
    squared unit; change of the logarithm of volatility at the forward per unit of the term's loading."""

    skew_e9: int | None
    curvature_e9: int | None
    term_e9: int | None


NO_SHAPE = Shape(None, None, None)


def slice_shape(one: Slice) -> tuple[float, float]:
    """(skew, curvature) of a slice."""
    below, at, above = (math.sqrt(_variance(one, k)) for k in (-WIDTH, 0.0, WIDTH))
    return (above - below) / (2.0 * WIDTH * at), (above + below - 2.0 * at) / (2.0 * WIDTH * WIDTH * at)


def shape_of(slices: Sequence[Slice], time_ms: int) -> Shape:
    """The shape at 30 days, linear in time between the expiries around it, beyond them that of the nearest one."""
    alive = sorted(s for s in slices if s.expiry_ms > time_ms and (s.a_e9 or s.b_e9))
    if not alive:
        return NO_SHAPE
    skew, curvature = _at_thirty_days(alive, time_ms)
    term = _term(alive, time_ms)
    return Shape(round(skew * ONE_E9), round(curvature * ONE_E9), None if term is None else round(term * ONE_E9))


def _at_thirty_days(alive: list[Slice], time_ms: int) -> tuple[float, float]:
    at_ms = time_ms + LEVEL_HORIZON_MS
    before = [s for s in alive if s.expiry_ms <= at_ms]
    after = [s for s in alive if s.expiry_ms > at_ms]
    if not before or not after:
        return slice_shape(before[-1] if before else after[0])
    near, far = before[-1], after[0]
    share = (at_ms - near.expiry_ms) / (far.expiry_ms - near.expiry_ms)
    (skew, curvature), (far_skew, far_curvature) = slice_shape(near), slice_shape(far)
    return (1.0 - share) * skew + share * far_skew, (1.0 - share) * curvature + share * far_curvature


def _term(alive: list[Slice], time_ms: int) -> float | None:
    """Slope of ln(volatility at the forward) by the term's loading; total variance is linear between expiries."""
    points = [((s.expiry_ms - time_ms) / MILLISECONDS_PER_YEAR, _variance(s, 0.0)) for s in alive]
    near, far = max(NEAR_YEARS, points[0][0]), min(FAR_YEARS, points[-1][0])
    span = expiry_loadings(far)[0] - expiry_loadings(near)[0]
    if span < SPAN_LEAST:
        return None
    ratio = _variance_at(points, far) / far / (_variance_at(points, near) / near)
    return 0.5 * math.log(ratio) / span


def _variance(one: Slice, log_moneyness: float) -> float:
    a, b, rho, m, sigma = (value / ONE_E9 for value in one[1:])
    return float(total_variance(a, b, rho, m, sigma, log_moneyness))


def _variance_at(points: list[tuple[float, float]], years: float) -> float:
    """Total variance at a time to expiry between the first and the last of the points (years, total variance)."""
    last = next(place for place, point in enumerate(points) if point[0] >= years)
    (start, low), (end, high) = points[max(last - 1, 0)], points[last]
    share = (years - start) / (end - start) if end > start else 1.0
    return low + share * (high - low)
