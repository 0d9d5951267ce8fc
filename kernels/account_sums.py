"""Exact integer sums over the legs of accounts: marks, notional, short options, Greeks.

Sums wrap in int64 and are exact while the true value fits; each kernel therefore keeps the float magnitude of its sums
beside them, so that the caller can send an account out of range to the wide path instead of trusting a wrapped number.
"""

from __future__ import annotations

import numpy as np

from kernels.compiling import compiled
from kernels.layout import FloatArray, Int32Array, Int64Array


@compiled
def portfolio_sums(
    account_ptr: Int64Array,
    leg_instrument: Int32Array,
    leg_lots: Int64Array,
    columns_usd9: Int64Array,
    option_expiry: Int32Array,
    expiries: int,
    out_usd9: Int64Array,
    out_magnitude: FloatArray,
) -> None:
    """Per account: equity marks, haircut marks, gross notional, short-option notional.

    columns_usd9 int64[3,I] per lot: mark, mark after the collateral factor, notional (0 for collateral coins).
    option_expiry int32[I]: expiry of an option, -1 for anything else. out_usd9 int64[A,4]: sum lots*mark,
    sum lots*haircut mark (debts: mark), sum |lots|*notional,
    sum over expiries of max(0, -net option notional).
    out_magnitude f64[A]: sum |lots| * the largest column, an upper bound of every partial sum.
    """
    net = np.zeros(expiries + 1, np.int64)  # at 0 what is no option, which nobody asks for
    for account in range(account_ptr.shape[0] - 1):
        begin, end = account_ptr[account], account_ptr[account + 1]
        equity, haircut, gross, short = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        magnitude = 0.0
        for leg in range(begin, end):
            i, lots = leg_instrument[leg], leg_lots[leg]
            mark, notional = columns_usd9[0, i], columns_usd9[2, i]
            held = max(lots, np.int64(0))
            equity += lots * mark
            haircut += held * columns_usd9[1, i] + (lots - held) * mark  # a debt has no haircut
            gross += abs(lots) * notional
            magnitude += abs(np.float64(lots)) * np.float64(max(abs(mark), notional))
            net[option_expiry[i] + 1] += lots * notional
        if expiries <= end - begin:
            for expiry in range(1, expiries + 1):
                short += max(np.int64(0), -net[expiry])
                net[expiry] = 0
        else:
            for leg in range(begin, end):
                expiry = option_expiry[leg_instrument[leg]] + 1
                short += max(np.int64(0), -net[expiry]) if expiry > 0 else np.int64(0)
                net[expiry] = 0
        out_usd9[account, 0], out_usd9[account, 1] = equity, haircut
        out_usd9[account, 2], out_usd9[account, 3] = gross, short
        out_magnitude[account] = magnitude


@compiled
def greeks_by_pair(
    pair_of_leg: Int64Array, leg_instrument: Int32Array, leg_lots: Int64Array, greeks_usd9: Int64Array, out: Int64Array
) -> None:
    """out int64[N,4] += lots * greeks_usd9 int64[I,4], summed by pair (account, underlying) of each leg."""
    for leg in range(leg_lots.shape[0]):
        for column in range(4):
            out[pair_of_leg[leg], column] += leg_lots[leg] * greeks_usd9[leg_instrument[leg], column]
