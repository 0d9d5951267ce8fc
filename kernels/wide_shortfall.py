"""Terms of accounts beyond int64, compiled: every loss is two limbs, ``high * 2**shift + low``, 0 <= low < 2**shift.

Lots are split the same way, so the losses of both limbs are sums of 32-bit products by the kernel of the fast path,
carried over once. Selection is lexicographic: t* of the high limbs first, then, among the losses whose high limb equals
it, t* of the low limbs for the tail mass that is left. The shift is the smallest that keeps the high limb in range, so
that the low limb has all the room there is. What even that cannot hold (about 2**88 nano-USD, or shifted lots beyond
2**61) is refused: the caller takes Python integers. Nothing wraps.

The twin is ``expected_shortfall.account_terms_wide``.
"""

from __future__ import annotations

import numpy as np

from kernels.compiling import compiled
from kernels.expected_shortfall import AccountTerms
from kernels.layout import Int32Array, Int64Array, PnlTable
from kernels.scenario_losses import accumulate, address_room, in_loss_order
from kernels.tail_selection import tail_threshold, weight_above

_LIMB_LIMIT = 2.0**60
_SLACK = 1.0 + 1e-9  # outward, for the rounding of the float sums
_LOTS_LIMIT = 2.0**61
_SHIFT_MAX = 30
_LIMB_MASK = 0xFFFFFFFF
_MILLION = 1_000_000


@compiled
def _shift_of(lots, magnitude, lots_limit):  # type: ignore[no-untyped-def]
    """Smallest shift at which both limbs of sum lots * x, abs(x[j]) <= magnitude[j], stay below 2**60; -1 if none."""
    for shift in range(_SHIFT_MAX + 1):
        scale = float(np.int64(1) << shift)
        high, low, largest = 0.0, 0.0, 0.0
        for j in range(lots.shape[0]):
            part = abs(float(lots[j])) / scale + 1.0
            largest = max(largest, part)
            high += part * magnitude[j]
            low += scale * magnitude[j]
        if low * _SLACK >= _LIMB_LIMIT:
            return -1
        if high * _SLACK < _LIMB_LIMIT and largest < lots_limit:
            return shift
    return -1


def _scenario_losses(
    pnl_values: Int32Array, instruments: Int32Array, quantity: Int64Array, shift: int, scenarios: int
) -> tuple[Int64Array, Int64Array]:
    """Losses in two limbs (high, low), in loss order, from quantities (lots << exponent, int64)."""
    mask, addresses = (1 << shift) - 1, address_room(len(instruments))
    high, low = np.empty(scenarios, np.int64), np.empty(scenarios, np.int64)
    accumulate(pnl_values, instruments, (quantity >> shift).astype(np.int32), addresses, high)
    accumulate(pnl_values, instruments, (quantity & mask).astype(np.int32), addresses, low)
    return high + (low >> shift), low & mask


def _threshold(high: Int64Array, low: Int64Array, weights: Int32Array, tail_mass: np.int64) -> tuple[int, int]:
    """(high, low) limb of t*."""
    top = tail_threshold(high, weights, len(high), tail_mass)
    above, _, _ = weight_above(high, weights, len(high), top)
    tied = high == top
    return top, tail_threshold(low[tied], weights[tied], np.count_nonzero(tied), tail_mass - above)


@compiled
def _tail_cost(high, low, weights, top, bottom, tail_mass, shift):  # type: ignore[no-untyped-def]
    """(high, low) limb of t* + ceil(sum w (L - t*)+ / P), low not normalised; long division limb by limb."""
    upper, middle, lower = np.int64(0), np.int64(0), np.int64(0)
    for s in range(high.shape[0]):
        difference, rest = high[s] - top, low[s] - bottom
        if difference > 0 or (difference == 0 and rest > 0):
            weight = np.int64(weights[s])
            upper += weight * (difference >> 32)
            middle += weight * (difference & _LIMB_MASK)
            lower += weight * rest
    first = upper // tail_mass
    second_dividend = ((upper - first * tail_mass) << 32) + middle
    second = second_dividend // tail_mass
    third = ((second_dividend - second * tail_mass) << shift) + lower
    return top + (first << 32) + second, bottom - (-third // tail_mass)


def _shortfall(
    pnl: PnlTable, instruments: Int32Array, quantity: Int64Array, shift: int, weights: Int32Array, tail_mass: np.int64
) -> tuple[int, int, int, int]:
    """Limbs of (ES, t*)."""
    high, low = _scenario_losses(pnl.values, instruments, quantity, shift, len(weights))
    ordered = in_loss_order(weights)
    top, bottom = _threshold(high, low, ordered, tail_mass)
    cost_high, cost_low = _tail_cost(high, low, ordered, top, bottom, tail_mass, shift)
    return cost_high, cost_low, top, bottom


def _row_losses(stress: Int64Array, instruments: Int32Array, lots: Int64Array, shift: int) -> Int64Array:
    """Limbs of the loss in every stress row, low not normalised: int64[2,R]."""
    limbs = np.stack((lots >> shift, lots & ((1 << shift) - 1)))
    return -(limbs[:, :, None] * stress[instruments][None]).sum(axis=1)


def account_terms_two_limb(
    leg_instrument: Int32Array,
    leg_lots: Int64Array,
    pnl: PnlTable,
    weights: Int32Array,
    tail_mass: int,
    stress: Int64Array,
    stress_weight_e6: Int64Array,
) -> AccountTerms | None:
    """The terms of one account in two limbs, equal to ``account_terms_wide``; None if they are beyond even that.

    Raises:
        ValueError: a leg's row is invalid.
    """
    exponent = pnl.exponent[leg_instrument].astype(np.int64)
    if len(exponent) and exponent.min() < 0:
        raise ValueError(f"instrument row {leg_instrument[exponent.argmin()]} has no valid scenario P&L")
    if (np.abs(leg_lots.astype(np.float64)) * 2.0**exponent >= _LOTS_LIMIT).any():
        return None
    quantity = leg_lots << exponent
    shift = _shift_of(quantity, pnl.absolute_maximum[leg_instrument].astype(np.float64), 2.0**31 - 2)
    stress_maximum = np.abs(stress[leg_instrument].astype(np.float64)).max(axis=1, initial=0.0)
    stress_shift = _shift_of(leg_lots, stress_maximum, _LOTS_LIMIT)
    if shift < 0 or stress_shift < 0:
        return None
    limbs = _shortfall(pnl, leg_instrument, quantity, shift, weights, np.int64(tail_mass))
    es_high, es_low, top, bottom = (int(limb) for limb in limbs)
    worst, worst_row = _worst(
        _row_losses(stress, leg_instrument, leg_lots, stress_shift), stress_shift, stress_weight_e6
    )
    return AccountTerms((es_high << shift) + es_low, worst, worst_row, (top << shift) + bottom)


def _worst(limbs: Int64Array, shift: int, stress_weight_e6: Int64Array) -> tuple[int, int]:
    """(largest ceil(weight * loss) but at least 0, its first row or -1); a few Python integers an account."""
    worst, worst_row = 0, -1
    for r, (high, low, weight) in enumerate(zip(*limbs.tolist(), stress_weight_e6.tolist(), strict=True)):
        weighted = -(-((high << shift) + low) * weight // _MILLION)
        if weighted > worst:
            worst, worst_row = weighted, r
    return worst, worst_row
