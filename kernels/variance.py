"""Variance of one asset, bar by bar: range innovations, multi-speed EWMA, seasonality by hour and weekend, vol-of-vol.

State is a few arrays that ``step`` moves by one bar; a whole history is the fold of the same function, so that a stream
and a batch agree to the bit. Time is counted in bars; a return over a gap is shared out over the bars it spans.

Innovation: half squared return, half Garman-Klass variance whose range includes the previous close (so it is never
negative and sees gaps). Each bar's innovation is divided by the seasonal factor of its cell; a multi-speed component
takes it capped at a multiple of the ten-day variance, because one false wick otherwise stays in a range estimator for
weeks. While fewer bars are known than an average is long, it is their plain mean.

Sources: Garman and Klass (1980), eq. 20; RiskMetrics (1996). Weights and half-lives are data of ``oracles.risk_model``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.compiling import compiled, inlined
from kernels.layout import FloatArray, Int64Array
from kernels.loops import assign, sort
from kernels.normal import logarithm

CELLS = 48
"""Hour of the day (UTC), then the same of the weekend: cell = hour + 24 [Saturday or Sunday]."""
BUCKETS = 13
"""Thirty-day parts that the seasonal factors remember: twelve complete ones and the present one."""
SPEEDS = 5
TEN_DAYS = 3
"""Index of the component whose half-life is ten days: the yardstick of caps and floor."""

_GARMAN_KLASS = 0.3862943611198906  # 2 ln 2 - 1
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


@inlined
def garman_klass(previous_close: float, high: float, low: float, close: float) -> float:
    """Variance of one bar from its range, with the previous close in the range."""
    top, bottom = max(high, previous_close), min(low, previous_close)
    spread, move = logarithm(top / bottom), logarithm(close / previous_close)
    return 0.5 * spread * spread - _GARMAN_KLASS * move * move


@inlined
def seasonal_cell(time_ms: int) -> int:
    """Cell of the bar that starts at ``time_ms``; day 0 of the epoch was a Thursday."""
    weekday = (time_ms // _DAY_MS + 3) % 7
    return (time_ms // _HOUR_MS) % 24 + (24 if weekday >= 5 else 0)


@inlined
def smoothed(value: float, x: float, decay: float, count: int) -> float:
    """Exponentially weighted mean after x, the ``count``-th observation (from 1)."""
    gain = max(1.0 - decay, 1.0 / count)
    return value + gain * (x - value)


@compiled
def ewma_path(x: FloatArray, decay: float) -> FloatArray:
    """out[t]: exponentially weighted mean of x[0..t]."""
    out = np.empty(x.shape[0])
    value = 0.0
    for t in range(x.shape[0]):
        value = smoothed(value, x[t], decay, t + 1)
        out[t] = value
    return out


@compiled
def step_seasons(
    sums: FloatArray, counts: FloatArray, factors: FloatArray, cell: int, relative: float, bars_seen: int,
    bucket_bars: int, bars_min: int,
) -> None:  # fmt: skip
    """Count one relative innovation in its cell; at the end of a bucket compute ``factors`` [48] and open the next.

    ``sums``, ``counts`` [13,48], the present bucket first. Factors weigh cells by their share of a week, mean 1.
    """
    sums[0, cell] += relative
    counts[0, cell] += 1.0
    if bars_seen % bucket_bars != 0:
        return
    if bars_seen >= bars_min:
        fill_factors(sums, counts, factors)
    for bucket in range(BUCKETS - 1, 0, -1):
        assign(sums[bucket], sums[bucket - 1])
        assign(counts[bucket], counts[bucket - 1])
    sums[0] = 0.0
    counts[0] = 0.0


@compiled
def fill_factors(sums: FloatArray, counts: FloatArray, factors: FloatArray) -> None:
    """Mean relative innovation of each cell; cells without any stay at the mean of all."""
    total, number = 0.0, 0.0
    for cell in range(CELLS):
        for bucket in range(BUCKETS):
            total += sums[bucket, cell]
            number += counts[bucket, cell]
    mean = total / number
    weighted = 0.0
    for cell in range(CELLS):
        x, n = 0.0, 0.0
        for bucket in range(BUCKETS):
            x += sums[bucket, cell]
            n += counts[bucket, cell]
        factors[cell] = x / n if n > 0.0 and x > 0.0 else mean
        weighted += factors[cell] * (5.0 if cell < 24 else 2.0) / (7.0 * 24.0)
    for cell in range(CELLS):
        factors[cell] /= weighted


class VarianceState(NamedTuple):
    """State of one asset; arrays that ``step`` changes in place.

    ``speeds`` [5]: variances per bar without season, one a half-life. ``yard`` [1]: ten-day variance with season and
    uncapped, by which seasons are measured. ``floor`` [1]: the stress variance. ``factors`` [48], ``sums``,
    ``counts`` [13,48]: seasons. ``days`` [2,D]: rings of the ten-day and the slowest variance at the end of each day.
    ``bars`` int64[1]: bars seen.
    """

    speeds: FloatArray
    yard: FloatArray
    floor: FloatArray
    factors: FloatArray
    sums: FloatArray
    counts: FloatArray
    days: FloatArray
    bars: Int64Array


class VarianceSettings(NamedTuple):
    """``decays`` [5] a bar, ``cap`` in multiples of the ten-day variance, lengths in bars.

    ``floor_quantile`` of the ten-day variances and ``floor_multiple`` of the median of the slowest make the floor.
    """

    decays: FloatArray
    cap: float
    day_bars: int
    bucket_bars: int
    season_bars_min: int
    floor_quantile: float
    floor_multiple: float


def empty_state(days: int) -> VarianceState:
    """State before the first bar; the rings hold ``days`` days."""
    seasons = (np.ones(CELLS), np.zeros((BUCKETS, CELLS)), np.zeros((BUCKETS, CELLS)))
    return VarianceState(
        np.zeros(SPEEDS), np.zeros(1), np.zeros(1), *seasons, np.zeros((2, days)), np.zeros(1, np.int64)
    )


@compiled
def step(
    state: VarianceState, settings: VarianceSettings, cell: int, span: int, move: float, range_variance: float
) -> None:
    """Move the state by one bar: log return ``move`` and range variance since a close ``span`` bars ago."""
    square = move * move
    raw = 0.5 * (square + range_variance) / span
    seen = state.bars[0] + 1
    yard = state.yard[0]
    if seen > 1 and yard > 0.0:
        relative = min(raw / yard, settings.cap)
        step_seasons(
            state.sums, state.counts, state.factors, cell, relative, seen, settings.bucket_bars,
            settings.season_bars_min,
        )  # fmt: skip
    cap = settings.cap * state.speeds[TEN_DAYS] * span * state.factors[cell]
    if seen > settings.day_bars and cap > 0.0:
        square, range_variance = min(square, cap), min(range_variance, cap)
    innovation = 0.5 * (square + range_variance) / (span * state.factors[cell])
    for k in range(SPEEDS):
        state.speeds[k] = smoothed(state.speeds[k], innovation, settings.decays[k], seen)
    state.yard[0] = smoothed(yard, raw, settings.decays[TEN_DAYS], seen)
    state.bars[0] = seen
    if seen % settings.day_bars == 0:
        _end_day(state, settings, seen // settings.day_bars)


@compiled
def _end_day(state: VarianceState, settings: VarianceSettings, day: int) -> None:
    """Remember the day's variances and compute the floor from all days remembered."""
    size = state.days.shape[1]
    state.days[0, (day - 1) % size] = state.speeds[TEN_DAYS]
    state.days[1, (day - 1) % size] = state.speeds[SPEEDS - 1]
    known = min(day, size)
    ten_days, slow = state.days[0, :known].copy(), state.days[1, :known].copy()
    sort(ten_days)
    sort(slow)
    high = ten_days[max(int(np.ceil(settings.floor_quantile * known)) - 1, 0)]
    state.floor[0] = min(high, settings.floor_multiple * slow[(known - 1) // 2])


@inlined
def season_of_horizon(factors: FloatArray, next_start_ms: int, interval_ms: int, bars: int) -> float:
    """Sum of the factors of the next ``bars`` bars, the first of which starts at ``next_start_ms``."""
    total = 0.0
    for k in range(bars):
        total += factors[seasonal_cell(next_start_ms + k * interval_ms)]
    return total


@compiled
def fold(
    state: VarianceState, settings: VarianceSettings, time_ms: Int64Array, interval_ms: int, high: FloatArray,
    low: FloatArray, close: FloatArray, horizons: Int64Array, speeds: FloatArray, floor: FloatArray,
    factor: FloatArray, season: FloatArray,
) -> None:  # fmt: skip
    """Step through bars 1..n-1; after each record ``speeds`` [n,5], ``floor`` [n], the ``factor`` [n] that applied to
    the bar, and ``season`` [n,K], the sums of factors over the next ``horizons`` [K] bars. Row 0 becomes zeros."""
    speeds[0], floor[0], factor[0], season[0] = 0.0, 0.0, 1.0, 0.0
    for t in range(1, close.shape[0]):
        cell = seasonal_cell(time_ms[t])
        factor[t] = state.factors[cell]
        span = max((time_ms[t] - time_ms[t - 1]) // interval_ms, 1)
        move = logarithm(close[t] / close[t - 1])
        step(state, settings, cell, span, move, garman_klass(close[t - 1], high[t], low[t], close[t]))
        assign(speeds[t], state.speeds)
        floor[t] = state.floor[0]
        for k in range(horizons.shape[0]):
            season[t, k] = season_of_horizon(state.factors, time_ms[t] + interval_ms, interval_ms, horizons[k])
