"""Forecasts of several models against what happened: every statistic, on the observations that all models share.

Forecasts are made every bar, so that over a horizon of H bars neighbouring losses overlap. Rates, shortfall tests and
scores take all of them; tests that need independent observations are made on each of the H interleaved series that do
not overlap, and the median of their p-values is given.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from oracles.backtest.coverage import conditional_coverage, independence, kupiec, traffic_light, transitions
from oracles.backtest.procyclicality import Month, Procyclicality, months, procyclicality
from oracles.backtest.shortfall import Comparison, diebold_mariano, fissler_ziegel, variance_of_mean, z1, z2
from oracles.risk_model.forecasts import Forecasts

FloatArray = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
LONG, SHORT = "long", "short"
SIGNIFICANCE = 0.05
LAGS_MIN = 24
HOURS_A_MONTH_MIN = 300
MONTH_RATE_MAX = 0.018


class Tail(Struct, frozen=True):
    """One side at one level: a long position loses in the lower tail, a short one in the upper."""

    side: str
    level: float
    observations: int
    rate: float
    kupiec_p: float
    independence_p: float
    conditional_p: float
    zone: str
    z1: float
    z2: float
    fissler_ziegel: float
    mean_expected_shortfall: float


class Score(Struct, frozen=True):
    """One model on one asset or book. ``margin`` measures are of the long side's ES at the highest level."""

    asset: str
    model: str
    fissler_ziegel: float
    tails: tuple[Tail, ...]
    procyclicality: Procyclicality
    worst_months: tuple[Month, ...]
    mean_margin: float


class Summary(Struct, frozen=True):
    """One model over all assets: means of its scores, Kupiec tests passed at 5 %, Diebold-Mariano against the others.

    ``rate`` and ``z2`` are of the long side at the highest level, as are the measures of margins and the ``months``, in
    each of which all assets count together. ``against`` is by model: a negative statistic says that this one is better.
    ``rate_error``: standard error of ``rate``, all books of one time taken as one observation.
    ``month_scale``: by how much VaR would have to be multiplied for no month to exceed it in more than 1.8 %.
    """

    model: str
    fissler_ziegel: float
    rate: float
    rate_error: float
    z2: float
    kupiec_passed: int
    kupiec_tests: int
    p99_to_p1: float
    rise_1_day: float
    rise_5_day: float
    mean_margin: float
    months: tuple[Month, ...]
    month_scale: float
    against: dict[str, Comparison]

    @property
    def worst_month(self) -> Month:
        """The month with most exceedances; one without a name where the sample has no whole month."""
        return max(self.months, key=lambda month: month.rate, default=Month("none", 0, math.nan, math.nan))


class Evaluation(Struct, frozen=True):
    """A whole comparison. ``first_ms``, ``last_ms``: when the first and the last forecast was made."""

    horizon_bars: int
    levels: tuple[float, ...]
    first_ms: int
    last_ms: int
    observations: dict[str, int]
    scores: tuple[Score, ...]
    summaries: tuple[Summary, ...]

    def summary(self, model: str) -> Summary:
        return next(summary for summary in self.summaries if summary.model == model)


def aligned(forecasts: Sequence[Forecasts]) -> list[Forecasts]:
    """The forecasts of one asset on the times at which every one of them is a number; ValueError if there are none."""
    times = reduce(np.intersect1d, (one.time_ms[_usable(one)] for one in forecasts))
    if not len(times):
        raise ValueError(
            f"{forecasts[0].asset}: no time at which every model has a forecast; is the history too short?"
        )
    return [_at(one, times) for one in forecasts]


def evaluate(by_asset: dict[str, list[Forecasts]], bars_a_day: int = 24) -> Evaluation:
    """Scores of every model and asset, and their summaries. All forecasts share horizon, levels and models.

    Raises:
        ValueError: no assets, or no common observations of one.
    """
    if not by_asset:
        raise ValueError("forecasts: none")
    shared = {asset: aligned(forecasts) for asset, forecasts in by_asset.items()}
    first = next(iter(shared.values()))[0]
    scores = [score(one, bars_a_day) for forecasts in shared.values() for one in forecasts]
    times = np.unique(np.concatenate([group[0].time_ms for group in shared.values()]))
    series = {
        one.model: _pooled_scores(times, [group[place] for group in shared.values()])
        for place, one in enumerate(next(iter(shared.values())))
    }
    lags = min(max(LAGS_MIN, 3 * first.horizon_bars), len(times) - 1)
    least = month_least(bars_a_day, len(shared))
    summaries = []
    for place, model in enumerate(series):
        ratios = long_ratios([group[place] for group in shared.values()])
        against = {other: diebold_mariano(series[model], series[other], lags) for other in series if other != model}
        summaries.append(_summary(model, scores, ratios, least, against, lags))
    return Evaluation(
        horizon_bars=first.horizon_bars,
        levels=first.levels,
        first_ms=int(times[0]),
        last_ms=int(times[-1]),
        observations={asset: len(group[0].time_ms) for asset, group in shared.items()},
        scores=tuple(scores),
        summaries=tuple(summaries),
    )


def month_least(bars_a_day: int, assets: int) -> int:
    """How many observations of all assets make a month."""
    return HOURS_A_MONTH_MIN * bars_a_day * assets // 24


def score(forecasts: Forecasts, bars_a_day: int = 24) -> Score:
    """Everything about one model on one asset. Every row must be usable (``aligned``)."""
    place = int(np.argmax(forecasts.levels))
    loss, var, es = side_of(forecasts, LONG, place)
    by_month = months(forecasts.time_ms, loss, var, es, HOURS_A_MONTH_MIN * bars_a_day // 24)
    return Score(
        asset=forecasts.asset,
        model=forecasts.model,
        fissler_ziegel=float(point_scores(forecasts).mean()),
        tails=tuple(_tails(forecasts)),
        procyclicality=procyclicality(forecasts.time_ms, es),
        worst_months=tuple(sorted(by_month, key=lambda month: -month.rate)[:6]),
        mean_margin=float(es.mean()),
    )


def side_of(forecasts: Forecasts, side: str, place: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(loss, VaR, ES) float64[n] of one unit long or short at ``levels[place]``."""
    if side == LONG:
        return -forecasts.realised, forecasts.lower_var[:, place], forecasts.lower_es[:, place]
    return forecasts.realised, forecasts.upper_var[:, place], forecasts.upper_es[:, place]


def point_scores(forecasts: Forecasts) -> FloatArray:
    """float64[n]: FZ0 of each forecast, the mean over both sides and all levels."""
    parts = [
        fissler_ziegel(*side_of(forecasts, side, place), 1 - level)
        for side in (LONG, SHORT)
        for place, level in enumerate(forecasts.levels)
    ]
    return np.asarray(np.mean(parts, axis=0))


def _usable(forecasts: Forecasts) -> npt.NDArray[np.bool_]:
    shortfalls = np.hstack([forecasts.lower_es, forecasts.upper_es])
    quantiles = np.hstack([forecasts.lower_var, forecasts.upper_var])
    numbers = np.isfinite(forecasts.realised) & np.isfinite(quantiles).all(axis=1)
    return np.asarray(numbers & np.isfinite(shortfalls).all(axis=1) & (shortfalls > 0).all(axis=1))


def _at(forecasts: Forecasts, times: Int64Array) -> Forecasts:
    rows = np.searchsorted(forecasts.time_ms, times)
    return Forecasts(
        forecasts.model,
        forecasts.asset,
        forecasts.horizon_bars,
        forecasts.levels,
        times,
        forecasts.realised[rows],
        forecasts.lower_var[rows],
        forecasts.lower_es[rows],
        forecasts.upper_var[rows],
        forecasts.upper_es[rows],
    )


def _tails(forecasts: Forecasts) -> Iterator[Tail]:
    for side in (LONG, SHORT):
        for place, level in enumerate(forecasts.levels):
            loss, var, es = side_of(forecasts, side, place)
            yield tail_of(side, level, loss, var, es, forecasts.horizon_bars)


def tail_of(side: str, level: float, loss: FloatArray, var: FloatArray, es: FloatArray, overlap: int) -> Tail:
    """Every statistic of one tail; ``overlap``: how many neighbouring observations share a part of their horizon."""
    exceeded, probability = loss > var, 1 - level
    series = [exceeded[phase::overlap] for phase in range(min(overlap, len(exceeded)))]
    rates = [kupiec(int(one.sum()), len(one), probability).p_value for one in series]
    counts = [int(one.sum()) for one in series]
    return Tail(
        side=side,
        level=level,
        observations=len(loss),
        rate=float(exceeded.mean()),
        kupiec_p=statistics.median(rates),
        independence_p=statistics.median(independence(transitions(one)).p_value for one in series),
        conditional_p=statistics.median(conditional_coverage(one, probability).p_value for one in series),
        zone=traffic_light(int(statistics.median(counts)), len(series[0]), probability),
        z1=z1(loss, var, es),
        z2=z2(loss, var, es, probability),
        fissler_ziegel=float(fissler_ziegel(loss, var, es, probability).mean()),
        mean_expected_shortfall=float(es.mean()),
    )


class Ratios(NamedTuple):
    """Long losses of all assets in the order of time, over VaR and over ES at the highest level."""

    time_ms: Int64Array
    to_var: FloatArray
    to_es: FloatArray


def long_ratios(forecasts: list[Forecasts]) -> Ratios:
    """Of one model's forecasts of several assets."""
    parts = [side_of(one, LONG, int(np.argmax(one.levels))) for one in forecasts]
    time_ms = np.concatenate([one.time_ms for one in forecasts])
    order = np.argsort(time_ms, kind="stable")
    to_var = np.concatenate([loss / var for loss, var, _ in parts])
    to_es = np.concatenate([loss / es for loss, _, es in parts])
    return Ratios(time_ms[order], to_var[order], to_es[order])


def _summary(
    model: str, scores: list[Score], ratios: Ratios, least: int, against: dict[str, Comparison], lags: int
) -> Summary:
    own = [one for one in scores if one.model == model]
    long = [max((tail for tail in one.tails if tail.side == LONG), key=lambda tail: tail.level) for one in own]
    tests = [tail.kupiec_p > SIGNIFICANCE for one in own for tail in one.tails]
    ones = np.ones(len(ratios.time_ms))
    by_month = months(ratios.time_ms, ratios.to_var, ones, ones, least)
    return Summary(
        model=model,
        fissler_ziegel=_mean(one.fissler_ziegel for one in own),
        rate=_mean(tail.rate for tail in long),
        rate_error=_rate_error(ratios, lags),
        z2=_mean(tail.z2 for tail in long),
        kupiec_passed=sum(tests),
        kupiec_tests=len(tests),
        p99_to_p1=_mean(one.procyclicality.p99_to_p1 for one in own),
        rise_1_day=_mean(one.procyclicality.rise_1_day for one in own),
        rise_5_day=_mean(one.procyclicality.rise_5_day for one in own),
        mean_margin=_mean(one.mean_margin for one in own),
        months=tuple(by_month),
        month_scale=scale_for_months(ratios.time_ms, ratios.to_var, least, MONTH_RATE_MAX),
        against=against,
    )


def _rate_error(ratios: Ratios, lags: int) -> float:
    _, place = np.unique(ratios.time_ms, return_inverse=True)
    by_time = np.bincount(place, ratios.to_var > 1) / np.bincount(place)
    return math.sqrt(max(variance_of_mean(by_time, min(lags, len(by_time) - 1)), 0.0))


def scale_for_months(time_ms: Int64Array, ratio: FloatArray, least: int, rate_max: float) -> float:
    """The least factor on VaR (1 at least) with which no month of ``least`` observations exceeds it more often.

    ``ratio``: loss over VaR, f64[n], at ascending times. In a month of n losses floor(n rate_max) may exceed, so the
    factor is the next largest ratio.
    """
    names = time_ms.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    edges = np.r_[0, np.flatnonzero(np.diff(names)) + 1, len(names)]
    scale = 1.0
    for start, stop in itertools.pairwise(edges):
        if stop - start >= max(least, 1):
            allowed = int((stop - start) * rate_max)
            scale = max(scale, float(np.sort(ratio[start:stop])[-1 - allowed]))
    return scale


def _mean(values: Iterator[float]) -> float:
    return statistics.fmean(values)


def _pooled_scores(times: Int64Array, forecasts: list[Forecasts]) -> FloatArray:
    """Mean FZ0 over the assets at each time: they lose together, so a comparison takes them as one series."""
    total, count = np.zeros(len(times)), np.zeros(len(times))
    for one in forecasts:
        rows = np.searchsorted(times, one.time_ms)
        total[rows] += point_scores(one)
        count[rows] += 1
    return total / count
