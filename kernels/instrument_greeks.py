"""Greeks of one lot of every instrument as integers, so that per-account sums are exact in any order.

Per lot, nano-USD: delta per +100 % relative move of the underlying (forward * dV/dF), gamma the second derivative of
the same kind (forward**2 * d2V/dF2), vega per +1.00 of volatility, theta per passing day, rho per +1.00 of rate. They
use the model of the underlying, hold volatility fixed (under Merton's model the diffusion's, and the jumps) and serve
the estimate between barriers and the reports; no margin is computed from them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.black76 import greeks as black76_greeks
from kernels.compiling import compiled
from kernels.layout import CALL, NANO, SPOT, FloatArray, InstrumentTable, Int64Array, MarketTable
from kernels.merton import greeks as merton_greeks
from kernels.normal import logarithm
from kernels.option_rows import has_jumps
from kernels.reprice import price_now
from kernels.svi import total_variance

DAYS_PER_YEAR = 365.0
SATURATION_USD9 = 2**61
"""Largest magnitude of an entry: an option at the money at the instant of expiry has an unbounded gamma."""


class InstrumentGreeks(NamedTuple):
    """int64[I] (or one entry per requested row), nano-USD per lot."""

    delta_usd9: Int64Array
    gamma_usd9: Int64Array
    vega_usd9: Int64Array
    theta_usd9: Int64Array
    rho_usd9: Int64Array


@compiled
def _option_greeks(instruments, market, i):  # type: ignore[no-untyped-def]
    """(delta, gamma, vega, theta, rho) per unit of underlying, in the units of the module."""
    e, strike, is_call = instruments.expiry[i], instruments.strike[i], instruments.kind[i] == CALL
    forward, years, svi = market.forward[e], market.years[e], market.svi[e]
    if years <= 0.0:
        exercised = forward > strike if is_call else forward < strike
        sign = 1.0 if is_call else -1.0
        return sign * forward if exercised else 0.0, 0.0, 0.0, 0.0, 0.0
    w = total_variance(svi[0], svi[1], svi[2], svi[3], svi[4], -logarithm(forward / strike))
    vol, rate, u = np.sqrt(w / years), market.rate[e], instruments.underlying[i]
    if has_jumps(market, u):
        intensity, mean, deviation = market.jumps[u]
        found = merton_greeks(forward, strike, vol, years, rate, is_call, intensity, mean, deviation)
    else:
        found = black76_greeks(forward, strike, vol, years, rate, is_call)
    _, delta, gamma, vega, theta, rho = found
    return forward * delta, forward * forward * gamma, vega, theta / DAYS_PER_YEAR, rho


@compiled
def _fill_greeks(instruments, market, rows, price, out) -> None:  # type: ignore[no-untyped-def]
    for j in range(rows.shape[0]):
        i = rows[j]
        out[:, j] = 0.0
        if not instruments.alive[i]:
            continue
        scale = instruments.lot_size[i] * float(NANO)
        if instruments.kind[i] < CALL:
            out[0, j] = price[i] * (scale * instruments.factor[i] if instruments.kind[i] == SPOT else scale)
            continue
        delta, gamma, vega, theta, rho = _option_greeks(instruments, market, i)
        out[0, j], out[1, j], out[2, j] = delta * scale, gamma * scale, vega * scale
        out[3, j], out[4, j] = theta * scale, rho * scale


def instrument_greeks(
    instruments: InstrumentTable, market: MarketTable, rows: Int64Array | None = None
) -> InstrumentGreeks:
    """Greeks of one lot, rounded half to even; one entry for each of ``rows`` (all by default), zero for dead ones.

    SPOT rows carry their collateral factor. Entries saturate at +-SATURATION_USD9.

    Raises:
        ValueError: a Greek is not a number (the market table is unusable).
    """
    chosen = np.arange(instruments.kind.shape[0], dtype=np.int64) if rows is None else rows
    values = np.empty((5, chosen.shape[0]))
    _fill_greeks(instruments, market, chosen, price_now(instruments, market), values)
    if np.isnan(values).any():
        raise ValueError("Greeks of rows with an unusable market")
    return InstrumentGreeks(*_saturated(values))


def _saturated(values: FloatArray) -> Int64Array:
    limit = float(SATURATION_USD9)
    rounded: Int64Array = np.rint(np.clip(values, -limit, limit)).astype(np.int64)
    return rounded
