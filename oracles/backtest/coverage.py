"""Do losses exceed value-at-risk as often as they should, and independently of each other?

Likelihoods are sums of logarithms: the product p^x (1 - p)^(T - x) is zero in doubles for a few hundred exceedances.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

BoolArray = npt.NDArray[np.bool_]
GREEN: Final = "green"
YELLOW: Final = "yellow"
RED: Final = "red"
YELLOW_FROM, RED_FROM = 0.95, 0.9999


class Likelihood(NamedTuple):
    """A likelihood ratio and the probability of one as large under the hypothesis that the model is right."""

    ratio: float
    p_value: float


class Transitions(NamedTuple):
    """How often an observation with (1) or without (0) an exceedance followed one with or without."""

    n00: int
    n01: int
    n10: int
    n11: int


def chi_squared_tail(ratio: float, degrees: int) -> float:
    """P(chi² > ratio) for one or two degrees of freedom, in closed form."""
    if degrees == 1:
        return math.erfc(math.sqrt(max(ratio, 0.0) / 2))
    if degrees == 2:
        return math.exp(-max(ratio, 0.0) / 2)
    raise ValueError(f"degrees {degrees}: 1 or 2")


def kupiec(exceedances: int, observations: int, tail: float) -> Likelihood:
    """Proportion of failures (Kupiec 1995): is the rate ``tail``?

    LR = 2 [x ln(x / (T p)) + (T - x) ln((T - x) / (T (1 - p)))], chi² with one degree.

    Raises:
        ValueError: no observations, more exceedances than observations, or a tail outside (0, 1).
    """
    if not 0 <= exceedances <= observations or observations == 0:
        raise ValueError(f"exceedances {exceedances} of observations {observations}")
    if not 0 < tail < 1:
        raise ValueError(f"tail {tail}: above 0 and below 1")
    inside = observations - exceedances
    ratio = 2 * (
        _times_log(exceedances, exceedances / (observations * tail))
        + _times_log(inside, inside / (observations * (1 - tail)))
    )
    return Likelihood(max(ratio, 0.0), chi_squared_tail(ratio, 1))


def transitions(exceeded: BoolArray) -> Transitions:
    """Counts of neighbouring pairs in a series of exceedances."""
    before, after = exceeded[:-1], exceeded[1:]
    n11, n10 = int((before & after).sum()), int((before & ~after).sum())
    n01 = int((~before & after).sum())
    return Transitions(max(len(exceeded) - 1, 0) - n11 - n10 - n01, n01, n10, n11)


def independence(counts: Transitions) -> Likelihood:
    """Christoffersen (1998): is an exceedance as likely after an exceedance as after none? chi², one degree.

    Without exceedances among the first or the last of each pair there is nothing to tell: ratio 0.
    """
    n00, n01, n10, n11 = counts
    if n10 + n11 == 0 or n01 + n11 == 0:
        return Likelihood(0.0, 1.0)
    together = (n01 + n11) / sum(counts)
    after_none, after_one = n01 / max(n00 + n01, 1), n11 / (n10 + n11)
    null = _times_log(n00 + n10, 1 - together) + _times_log(n01 + n11, together)
    free = (
        _times_log(n00, 1 - after_none)
        + _times_log(n01, after_none)
        + _times_log(n10, 1 - after_one)
        + _times_log(n11, after_one)
    )
    ratio = max(2 * (free - null), 0.0)
    return Likelihood(ratio, chi_squared_tail(ratio, 1))


def conditional_coverage(exceeded: BoolArray, tail: float) -> Likelihood:
    """Christoffersen (1998): both at once. The ratios add up; chi² with two degrees."""
    rate = kupiec(int(exceeded.sum()), len(exceeded), tail)
    ratio = rate.ratio + independence(transitions(exceeded)).ratio
    return Likelihood(ratio, chi_squared_tail(ratio, 2))


def traffic_light(exceedances: int, observations: int, tail: float) -> str:
    """Basel zones (BCBS 1996) for any sample: yellow from a cumulative binomial probability of 95 %, red of 99.99 %.

    At 250 observations and 1 %: green 0 to 4, yellow 5 to 9, red from 10.
    """
    probability = float(bdtr(exceedances, observations, tail))
    if probability < YELLOW_FROM:
        return GREEN
    return YELLOW if probability < RED_FROM else RED


def _times_log(count: int, value: float) -> float:
    """count * ln(value), 0 for a count of 0."""
    return count * math.log(value) if count else 0.0
