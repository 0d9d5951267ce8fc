"""Bars of a backtest: files of the documented format, the sample that ships, or the recorded panel; all checked."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
from msgspec import Struct

from oracles.risk_model.bars import Bars
from oracles.risk_model.forecasts import WalkForward
from streams.market_data.bar_checks import RawBars, clean_bars, interval_of
from streams.market_data.columns import MarketDataError
from streams.market_data.findings import CONSTANT_PRICE, Finding, Findings, utc
from streams.market_data.importing import raw_bars, read_source
from streams.market_data.recorded import BARS

SAMPLE = Path(__file__).parent / "samples" / "BTCUSDT_1d.csv.gz"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
DAYS_MIN = 200
CONSTANT_SHARE_MAX = 0.5
_HORIZON = re.compile(r"^(\d{1,4})(m|h|d)$")
_UNITS_MS = {"m": 60_000, "h": HOUR_MS, "d": DAY_MS}


class BacktestError(ValueError):
    """A backtest cannot be made of what was given; the message says which input, why and what to do."""


class History(Struct, frozen=True):
    """Bars of one asset with where they come from and what the checks found."""

    bars: Bars
    sources: tuple[str, ...]
    findings: tuple[Finding, ...]

    def facts(self) -> dict[str, object]:
        """What a report says of them."""
        return {
            "asset": self.bars.asset,
            "sources": list(self.sources),
            "bars": self.bars.size,
            "interval_ms": self.bars.interval_ms,
            "first": utc(self.bars.time_ms[0]),
            "last": utc(self.bars.time_ms[-1]),
            "findings": {finding.name: finding.count for finding in self.findings},
        }


def horizon_ms_of(text: str) -> int:
    """1h, 24h, 30m, 1d -> milliseconds; BacktestError where it is no horizon."""
    found = _HORIZON.match(text)
    if found is None or int(found[1]) == 0:
        raise BacktestError(f"--horizon {text!r}: give a number and m, h or d, like 1h or 24h")
    return int(found[1]) * _UNITS_MS[found[2]]


def horizon_bars(history: History, horizon_ms: int) -> int:
    """The horizon in bars of a history; BacktestError where it is no whole number of them."""
    interval_ms = history.bars.interval_ms
    if horizon_ms % interval_ms:
        raise BacktestError(
            f"{history.bars.asset}: bars of {interval_ms / HOUR_MS:g} h cannot be tested over "
            f"{horizon_ms / HOUR_MS:g} h; give a --horizon that is a multiple of the bars"
        )
    return horizon_ms // interval_ms


def walk_forward(interval_ms: int) -> WalkForward:
    """Options of the walk for bars of this length: the hourly defaults in days, and never fewer than 250 residuals."""
    day = DAY_MS / interval_ms
    return WalkForward(
        refit_bars=max(round(30 * day), 30),
        fit_bars=max(round(730 * day), 500),
        fit_bars_min=max(round(90 * day), 250),
        residuals_min=max(round(83.4 * day), 250),
    )


def read_history(asset: str, path: Path) -> History:
    """Bars of one file, checked.

    Raises:
        BacktestError: no file of bars, several series in it, less than 200 days, or a price that hardly ever moves.
    """
    try:
        found = list(read_source(path, asset))
    except MarketDataError as error:
        raise BacktestError(f"--bars {asset}={path}: {error}") from error
    if len(found) != 1 or found[0].report.kind != BARS:
        kinds = ", ".join(sorted({series.report.kind for series in found}))
        raise BacktestError(
            f"--bars {asset}={path}: {len(found)} series of {kinds}; one of bars is wanted: "
            "`dpme data import` writes one file a series"
        )
    return checked(asset, raw_bars(found[0]), (path.name,), found[0].report.findings)


def read_index(path: Path) -> History:
    """Bars of an index of implied volatility in per cent (DVOL); BacktestError where they are not on that scale."""
    history = read_history("implied volatility", path)
    lowest, highest = float(history.bars.close.min()), float(history.bars.close.max())
    if lowest <= 1 or highest >= 500:
        raise BacktestError(
            f"{path.name}: implied volatilities from {lowest:g} to {highest:g}; an index in per cent a year lies "
            "between 1 and 500, where venues stop searching"
        )
    return history


def checked(asset: str, raw: RawBars, sources: tuple[str, ...], findings: tuple[Finding, ...]) -> History:
    """A history that can be walked over; BacktestError as in ``read_history``."""
    interval_ms = interval_of(raw.time_ms)
    days = (raw.time_ms[-1] - raw.time_ms[0] + interval_ms) / DAY_MS
    if days < DAYS_MIN:
        raise BacktestError(
            f"{asset}: {days:.0f} days of history; a backtest needs {DAYS_MIN}. "
            "Below a year margins take a conservative floor (infra/docs/risk_model.md)"
        )
    close = raw.ohlcv[:, 3]
    if (np.diff(close) == 0).mean() > CONSTANT_SHARE_MAX:
        raise BacktestError(f"{asset}: {CONSTANT_PRICE}: more than half of the bars close where the bar before closed")
    columns = (np.ascontiguousarray(column) for column in raw.ohlcv.T)
    opened, high, low, closed, volume = columns
    bars = Bars(asset, interval_ms, raw.time_ms, opened, high, low, closed, volume)
    return History(bars, sources, findings)


def coarser(raw: RawBars, interval_ms: int) -> RawBars:
    """Bars joined to longer ones on multiples of ``interval_ms``; those that are not whole are left out."""
    size = interval_ms // interval_of(raw.time_ms)
    starts = raw.time_ms // interval_ms * interval_ms
    begins = np.flatnonzero(np.r_[True, np.diff(starts) > 0])
    whole = np.diff(np.r_[begins, len(starts)]) == size
    first = begins[whole]
    last = first + size - 1
    high = np.maximum.reduceat(raw.ohlcv[:, 1], begins)[whole]
    low = np.minimum.reduceat(raw.ohlcv[:, 2], begins)[whole]
    volume = np.add.reduceat(raw.ohlcv[:, 4], begins)[whole]
    return RawBars(
        starts[first], np.column_stack([raw.ohlcv[first, 0], high, low, raw.ohlcv[last, 3], volume])
    )  # fmt: skip


def joined(asset: str, parts: list[RawBars], sources: tuple[str, ...], found: tuple[Finding, ...]) -> History:
    """One history of several sources: each part ends where the next begins. The joint is checked like any bar."""
    kept = [part.take(part.time_ms < after.time_ms[0]) for part, after in itertools.pairwise(parts)] + [parts[-1]]
    raw = RawBars(np.concatenate([p.time_ms for p in kept]), np.concatenate([p.ohlcv for p in kept]))
    findings = Findings()
    raw = clean_bars(raw, findings)
    return checked(asset, raw, sources, (*found, *findings.found))
