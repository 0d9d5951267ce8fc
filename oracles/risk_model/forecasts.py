"""Walk-forward forecasts of value-at-risk and expected shortfall by every selectable model.

A forecast made at the end of a bar uses what was known then and nothing later. ``MODELS`` names the models;
each is a function (bars, horizon in bars, options) -> ``Forecasts``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oracles.risk_model.bars import Bars

FloatArray = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

DEFAULT_MODEL = "multi-speed-stress"
MODEL_NAMES = ("historical", "ewma", "garch-t", "gjr-skew-t", "garch-fhs", "multi-speed", "multi-speed-stress")


@dataclass(frozen=True)
class WalkForward:
    """Options of a walk-forward run; lengths are in bars, the defaults mean hourly bars.

    ``levels`` are confidence levels (0.99 = a tail of 1 %); parametric models are refitted every ``refit_bars`` on the
    last ``fit_bars``; ``residuals_min`` residuals must be known before a filtered historical forecast is made.
    """

    levels: tuple[float, ...] = (0.975, 0.99)
    refit_bars: int = 720
    fit_bars: int = 17_520
    residuals_min: int = 2_000


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

MODELS: dict[str, Model] = {}
"""By name (``MODEL_NAMES``); the functions follow in the next commit."""
