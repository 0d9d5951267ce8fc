"""Checks of bars: each flaw by its name, with what is done about it. Bars are dropped or mended, never invented.

Every mend is the conservative one of those that are possible: a high or low that contradicts its own bar is widened, a
hole stays a hole, a false wick is cut back to what its neighbours have seen and no further.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streams.market_data.findings import (
    CONFLICTING_DUPLICATE,
    CONSTANT_PRICE,
    DUPLICATE,
    FALSE_WICK,
    GAP,
    INCONSISTENT_BAR,
    OUT_OF_ORDER,
    PRICE_NOT_POSITIVE,
    SHORT_HISTORY,
    SPLICE,
    Findings,
    utc,
)

DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS
CONSTANT_RUN_MS, CONSTANT_BARS_MIN = DAY_MS, 3
SPLICE_SCALES, SPLICE_MIN = 12.0, 0.02
WICK_SCALES, WICK_MIN = 12.0, 0.08
NEIGHBOURS = 12


class RawBars(NamedTuple):
    """Bars as columns: ``time_ms`` i64[n] of each bar's start, ``ohlcv`` f64[n, 5]."""

    time_ms: np.ndarray
    ohlcv: np.ndarray

    def take(self, rows: np.ndarray) -> RawBars:
        return RawBars(self.time_ms[rows], self.ohlcv[rows])


def interval_of(time_ms: np.ndarray) -> int:
    """The commonest distance of neighbouring bars in milliseconds; 0 where there are not two bars."""
    steps = np.diff(np.unique(time_ms))
    if not len(steps):
        return 0
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])


def clean_bars(bars: RawBars, findings: Findings, keep_wicks: bool = False) -> RawBars:
    """Bars in time order, one a time, positive, consistent; what was wrong goes to ``findings``."""
    bars = _without_bad_prices(bars, findings)
    if not len(bars.time_ms):
        return bars
    bars = _in_order(bars, findings)
    bars = _without_duplicates(bars, findings)
    bars = _consistent(bars, findings)
    if len(bars.time_ms) < 2:
        return bars
    interval_ms = interval_of(bars.time_ms)
    bars = _without_false_wicks(bars, findings, keep_wicks)
    _find_gaps(bars, interval_ms, findings)
    _find_splices(bars, interval_ms, findings)
    _find_constant_prices(bars, interval_ms, findings)
    _find_short_history(bars, interval_ms, findings)
    return bars


def _without_bad_prices(bars: RawBars, findings: Findings) -> RawBars:
    good = np.asarray((bars.ohlcv[:, :4] > 0).all(axis=1))  # NaN is not above zero
    findings.add_times(PRICE_NOT_POSITIVE, bars.time_ms[~good], "bar dropped")
    kept = bars.take(good)
    volume = kept.ohlcv[:, 4]
    kept.ohlcv[:, 4] = np.where(volume >= 0, volume, 0.0)
    return kept


def _in_order(bars: RawBars, findings: Findings) -> RawBars:
    backwards = np.flatnonzero(np.diff(bars.time_ms) < 0) + 1
    findings.add_times(OUT_OF_ORDER, bars.time_ms[backwards], "bars sorted by time")
    return bars.take(np.argsort(bars.time_ms, kind="stable")) if len(backwards) else bars


def _without_duplicates(bars: RawBars, findings: Findings) -> RawBars:
    repeated = np.r_[False, np.diff(bars.time_ms) == 0]
    before = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(repeated))))
    same = (bars.ohlcv == bars.ohlcv[before]).all(axis=1)
    findings.add_times(DUPLICATE, bars.time_ms[repeated & same], "first kept")
    findings.add_times(CONFLICTING_DUPLICATE, bars.time_ms[repeated & ~same], "first kept: they differ")
    return bars.take(~repeated)


def _consistent(bars: RawBars, findings: Findings) -> RawBars:
    prices = bars.ohlcv[:, :4]
    high, low = prices.max(axis=1), prices.min(axis=1)
    wrong = (prices[:, 1] < high) | (prices[:, 2] > low)
    findings.add_times(INCONSISTENT_BAR, bars.time_ms[wrong], "high and low widened to open and close")
    mended = bars.ohlcv.copy()
    mended[:, 1], mended[:, 2] = high, low
    return RawBars(bars.time_ms, mended)


def _typical(values: np.ndarray) -> np.ndarray:
    """f64[n]: median over the twelve values before and the twelve after each, without itself."""
    padded = np.pad(values, NEIGHBOURS, mode="reflect") if len(values) > NEIGHBOURS else np.pad(values, NEIGHBOURS)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBOURS + 1)
    return np.median(np.delete(windows, NEIGHBOURS, axis=1), axis=1)


def _without_false_wicks(bars: RawBars, findings: Findings, keep_wicks: bool) -> RawBars:
    """A wick is false if it is above 8 %, above twelve typical ranges of the bars around it, and neither the bar before
    nor the one after traded within two thirds of the way to it.
    """
    opened, high, low, close = np.log(bars.ohlcv[:, :4].T)
    scale = _typical(high - low)
    body_low, body_high = np.minimum(opened, close), np.maximum(opened, close)
    mended = bars.ohlcv.copy()
    for side, wick, tip, body, column in (
        ("low", body_low - low, -low, -body_low, 2), ("high", high - body_high, high, body_high, 1)
    ):  # fmt: skip
        reach = np.maximum(np.r_[-np.inf, tip[:-1]], np.r_[tip[1:], -np.inf])
        false = (wick > WICK_MIN) & (wick > WICK_SCALES * scale) & (reach < body + wick * 2 / 3)
        limit = np.maximum(np.maximum(reach, body), body + WICK_SCALES / 2 * scale)
        mended[false, column] = np.exp(limit[false] if side == "high" else -limit[false])
        examples = [
            f"{utc(bars.time_ms[i])} {side} {bars.ohlcv[i, column]:g} -> {mended[i, column]:g}"
            for i in np.flatnonzero(false)
        ]
        action = "kept as asked" if keep_wicks else f"{side} cut back to six typical ranges or a neighbour's {side}"
        findings.add(FALSE_WICK, int(false.sum()), action, examples)
    return bars if keep_wicks else RawBars(bars.time_ms, mended)


def _find_gaps(bars: RawBars, interval_ms: int, findings: Findings) -> None:
    steps = np.diff(bars.time_ms)
    places = np.flatnonzero(steps > interval_ms)
    longest = places[np.argsort(-steps[places], kind="stable")]
    missing = [f"{utc(bars.time_ms[i])} + {(steps[i] - interval_ms) / 3_600_000:g} h missing" for i in longest]
    findings.add(GAP, len(places), "left open: no bar is invented; a return over a gap is one return", missing)


def _find_splices(bars: RawBars, interval_ms: int, findings: Findings) -> None:
    """Where a bar opens far from the close before it: two sources joined, or a venue that stopped trading.

    Far is above 2 % and above twelve typical ranges of the bars around, times the root of the hole's length.
    """
    opened, high, low, close = np.log(bars.ohlcv[:, :4].T)
    scale = _typical(high - low)[1:]
    bars_apart = np.diff(bars.time_ms) / interval_ms
    jumps = np.abs(opened[1:] - close[:-1])
    found = np.flatnonzero((jumps > SPLICE_MIN) & (jumps > SPLICE_SCALES * scale * np.sqrt(bars_apart)))
    examples = [f"{utc(bars.time_ms[i + 1])} opens {100 * (opened[i + 1] - close[i]):+.2f} %" for i in found]
    findings.add(SPLICE, len(found), "kept: the jump counts as a return (raises margins)", examples)


def _find_constant_prices(bars: RawBars, interval_ms: int, findings: Findings) -> None:
    """Runs of a day or more (three bars at least) in which no price differs from any other."""
    still = (bars.ohlcv[:, 1] == bars.ohlcv[:, 2]) & np.r_[True, np.diff(bars.ohlcv[:, 3]) == 0]
    edges = np.diff(np.r_[0, still.astype(np.int8), 0])
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    enough = max(CONSTANT_BARS_MIN, CONSTANT_RUN_MS // max(interval_ms, 1))
    runs = [(start, end) for start, end in zip(starts, ends) if end - start >= enough]
    examples = [f"{utc(bars.time_ms[start])} for {end - start} bars" for start, end in runs]
    findings.add(CONSTANT_PRICE, len(runs), "kept: no forecast falls below the floor of its model", examples)


def _find_short_history(bars: RawBars, interval_ms: int, findings: Findings) -> None:
    span_ms = int(bars.time_ms[-1] - bars.time_ms[0]) + interval_ms
    findings.add(
        SHORT_HISTORY, int(span_ms < YEAR_MS), "kept: below a year models take the GARCH-t floor",
        [f"{span_ms / DAY_MS:.1f} days of 365"],
    )  # fmt: skip
