"""How much and how fast margins move: measures of EMIR Article 28 practice (peak-to-trough, n-day), worst months."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
DAY_MS = 86_400_000


class Procyclicality(NamedTuple):
    """Peak-to-trough and p99/p1 are ratios of one margin series; the rises are fractions (2.4 = +240 %)."""

    peak_to_trough: float
    p99_to_p1: float
    rise_1_day: float
    rise_5_day: float


class Month(NamedTuple):
    """Coverage in one calendar month. ``name``: 2021-05. ``worst``: greatest loss over its margin."""

    name: str
    observations: int
    rate: float
    worst: float


def procyclicality(time_ms: Int64Array, margin: FloatArray) -> Procyclicality:
    """Measures of a margin series at ascending times; needs at least two values above zero."""
    p1, p99 = np.quantile(margin, [0.01, 0.99])
    return Procyclicality(
        peak_to_trough=float(margin.max() / margin.min()),
        p99_to_p1=float(p99 / p1),
        rise_1_day=largest_rise(time_ms, margin, DAY_MS),
        rise_5_day=largest_rise(time_ms, margin, 5 * DAY_MS),
    )


def largest_rise(time_ms: Int64Array, margin: FloatArray, over_ms: int) -> float:
    """Greatest margin(t) / margin(t - over) - 1; the earlier value is the last one known at its time.

    NaN where the series is shorter than that.
    """
    before = np.searchsorted(time_ms, time_ms - over_ms, side="right") - 1
    known = before >= 0
    if not known.any():
        return float("nan")
    return float((margin[known] / margin[before[known]]).max() - 1)


def months(time_ms: Int64Array, loss: FloatArray, var: FloatArray, es: FloatArray, least: int) -> list[Month]:
    """Every calendar month (UTC) with at least ``least`` observations; times ascend."""
    names = time_ms.astype("datetime64[ms]").astype("datetime64[M]")
    edges = np.r_[0, np.flatnonzero(np.diff(names.astype(np.int64))) + 1, len(names)]
    found = []
    for start, stop in itertools.pairwise(edges):
        if stop - start >= max(least, 1):
            rows = slice(start, stop)
            rate, worst = (loss[rows] > var[rows]).mean(), (loss[rows] / es[rows]).max()
            found.append(Month(str(names[start]), int(stop - start), float(rate), float(worst)))
    return found
