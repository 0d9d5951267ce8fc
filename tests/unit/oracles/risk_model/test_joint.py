"""Joint forecasts of books: a book of one asset is that asset, hedges need less, nothing of the future."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.rolling_tail import projected_tails
from oracles.risk_model.forecasts import MODELS, WalkForward
from oracles.risk_model.joint import joint_forecasts
from tests.risk_model_worlds import market

OPTIONS = WalkForward(residuals_min=300)
BARS = market(1_500, 2)
BOOKS = {"long": np.array([1.0, 0.0]), "both": np.array([0.5, 0.5]), "spread": np.array([1.0, -1.0])}


def test_projected_tails_are_those_of_sorted_projections() -> None:
    rng = np.random.Generator(np.random.Philox(2))
    vectors, loadings, tails = rng.standard_normal((300, 3)), rng.standard_normal((4, 3)), np.array([0.01, 0.05])
    found = projected_tails(vectors, loadings, tails)
    for b in range(4):
        moves = np.sort(vectors @ loadings[b])
        for a, k in enumerate((3, 15)):
            expected = [moves[k - 1], moves[:k].mean(), moves[-k], moves[-k:].mean()]
            assert found[b, a] == pytest.approx(expected, rel=1e-12)


def test_a_book_of_one_asset_is_nearly_that_asset_and_a_spread_needs_less() -> None:
    """The first asset's whitened residual is its own, so only the window's common bars may differ."""
    found = {f.asset: f for f in joint_forecasts(BARS, BOOKS, 24, OPTIONS, every=5)}
    alone = MODELS["multi-speed-stress"](BARS[0], 24, OPTIONS)
    at = np.isin(alone.time_ms, found["long"].time_ms)
    assert at.sum() == found["long"].time_ms.size > 150
    for name in ("realised", "lower_var", "lower_es", "upper_es"):
        assert getattr(found["long"], name) == pytest.approx(getattr(alone, name)[at], rel=1e-9)
    assert found["spread"].lower_es.mean() < found["long"].lower_es.mean()
    assert found["both"].realised == pytest.approx(
        0.5 * found["long"].realised + 0.5 * (found["long"].realised - found["spread"].realised)
    )


def test_no_forecast_knows_the_future() -> None:
    cut = 1_200
    other = [replace(b, close=b.close.copy(), high=b.high.copy()) for b in BARS]
    for b in other:
        b.close[cut + 1 :] *= 1.1
        b.high[cut + 1 :] *= 1.1
    one, two = (joint_forecasts(each, BOOKS, 1, OPTIONS) for each in (BARS, other))
    for mine, theirs in zip(one, two, strict=True):
        known = mine.time_ms <= BARS[0].time_ms[cut] + BARS[0].interval_ms
        assert known.sum() > 300
        assert (mine.lower_es[known] == theirs.lower_es[: known.sum()]).all()
        assert (mine.lower_es[~known] != theirs.lower_es[known.sum() :]).any()


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="as many values"):
        joint_forecasts(BARS, {"x": np.ones(3)}, 1, OPTIONS)
    with pytest.raises(ValueError, match="one length"):
        joint_forecasts([BARS[0], replace(BARS[1], interval_ms=60_000)], BOOKS, 1, OPTIONS)
