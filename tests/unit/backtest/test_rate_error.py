"""Standard errors of a mean: independent values, values that come in runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oracles.backtest.shortfall import variance_of_mean


def test_without_lags_it_is_the_variance_over_the_number() -> None:
    series = np.random.default_rng(1).normal(size=400)
    assert variance_of_mean(series, 0) == pytest.approx(series.var() / 400, rel=1e-12)


def test_values_in_runs_count_as_runs() -> None:
    runs = np.repeat(np.random.default_rng(2).normal(size=2_000), 10)
    apart = math.sqrt(variance_of_mean(runs, 0))
    assert math.sqrt(variance_of_mean(runs, 60)) == pytest.approx(math.sqrt(10) * apart, rel=0.25)
