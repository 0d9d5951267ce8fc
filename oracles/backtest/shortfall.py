"""Is the expected shortfall right, and whose forecasts are better?

``loss``, ``var`` and ``es`` are float64[n], positive for losses; ``tail`` is 1 - level.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class Comparison(NamedTuple):
    """Mean difference of two models' scores, its Diebold-Mariano statistic and two-sided p-value."""

    mean_difference: float
    statistic: float
    p_value: float


def z1(loss: FloatArray, var: FloatArray, es: FloatArray) -> float:
    """Acerbi and Szekely (2014), test 1: 1 - mean of loss / ES over exceedances; 0 is right, below it ES is too small.

    NaN where nothing was exceeded.
    """
    exceeded = loss > var
    return float(1 - (loss[exceeded] / es[exceeded]).mean()) if exceeded.any() else math.nan


def z2(loss: FloatArray, var: FloatArray, es: FloatArray, tail: float) -> float:
    """Acerbi and Szekely (2014), test 2: 1 - sum(loss / ES over exceedances) / (T tail); 0 is right.

    Too many exceedances and too small an ES both push it below zero. At T = 250 and 2.5 % a value under -0.7 has a
    probability of 5 %, one under -1.8 of 0.01 %.
    """
    exceeded = loss > var
    return float(1 - (loss[exceeded] / es[exceeded]).sum() / (len(loss) * tail))


def fissler_ziegel(loss: FloatArray, var: FloatArray, es: FloatArray, tail: float) -> FloatArray:
    """FZ0 score of each forecast, float64[n], lower is better (Patton, Ziegel and Chen 2019, equation 6).

    With L = loss, V = VaR, E = ES: 1{L > V} (L - V) / (tail E) + V / E + ln E - 1. Consistent for (VaR, ES) and
    homogeneous of degree zero: differences do not depend on the unit of money.
    """
    return np.maximum(loss - var, 0.0) / (tail * es) + var / es + np.log(es) - 1.0


def diebold_mariano(score: FloatArray, against: FloatArray, lags: int) -> Comparison:
    """Diebold and Mariano (1995) with the Bartlett weights of Newey and West over ``lags``; negative: ``score`` wins.

    Raises:
        ValueError: scores of unequal length, or not more of them than lags.
    """
    if score.shape != against.shape or len(score) <= lags:
        raise ValueError(f"scores of {score.shape} and {against.shape} with lags {lags}")
    difference = score - against
    mean, variance = float(difference.mean()), variance_of_mean(difference, lags)
    if variance <= 0:  # equal scores, or too few of them for their lags
        return Comparison(mean, 0.0, 1.0)
    statistic = mean / math.sqrt(variance)
    return Comparison(mean, statistic, math.erfc(abs(statistic) / math.sqrt(2)))


def variance_of_mean(series: FloatArray, lags: int) -> float:
    """Newey and West (1987), Bartlett weights: variance of the mean of a series that depends on its last ``lags``."""
    centred = series - series.mean()
    variance = float(centred @ centred)
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag])
    return variance / len(series) ** 2
