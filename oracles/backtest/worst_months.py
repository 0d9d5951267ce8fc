"""Worst months: what a forecast without any error would show in them, and what fewer exceedances cost.

Over a horizon of H bars a loss is seen by H neighbouring forecasts, and assets fall together, so that a month holds far
fewer events than observations. ``perfect_months`` says what follows from that alone: bars are drawn independently from
those of the sample (all assets at once, each divided by its own forecast), and value-at-risk is their true quantile.
Whoever knows the law exactly has such months; no model can be told from him by them. ``frontier`` multiplies a model's
margins, as the governed ``initial_margin_multiplier_e6`` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from oracles.backtest.evaluation import MONTH_RATE_MAX, Ratios, scale_for_months
from oracles.backtest.procyclicality import months

FloatArray = npt.NDArray[np.float64]
MULTIPLIERS_E6 = (1_000_000, 1_050_000, 1_100_000, 1_250_000, 1_500_000, 1_750_000, 2_000_000)
MORE_MAX = 1.1
DRAWS, DRAWS_MIN, SEED = 100, 20, 6
LOSSES_MAX = 2**25
"""Of all draws, held at once: 128 MB; fewer draws of longer samples."""
CONFIDENCE = 0.95


class PerfectMonths(Struct, frozen=True):
    """Over draws of whole samples: the 5, 50 and 95 % quantiles of the worst month's rate, the median of the factor
    that keeps every month at 1.8 %, and in what share of the draws 10 % more margin is enough for that.
    """

    draws: int
    worst_low: float
    worst_median: float
    worst_high: float
    scale_median: float
    reached: float


class Step(Struct, frozen=True):
    """Margins times ``multiplier_e6``: share of long losses above so much of VaR and of ES, over all and in the worst
    month of each."""

    multiplier_e6: int
    rate: float
    worst_month: float
    shortfall_rate: float
    shortfall_worst_month: float


class WorstMonths(Struct, frozen=True):
    """Of one model; ``perfect`` is None where the sample has no whole month."""

    perfect: PerfectMonths | None
    steps: tuple[Step, ...]


def frontier(ratios: Ratios, least: int, multipliers_e6: Sequence[int] = MULTIPLIERS_E6) -> tuple[Step, ...]:
    """Exceedances by multiplier; ``least`` observations make a month."""
    steps = []
    for multiplier_e6 in multipliers_e6:
        found = []
        for ratio in (ratios.to_var, ratios.to_es):
            line = np.full(len(ratio), multiplier_e6 / 1e6)
            by_month = months(ratios.time_ms, ratio, line, line, least)
            found += [float((ratio > line).mean()), max((month.rate for month in by_month), default=float("nan"))]
        steps.append(Step(multiplier_e6, *found))
    return tuple(steps)


def perfect_months(
    shocks: FloatArray, horizon: int, months_count: int, month_bars: int, tail: float, draws: int = DRAWS
) -> PerfectMonths:
    """What the true law would show in ``months_count`` months of ``month_bars`` forecasts for each asset.

    Args:
        shocks: float64[n,A], log returns of a bar over their deviations, of all assets at the same times.
        horizon: in bars. tail: 1 - level.

    Raises:
        ValueError: no shocks, or one that is not finite.
    """
    if not len(shocks) or not np.isfinite(shocks).all():
        raise ValueError(f"shocks of {shocks.shape}: finite ones are wanted")
    draw, size = np.random.default_rng(SEED), months_count * month_bars
    draws = min(draws, max(LOSSES_MAX // (size * shocks.shape[1]), DRAWS_MIN))
    moves = np.empty((draws, size, shocks.shape[1]), np.float32)
    for sample in moves:
        rows = shocks[draw.integers(0, len(shocks), size + horizon - 1)]
        total = np.concatenate([np.zeros((1, shocks.shape[1])), np.cumsum(rows, axis=0)])
        sample[:] = total[horizon:] - total[:-horizon]
    value_at_risk = [-np.quantile(moves[:, :, asset], tail) for asset in range(shocks.shape[1])]
    time_ms = (np.arange(months_count).astype("datetime64[M]")).astype("datetime64[ms]").astype(np.int64)
    time_ms = np.repeat(time_ms, month_bars * shocks.shape[1])
    worst, scales = np.empty(draws), np.empty(draws)
    for place, sample in enumerate(moves):
        ratio = (-sample / value_at_risk).reshape(-1).astype(np.float64)
        worst[place] = (ratio.reshape(months_count, -1) > 1).mean(axis=1).max()
        scales[place] = scale_for_months(time_ms, ratio, 1, MONTH_RATE_MAX)
    low, median, high = np.quantile(worst, [1 - CONFIDENCE, 0.5, CONFIDENCE])
    return PerfectMonths(
        draws, float(low), float(median), float(high), float(np.median(scales)), float((scales <= MORE_MAX).mean())
    )
