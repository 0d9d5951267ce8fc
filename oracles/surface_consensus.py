"""Slices of several reporters -> one: weighted median of total variance on a grid, with a quorum, refitted.

At every point of the grid the result lies between values of honest reporters as long as they hold more than half of
the weight: no minority can move it further than the honest disagree. The median of arbitrage-free curves need not be
one, so it is refitted as the nearest arbitrage-free slice.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from kernels.svi import total_variances
from kernels.svi_fit import FITTED, fit_free_slice, is_free
from oracles.forward import weighted_quantile
from oracles.surface_fit import NO_FLOOR, FloorCurve, SliceE9, parameters_of, recorded
from schemas.quantities import ONE_E9

GRID_POINTS = 25
GRID_STDDEVS = 3.0
OUTLIER_VOLATILITY = 0.1  # relative, at the forward


class Report(NamedTuple):
    """What one reporter says about one expiry; `weight` is its stake or 1."""

    reporter: str
    forward_usd9: int
    slice_e9: SliceE9
    weight: int = 1


class Refusal(StrEnum):
    """Why there is no consensus."""

    NO_QUORUM = "fewer reporters or less weight than the quorum"
    NOT_FITTED = "no arbitrage-free slice follows the medians"


class Consensus(NamedTuple):
    """The combined forward and slice, or why there is none (`refused`); who is far off, and whose slice has an
    arbitrage and was left out."""

    forward_usd9: int
    slice_e9: SliceE9 | None
    refused: Refusal | None
    outliers: list[str]
    left_out: list[str]


def combine(
    reports: list[Report],
    quorum: int,
    total_weight: int | None = None,
    floor: FloorCurve = NO_FLOOR,
    forward_usd9: int = 0,
) -> Consensus:
    """One surface slice from many.

    `quorum`: reporters needed, each counted once (its last report), with more than half of `total_weight` (of all who
    may report; default: of those who did). Reports that are not arbitrage-free by themselves do not count.
    `forward_usd9`: the forward that the slice is to be of; 0: the median of the reports'.
    """
    latest = {report.reporter: report for report in reports if report.weight > 0 and report.forward_usd9 > 0}
    usable = [r for _, r in sorted(latest.items()) if is_free(parameters_of(r.slice_e9), *NO_FLOOR)]
    left_out = sorted({report.reporter for report in reports} - {r.reporter for r in usable})
    weights = np.array([r.weight for r in usable], np.float64)
    needed = sum(r.weight for r in latest.values()) if total_weight is None else total_weight
    if len(usable) < max(quorum, 1) or 2 * weights.sum() <= needed:
        return Consensus(0, None, Refusal.NO_QUORUM, [], left_out)
    forward = forward_usd9 or weighted_quantile(np.array([r.forward_usd9 for r in usable], np.float64), weights, 0.5)
    at_forward = np.array([_variance(r, forward, np.zeros(1))[0] for r in usable])
    middle = weighted_quantile(at_forward, weights, 0.5)
    log_moneyness = np.linspace(-GRID_STDDEVS, GRID_STDDEVS, GRID_POINTS) * math.sqrt(middle)
    curves = np.array([_variance(r, forward, log_moneyness) for r in usable])
    medians = np.array([weighted_quantile(column, weights, 0.5) for column in curves.T])
    density = np.exp(-0.5 * np.linspace(-GRID_STDDEVS, GRID_STDDEVS, GRID_POINTS) ** 2) + 0.02
    parameters, _, status, _ = fit_free_slice(log_moneyness, medians, density, *floor)
    slice_e9 = recorded(parameters, floor) if status == FITTED else None
    far = np.abs(np.sqrt(at_forward / middle) - 1.0) > OUTLIER_VOLATILITY
    outliers = [r.reporter for r, is_far in zip(usable, far, strict=True) if is_far]
    refused = None if slice_e9 is not None else Refusal.NOT_FITTED
    return Consensus(round(forward), slice_e9, refused, outliers, left_out)


def _variance(report: Report, forward_usd9: float, log_moneyness: np.ndarray) -> np.ndarray:
    """Total variance of a report at moneynesses of the common forward: the same strikes, seen from its own."""
    shifted = log_moneyness + math.log(forward_usd9 / report.forward_usd9)
    found = np.empty(len(shifted))
    total_variances(np.array(report.slice_e9, np.float64) / ONE_E9, shifted, found)
    return found
