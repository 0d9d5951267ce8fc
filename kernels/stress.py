"""P&L per lot of the stress rows, by full repricing at today's time to expiry.

A row multiplies every spot (and with it every forward) of its scope, multiplies volatilities and shifts discount rates:

    F_r = F * m_r,   k_r = ln(K / F_r),   v_r = sqrt(w(k_r)) * n_r * (1 + skew_r * k_r),
    price_r = exp(-(rate + d_r) * T) * Black76(F_r, K, v_r)

(under Merton's model v_r is the diffusion's and the jumps stay)
and counts with a weight of its own. The whole set is one row table that the parameter document carries; the kernel
takes arrays and knows no default.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.compiling import compiled
from kernels.layout import (
    CALL,
    NANO,
    PERPETUAL,
    SPOT,
    FloatArray,
    InstrumentTable,
    Int64Array,
    MarketTable,
)
from kernels.normal import exponential, logarithm
from kernels.option_rows import out_of_the_money_row
from kernels.reprice import price_now

_VALUE_LIMIT = 2.0**61


class StressShocks(NamedTuple):
    """Stress rows of the parameter document as arrays: ``spot_multiplier`` f64[R,U], the other columns [R]."""

    spot_multiplier: FloatArray
    vol_multiplier: FloatArray
    rate_shift: FloatArray
    weight_e6: Int64Array
    skew: FloatArray
    funding: FloatArray


@compiled
def _stressed_prices(  # type: ignore[no-untyped-def]
    instruments, market, i, multiplier, log_multiplier, vol_multiplier, rate_shift, skew, moved
) -> None:
    """Discounted prices of option i under every row; ``multiplier`` [R] of its underlying."""
    u, e = instruments.underlying[i], instruments.expiry[i]
    strike, years, is_call = instruments.strike[i], market.years[e], instruments.kind[i] == CALL
    forward = market.forward[e] * multiplier
    value = np.zeros(moved.shape[0])
    if years > 0.0:
        out_of_the_money_row(
            market.forward[e], strike, market.svi[e], years, market, u, log_multiplier, forward, vol_multiplier,
            skew, np.zeros(moved.shape[0]), value,
        )  # fmt: skip
    for r in range(moved.shape[0]):
        difference = forward[r] - strike if is_call else strike - forward[r]
        intrinsic = 0.0 if difference < 0.0 else difference
        moved[r] = exponential(-(market.rate[e] + rate_shift[r]) * years) * (intrinsic + value[r])


@compiled
def _fill_stress(  # type: ignore[no-untyped-def]
    instruments, market, price, multiplier, vol_multiplier, rate_shift, skew, funding, out
) -> int:
    """``multiplier`` [U,R]."""
    log_multiplier = np.empty(multiplier.shape)
    for u in range(multiplier.shape[0]):
        for r in range(multiplier.shape[1]):
            log_multiplier[u, r] = logarithm(multiplier[u, r])
    invalid, moved = 0, np.empty(out.shape[1])
    for i in range(out.shape[0]):
        out[i, :] = 0
        if not instruments.alive[i]:
            continue
        kind, u = instruments.kind[i], instruments.underlying[i]
        scale = instruments.lot_size[i] * float(NANO) * (instruments.factor[i] if kind == SPOT else 1.0)
        if kind >= CALL:
            _stressed_prices(
                instruments, market, i, multiplier[u], log_multiplier[u], vol_multiplier, rate_shift, skew, moved
            )
        else:
            for r in range(moved.shape[0]):
                moved[r] = price[i] * multiplier[u, r]
                moved[r] -= price[i] * funding[r] if kind == PERPETUAL else 0.0
        for r in range(out.shape[1]):
            pnl = np.rint((moved[r] - price[i]) * scale)
            if abs(pnl) < _VALUE_LIMIT:
                out[i, r] = np.int64(pnl)
            else:
                invalid += 1
    return invalid


@compiled
def weighted_products(multiplier, weight):  # type: ignore[no-untyped-def]
    """prod_k multiplier[r, k] ** weight[k], float64[R]: how the share of a pool moves with its coins, exact bits.

    ``multiplier`` f64[R,K] > 0, ``weight`` f64[K]; a single coin of weight 1 moves as it does itself, exactly.
    """
    if weight.shape[0] == 1 and weight[0] == 1.0:
        return multiplier[:, 0].copy()
    out = np.empty(multiplier.shape[0])
    for r in range(multiplier.shape[0]):
        total = 0.0
        for k in range(weight.shape[0]):
            total += weight[k] * logarithm(multiplier[r, k])
        out[r] = exponential(total)
    return out


def stress_table(
    instruments: InstrumentTable,
    market: MarketTable,
    spot_multiplier: FloatArray,
    vol_multiplier: FloatArray,
    rate_shift: FloatArray,
    skew: FloatArray | None = None,
    funding: FloatArray | None = None,
) -> Int64Array:
    """Stress P&L per lot, int64[I,R] nano-USD, rounded half to even; SPOT rows with their collateral factor.

    Args:
        spot_multiplier: f64[R,U] > 0, ``vol_multiplier`` f64[R] > 0, ``rate_shift`` f64[R] absolute.
        skew: f64[R], relative volatility change per unit of log-moneyness as in the scenarios; none without.
        funding: f64[R], share of a perpetual's notional that who is long pays; none without.

    Raises:
        ValueError: an entry is not finite or reaches 2**61 nano-USD a lot (the market table is unusable).
    """
    out = np.empty((instruments.kind.shape[0], vol_multiplier.shape[0]), np.int64)
    price = price_now(instruments, market)
    multiplier = np.ascontiguousarray(spot_multiplier.T)
    invalid = _fill_stress(
        instruments, market, price, multiplier, vol_multiplier, rate_shift,
        np.zeros(len(vol_multiplier)) if skew is None else skew,
        np.zeros(len(vol_multiplier)) if funding is None else funding, out,
    )  # fmt: skip
    if invalid:
        raise ValueError(f"{invalid} stress values are not finite or out of range")
    return out
