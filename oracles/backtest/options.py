"""Options of the backtest's books: calls of fixed moneynesses and tenors on one smile, priced as fractions of spot."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.compiling import compiled

FloatArray = npt.NDArray[np.float64]
MONEYNESS = np.array([-2, -1.5, -1, -0.67, -0.33, 0, 0.33, 0.67, 1, 1.5, 2])
TENORS_DAYS = np.array([4, 7, 14, 30, 60, 90])
LEVEL_MIN = 0.05
_HALF_ROOT = math.sqrt(0.5)


class Instruments(NamedTuple):
    """f64[I] each: standardised moneyness, time to expiry, and the level shock of its tenor for one of 30 days."""

    moneyness: FloatArray
    expiry: FloatArray
    term: FloatArray

    def strikes(self, level: float) -> FloatArray:
        """Strikes, f64[I]."""
        return np.exp(self.moneyness * level * np.sqrt(self.expiry))

    def values(self, level: float) -> FloatArray:
        """Values of the calls today, f64[I]."""
        listed = zip(self.strikes(level), self.expiry, self.moneyness)
        return np.array([call(1.0, strike, expiry, smile(level, x)) for strike, expiry, x in listed])


def instruments() -> Instruments:
    """Calls of every moneyness and tenor; puts are calls less forwards."""
    expiry = np.repeat(TENORS_DAYS / 365, len(MONEYNESS))
    days = np.maximum(expiry * 365, 3)
    term = (30 / days) ** np.where(expiry * 365 <= 30, 0.45, 0.70)
    return Instruments(np.tile(MONEYNESS, len(TENORS_DAYS)), expiry, term)


@compiled
def smile(level: float, moneyness: float) -> float:
    """Volatility at a standardised moneyness: level (1 - 0.1 x + 0.08 x²), flat beyond 2.5 deviations."""
    x = min(max(moneyness, -2.5), 2.5)
    return level * (1.0 - 0.1 * x + 0.08 * x * x)


@compiled
def call(forward: float, strike: float, expiry: float, volatility: float) -> float:
    """Undiscounted Black (1976) call."""
    total = volatility * math.sqrt(expiry)
    d = math.log(forward / strike) / total + 0.5 * total
    return 0.5 * (forward * math.erfc(-d * _HALF_ROOT) - strike * math.erfc((total - d) * _HALF_ROOT))


@compiled
def _revalue(level, moneyness, expiry, term, move, vol_move, elapsed, out):  # type: ignore[no-untyped-def]
    for i in range(len(expiry)):
        log_strike = moneyness[i] * level * math.sqrt(expiry[i])
        strike, left = math.exp(log_strike), expiry[i] - elapsed
        before = call(1.0, strike, expiry[i], smile(level, moneyness[i]))
        for s in range(len(move)):
            after = max(level * math.exp(vol_move[s] * term[i]), LEVEL_MIN)
            x = (log_strike - move[s]) / (after * math.sqrt(left))
            out[i, s] = call(math.exp(move[s]), strike, left, smile(after, x)) - before


def revalue(level: float, table: Instruments, move: FloatArray, vol_move: FloatArray, elapsed: float) -> FloatArray:
    """f64[I, S]: change of every call's value after log moves of spot and level [S] and ``elapsed`` years."""
    out = np.empty((len(table.expiry), len(move)))
    _revalue(level, table.moneyness, table.expiry, table.term, move, vol_move, elapsed, out)
    return out


@compiled
def _reprice(level, moneyness, expiry, multiplier, volatility, out):  # type: ignore[no-untyped-def]
    for i in range(len(expiry)):
        strike = math.exp(moneyness[i] * level * math.sqrt(expiry[i]))
        before = call(1.0, strike, expiry[i], smile(level, moneyness[i]))
        for row in range(len(multiplier)):
            out[i, row] = call(multiplier[row], strike, expiry[i], volatility[i, row]) - before


def reprice(level: float, table: Instruments, multiplier: FloatArray, volatility: FloatArray) -> FloatArray:
    """f64[I, rows]: change of every call's value at once at a spot ``multiplier`` [rows], ``volatility`` [I, rows]."""
    out = np.empty(volatility.shape)
    _reprice(level, table.moneyness, table.expiry, multiplier, volatility, out)
    return out


def put_values(calls: FloatArray, strikes: FloatArray) -> FloatArray:
    """Values of the puts beside calls, f64[I]: put = call - 1 + strike."""
    return calls - 1.0 + strikes
