"""Exact integer sums over the legs of accounts: marks, notional, short options, Greeks; and how legs changed.

Sums wrap in int64 and are exact while the true value fits; each kernel therefore keeps the float magnitude of its sums
beside them, so that the caller can send an account out of range to the wide path instead of trusting a wrapped number.
"""

from __future__ import annotations

import numpy as np

from kernels.compiling import compiled
from kernels.layout import FloatArray, Int32Array, Int64Array
from kernels.open_book import INSTRUMENT_BITS, INSTRUMENT_MASK


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
def greeks_of_legs(
    keys: Int64Array, lots: Int64Array, underlying: Int32Array, greeks_usd9: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """(pair keys int64[P] ascending, int64[P,4] sum of lots x Greeks of one lot) of packed legs int64[L].

    underlying int32[I] and greeks_usd9 int64[I,4] by instrument; keys as in kernels.open_book.
    """
    pairs, out = np.empty(keys.shape[0], np.int64), np.empty((keys.shape[0], 4), np.int64)
    begin = count = 0
    for leg in range(keys.shape[0]):
        index, row = keys[leg] & INSTRUMENT_MASK, keys[leg] >> INSTRUMENT_BITS
        key = row << INSTRUMENT_BITS | np.int64(underlying[index])
        if leg > 0 and keys[leg - 1] >> INSTRUMENT_BITS != row:
            begin = count
        at = count
        while at > begin and pairs[at - 1] >= key:
            at -= 1
        if at == count or pairs[at] != key:
            for n in range(count, at, -1):
                pairs[n], out[n] = pairs[n - 1], out[n - 1]
            pairs[at], out[at] = key, 0
            count += 1
        for column in range(4):
            out[at, column] += lots[leg] * greeks_usd9[index, column]
    return pairs[:count].copy(), out[:count].copy()


@compiled
def leg_changes(
    old_keys: Int64Array, old_lots: Int64Array, old_entry_usd6: Int64Array,
    keys: Int64Array, lots: Int64Array, entry_usd6: Int64Array,
) -> tuple[Int64Array, Int64Array]:  # fmt: skip
    """What leads from packed legs back to older ones: (places in `keys` of those that go, in `old_keys` of those that
    come or are other ones), int64 each."""
    gone, other = np.empty(keys.shape[0], np.int64), np.empty(old_keys.shape[0], np.int64)
    at = goes = comes = 0
    for old in range(old_keys.shape[0]):
        while at < keys.shape[0] and keys[at] < old_keys[old]:
            gone[goes], goes, at = at, goes + 1, at + 1
        is_there = at < keys.shape[0] and keys[at] == old_keys[old]
        if not is_there or lots[at] != old_lots[old] or entry_usd6[at] != old_entry_usd6[old]:
            other[comes], comes = old, comes + 1
        at += 1 if is_there else 0
    while at < keys.shape[0]:
        gone[goes], goes, at = at, goes + 1, at + 1
    return gone[:goes].copy(), other[:comes].copy()
