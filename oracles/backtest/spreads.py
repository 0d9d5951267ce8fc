"""Books of several assets: joint filtered historical simulation, walked forward, as forecasts of each book's return.

Residual vectors (returns over the horizon over their own forecasts) are whitened by the correlation that was known when
they were forecast and recoloured by the present one. Beside it, the same without correlation dynamics, and a Gaussian
with the window's constant correlation: what a spread book loses with them is what the dynamics are for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.dcc import DccSettings, empty_dcc, step
from oracles.risk_model.bars import Bars
from oracles.risk_model.forecasts import Forecasts, WalkForward, realised_returns
from oracles.risk_model.state import DCC_CLIP, DCC_MEMORY, DCC_NEWS
from oracles.risk_model.tails import normal_tail
from oracles.risk_model.variance_model import YEAR_HOURS, bars_of, variance_history

FloatArray = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
JOINT, PLAIN, GAUSSIAN = "joint-fhs-dcc", "joint-fhs", "gaussian-constant"
EVERY_HOURS = 6
"""A forecast every six hours, for horizons above that two a horizon."""


class Panel(NamedTuple):
    """Assets on common bars: ``stddev``, ``realised`` f64[n, A] over the horizon, ``roots`` f64[n, A, A] by bar."""

    time_ms: Int64Array
    interval_ms: int
    stddev: FloatArray
    realised: FloatArray
    roots: FloatArray


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


def panel_of(histories: Sequence[Bars], horizon: int) -> Panel:
    """Assets on the bars that all of them have; forecasts are those of the default variance model.

    Raises:
        ValueError: fewer than two assets, or unequal intervals.
    """
    intervals = {bars.interval_ms for bars in histories}
    if len(histories) < 2 or len(intervals) != 1:
        raise ValueError("spread books: two assets or more, with bars of one length, are needed")
    common = histories[0].time_ms
    for bars in histories[1:]:
        common = np.intersect1d(common, bars.time_ms)
    columns = [_columns(bars, horizon, common) for bars in histories]
    stddev, realised, residuals = (np.column_stack(parts) for parts in zip(*columns))
    year = bars_of(YEAR_HOURS, histories[0].interval_ms)
    settings = DccSettings(DCC_NEWS, DCC_MEMORY, DCC_CLIP, 0.5 ** (1.0 / year))
    return Panel(common, intervals.pop(), stddev, realised, _roots(residuals, settings))


def _columns(bars: Bars, horizon: int, common: Int64Array) -> tuple[FloatArray, FloatArray, FloatArray]:
    """-> stddev and return over the horizon, and each bar's return over its own forecast, on the common bars."""
    history = variance_history(bars, (1, horizon) if horizon != 1 else (1,))
    one = history.stddev(1, stress=True)
    residuals = history.log_return / np.r_[np.nan, one[:-1]]
    rows = np.searchsorted(bars.time_ms, common)
    return history.stddev(horizon, stress=True)[rows], realised_returns(bars, horizon)[rows], residuals[rows]


def _roots(residuals: FloatArray, settings: DccSettings) -> FloatArray:
    state, out = empty_dcc(residuals.shape[1]), np.empty((*residuals.shape, residuals.shape[1]))
    for place, row in enumerate(residuals):
        step(state, settings, row)
        out[place] = state.root
    return out


def bars_between(interval_ms: int, horizon: int) -> int:
    """Bars from one forecast to the next."""
    return max(bars_of(EVERY_HOURS, interval_ms), horizon // 2)


def walk(
    panel: Panel, horizon: int, books: dict[str, FloatArray], options: WalkForward, listen: Callable[[float], None]
) -> dict[str, list[Forecasts]]:
    """Forecasts of every book by the three models. ``listen`` hears the share that is done.

    The forecasts' ``horizon_bars`` is the number of neighbours whose horizons overlap.
    """
    every = bars_between(panel.interval_ms, horizon)
    window = bars_of(YEAR_HOURS * (3 if horizon > every else 1), panel.interval_ms)
    residuals = panel.realised / panel.stddev
    known = np.asarray(np.isfinite(residuals).all(axis=1))
    whitened = np.full_like(residuals, np.nan)
    whitened[known] = np.linalg.solve(panel.roots[known], residuals[known, :, None])[:, :, 0]
    weights = np.array(list(books.values()))
    made, tails = [], []
    for at in range(window // 3, len(panel.time_ms), every):
        past = slice(max(at - horizon - window + 1, 0), at - horizon + 1)
        rows = np.flatnonzero(known[past]) + past.start
        if len(rows) >= options.residuals_min and known[at]:
            made.append(at)
            tails.append(_book_tails(panel, at, weights, residuals[rows], whitened[rows], options.tails))
        listen(at / len(panel.time_ms))
    if not made:
        raise ValueError("spread books: the assets share too short a history")
    overlap = max(horizon // every, 1)
    return _as_forecasts(panel, np.array(made), np.array(tails), books, options, overlap)


def _book_tails(
    panel: Panel, at: int, weights: FloatArray, plain: FloatArray, whitened: FloatArray, tails: FloatArray
) -> FloatArray:
    """f64[models, books, levels, 4]: (VaR, ES) of the low end and of the high end, positive for losses of each side."""
    scaled = weights * panel.stddev[at]
    out = np.empty((3, len(weights), len(tails), 4))
    for place, returns in enumerate(((scaled @ panel.roots[at]) @ whitened.T, scaled @ plain.T)):
        deepest = int(np.ceil(returns.shape[1] * tails.max()))
        ends = np.partition(returns, (deepest, returns.shape[1] - deepest), axis=1)
        low, high = np.sort(ends[:, :deepest], axis=1), np.sort(-ends[:, -deepest:], axis=1)
        for level, tail in enumerate(tails):
            k = max(int(np.ceil(returns.shape[1] * tail - 1e-9)), 1)
            out[place, :, level, 0], out[place, :, level, 1] = -low[:, k - 1], -low[:, :k].mean(axis=1)
            out[place, :, level, 2], out[place, :, level, 3] = -high[:, k - 1], -high[:, :k].mean(axis=1)
    covariance = np.corrcoef(plain.T) * np.outer(plain.std(axis=0), plain.std(axis=0))
    deviation = np.sqrt(np.einsum("bi,ij,bj->b", scaled, covariance, scaled))
    unit = np.array([normal_tail(float(tail)) for tail in tails])
    out[2] = deviation[:, None, None] * np.tile(unit, 2)[None]
    return out


def _as_forecasts(
    panel: Panel, made: Int64Array, tails: FloatArray, books: dict[str, FloatArray], options: WalkForward, overlap: int
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
            for place, model in enumerate((JOINT, PLAIN, GAUSSIAN))
        ]  # fmt: skip
    return found
