"""GARCH models walked forward: refitted at fixed distances on the past, filtered in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.garch import ALPHA, BETA, DEGREES, GAMMA, KIND_SKEW_T, KIND_T, OMEGA, SKEW, fit, mean_square, variance_path

FloatArray = npt.NDArray[np.float64]


class GarchKind(Enum):
    """(density, asymmetry)."""

    T = (KIND_T, False)
    GJR_SKEW_T = (KIND_SKEW_T, True)


class Fitted(NamedTuple):
    """The parameters that a forecast needs."""

    omega: float
    persistence: float
    degrees: float
    skew: float


@dataclass(frozen=True, eq=False)
class GarchPath:
    """``variance`` [n]: one-bar forecast after each bar, NaN before the first fit; ``starts``: the bars of the fits."""

    variance: FloatArray
    starts: tuple[int, ...]
    fits: tuple[Fitted, ...]

    def segments(self) -> Iterator[tuple[int, int, Fitted]]:
        """(first bar, end, parameters) of each fit's forecasts."""
        for k, (start, theta) in enumerate(zip(self.starts, self.fits, strict=True)):
            yield start, self.starts[k + 1] if k + 1 < len(self.starts) else self.variance.size, theta

    def mean_variance(self, horizon: int) -> FloatArray:
        """Mean of the forecasts for the next ``horizon`` bars, [n]: they revert to the long-run variance."""
        out = np.full(self.variance.size, np.nan)
        for start, stop, theta in self.segments():
            long_run = theta.omega / (1.0 - theta.persistence)
            share = (1.0 - theta.persistence**horizon) / (horizon * (1.0 - theta.persistence))
            out[start:stop] = long_run + share * (self.variance[start:stop] - long_run)
        return out


def walk_forward_garch(x: FloatArray, kind: GarchKind, refit: int, window: int, least: int) -> GarchPath:
    """Fit to the last ``window`` of ``x`` [n] every ``refit`` bars, first when ``least`` are known; no mean.

    The first value of ``x`` has no return and is never used. A stretch without any variance keeps the fit before it.
    """
    variance = np.full(x.size, np.nan)
    starts: list[int] = []
    fits: list[Fitted] = []
    for start in range(least, x.size, refit):
        past = x[max(1, start + 1 - window) : start + 1]
        if mean_square(past, 0.0) <= 0.0:
            continue
        theta, _, _ = fit(past, kind.value[0], False, kind.value[1])
        stop = min(start + refit, x.size)
        path = variance_path(x[start + 1 - past.size : stop], theta, mean_square(past, 0.0))
        variance[start:stop] = path[past.size - 1 :]
        starts.append(start)
        persistence = float(theta[ALPHA] + 0.5 * theta[GAMMA] + theta[BETA])
        fits.append(Fitted(float(theta[OMEGA]), persistence, float(theta[DEGREES]), float(theta[SKEW])))
    return GarchPath(variance, tuple(starts), tuple(fits))
