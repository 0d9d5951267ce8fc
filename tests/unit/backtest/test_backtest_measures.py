"""Procyclicality, months and attribution zones on series whose answers are plain; what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oracles.backtest.attribution import attribution
from oracles.backtest.coverage import Transitions, chi_squared_tail, independence, kupiec
from oracles.backtest.procyclicality import DAY_MS, largest_rise, months, procyclicality
from oracles.backtest.shortfall import diebold_mariano

HOUR_MS = 3_600_000


def test_procyclicality_of_a_step() -> None:
    time_ms = HOUR_MS * np.arange(24 * 20)
    margin = np.where(time_ms < 10 * DAY_MS, 1.0, 3.0)
    assert procyclicality(time_ms, margin) == (3.0, 3.0, 2.0, 2.0)


def test_a_slow_rise_is_small_in_a_day() -> None:
    time_ms = HOUR_MS * np.arange(24 * 20)
    margin = 1.1 ** (time_ms / DAY_MS)
    found = procyclicality(time_ms, margin)
    assert found.rise_1_day == pytest.approx(0.1)
    assert found.rise_5_day == pytest.approx(1.1**5 - 1)


def test_rises_over_a_gap_take_the_last_known_value() -> None:
    time_ms = np.array([0, HOUR_MS, 3 * DAY_MS])
    assert largest_rise(time_ms, np.array([1.0, 2.0, 6.0]), DAY_MS) == 2.0
    assert math.isnan(largest_rise(time_ms[:2], np.array([1.0, 2.0]), DAY_MS))


def test_months() -> None:
    time_ms = np.array(["2021-05-30", "2021-05-31", "2021-06-01", "2021-06-02"], "datetime64[ms]").astype(np.int64)
    found = months(time_ms, np.array([5.0, 1, 1, 1]), np.full(4, 2.0), np.full(4, 2.5), 2)
    assert found == [("2021-05", 2, 0.5, 2.0), ("2021-06", 2, 0.0, 0.4)]
    assert months(time_ms, np.zeros(4), np.ones(4), np.ones(4), 3) == []


def test_attribution_zones() -> None:
    draw = np.random.default_rng(1)
    truth = draw.normal(size=500)
    assert attribution(truth, truth).zone == "green"
    assert attribution(truth + draw.normal(0, 0.7, 500), truth).zone == "yellow"
    assert attribution(draw.normal(size=500), truth).zone == "red"
    assert attribution(truth, np.ones(500)).zone == "red"


@pytest.mark.parametrize(
    "refused",
    [
        lambda: kupiec(3, 2, 0.01),
        lambda: kupiec(0, 0, 0.01),
        lambda: kupiec(1, 2, 1.0),
        lambda: chi_squared_tail(1.0, 3),
        lambda: diebold_mariano(np.ones(3), np.ones(4), 1),
        lambda: diebold_mariano(np.ones(3), np.ones(3), 3),
        lambda: attribution(np.ones(3), np.ones(4)),
    ],
)
def test_bad_input_is_named(refused) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError):
        refused()


def test_no_exceedance_says_nothing_about_independence() -> None:
    assert independence(Transitions(100, 0, 0, 0)) == (0.0, 1.0)
