"""Walk-forward forecasts: all models, nothing of the future, the stated tails, and bars from files."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from oracles.risk_model.bars import Bars, read_bars, write_bars
from oracles.risk_model.forecasts import MODELS, WalkForward, realised_returns
from oracles.risk_model.tails import normal_tail, skew_t_tails, student_t_tail
from tests.risk_model_worlds import HOUR_MS, market

OPTIONS = WalkForward(refit_bars=500, fit_bars=1_000, fit_bars_min=600, residuals_min=300)
BARS = market(2_400, 1)[0]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("horizon", [1, 24])
def test_every_model_forecasts_positive_losses_in_order(name: str, horizon: int) -> None:
    found = MODELS[name](BARS, horizon, OPTIONS)
    n = found.time_ms.size
    assert (found.model, found.asset, found.horizon_bars) == (name, "A0", horizon)
    assert n > 1_000
    assert (np.diff(found.time_ms) > 0).all()
    for var, es in ((found.lower_var, found.lower_es), (found.upper_var, found.upper_es)):
        assert var.shape == es.shape == (n, 2)
        assert (es >= var).all()
        assert (var > 0.0).all()
        assert (es[:, 1] >= es[:, 0]).all()
    rate = (-found.realised > found.lower_var[:, 1]).mean()
    assert 0.0 <= rate < 0.05
    at = np.searchsorted(BARS.time_ms + HOUR_MS, found.time_ms)
    assert found.realised == pytest.approx(BARS.close[at + horizon] / BARS.close[at] - 1.0)


@pytest.mark.parametrize("name", MODELS)
def test_no_forecast_knows_the_future(name: str) -> None:
    """Another future after bar 1,900 leaves every forecast made until then as it was."""
    cut = 1_900
    later = market(2_400, 1, seed=9)[0]
    rejoined = np.where(np.arange(2_400) <= cut, BARS.close, later.close * BARS.close[cut] / later.close[cut])
    other = replace(BARS, close=rejoined, high=np.maximum(BARS.high, rejoined), low=np.minimum(BARS.low, rejoined))
    other.high[: cut + 1], other.low[: cut + 1] = BARS.high[: cut + 1], BARS.low[: cut + 1]
    one, two = MODELS[name](BARS, 24, OPTIONS), MODELS[name](other, 24, OPTIONS)
    known = BARS.time_ms[cut] + HOUR_MS
    first, second = one.time_ms <= known, two.time_ms <= known
    assert first.sum() > 500
    for field in ("lower_var", "lower_es", "upper_var", "upper_es"):
        assert (getattr(one, field)[first] == getattr(two, field)[second]).all()
    changed = [(getattr(one, f)[~first] != getattr(two, f)[~second]).any() for f in ("lower_es", "upper_es")]
    assert any(changed)


def test_returns_over_a_gap_are_not_scored() -> None:
    time_ms = BARS.time_ms.copy()
    time_ms[1_000:] += 5 * HOUR_MS
    found = realised_returns(replace(BARS, time_ms=time_ms), 24)
    assert np.isnan(found[976:1_000]).all()
    assert np.isfinite(found[:976]).all()
    assert np.isfinite(found[1_000:-24]).all()


def test_too_little_history_gives_no_forecast() -> None:
    week = BARS.between(0, 168)
    for model in MODELS.values():
        assert model(week, 1, WalkForward()).time_ms.size == 0


def test_constant_prices_give_no_forecast() -> None:
    flat = np.full(2_400, 100.0)
    constant = replace(BARS, open=flat, high=flat, low=flat, close=flat)
    for model in MODELS.values():
        assert model(constant, 1, OPTIONS).time_ms.size == 0


@pytest.mark.parametrize("tail", [0.01, 0.025])
@pytest.mark.parametrize(("degrees", "skew"), [(4.0, 0.0), (4.0, -0.2), (8.0, 0.3)])
def test_skewed_tails_are_those_of_the_quantile_function(degrees: float, skew: float, tail: float) -> None:
    """Mean of Hansen's quantile function (as published) below the tail, integrated numerically."""
    c = math.gamma((degrees + 1) / 2) / math.gamma(degrees / 2) / math.sqrt(math.pi * (degrees - 2))
    a = 4 * skew * c * (degrees - 2) / (degrees - 1)
    b = math.sqrt(1 + 3 * skew**2 - a**2)
    unit = math.sqrt((degrees - 2) / degrees)

    def quantile(u: np.ndarray) -> np.ndarray:
        left = (1 - skew) / b * unit * stats.t.ppf(u / (1 - skew), degrees) - a / b
        right = (1 + skew) / b * unit * stats.t.ppf(0.5 + (u - (1 - skew) / 2) / (1 + skew), degrees) - a / b
        return np.where(u < (1 - skew) / 2, left, right)

    grid = (np.arange(200_000) + 0.5) / 200_000
    found = skew_t_tails(degrees, skew, tail)
    low, high = quantile(tail * grid), quantile(1 - tail * grid)
    expected = [quantile(np.array(tail)), low.mean(), quantile(np.array(1 - tail)), high.mean()]
    assert found == pytest.approx([float(x) for x in expected], rel=1e-3)


def test_closed_forms_of_normal_and_t() -> None:
    assert normal_tail(0.025)[1] == pytest.approx(2.337802792201413, rel=1e-12)
    assert student_t_tail(4.0, 0.025)[1] == pytest.approx(3.9935570227128516, rel=1e-10)
    with pytest.raises(ValueError, match="mode"):
        skew_t_tails(4.0, 0.9, 0.1)


def test_bars_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    write_bars(BARS, path)
    again = read_bars(path, "A0")
    assert again.interval_ms == HOUR_MS
    for name in ("time_ms", "open", "high", "low", "close", "volume"):
        assert (getattr(again, name) == getattr(BARS, name)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,open\n1,2\n", "header"),
        ("{h}\n1,1,1,1,1,1\n", "2 rows"),
        ("{h}\n1,1,1,1,1,1\n1,1,1,1,1,1\n", "does not ascend at row 2"),
        ("{h}\n1,1,1,1,1,1\n2,1,x,1,1,1\n", "bars.csv"),
        ("{h}\n1,1,1,1,1\n2,1,1,1,1\n", "5 columns"),
        ("{h}\n1,1,1,1,1,1\n2,1,1,1,nan,1\n", "at row 2"),
        ("{h}\n1,1,1,0,1,1\n2,1,1,1,1,1\n", "at row 1"),
        ("{h}\n1,1,1,1,1,1\n2,3,2,1,1,1\n", "outside their range, at row 2"),
        ("{h}\n1,1,1,1,1,1\n2,1,1,1,1,-1\n", "at row 2"),
    ],
)
def test_files_that_are_no_bars_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(text.replace("{h}", "time_ms,open,high,low,close,volume"), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_bars(path, "X")


def test_between_keeps_the_asset() -> None:
    part = BARS.between(10, 20)
    assert isinstance(part, Bars)
    assert (part.size, part.asset, part.time_ms[0]) == (10, "A0", BARS.time_ms[10])
