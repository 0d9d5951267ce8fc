"""P&L per lot of the stress rows, by full repricing at today's time to expiry.

A row multiplies every spot (and with it every forward) of its scope, multiplies volatilities and shifts discount rates:

    F_r = F * m_r,   v_r = sqrt(w(ln(K / F_r))) * n_r,   price_r = exp(-(rate + d_r) * T) * Black76(F_r, K, v_r)

and counts with a weight of its own. The whole set is one row table that the parameter document carries; the kernel
takes arrays and knows no default.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from kernels.black76 import undiscounted_price
from kernels.layout import (
    CALL,
    NANO,
    SPOT,
    FloatArray,
    InstrumentTable,
    Int64Array,
    MarketTable,
)
from kernels.normal import exponential, logarithm
from kernels.reprice import price_now
from kernels.svi import total_variance

_VALUE_LIMIT = 2.0**61


class StressShocks(NamedTuple):
    """Stress rows of the parameter document as arrays: ``spot_multiplier`` f64[R,U], the other columns [R]."""

    spot_multiplier: FloatArray
    vol_multiplier: FloatArray
    rate_shift: FloatArray
    weight_e6: Int64Array


@njit(cache=True, nogil=True, error_model="numpy")
def _stressed_option(  # type: ignore[no-untyped-def]
    forward, strike, is_call, svi, years, rate, spot_multiplier, vol_multiplier
):
    """Discounted price of one option under one row."""
    log_forward_over_strike = logarithm(forward / strike) + logarithm(spot_multiplier)
    w = total_variance(svi[0], svi[1], svi[2], svi[3], svi[4], -log_forward_over_strike)
    stddev = np.sqrt(w) * vol_multiplier if years > 0.0 else 0.0
    value = undiscounted_price(forward * spot_multiplier, strike, log_forward_over_strike, stddev, is_call)
    return exponential(-rate * years) * value


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_stress(  # type: ignore[no-untyped-def]
    instruments, market, price, spot_multiplier, vol_multiplier, rate_shift, out
) -> int:
    invalid = 0
    for i in range(out.shape[0]):
        out[i, :] = 0
        if not instruments.alive[i]:
            continue
        kind, u, e = instruments.kind[i], instruments.underlying[i], instruments.expiry[i]
        scale = instruments.lot_size[i] * float(NANO) * (instruments.factor[i] if kind == SPOT else 1.0)
        for r in range(out.shape[1]):
            moved = price[i] * spot_multiplier[r, u]
            if kind >= CALL:
                moved = _stressed_option(
                    market.forward[e], instruments.strike[i], kind == CALL, market.svi[e], market.years[e],
                    market.rate[e] + rate_shift[r], spot_multiplier[r, u], vol_multiplier[r],
                )  # fmt: skip
            pnl = np.rint((moved - price[i]) * scale)
            if abs(pnl) < _VALUE_LIMIT:
                out[i, r] = np.int64(pnl)
            else:
                invalid += 1
    return invalid


def stress_table(
    instruments: InstrumentTable,
    market: MarketTable,
    spot_multiplier: FloatArray,
    vol_multiplier: FloatArray,
    rate_shift: FloatArray,
) -> Int64Array:
    """Stress P&L per lot, int64[I,R] nano-USD, rounded half to even; SPOT rows with their collateral factor.

    Args:
        spot_multiplier: f64[R,U] > 0, ``vol_multiplier`` f64[R] > 0, ``rate_shift`` f64[R] absolute.

    Raises:
        ValueError: an entry is not finite or reaches 2**61 nano-USD a lot (the market table is unusable).
    """
    out = np.empty((instruments.kind.shape[0], vol_multiplier.shape[0]), np.int64)
    price = price_now(instruments, market)
    invalid = _fill_stress(instruments, market, price, spot_multiplier, vol_multiplier, rate_shift, out)
    if invalid:
        raise ValueError(f"{invalid} stress values are not finite or out of range")
    return out
