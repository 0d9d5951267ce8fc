"""Worst months under the true law against the binomial law, and what more margin does to a plain series."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from oracles.backtest.evaluation import Ratios
from oracles.backtest.worst_months import frontier, perfect_months

MONTHS, BARS = 40, 730


def test_without_overlap_the_worst_month_is_the_largest_of_binomials() -> None:
    shocks = np.random.default_rng(3).standard_t(4, (20_000, 1))
    found = perfect_months(shocks, 1, MONTHS, BARS, 0.01)
    for probability, rate in ((0.05, found.worst_low), (0.5, found.worst_median), (0.95, found.worst_high)):
        exact = stats.binom.ppf(probability ** (1 / MONTHS), BARS, 0.01) / BARS
        assert rate == pytest.approx(exact, abs=2.01 / BARS)


def test_overlapping_horizons_make_worse_months_of_the_same_law() -> None:
    shocks = np.random.default_rng(4).standard_normal((20_000, 2))
    apart, over = (perfect_months(shocks, horizon, MONTHS, BARS, 0.01, 20) for horizon in (1, 24))
    assert over.worst_low > apart.worst_high
    assert over.reached <= apart.reached
    assert perfect_months(shocks, 24, MONTHS, BARS, 0.01, 20) == over


def test_more_margin_is_exceeded_less() -> None:
    time_ms = np.array(["2021-05-01", "2021-05-02", "2021-06-01", "2021-06-02"], "datetime64[ms]").astype(np.int64)
    steps = frontier(Ratios(time_ms, np.array([1.2, 0.5, 1.6, 1.01]), np.array([0.9, 0.2, 1.3, 0.8])), 2)
    first, *_, last = steps
    assert (first.rate, first.worst_month, first.shortfall_rate, first.shortfall_worst_month) == (0.75, 1.0, 0.25, 0.5)
    assert [step.worst_month for step in steps] == [1.0, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0]
    assert last.rate == 0


def test_shocks_that_are_not_there_are_refused() -> None:
    for shocks in (np.zeros((0, 2)), np.full((9, 1), np.nan)):
        with pytest.raises(ValueError, match="finite"):
            perfect_months(shocks, 1, 2, 300, 0.01)
