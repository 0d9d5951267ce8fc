"""Walk-forward forecasts of linear books over several assets: joint filtered historical simulation with DCC.

At each bar the last joint residuals, whitened by the correlations of their time, are recoloured by the present ones and
scaled by the present volatilities; value-at-risk and expected shortfall of a book are those of its projections.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt

from kernels.dcc import empty_dcc, fold, whiten
from kernels.rolling_tail import projected_tails
from oracles.risk_model.bars import Bars
from oracles.risk_model.forecasts import Forecasts, WalkForward, realised_returns
from oracles.risk_model.state import default_dcc
from oracles.risk_model.variance_model import YEAR_HOURS, bars_of, variance_history

FloatArray = npt.NDArray[np.float64]

JOINT_MODEL = "joint-fhs-dcc"


def joint_forecasts(
    bars: Sequence[Bars], books: dict[str, FloatArray], horizon: int, options: WalkForward, every: int = 1
) -> list[Forecasts]:
    """Forecasts of each book by name, every ``every`` bars; ``lower_*`` is the book, ``upper_*`` its opposite.

    Args:
        books: value [D] of each asset in the book, as a fraction of one unit; the realised return is their sum.

    Raises:
        ValueError: bars of different lengths, or a book of another number of assets.
    """
    if len({b.interval_ms for b in bars}) != 1 or any(book.shape != (len(bars),) for book in books.values()):
        raise ValueError("joint forecasts need bars of one length, and books of as many values as there are assets")
    time_ms, realised, stddev, next_bar = _panel(bars, horizon)
    whitened, roots = _whitened(realised, stddev, next_bar, bars[0].interval_ms)
    at = np.arange(0, time_ms.size, every)
    window = bars_of(3 * YEAR_HOURS, bars[0].interval_ms)
    tails = np.full((len(books), at.size, len(options.levels), 4), np.nan)
    values = np.stack(list(books.values()))
    whole = np.isfinite(whitened).all(axis=1)
    residuals, before = np.ascontiguousarray(whitened[whole]), [0, *np.cumsum(whole).tolist()]
    scored = set(np.flatnonzero(np.isfinite(stddev + realised).all(axis=1)).tolist())
    for row, t in enumerate(at.tolist()):
        known = residuals[before[max(t - horizon - window + 1, 0)] : before[max(t - horizon + 1, 0)]]
        if len(known) >= options.residuals_min and t in scored:
            tails[:, row] = projected_tails(known, (values * stddev[t]) @ roots[t], options.tails)
    return [
        _of_book(name, horizon, options, time_ms[at] + bars[0].interval_ms, realised[at] @ book, tails[b])
        for b, (name, book) in enumerate(books.items())
    ]


def _panel(bars: Sequence[Bars], horizon: int) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray, FloatArray]:
    """On the bars that all have: time_ms [n]; [n,D] returns over the horizon, their deviations, next bar residuals."""
    time_ms = reduce(np.intersect1d, [b.time_ms for b in bars])
    realised, stddev, next_bar = (np.empty((time_ms.size, len(bars))) for _ in range(3))
    for a, asset in enumerate(bars):
        history = variance_history(asset, tuple(sorted({1, horizon})))
        at = np.searchsorted(asset.time_ms, time_ms)
        realised[:, a] = realised_returns(asset, horizon)[at]
        stddev[:, a] = history.stddev(horizon, stress=True)[at]
        next_bar[:, a] = (realised_returns(asset, 1) / history.stddev(1, stress=True))[at]
    return time_ms, realised, stddev, next_bar


def _whitened(
    realised: FloatArray, stddev: FloatArray, next_bar: FloatArray, interval_ms: int
) -> tuple[FloatArray, FloatArray]:
    """(whitened joint residuals [n,D], L known at each bar [n,D,D])."""
    number, factors = realised.shape
    known = np.full_like(next_bar, np.nan)  # the residual of bar t was forecast at t - 1
    known[1:] = next_bar[:-1]
    roots, whitened = np.empty((number, factors, factors)), np.full((number, factors), np.nan)
    fold(empty_dcc(factors), default_dcc(interval_ms), known, roots)
    residuals = realised / stddev
    for t in np.flatnonzero(np.isfinite(residuals).all(axis=1)):
        whiten(roots[t], residuals[t], whitened[t])
    return whitened, roots


def _of_book(
    name: str, horizon: int, options: WalkForward, time_ms: npt.NDArray[np.int64], realised: FloatArray,
    tails: FloatArray,
) -> Forecasts:  # fmt: skip
    kept = np.isfinite(tails).all(axis=(1, 2)) & np.isfinite(realised)
    losses = tails[kept] * np.array([-1.0, -1.0, 1.0, 1.0])
    return Forecasts(
        JOINT_MODEL, name, horizon, options.levels, time_ms[kept], realised[kept],
        losses[:, :, 0], losses[:, :, 1], losses[:, :, 2], losses[:, :, 3],
    )  # fmt: skip
