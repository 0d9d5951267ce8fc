"""The default variance model of an asset over its whole history: what was known at the end of each bar.

Multi-speed EWMA of deseasonalised range innovations (``kernels.variance``), mixed by fixed weights; a stress floor
against procyclicality. Numbers are those chosen in the model study (``infra/docs/risk_model.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from kernels.variance import SPEEDS, VarianceSettings, VarianceState, empty_state, fold
from oracles.risk_model.bars import Bars

FloatArray = npt.NDArray[np.float64]

HOUR_MS = 3_600_000
YEAR_HOURS = 8_760
HALF_LIVES_HOURS = (3.0, 12.0, 48.0, 240.0, 1_440.0)
WEIGHTS = (0.35, 0.15, 0.25, 0.10, 0.15)
STRESS_SHARE, SHORT_STRESS_SHARE = 0.1, 0.05
"""Of the floor in the variance, from six hours on and below: a floor costs the more the shorter the horizon."""
SHORT_HORIZON_MS = 6 * 3_600_000
FLOOR_QUANTILE, FLOOR_MULTIPLE, FLOOR_DAYS = 0.95, 4.0, 1_095
CAP = 25.0
EWMA_DECAY_A_DAY = 0.94
"""RiskMetrics (1996)."""
SEASON_BUCKET_HOURS, SEASON_HOURS_MIN = 720, 2_160
WARM_UP_HOURS = 240
"""No forecast before: the averages are still those of a few days."""


def bars_of(hours: float, interval_ms: int) -> int:
    """Number of bars in so many hours, at least 1."""
    return max(round(hours * HOUR_MS / interval_ms), 1)


def default_settings(interval_ms: int) -> VarianceSettings:
    """The default model for bars of this length."""
    bars = np.array([hours * HOUR_MS / interval_ms for hours in HALF_LIVES_HOURS])
    return VarianceSettings(
        decays=np.array([0.5 ** (1.0 / length) for length in bars]),
        cap=CAP,
        day_bars=bars_of(24, interval_ms),
        bucket_bars=bars_of(SEASON_BUCKET_HOURS, interval_ms),
        season_bars_min=bars_of(SEASON_HOURS_MIN, interval_ms),
        floor_quantile=FLOOR_QUANTILE,
        floor_multiple=FLOOR_MULTIPLE,
    )


def new_state() -> VarianceState:
    """State of an asset of which no bar is known."""
    return empty_state(FLOOR_DAYS)


def mixed(speeds: FloatArray) -> FloatArray:
    """Variance per bar without season from the components [..., 5], products added in their order."""
    total = speeds[..., 0] * WEIGHTS[0]
    for k in range(1, SPEEDS):
        total = total + speeds[..., k] * WEIGHTS[k]
    return total


def stress_share(horizon_ms: int) -> float:
    """Share of the stress floor in the variance over a horizon."""
    return SHORT_STRESS_SHARE if horizon_ms < SHORT_HORIZON_MS else STRESS_SHARE


def with_floor(variance: FloatArray, floor: FloatArray, horizon_ms: int) -> FloatArray:
    """The variance with the horizon's share of the stress floor in it."""
    share = stress_share(horizon_ms)
    return (1.0 - share) * variance + share * floor


def with_implied(variance: FloatArray, implied_volatility: FloatArray | float, interval_ms: int) -> FloatArray:
    """Geometric mean with three quarters of the implied variance (30 days, annual); for horizons of 6 h and more."""
    per_bar = 0.75 * implied_volatility * implied_volatility * interval_ms / (YEAR_HOURS * HOUR_MS)
    return np.sqrt(variance * per_bar)


@dataclass(frozen=True, eq=False)
class VarianceHistory:
    """What was known after each of n bars; NaN during the warm-up.

    ``variance`` [n] per bar without season, ``floor`` [n]; ``season`` [n,K]: sum of the seasonal factors of the next
    ``horizons`` [K] bars; ``factor`` [n] applied to the bar itself; ``log_return`` [n] (first 0) and ``span`` [n], the
    bars since the previous close; ``state`` after the last bar.
    """

    interval_ms: int
    horizons: tuple[int, ...]
    variance: FloatArray
    floor: FloatArray
    season: FloatArray
    factor: FloatArray
    log_return: FloatArray
    span: FloatArray
    state: VarianceState

    def stddev(self, horizon: int, stress: bool) -> FloatArray:
        """Standard deviation [n] over the horizon that starts at the end of each bar."""
        variance = self.variance
        if stress:
            variance = with_floor(variance, self.floor, horizon * self.interval_ms)
        return np.sqrt(variance * self.season[:, self.horizons.index(horizon)])

    def without_season(self) -> FloatArray:
        """Returns per bar with season and gaps taken out, [n]; what GARCH models are fitted to."""
        return self.log_return / np.sqrt(self.factor * self.span)


@lru_cache(maxsize=8)
def variance_history(bars: Bars, horizons: tuple[int, ...]) -> VarianceHistory:
    """Fold the default model over all bars; models of the same bars share it, so nobody writes to what it returns."""
    n, state = bars.size, new_state()
    speeds, floor, factor, season = np.empty((n, SPEEDS)), np.empty(n), np.empty(n), np.empty((n, len(horizons)))
    fold(
        state, default_settings(bars.interval_ms), bars.time_ms, bars.interval_ms, bars.high, bars.low, bars.close,
        np.array(horizons, np.int64), speeds, floor, factor, season,
    )  # fmt: skip
    variance = mixed(speeds)
    variance[: bars_of(WARM_UP_HOURS, bars.interval_ms)] = np.nan
    log_return = np.diff(np.log(bars.close), prepend=np.log(bars.close[:1]))
    span = np.maximum(np.diff(bars.time_ms, prepend=bars.time_ms[0]) // bars.interval_ms, 1).astype(np.float64)
    return VarianceHistory(bars.interval_ms, horizons, variance, floor, season, factor, log_return, span, state)
