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

from typing import NamedTuple

import numpy as np

from kernels.compiling import compiled
from kernels.layout import FloatArray, Int64Array
from kernels.open_book import INSTRUMENT_BITS, INSTRUMENT_MASK, place_of

SATURATED_USD9 = 2**62
"""Stands for "no bound": returned where the exact sum might not fit, and by sums that touch invalid rows."""

_MILLION = 1_000_000
_GROSS_LIMIT = 2.0**61
_GROSS_SLACK = 1.0 + 1e-9
_LOTS_LIMIT = 2**31  # of the fast path, shifted
_NO_LEG = 2**31


class ChangeBounds(NamedTuple):
    """What one lot of each instrument may have changed by since the keyframe, nano-USD."""

    extremes_usd9: Int64Array
    """[I,4]: lowest and highest change over all scenarios, lowest and highest weighted change over all stress rows."""
    size: FloatArray
    """[I]: largest magnitude of the four."""


def change_bounds(shortfall: tuple[Int64Array, Int64Array], stress: tuple[Int64Array, Int64Array]) -> ChangeBounds:
    """Of (low, high) int64[I] of both terms: ``reprice.pnl_change_bounds`` over all rows, ``stress_change_bounds``."""
    extremes = np.stack([*shortfall, *stress], axis=1)
    return ChangeBounds(extremes, np.abs(extremes).max(axis=1).astype(np.float64))


@compiled
def sup_bounds(begin, end, account_ptr, leg_instrument, leg_lots, changes, out) -> None:  # type: ignore[no-untyped-def]
    """Most by which each account's terms can have grown, into out int64[2,A] nano-USD (negative: must have shrunk).

    Of the accounts from ``begin`` to ``end``. Row 0 is expected shortfall, row 1 stress; ``changes``: ``ChangeBounds``.
    SATURATED_USD9 in both where the sum of magnitudes reaches 2**61: the caller treats the account as unbounded. Never
    an understatement (the module's head).
    """
    extremes, size = changes
    for a in range(begin, end):
        shortfall, stress, gross = np.int64(0), np.int64(0), 0.0
        for j in range(account_ptr[a], account_ptr[a + 1]):
            i, lots = leg_instrument[j], leg_lots[j]
            worst = np.int64(lots < 0)  # long legs lose by the lowest change, short ones by the highest
            shortfall -= lots * extremes[i, worst]
            stress -= lots * extremes[i, 2 + worst]
            gross += abs(float(lots)) * size[i]
        # The integers may have wrapped only where the float sum of magnitudes says so; the bound is then given up.
        fits = gross * _GROSS_SLACK < _GROSS_LIMIT
        out[0, a] = shortfall if fits else SATURATED_USD9
        out[1, a] = stress if fits else SATURATED_USD9


@compiled
def _traded_rise(row, account_ptr, leg_instrument, leg_lots, held_keys, held_lots, one_lot_usd9, exponent):  # type: ignore[no-untyped-def]
    """(sums over legs of |lots moved| * one lot, of both terms; float sum of magnitudes); two ascending lists merge."""
    j, end = account_ptr[row], account_ptr[row + 1]
    at, gross = place_of(held_keys, row << INSTRUMENT_BITS), 0.0
    shortfall, stress = np.int64(0), np.int64(0)
    while True:
        now = leg_instrument[j] if j < end else _NO_LEG
        is_held = at < held_keys.shape[0] and held_keys[at] >> INSTRUMENT_BITS == row
        then = held_keys[at] & INSTRUMENT_MASK if is_held else _NO_LEG
        i = min(now, then)
        if i == _NO_LEG:
            return shortfall, stress, gross
        moved = np.int64(0)
        if now == i:
            moved += leg_lots[j]
            is_wide = exponent[i] < 0 or abs(leg_lots[j]) >= _LOTS_LIMIT >> np.int64(exponent[i])
            gross += _GROSS_LIMIT if is_wide else 0.0
            j += 1
        if then == i:
            moved -= held_lots[at]
            at += 1
        side = 0 if moved > 0 else 1
        shortfall += abs(moved) * one_lot_usd9[0, side, i]
        stress += abs(moved) * one_lot_usd9[1, side, i]
        largest = max(abs(float(one_lot_usd9[0, side, i])), abs(float(one_lot_usd9[1, side, i])))
        gross += abs(float(moved)) * largest


@compiled
def add_traded_lots(  # type: ignore[no-untyped-def]
    rows, account_ptr, leg_instrument, leg_lots, held_keys, held_lots, one_lot_usd9, exponent, increase
) -> None:
    """Add to the increases (int64[2,A], of ``sup_bounds`` with the present legs) of ``rows`` what their trades may add.

    Args:
        held_keys: int64[H] ascending, row << INSTRUMENT_BITS | instrument, with held_lots: all that these rows held at
            the keyframe (other rows may be there too). What is not there was not held.
        one_lot_usd9: int64[2,2,I], not below the term (expected shortfall, stress) of one lot at the keyframe's tables,
            long and short.
        exponent: of the present P&L table: an account that needs the wide path gets SATURATED_USD9, as does what might
            not fit. Never an understatement (the module's head).
    """
    for row in rows:
        shortfall, stress, gross = _traded_rise(
            row, account_ptr, leg_instrument, leg_lots, held_keys, held_lots, one_lot_usd9, exponent
        )
        gross += max(abs(float(increase[0, row])), abs(float(increase[1, row])))
        if gross * _GROSS_SLACK < _GROSS_LIMIT:
            increase[0, row] += shortfall
            increase[1, row] += stress
        else:
            increase[0, row], increase[1, row] = SATURATED_USD9, SATURATED_USD9


@compiled
def _extremes_weighted(new, old, stress_weight_e6, low, high) -> None:  # type: ignore[no-untyped-def]
    for i in range(new.shape[0]):
        least, most = np.int64(2**62), np.int64(-(2**62))
        for r in range(new.shape[1]):
            change = new[i, r] - old[i, r]
            millions = change // _MILLION  # floor, so the rest is in [0, million) for either sign
            rest = (change - millions * _MILLION) * stress_weight_e6[r]
            least = min(least, millions * stress_weight_e6[r] + rest // _MILLION)
            most = max(most, millions * stress_weight_e6[r] - (-rest // _MILLION))
        low[i], high[i] = least, most


def stress_change_bounds(
    new: Int64Array, old: Int64Array, stress_weight_e6: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """(low, high) int64[I] with low_i <= weight_r * (new - old)[i, r] <= high_i for every row r, rounded outwards.

    ``new``, ``old`` int64[I,R] with magnitudes below 2**61, weights int64[R] within 0..1_000_000.
    """
    low, high = np.empty((2, new.shape[0]), np.int64)
    _extremes_weighted(new, old, stress_weight_e6, low, high)
    return low, high
