"""Seeded markets for tests of the risk model: hourly bars with clusters of volatility, fat tails, common shocks."""

from __future__ import annotations

import numpy as np

from oracles.risk_model.bars import Bars
from oracles.risk_model.state import Bar

HOUR_MS = 3_600_000
START_MS = 1_600_002_000_000 // HOUR_MS * HOUR_MS


def closes(bars: int, assets: int, seed: int) -> np.ndarray:
    """[assets, bars]: GARCH-like closes that share four fifths of their shocks."""
    rng = np.random.Generator(np.random.Philox(seed))
    common, own = rng.standard_t(5, bars), rng.standard_t(5, (assets, bars))
    shocks = 0.8 * common + 0.6 * own
    variance = np.empty(bars)
    h = 1.0
    for t in range(bars):
        variance[t] = h
        h = 0.02 + 0.08 * min(common[t] ** 2, 30.0) * h / 1.67 + 0.9 * h
    return 100.0 * np.exp(np.cumsum(0.006 * np.sqrt(np.minimum(variance, 25.0)) * shocks, axis=1))


def bars_of_closes(asset: str, close: np.ndarray, seed: int = 0) -> Bars:
    """Bars whose ranges reach a little beyond open and close."""
    rng = np.random.Generator(np.random.Philox(1_000 + seed))
    opened = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(opened, close) * (1.0 + 0.002 * rng.random(close.size))
    low = np.minimum(opened, close) * (1.0 - 0.002 * rng.random(close.size))
    time_ms = START_MS + HOUR_MS * np.arange(close.size, dtype=np.int64)
    return Bars(asset, HOUR_MS, time_ms, opened, high, low, close, np.ones(close.size))


def market(bars: int, assets: int, seed: int = 1) -> list[Bars]:
    """Assets A0, A1, ..."""
    return [bars_of_closes(f"A{n}", row, n) for n, row in enumerate(closes(bars, assets, seed))]


def implied(bars: int, seed: int = 1) -> np.ndarray:
    """A mean-reverting volatility [bars] around 60 %."""
    rng = np.random.Generator(np.random.Philox(2_000 + seed))
    out, log_vol = np.empty(bars), 0.0
    for t in range(bars):
        log_vol = 0.995 * log_vol + 0.01 * rng.standard_t(5)
        out[t] = 0.6 * np.exp(log_vol)
    return out


def bar_at(bars: Bars, t: int) -> Bar:
    return Bar(float(bars.high[t]), float(bars.low[t]), float(bars.close[t]))
