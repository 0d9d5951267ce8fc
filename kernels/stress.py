"""Stress rows as data, and their P&L per lot by full repricing at today's time to expiry.

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
    BoolArray,
    FloatArray,
    InstrumentTable,
    Int64Array,
    MarketTable,
)
from kernels.normal import exponential, logarithm
from kernels.reprice import price_now
from kernels.svi import total_variance

SCOPE_ALL = "all"
"""Every underlying but the stablecoins: a market crash is not a depeg, which has rows of its own."""
SCOPE_STABLE = "stable"
"""The stablecoins only."""

_VALUE_LIMIT = 2.0**61


class StressRow(NamedTuple):
    """One stress scenario with its weight and reason; moves in 1e-6 (-350_000 = -35 %)."""

    name: str
    reason: str
    weight_e6: int
    spot_move_e6: int
    vol_move_e6: int
    rate_shift_e6: int
    scope: str = SCOPE_ALL


def default_stress_rows() -> tuple[StressRow, ...]:
    """81 grid rows (spot x volatility x rate, weight 0.25) and four extremes (weight 0.15).

    The adverse rate of a book is the worse of +100 and -100 basis points, so both are rows.
    """
    grid = tuple(
        StressRow(
            name=f"spot {spot:+d} %, vol {vol:+d} %, rate {rate:+d} bp",
            reason="standard grid: one-day moves of spot, volatility and rate together",
            weight_e6=250_000,
            spot_move_e6=spot * 10_000,
            vol_move_e6=vol * 10_000,
            rate_shift_e6=rate * 100,
        )
        for spot in range(-20, 21, 5)
        for vol in (-25, 0, 45)
        for rate in (0, 100, -100)
    )
    return grid + _extreme_rows()


def _extreme_rows() -> tuple[StressRow, ...]:
    return (
        StressRow("spot -40 %, vol +45 %", "deep out-of-the-money short puts", 150_000, -400_000, 450_000, 0),
        StressRow("spot +40 %, vol +45 %", "deep out-of-the-money short calls", 150_000, 400_000, 450_000, 0),
        StressRow("all underlyings -35 %, vol +80 %", "all correlations one, as in March 2020", 150_000,
                  -350_000, 800_000, 0),
        StressRow("stablecoins -10 %", "loss of the peg, as USDC in March 2023", 150_000, -100_000, 0, 0, SCOPE_STABLE),
    )  # fmt: skip


class StressShocks(NamedTuple):
    """Stress rows as arrays: ``spot_multiplier`` f64[R,U], the other columns [R]."""

    spot_multiplier: FloatArray
    vol_multiplier: FloatArray
    rate_shift: FloatArray
    weight_e6: Int64Array


def stress_shocks(rows: tuple[StressRow, ...], is_stablecoin: BoolArray) -> StressShocks:
    """Turn rows into arrays for underlyings whose stablecoins are marked in ``is_stablecoin`` bool[U].

    Raises:
        ValueError: unknown scope, weight outside 0..1, or a move of spot or volatility of -100 % or below.
    """
    spot_multiplier = np.ones((len(rows), is_stablecoin.shape[0]))
    for r, row in enumerate(rows):
        if row.scope not in (SCOPE_ALL, SCOPE_STABLE):
            raise ValueError(f"stress row {row.name!r}: unknown scope {row.scope!r}")
        if not 0 <= row.weight_e6 <= 1_000_000 or min(row.spot_move_e6, row.vol_move_e6) <= -1_000_000:
            raise ValueError(f"stress row {row.name!r}: weight or move out of range")
        in_scope = is_stablecoin if row.scope == SCOPE_STABLE else ~is_stablecoin
        spot_multiplier[r, in_scope] = (1_000_000 + row.spot_move_e6) / 1e6
    return StressShocks(
        spot_multiplier,
        np.array([(1_000_000 + row.vol_move_e6) / 1e6 for row in rows]),
        np.array([row.rate_shift_e6 / 1e6 for row in rows]),
        np.array([row.weight_e6 for row in rows], np.int64),
    )


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
