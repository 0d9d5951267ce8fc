"""Walk-forward forecasts of value-at-risk and expected shortfall by every selectable model.

A forecast made at the end of a bar uses what was known then and nothing later. ``MODELS`` names the models; each is a
function (bars, horizon in bars, options) -> ``Forecasts``. Residuals of filtered models are overlapping returns over
the whole horizon divided by their own forecast: no square root of time is applied to quantiles.

Sources: Barone-Adesi, Giannopoulos, Vosper (1999) for filtered historical simulation; McNeil, Frey, Embrechts,
"Quantitative Risk Management", section 2.3.4 for the closed forms; Hansen (1994) for the skewed t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from kernels.rolling_tail import rolling_tails
from kernels.variance import ewma_path
from oracles.risk_model.bars import Bars
from oracles.risk_model.garch_model import GarchKind, GarchPath, walk_forward_garch
from oracles.risk_model.tails import normal_tail, skew_t_tails
from oracles.risk_model.variance_model import (
    EWMA_DECAY_A_DAY,
    SHORT_HORIZON_MS,
    YEAR_HOURS,
    bars_of,
    variance_history,
)

FloatArray = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

DEFAULT_MODEL = "multi-speed-stress"


@dataclass(frozen=True)
class WalkForward:
    """Options of a walk-forward run; lengths are in bars, the defaults mean hourly bars.

    ``levels`` are confidence levels (0.99 = a tail of 1 %); parametric models are refitted every ``refit_bars`` on the
    last ``fit_bars``, first after ``fit_bars_min``; ``residuals_min`` residuals must be known before a filtered
    historical forecast is made.
    """

    levels: tuple[float, ...] = (0.975, 0.99)
    refit_bars: int = 720
    fit_bars: int = 17_520
    fit_bars_min: int = 2_160
    residuals_min: int = 2_000

    @property
    def tails(self) -> FloatArray:
        """Tail probabilities."""
        return 1.0 - np.array(self.levels)


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Forecasts of one model for one asset, n of them in the order of time.

    ``time_ms`` int64[n]: when each was made (the end of the last bar used). ``realised`` float64[n]: the simple return
    over the horizon that followed. ``lower_var``, ``lower_es``, ``upper_var``, ``upper_es`` float64[n, levels]: losses
    of one long (lower) and one short (upper) unit as a fraction of the price, positive numbers.
    """

    model: str
    asset: str
    horizon_bars: int
    levels: tuple[float, ...]
    time_ms: Int64Array
    realised: FloatArray
    lower_var: FloatArray
    lower_es: FloatArray
    upper_var: FloatArray
    upper_es: FloatArray


Model = Callable[[Bars, int, WalkForward], Forecasts]


def realised_returns(bars: Bars, horizon: int) -> FloatArray:
    """Simple return over the next ``horizon`` bars from each bar's close, [n]; NaN at the end and over a gap."""
    out = np.full(bars.size, np.nan)
    if bars.size > horizon:
        whole = bars.time_ms[horizon:] - bars.time_ms[:-horizon] == horizon * bars.interval_ms
        moves = bars.close[horizon:] / bars.close[:-horizon] - 1.0
        out[:-horizon] = np.where(whole, moves, np.nan)
    return out


def _forecasts(name: str, bars: Bars, horizon: int, options: WalkForward, tails: FloatArray) -> Forecasts:
    """``tails`` [n,A,4]: (VaR, ES) of the low end and of the high end as returns; rows that are not whole fall out."""
    realised = realised_returns(bars, horizon)
    kept = np.isfinite(realised) & np.isfinite(tails).all(axis=(1, 2))
    kept &= (tails[:, :, :2] < 0.0).all(axis=(1, 2)) & (tails[:, :, 2:] > 0.0).all(axis=(1, 2))
    losses = tails[kept] * np.array([-1.0, -1.0, 1.0, 1.0])
    time_ms = bars.time_ms[kept] + bars.interval_ms
    return Forecasts(
        name, bars.asset, horizon, options.levels, time_ms, realised[kept],
        losses[:, :, 0], losses[:, :, 1], losses[:, :, 2], losses[:, :, 3],
    )  # fmt: skip


def residual_window(bars: Bars, horizon: int) -> int:
    """Bars of residuals: one year for short horizons, three from six hours on."""
    short = horizon * bars.interval_ms < SHORT_HORIZON_MS
    return bars_of(YEAR_HOURS * (1 if short else 3), bars.interval_ms)


def filtered_tails(bars: Bars, horizon: int, stddev: FloatArray, window: int, options: WalkForward) -> FloatArray:
    """Filtered historical simulation: tails [n,A,4] of the known residuals times the forecast ``stddev`` [n]."""
    residuals = realised_returns(bars, horizon) / np.where(stddev > 0.0, stddev, np.nan)
    tails = rolling_tails(residuals, horizon, window, options.residuals_min, options.tails)
    return tails * stddev[:, None, None]


def historical(bars: Bars, horizon: int, options: WalkForward) -> Forecasts:
    """Historical simulation of one year of overlapping returns."""
    window = bars_of(YEAR_HOURS, bars.interval_ms)
    tails = filtered_tails(bars, horizon, np.ones(bars.size), window, options)
    return _forecasts("historical", bars, horizon, options, tails)


def ewma(bars: Bars, horizon: int, options: WalkForward) -> Forecasts:
    """RiskMetrics: normal, variance of squared returns decaying by 0.94 a day, scaled by the length of the horizon."""
    moves = np.diff(np.log(bars.close), prepend=np.log(bars.close[:1]))
    variance = ewma_path(moves[1:] ** 2, EWMA_DECAY_A_DAY ** (1.0 / bars_of(24, bars.interval_ms)))
    stddev = np.sqrt(np.concatenate([[np.nan], variance]) * horizon)
    stddev[: bars_of(240, bars.interval_ms)] = np.nan
    unit = np.array([normal_tail(tail) for tail in options.tails])
    tails = stddev[:, None, None] * np.stack([-unit[:, 0], -unit[:, 1], unit[:, 0], unit[:, 1]], axis=1)
    return _forecasts("ewma", bars, horizon, options, tails)


@lru_cache(maxsize=2)
def _garch(bars: Bars, horizon: int, options: WalkForward, kind: GarchKind) -> tuple[GarchPath, FloatArray]:
    """-> (the refitted path, standard deviations over the horizon [n]); two models share that of GARCH-t."""
    history = variance_history(bars, (horizon,))
    path = walk_forward_garch(
        history.without_season(), kind, options.refit_bars, options.fit_bars, options.fit_bars_min
    )
    return path, np.sqrt(path.mean_variance(horizon) * history.season[:, 0])


def garch_parametric(name: str, kind: GarchKind, bars: Bars, horizon: int, options: WalkForward) -> Forecasts:
    """GARCH with the quantiles of its own density at every horizon."""
    path, stddev = _garch(bars, horizon, options, kind)
    tails = np.full((bars.size, len(options.levels), 4), np.nan)
    for start, stop, theta in path.segments():
        unit = np.array([skew_t_tails(theta.degrees, theta.skew, tail) for tail in options.tails])
        tails[start:stop] = stddev[start:stop, None, None] * unit
    return _forecasts(name, bars, horizon, options, tails)


def garch_fhs(bars: Bars, horizon: int, options: WalkForward) -> Forecasts:
    """Residuals of GARCH-t instead of its density."""
    _, stddev = _garch(bars, horizon, options, GarchKind.T)
    tails = filtered_tails(bars, horizon, stddev, residual_window(bars, horizon), options)
    return _forecasts("garch-fhs", bars, horizon, options, tails)


def multi_speed(bars: Bars, horizon: int, options: WalkForward) -> Forecasts:
    """Multi-speed EWMA without the stress floor; one year of residuals below six hours, else three."""
    stddev = variance_history(bars, (horizon,)).stddev(horizon, stress=False)
    tails = filtered_tails(bars, horizon, stddev, residual_window(bars, horizon), options)
    return _forecasts("multi-speed", bars, horizon, options, tails)


def multi_speed_stress(bars: Bars, horizon: int, options: WalkForward) -> Forecasts:
    """The default: multi-speed EWMA with the stress floor, three years of residuals."""
    stddev = variance_history(bars, (horizon,)).stddev(horizon, stress=True)
    tails = filtered_tails(bars, horizon, stddev, bars_of(3 * YEAR_HOURS, bars.interval_ms), options)
    return _forecasts("multi-speed-stress", bars, horizon, options, tails)


MODELS: dict[str, Model] = {
    "historical": historical,
    "ewma": ewma,
    "garch-t": partial(garch_parametric, "garch-t", GarchKind.T),
    "gjr-skew-t": partial(garch_parametric, "gjr-skew-t", GarchKind.GJR_SKEW_T),
    "garch-fhs": garch_fhs,
    "multi-speed": multi_speed,
    "multi-speed-stress": multi_speed_stress,
}
"""Every selectable model by name."""
