"""Books of several assets: the joint model of the scenarios, and beside it two that know less of dependence.

The joint model recolours whitened residual vectors by the present correlation (``oracles.risk_model.joint``). The same
residual vectors as they were, and a Gaussian with the window's constant correlation, show what the dynamics are for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from oracles.risk_model.bars import Bars
from oracles.risk_model.forecasts import Forecasts, WalkForward, realised_returns
from oracles.risk_model.joint import JOINT_MODEL, joint_forecasts
from oracles.risk_model.tails import normal_tail
from oracles.risk_model.variance_model import YEAR_HOURS, bars_of, variance_history

FloatArray = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
JOINT, PLAIN, GAUSSIAN = JOINT_MODEL, "joint-fhs", "gaussian-constant"
EVERY_HOURS = 6
"""A forecast every six hours, for horizons above that two a horizon."""


class _Panel(NamedTuple):
    """Assets on common bars: ``stddev``, ``realised`` f64[n, A] over the horizon."""

    time_ms: Int64Array
    interval_ms: int
    stddev: FloatArray
    realised: FloatArray


def books_of(assets: Sequence[str]) -> dict[str, FloatArray]:
    """Every pair long against short, all assets long in equal parts, and with three the first against the other two."""
    count = len(assets)
    books = {"all long": np.full(count, 1 / count)}
    for first in range(count):
        for second in range(first + 1, count):
            weights = np.zeros(count)
            weights[[first, second]] = 1.0, -1.0
            books[f"{assets[first]} - {assets[second]}"] = weights
    if count == 3:
        books[f"dispersion ({assets[0]} short)"] = np.array([-1.0, 0.5, 0.5])
    return books


def bars_between(interval_ms: int, horizon: int) -> int:
    """Bars from one forecast to the next."""
    return max(bars_of(EVERY_HOURS, interval_ms), horizon // 2)


def walk(
    histories: Sequence[Bars],
    horizon: int,
    books: dict[str, FloatArray],
    options: WalkForward,
    listen: Callable[[float], None],
) -> dict[str, list[Forecasts]]:
    """Forecasts of every book by the three models; ``listen`` hears the share that is done.

    The forecasts' ``horizon_bars`` is the number of neighbours whose horizons overlap.

    Raises:
        ValueError: fewer than two assets, bars of different lengths, or too short a history in common.
    """
    if len(histories) < 2:
        raise ValueError("spread books: two assets or more are needed")
    every = bars_between(histories[0].interval_ms, horizon)
    overlap = max(horizon // every, 1)
    joint = joint_forecasts(histories, books, horizon, options, every)
    listen(0.5)
    panel = _panel_of(histories, horizon)
    window = bars_of(3 * YEAR_HOURS, panel.interval_ms)
    residuals = panel.realised / panel.stddev
    known = np.asarray(np.isfinite(residuals).all(axis=1))
    weights = np.array(list(books.values()))
    made, tails = [], []
    for at in range(0, len(panel.time_ms), every):
        past = residuals[max(at - horizon - window + 1, 0) : max(at - horizon + 1, 0)]
        past = past[np.isfinite(past).all(axis=1)]
        if len(past) >= options.residuals_min and known[at]:
            made.append(at)
            tails.append(_book_tails(weights * panel.stddev[at], past, options.tails))
        listen(0.5 + 0.5 * at / len(panel.time_ms))
    if not made:
        raise ValueError("spread books: the assets share too short a history")
    others = _as_forecasts(panel, np.array(made), np.array(tails), books, options, overlap)
    return {one.asset: [replace(one, horizon_bars=overlap), *others[one.asset]] for one in joint}


def _panel_of(histories: Sequence[Bars], horizon: int) -> _Panel:
    common = histories[0].time_ms
    for bars in histories[1:]:
        common = np.intersect1d(common, bars.time_ms)
    stddev, realised = [], []
    for bars in histories:
        rows = np.searchsorted(bars.time_ms, common)
        stddev.append(variance_history(bars, (horizon,)).stddev(horizon, stress=True)[rows])
        realised.append(realised_returns(bars, horizon)[rows])
    return _Panel(common, histories[0].interval_ms, np.column_stack(stddev), np.column_stack(realised))


def _book_tails(scaled: FloatArray, residuals: FloatArray, tails: FloatArray) -> FloatArray:
    """f64[2, books, levels, 4]: (VaR, ES) of the low end and of the high end, losses of either side positive.

    ``scaled`` f64[books, A]: weights times deviations.
    """
    out = np.empty((2, len(scaled), len(tails), 4))
    returns = scaled @ residuals.T
    deepest = max(int(np.ceil(returns.shape[1] * tails.max() - 1e-9)), 1)
    ends = np.partition(returns, (deepest, returns.shape[1] - deepest), axis=1)
    low, high = np.sort(ends[:, :deepest], axis=1), np.sort(-ends[:, -deepest:], axis=1)
    for level, tail in enumerate(tails):
        k = max(int(np.ceil(returns.shape[1] * tail - 1e-9)), 1)
        out[0, :, level, 0], out[0, :, level, 1] = -low[:, k - 1], -low[:, :k].mean(axis=1)
        out[0, :, level, 2], out[0, :, level, 3] = -high[:, k - 1], -high[:, :k].mean(axis=1)
    deviation = np.sqrt(np.einsum("bi,ij,bj->b", scaled, np.cov(residuals.T), scaled))
    unit = np.array([normal_tail(float(tail)) for tail in tails])
    out[1] = deviation[:, None, None] * np.tile(unit, 2)[None]
    return out


def _as_forecasts(
    panel: _Panel, made: Int64Array, tails: FloatArray, books: dict[str, FloatArray], options: WalkForward, overlap: int
) -> dict[str, list[Forecasts]]:
    time_ms = panel.time_ms[made] + panel.interval_ms
    found = {}
    for book, (name, weights) in enumerate(books.items()):
        realised = panel.realised[made] @ weights
        found[name] = [
            Forecasts(
                model, name, overlap, options.levels, time_ms, realised,
                *(tails[:, place, book, :, column] for column in range(4)),
            )
            for place, model in enumerate((PLAIN, GAUSSIAN))
        ]  # fmt: skip
    return found
