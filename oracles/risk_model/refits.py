"""GARCH in the stream: a pure fit from returns to integers, and what a recorded fit says of the variances since.

A fit is a pure function of the returns that it names, in loops of one order, so that a lost one is simply made again
and gives the same integers. It is too slow for a bar: whoever runs the stream makes it beside the stream, records the
integers, and every reader of the record filters with them (``variance_since``). Nobody needs to fit to follow.

Returns are those of ``VarianceHistory.without_season``; the mean is zero, the pre-sample variance their mean square.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.compiling import compiled
from kernels.garch import ALPHA, BETA, GAMMA, OMEGA, PARAMETERS, fit, mean_square, variance_path
from oracles.risk_model.garch_model import GarchKind

FloatArray = npt.NDArray[np.float64]

MULTI_SPEED, EWMA, HISTORICAL = "multi-speed", "ewma", "historical"
GARCH_KINDS = {"garch-t": GarchKind.T, "gjr-skew-t": GarchKind.GJR_SKEW_T}
VARIANCE_MODELS = (MULTI_SPEED, EWMA, HISTORICAL, *GARCH_KINDS)
E18, E12 = 10**18, 10**12
OMEGA_MAX_E18 = 2**62 - 1


class GarchParameters(NamedTuple):
    """A fit as it is recorded: h' = omega + (alpha + gamma [e < 0]) e**2 + beta h, per bar and without season."""

    omega_e18: int
    alpha_e12: int
    gamma_e12: int
    beta_e12: int

    def theta(self) -> FloatArray:
        """In the order of ``kernels.garch``."""
        out = np.zeros(PARAMETERS)
        out[OMEGA] = self.omega_e18 / E18
        out[ALPHA], out[GAMMA], out[BETA] = self.alpha_e12 / E12, self.gamma_e12 / E12, self.beta_e12 / E12
        return out


class FitRequest(NamedTuple):
    """A fit that is due: of ``returns`` [T], the last of which is that of the bar that starts at ``time_ms``."""

    underlying: str
    kind: str
    time_ms: int
    returns: FloatArray


def has_variance(returns: FloatArray) -> bool:
    """Can anything be fitted to them?"""
    return returns.size > 0 and mean_square(returns, 0.0) > 0.0


def fitted(request: FitRequest) -> GarchParameters:
    """Maximum likelihood, rounded; omega within 1e-18 (no variance becomes zero) and 4.6."""
    kind = GARCH_KINDS[request.kind]
    theta, _, _ = fit(request.returns, kind.value[0], False, kind.value[1])
    alpha, gamma, beta = (round(float(theta[k]) * E12) for k in (ALPHA, GAMMA, BETA))
    omega = min(max(round(float(theta[OMEGA]) * E18), 1), OMEGA_MAX_E18)
    return GarchParameters(omega, alpha, gamma, beta)


def variance_since(parameters: GarchParameters, returns: FloatArray, fitted_returns: int) -> float:
    """One-bar forecast after ``returns`` [n], the first ``fitted_returns`` of which the fit has seen."""
    start = mean_square(returns[:fitted_returns], 0.0)
    return float(variance_path(returns, parameters.theta(), start)[-1])


@compiled
def mean_forecast(variance: float, omega: float, persistence: float, horizon: int) -> float:
    """Mean of the forecasts for the next ``horizon`` bars, of which the first is ``variance``."""
    total, h = 0.0, variance
    for _ in range(horizon):
        total += h
        h = omega + persistence * h
    return total / horizon
