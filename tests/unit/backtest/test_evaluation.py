"""An evaluation tells a true model from one that is too small, on returns whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from oracles.backtest.evaluation import aligned, evaluate, scale_for_months
from oracles.backtest.stack import stack, stress_loss
from oracles.risk_model.forecasts import Forecasts
from schemas.risk_parameters import RiskParameters

HOUR_MS = 3_600_000
LEVELS = (0.975, 0.99)
COUNT = 6_000


def normal_forecasts(name: str, factor: float, asset: str = "BTC", first: int = 0, seed: int = 1) -> Forecasts:
    """Forecasts of a normal return of 1 % an hour whose quantiles are all multiplied by ``factor``."""
    draw = np.random.default_rng(seed)
    tails = 1 - np.array(LEVELS)
    var = np.tile(0.01 * factor * stats.norm.isf(tails), (COUNT, 1))
    es = np.tile(0.01 * factor * stats.norm.pdf(stats.norm.isf(tails)) / tails, (COUNT, 1))
    realised = draw.normal(0, 0.01, COUNT)
    rows = slice(first, None)
    time_ms = HOUR_MS * np.arange(COUNT)
    return Forecasts(name, asset, 1, LEVELS, time_ms[rows], realised[rows], var[rows], es[rows], var[rows], es[rows])


def test_the_true_model_wins() -> None:
    found = evaluate({"BTC": [normal_forecasts("true", 1.0), normal_forecasts("small", 0.7)]})
    true, small = found.summary("true"), found.summary("small")
    assert true.kupiec_passed == 4
    assert small.kupiec_passed == 0
    assert abs(true.z2) < 0.3 < -small.z2
    assert true.fissler_ziegel < small.fissler_ziegel
    assert true.against["small"].statistic < -3
    assert true.against["small"].statistic == -small.against["true"].statistic
    assert true.rate == pytest.approx(0.01, abs=0.004)
    assert (true.p99_to_p1, true.rise_1_day) == (1.0, 0.0)
    zones = {tail.zone for one in found.scores if one.model == "small" for tail in one.tails}
    assert zones == {"red"}


def test_models_are_compared_where_all_have_forecasts() -> None:
    short = normal_forecasts("short", 1.0, first=500)
    gap = normal_forecasts("gap", 1.0)
    gap.lower_var[700] = np.nan
    gap.upper_es[701] = 0.0
    one, two = aligned([short, gap])
    assert np.array_equal(one.time_ms, two.time_ms)
    assert len(one.time_ms) == COUNT - 500 - 2
    assert np.array_equal(one.realised, two.realised)


def test_nothing_in_common_is_an_error_that_names_the_asset() -> None:
    nothing = normal_forecasts("b", 1.0, asset="SOL")
    nothing.lower_es[:] = np.nan
    with pytest.raises(ValueError, match="SOL"):
        evaluate({"SOL": [nothing]})
    with pytest.raises(ValueError, match="forecasts"):
        evaluate({})


def test_several_assets_are_averaged() -> None:
    by_asset = {
        "BTC": [normal_forecasts("true", 1.0)],
        "ETH": [normal_forecasts("true", 1.0, asset="ETH", first=1_000, seed=2)],
    }
    found = evaluate(by_asset)
    assert found.observations == {"BTC": COUNT, "ETH": COUNT - 1_000}
    assert found.summary("true").kupiec_tests == 8
    assert found.summary("true").fissler_ziegel == pytest.approx(np.mean([one.fissler_ziegel for one in found.scores]))


def test_overlapping_horizons_use_series_that_do_not_overlap() -> None:
    one = normal_forecasts("true", 1.0)
    overlapping = Forecasts(one.model, one.asset, 24, *[getattr(one, name) for name in (
        "levels", "time_ms", "realised", "lower_var", "lower_es", "upper_var", "upper_es"
    )])  # fmt: skip
    found = evaluate({"BTC": [overlapping]})
    assert found.scores[0].tails[0].observations == COUNT
    assert found.summary("true").kupiec_passed == 4


def test_the_scale_for_months_is_the_least_that_does() -> None:
    time_ms = np.array(["2021-05-01", "2021-06-01"], "datetime64[ms]").astype(np.int64).repeat(100)
    ratio = np.r_[np.linspace(0, 1.5, 100), np.linspace(0, 2.0, 100)]
    scale = scale_for_months(time_ms, ratio, 50, 0.02)
    assert scale == np.sort(ratio[100:])[-3]
    assert (ratio[100:] > scale).mean() <= 0.02 < (ratio[100:] > 0.999 * scale).mean()
    assert scale_for_months(time_ms, ratio, 101, 0.02) == 1.0


def test_the_stack_covers_more_than_expected_shortfall() -> None:
    parameters = RiskParameters()
    found = stack(normal_forecasts("true", 1.0), "long", parameters)
    assert found.stress_loss == stress_loss("short", parameters) == 0.06
    alone, maintenance, initial = found.terms
    assert found.stress_binds == 1.0
    assert maintenance.mean == pytest.approx(0.06 + 0.0005)
    assert initial.mean == pytest.approx(1.25 * 0.06 + 0.0005)
    assert alone.exceeded > 0 == maintenance.exceeded
    assert alone.worst > maintenance.worst > initial.worst
