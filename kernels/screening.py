"""A certified upper bound of an account's terms from the changes of P&L tables and lots alone (A1, sup bound; trades).

Setting: scenarios and weights unchanged since the keyframe k, lots unchanged, and for each instrument held the exact
extremes over scenarios of its change D_i = V_now,i - V_k,i (``reprice.pnl_change_bounds``): low_i <= D_i <= high_i.

**Theorem.** With increase = sum_i max(-q_i low_i, -q_i high_i):

    ES(now) <= ES(k) + increase,        also for the integer expected shortfalls (each rounded up).

*Proof.* The losses are L_now = L_k + Y with Y[s] = -sum_i q_i D_i[s]. Expected shortfall is a maximum of linear
functionals, ES(L) = max over tail weightings lambda (0 <= lambda_s <= w_s, sum lambda = P) of sum lambda_s L_s / P, so
ES(L_k + Y) <= ES(L_k) + ES(Y), and ES(Y) <= max_s Y[s], an average being at most the maximum. Each leg contributes to
Y[s] at most max(-q_i low_i, -q_i high_i), because -q_i D is linear in D. The increase is an integer n, and
ceil(x + n) = ceil(x) + n. QED. Nothing is assumed of prices, Greeks, smoothness, time decay or the market's move.

**Corollary (stress rows).** The worst weighted stress loss max(0, max_r ceil(c_r L[r])) with weights c_r >= 0 is a
maximum of linear functionals too. With integers low_i <= c_r D_i[r] <= high_i for every row r
(``stress_change_bounds``, rounded outwards) and the same sum: stress(now) <= max(0, stress(k) + increase).
*Proof.* c_r L_now[r] = c_r L_k[r] - sum_i q_i c_r D_i[r] <= c_r L_k[r] + increase; take ceilings, then
the maximum. QED.

**Trades.** For lots q + dq at the keyframe's tables, and one(i) the term of one lot of i alone on the side of dq_i:

    term(q + dq) <= term(q) + sum_i |dq_i| one(i),        for both terms, also rounded up.

*Proof.* Both are subadditive and positively homogeneous, as maxima of linear functionals are: term(q + dq) <= term(q) +
sum_i |dq_i| term(one lot of i). Any integers not below one(i) may stand for it; integers pass through ceilings. QED.
The theorem then takes q + dq from there to now: the two increases add up.

A new scenario set, other weights or another list of stress rows needs a new keyframe.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.layout import Int8Array, Int32Array, Int64Array
from kernels.open_book import INSTRUMENT_BITS, INSTRUMENT_MASK, place_of

SATURATED_USD9 = 2**62
"""Stands for "no bound": returned where the exact sum might not fit, and by sums that touch invalid rows."""

_MILLION = 1_000_000
_GROSS_LIMIT = 2.0**61
_GROSS_SLACK = 1.0 + 1e-9
_LOTS_LIMIT = 2**31  # of the fast path, shifted
_NO_LEG = 2**31


@njit(cache=True, nogil=True, error_model="numpy")
def _sup_bounds(account_ptr, leg_instrument, leg_lots, low, high, out) -> None:  # type: ignore[no-untyped-def]
    for a in range(out.shape[0]):
        increase, gross = np.int64(0), 0.0
        for j in range(account_ptr[a], account_ptr[a + 1]):
            i, lots = leg_instrument[j], leg_lots[j]
            gross += abs(float(lots)) * max(abs(float(low[i])), abs(float(high[i])))
            increase += max(-lots * low[i], -lots * high[i])
        # The integers may have wrapped only where the float sum of magnitudes says so; the bound is then given up.
        out[a] = increase if gross * _GROSS_SLACK < _GROSS_LIMIT else SATURATED_USD9


def sup_bound(
    account_ptr: Int64Array,
    leg_instrument: Int32Array,
    leg_lots: Int64Array,
    change_low_usd9: Int64Array,
    change_high_usd9: Int64Array,
) -> Int64Array:
    """Most by which each account's term can have grown, int64[A] nano-USD (negative: it must have shrunk).

    For expected shortfall pass the bounds of ``reprice.pnl_change_bounds`` over all rows, for the stress term those of
    ``stress_change_bounds``; both int64[I], nano-USD per lot. SATURATED_USD9 where the sum of magnitudes reaches 2**61:
    the caller treats the account as unbounded. Never an understatement (theorem and proof above).
    """
    out = np.empty(account_ptr.shape[0] - 1, np.int64)
    _sup_bounds(account_ptr, leg_instrument, leg_lots, change_low_usd9, change_high_usd9, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _traded_rise(row, account_ptr, leg_instrument, leg_lots, held_keys, held_lots, one_lot_usd9, exponent):  # type: ignore[no-untyped-def]
    """(sum over legs of |lots moved| * one lot, float sum of magnitudes); two ascending lists of legs are merged."""
    j, end = account_ptr[row], account_ptr[row + 1]
    at, rise, gross = place_of(held_keys, row << INSTRUMENT_BITS), np.int64(0), 0.0
    while True:
        now = leg_instrument[j] if j < end else _NO_LEG
        is_held = at < held_keys.shape[0] and held_keys[at] >> INSTRUMENT_BITS == row
        then = held_keys[at] & INSTRUMENT_MASK if is_held else _NO_LEG
        i = min(now, then)
        if i == _NO_LEG:
            return rise, gross
        moved = np.int64(0)
        if now == i:
            moved += leg_lots[j]
            is_wide = exponent[i] < 0 or abs(leg_lots[j]) >= _LOTS_LIMIT >> np.int64(exponent[i])
            gross += _GROSS_LIMIT if is_wide else 0.0
            j += 1
        if then == i:
            moved -= held_lots[at]
            at += 1
        one = one_lot_usd9[0 if moved > 0 else 1, i]
        rise += abs(moved) * one
        gross += abs(float(moved)) * abs(float(one))


@njit(cache=True, nogil=True, error_model="numpy")
def _add_traded(rows, account_ptr, leg_instrument, leg_lots, held_keys, held_lots, one_lot_usd9, exponent, increase):  # type: ignore[no-untyped-def]
    for row in rows:
        rise, gross = _traded_rise(
            row, account_ptr, leg_instrument, leg_lots, held_keys, held_lots, one_lot_usd9, exponent
        )
        gross += abs(float(increase[row]))
        increase[row] = increase[row] + rise if gross * _GROSS_SLACK < _GROSS_LIMIT else SATURATED_USD9


def add_traded_lots(
    rows: Int64Array,
    account_ptr: Int64Array,
    leg_instrument: Int32Array,
    leg_lots: Int64Array,
    held_keys: Int64Array,
    held_lots: Int64Array,
    one_lot_usd9: Int64Array,
    exponent: Int8Array,
    increase_usd9: Int64Array,
) -> None:
    """Add to the increase (int64[A], of ``sup_bound`` with the present legs) of ``rows`` what their trades may add.

    Args:
        held_keys: int64[H] ascending, row << INSTRUMENT_BITS | instrument, with held_lots: all that these rows held at
            the keyframe (other rows may be there too). What is not there was not held.
        one_lot_usd9: int64[2,I], not below the term of one lot at the keyframe's tables, long and short.
        exponent: of the present P&L table: an account that needs the wide path gets SATURATED_USD9, as does what might
            not fit. Never an understatement (proof above).
    """
    _add_traded(
        rows, account_ptr, leg_instrument, leg_lots, held_keys, held_lots, one_lot_usd9, exponent, increase_usd9
    )


def stress_change_bounds(
    new: Int64Array, old: Int64Array, stress_weight_e6: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """(low, high) int64[I] with low_i <= weight_r * (new - old)[i, r] <= high_i for every row r, rounded outwards.

    ``new``, ``old`` int64[I,R] with magnitudes below 2**61, weights int64[R] within 0..1_000_000.
    """
    change = new - old
    millions = change // _MILLION  # floor, so the rest is in [0, million) for either sign
    rest = (change - millions * _MILLION) * stress_weight_e6
    low = millions * stress_weight_e6 + rest // _MILLION
    high = millions * stress_weight_e6 - (-rest // _MILLION)
    return low.min(axis=1), high.max(axis=1)
