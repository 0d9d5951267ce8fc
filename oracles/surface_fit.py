"""Quotes of one expiry -> an SVI slice as integers. Left of the logs: the result is recorded, never recomputed."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from kernels.svi import LOG_MONEYNESS_LIMIT, total_variance, total_variances
from kernels.svi_fit import (
    FITTED,
    MINIMUM_POINTS,
    fit_free_slice,
    fit_minimum_and_slope,
    flatten,
    is_free,
    lowest_above,
)
from oracles.option_quotes import NO_JUMPS, Defect, Finding, JumpsE, Points, Quote, Terms, examine
from schemas.quantities import MILLISECONDS_PER_YEAR, ONE_E9

SliceE9 = tuple[int, int, int, int, int]
LEVEL_HORIZON_MS = 30 * 86_400_000
NEAR_EXPIRY_MS = 30 * 60_000
NEAREST_STRIKES = 3
WING_POINTS = 3
FLAT_SIGMA_E9 = ONE_E9 // 10
FLOOR_POINTS = 33
FLOOR_STDDEVS = 4.0
NO_FLOOR = (np.empty(0), np.empty(0))

FloorCurve = tuple[np.ndarray, np.ndarray]


class Method(StrEnum):
    """How a slice came about."""

    SVI = "svi"
    WING = "level and wings"  # three or four strikes: symmetric, above every quote
    FLAT = "flat"  # one or two strikes, or minutes to expiry: at the highest quote
    RECORDED = "recorded"  # not fitted here
    NONE = "none"  # the last slice stays


class Slice(NamedTuple):
    """A recorded slice and when it expires."""

    expiry_ms: int
    a_e9: int
    b_e9: int
    rho_e9: int
    m_e9: int
    sigma_e9: int


class Smile(NamedTuple):
    """A fitted expiry: its slice (None: nothing to record), how it was made, and what was wrong on the way.

    `repaired`: the closest slice had an arbitrage, this one is the closest found without.
    """

    slice_e9: SliceE9 | None
    method: Method
    repaired: bool
    points: Points
    findings: list[Finding]


def fit_slice(
    quotes: list[Quote], forward_usd9: int, rate_e9: int, remaining_ms: int, jumps: JumpsE = NO_JUMPS
) -> SliceE9 | None:
    """The slice of `fit_smile` alone; None: keep the last one."""
    return fit_smile(quotes, Terms(forward_usd9, rate_e9, remaining_ms, jumps)).slice_e9


def fit_smile(quotes: list[Quote], terms: Terms, floor: FloorCurve = NO_FLOOR) -> Smile:
    """SVI slice of total variance fitted to out-of-the-money quotes, each weighted by its spread, free of arbitrage.

    With jumps (as a listing has them) each quote is inverted to the volatility that Merton's diffusion must have
    beside them, and the slice is that of the diffusion; quotes that the jumps alone exceed say nothing. `floor`: total
    variance of the expiry before (`floor_of`), below which no slice goes. Where the quotes cannot carry five parameters
    the slice has two, or one, and lies above every quote it is made of: more variance is more margin of the short side.
    """
    if terms.forward_usd9 <= 0 or terms.remaining_ms <= 0:
        empty, _ = examine([], terms)
        return Smile(None, Method.NONE, False, empty, [Finding(Defect.NO_FORWARD, 0)])
    points, findings = examine(quotes, terms)
    strikes = len(points.log_moneyness)
    if strikes == 0:
        return Smile(None, Method.NONE, False, points, [*findings, Finding(Defect.NO_QUOTES, 0)])
    findings += [Finding(defect, 0) for defect in _of_expiry(points, terms)]
    if terms.remaining_ms < NEAR_EXPIRY_MS or strikes < MINIMUM_POINTS:
        method, parameters = _fallback(points, terms)
        return Smile(recorded(parameters, floor), method, False, points, findings)
    parameters, _, status, repaired = fit_free_slice(*points, *floor)
    slice_e9 = recorded(parameters, floor) if status == FITTED else None
    if slice_e9 is None:
        return Smile(None, Method.NONE, False, points, [*findings, Finding(Defect.NOT_REPAIRED, 0)])
    return Smile(slice_e9, Method.SVI, repaired, points, findings)


def floor_of(slice_e9: SliceE9) -> FloorCurve:
    """Total variance of a slice as the next expiry's floor: 33 points over +-4 standard deviations at the forward."""
    values = parameters_of(slice_e9)
    a, b, rho, m, sigma = values.tolist()
    reach = FLOOR_STDDEVS * math.sqrt(max(total_variance(a, b, rho, m, sigma, 0.0), 0.0))
    log_moneyness = np.linspace(-1.0, 1.0, FLOOR_POINTS) * min(reach, LOG_MONEYNESS_LIMIT)
    variance = np.empty(FLOOR_POINTS)
    total_variances(values, log_moneyness, variance)
    return log_moneyness, variance


def parameters_of(slice_e9: SliceE9) -> np.ndarray:
    """(a, b, rho, m, sigma) as the kernels take them."""
    return np.array(slice_e9, np.float64) / ONE_E9


def recorded(parameters: np.ndarray, floor: FloorCurve = NO_FLOOR) -> SliceE9 | None:
    """Parameters as integers, free of arbitrage as integers too; None where that cannot be had."""
    found = _rounded(parameters)
    for _ in range(3):
        values = parameters_of(found)
        if is_free(values, *floor):
            return found
        if not flatten(values):
            return None
        found = _rounded(values)
        lack = -lowest_above(parameters_of(found), *floor)
        if lack > 0:
            found = (found[0] + math.ceil(lack * ONE_E9) + 1, *found[1:])
    return found if is_free(parameters_of(found), *floor) else None


def _rounded(parameters: np.ndarray) -> SliceE9:
    a, b, rho, m, sigma = (round(float(value) * ONE_E9) for value in parameters)
    return (a, max(b, 0), rho, m, max(sigma, 1))


def _of_expiry(points: Points, terms: Terms) -> list[Defect]:
    """Defects of the expiry as a whole."""
    k = points.log_moneyness
    found = [Defect.NEAR_EXPIRY] if terms.remaining_ms < NEAR_EXPIRY_MS else []
    found += [Defect.TOO_FEW_STRIKES] if len(k) < MINIMUM_POINTS else []
    return found + ([Defect.ONE_WING] if k[0] >= 0.0 or k[-1] <= 0.0 else [])


def _fallback(points: Points, terms: Terms) -> tuple[Method, np.ndarray]:
    """Two parameters or one, above every quote: level and wings of a symmetric slice, or the highest variance."""
    k, w = points.log_moneyness, points.total_variance
    if terms.remaining_ms < NEAR_EXPIRY_MS or len(k) < WING_POINTS:
        nearest = np.argsort(np.abs(k), kind="stable")[:NEAREST_STRIKES]
        return Method.FLAT, np.array([w[nearest].max(), 0.0, 0.0, 0.0, FLAT_SIGMA_E9 / ONE_E9])
    sigma = max(float(np.sqrt(w.mean())), 1e-4)
    _, minimum, b = fit_minimum_and_slope(k, w, points.weight, 0.0, sigma, 0.0, np.empty(len(k)))
    parameters = np.array([minimum - b * sigma, b, 0.0, 0.0, sigma])
    curve = np.empty(len(k))
    total_variances(parameters, k, curve)
    parameters[0] += max(float((w - curve).max()), 0.0)
    return Method.WING, parameters


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
