"""P&L attribution: is what the model calls the P&L of a book the P&L that a full revaluation finds?

The two tests and their zones are those of the Basel market risk framework (MAR32.40 to 32.43): the rank correlation of
the two series, and the greatest distance of their distribution functions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from oracles.backtest.coverage import GREEN, RED, YELLOW

FloatArray = npt.NDArray[np.float64]
SPEARMAN_GREEN, SPEARMAN_RED = 0.80, 0.70
KOLMOGOROV_GREEN, KOLMOGOROV_RED = 0.09, 0.12


class Attribution(NamedTuple):
    """Both statistics and the worse of their zones (yellow is the framework's amber)."""

    spearman: float
    kolmogorov_smirnov: float
    zone: str


def spearman(left: FloatArray, right: FloatArray) -> float:
    """Correlation of ranks, ties at their mean rank; NaN where one series is constant."""
    a, b = rankdata(left), rankdata(right)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else float("nan")


def kolmogorov_smirnov(left: FloatArray, right: FloatArray) -> float:
    """sup |F_left - F_right| of the two empirical distribution functions."""
    places = np.concatenate([left, right])
    below_left = np.searchsorted(np.sort(left), places, side="right") / len(left)
    below_right = np.searchsorted(np.sort(right), places, side="right") / len(right)
    return float(np.abs(below_left - below_right).max())


def attribution(model: FloatArray, revalued: FloatArray) -> Attribution:
    """Attribution of P&L series of equal length, f64[n].

    Raises:
        ValueError: unequal lengths, or fewer than two values.
    """
    if model.shape != revalued.shape or len(model) < 2:
        raise ValueError(f"P&L series of {model.shape} and {revalued.shape}")
    correlation, distance = spearman(model, revalued), kolmogorov_smirnov(model, revalued)
    if correlation < SPEARMAN_RED or distance > KOLMOGOROV_RED or np.isnan(correlation):
        return Attribution(correlation, distance, RED)
    green = correlation > SPEARMAN_GREEN and distance < KOLMOGOROV_GREEN
    return Attribution(correlation, distance, GREEN if green else YELLOW)
