"""The last returns of every asset, without season: what GARCH is fitted to, and the plain averages beside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.garch import ALPHA, BETA, GAMMA, OMEGA, mean_square, variance_path
from kernels.variance import smoothed
from oracles.risk_model.refits import GarchParameters, mean_forecast, variance_since

FloatArray = npt.NDArray[np.float64]
_FITTED = 5  # omega, alpha, gamma, beta, the next bar's variance


class ReturnHistory(NamedTuple):
    """``ring`` [R] of returns per bar without season; ``seen`` int64[1], their number so far; ``ewma`` [1] of their
    squares; ``garch`` [5]: the parameters in force and the forecast for the next bar, zeros before the first fit."""

    ring: FloatArray
    seen: npt.NDArray[np.int64]
    ewma: FloatArray
    garch: FloatArray

    @staticmethod
    def empty(returns: int) -> ReturnHistory:
        """Before the first return; at most ``returns`` are kept."""
        return ReturnHistory(np.zeros(returns), np.zeros(1, np.int64), np.zeros(1), np.zeros(_FITTED))

    def of_size(self, returns: int) -> ReturnHistory:
        """The same with room for another number of returns."""
        if returns == self.ring.size:
            return self
        made = ReturnHistory(np.zeros(returns), self.seen, self.ewma, self.garch)
        kept = self.last(min(returns, self.ring.size))
        first = int(self.seen[0]) - kept.size
        made.ring[(first + np.arange(kept.size)) % returns] = kept
        return made

    def add(self, value: float, decay: float) -> None:
        """One more return; averages and the filter move with it."""
        self.ring[int(self.seen[0]) % self.ring.size] = value
        self.seen[0] += 1
        self.ewma[0] = smoothed(float(self.ewma[0]), value * value, decay, int(self.seen[0]))
        if self.garch[0] > 0.0:
            self.garch[4] = variance_path(np.array([value]), self._theta(), float(self.garch[4]))[0]

    def last(self, number: int, until: int | None = None) -> FloatArray:
        """At most ``number`` returns, oldest first, up to the ``until``-th ever (default: the newest)."""
        end = int(self.seen[0]) if until is None else until
        begin = max(end - number, int(self.seen[0]) - self.ring.size, 0)
        return self.ring[np.arange(begin, end) % self.ring.size]

    def take(self, parameters: GarchParameters, number: int, until: int) -> None:
        """A fit to ``last(number, until)`` is in force from now on: filter all returns since with it."""
        fitted = self.last(number, until)
        since = self.last(fitted.size + int(self.seen[0]) - until)
        theta = parameters.theta()
        self.garch[:4] = theta[OMEGA], theta[ALPHA], theta[GAMMA], theta[BETA]
        self.garch[4] = variance_since(parameters, since, fitted.size)

    def forget_fit(self) -> None:
        """Until the next fit there is none."""
        self.garch[:] = 0.0

    def historical(self, year_bars: int) -> float:
        """Mean square of a year's returns."""
        kept = self.last(year_bars)
        return float(mean_square(kept, 0.0)) if kept.size else 0.0

    def garch_variance(self, horizon: int) -> float:
        """Mean variance per bar over the horizon, which reverts to the long run's; 0 before the first fit."""
        omega, alpha, gamma, beta, variance = (float(value) for value in self.garch)
        return mean_forecast(variance, omega, alpha + 0.5 * gamma + beta, horizon) if omega > 0.0 else 0.0

    def _theta(self) -> FloatArray:
        theta = np.zeros(7)
        theta[[OMEGA, ALPHA, GAMMA, BETA]] = self.garch[:4]
        return theta
