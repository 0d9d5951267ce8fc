"""Account events applied to a book: cash, lots, entry costs and Greeks moved row by row, in the order of the log.

Everything is an exact integer. A notional is a product of two int64, taken in 128 bits and rounded half-even to
micro-USD; what the rounding takes is summed beside it in units of 1e-21 USD, in two limbs. Positions are sorted keys
``row << INSTRUMENT_BITS | instrument``; pairs of account and underlying are keyed alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from kernels.layout import FUTURE, PERPETUAL, FloatArray, Int8Array, Int32Array, Int64Array

UInt8Array = npt.NDArray[np.uint8]

FILL, CASH, COLLATERAL_SET = 1, 2, 4
"""Kinds of events as the log has them (schemas.log_records); any other moves lots as they are."""

INSTRUMENT_BITS = 24
INSTRUMENT_MASK = (1 << INSTRUMENT_BITS) - 1
CASH_LIMIT_USD6 = 2**60
ENTRY_LIMIT_USD6 = 2**59
LOTS_LIMIT = 2**60
NOTIONAL_LIMIT_USD6 = 2**61
"""A notional of this size leaves every limit, whatever it is added to."""
RESIDUE_LIMB_BITS = 60

DONE, CASH_OUT, ENTRY_OUT, PAID_OUT, LOTS_OUT, CLOSED_OUT = range(6)
"""How an application ended: all done, or at an event whose cash, entry cost, payment, lots or profit is too large."""

_USD9_PER_USD6 = 1_000.0
_USD6_SCALE = 3  # a product of lots and nano-USD a unit is 10**(lot_exponent - 3) micro-USD
_RESIDUE_SCALE = 15  # micro-USD in 1e-21 USD
_POWERS = np.array([10**n for n in range(19)], np.uint64)
_DIGIT_BITS = np.array([14, 14, 14, 14, 8], np.uint64)  # of a low limb, from above: 2**14 x 10**15 < 2**64
_LOW_HALF = np.uint64(0xFFFFFFFF)


class EventColumns(NamedTuple):
    """Events in their order, [N]: row of the account, kind, instrument, lots, price a unit, cash."""

    row: Int64Array
    kind: UInt8Array
    instrument: Int32Array
    lots: Int64Array
    price_usd9: Int64Array
    cash_usd6: Int64Array


class BookColumns(NamedTuple):
    """A book: cash by row [A]; keys [L] with lots and entry costs; pair keys [P] with Greeks int64[P,4]."""

    cash_usd6: Int64Array
    keys: Int64Array
    lots: Int64Array
    entry_usd6: Int64Array
    pair_keys: Int64Array
    pair_greeks_usd9: Int64Array


class ListedColumns(NamedTuple):
    """What is listed, [I]: kind, underlying, lot exponent. Greeks of one lot, int64[J,4], J <= I: the first of them."""

    kind: Int8Array
    underlying: Int32Array
    lot_exponent: Int64Array
    greeks_usd9: Int64Array


@njit(cache=True, nogil=True, error_model="numpy")
def _size(value: int) -> np.uint64:
    """Absolute value, also of -2**63."""
    return np.uint64(0) - np.uint64(value) if value < 0 else np.uint64(value)


@njit(cache=True, nogil=True, error_model="numpy")
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """(high, low) limb of the 128-bit product."""
    half = np.uint64(32)
    a_high, a_low, b_high, b_low = a >> half, a & _LOW_HALF, b >> half, b & _LOW_HALF
    low = a_low * b_low
    middle = a_high * b_low + (low >> half)
    other = a_low * b_high + (middle & _LOW_HALF)
    high = a_high * b_high + (middle >> half) + (other >> half)
    return high, (other << half) | (low & _LOW_HALF)


@njit(cache=True, nogil=True, error_model="numpy")
def _divided(high: np.uint64, low: np.uint64, unit: np.uint64) -> tuple[np.uint64, np.uint64]:
    """(quotient, rest) of high * 2**64 + low by unit, high < unit <= 10**15: long division in digits of 14 bits."""
    if high == 0:
        return low // unit, low % unit
    quotient, rest, left = np.uint64(0), high, np.uint64(64)
    for bits in _DIGIT_BITS:
        left -= bits
        rest = (rest << bits) | ((low >> left) & ((np.uint64(1) << bits) - np.uint64(1)))
        quotient = (quotient << bits) | (rest // unit)
        rest = rest % unit
    return quotient, rest


@njit(cache=True, nogil=True, error_model="numpy")
def notional_usd6(lots: int, price_usd9: int, lot_exponent: int) -> tuple[np.int64, np.int64, bool]:
    """(micro-USD rounded half-even, what rounding added in 1e-21 USD, whether it is below NOTIONAL_LIMIT_USD6).

    lots * 10**lot_exponent units * price_usd9 / 1000; lot_exponent -12 to 6.
    """
    high, low = _product(_size(lots), _size(price_usd9))
    scale = lot_exponent - _USD6_SCALE
    if scale >= 0:
        if high != 0 or low > np.uint64(NOTIONAL_LIMIT_USD6) // _POWERS[scale]:
            return np.int64(0), np.int64(0), False
        whole, added = np.int64(low * _POWERS[scale]), np.int64(0)
    else:
        unit = _POWERS[-scale]
        if high >= unit:
            return np.int64(0), np.int64(0), False
        quotient, rest = _divided(high, low, unit)
        added = -np.int64(rest)
        if np.uint64(2) * rest > unit or (np.uint64(2) * rest == unit and quotient & np.uint64(1)):
            quotient += np.uint64(1)
            added += np.int64(unit)
        if quotient >= np.uint64(NOTIONAL_LIMIT_USD6):
            return np.int64(0), np.int64(0), False
        whole = np.int64(quotient)
        added *= np.int64(_POWERS[_RESIDUE_SCALE + scale])
    if (lots < 0) != (price_usd9 < 0):
        return -whole, -added, True
    return whole, added, True


@njit(cache=True, nogil=True, error_model="numpy")
def place_of(keys: Int64Array, key: int) -> int:
    """First place whose key is not below `key`."""
    low, high = 0, keys.shape[0]
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, error_model="numpy")
def _add_residue(residue: Int64Array, added_usd21: np.int64) -> None:
    residue[0] += added_usd21
    carried = residue[0] >> RESIDUE_LIMB_BITS
    residue[1] += carried
    residue[0] -= carried << RESIDUE_LIMB_BITS


@njit(cache=True, nogil=True, error_model="numpy")
def _trade(events: EventColumns, n: int, book: BookColumns, listed: ListedColumns, residue: Int64Array) -> int:
    """One event that moves lots; its leg and its pair are there. Returns DONE or what left its range."""
    row, index, lots = events.row[n], events.instrument[n], events.lots[n]
    at = place_of(book.keys, row << INSTRUMENT_BITS | index)
    if events.kind[n] == FILL:
        paid, added_usd21, fits = notional_usd6(lots, events.price_usd9[n], listed.lot_exponent[index])
        is_linear = listed.kind[index] == PERPETUAL or listed.kind[index] == FUTURE
        if not fits:
            return ENTRY_OUT if is_linear else PAID_OUT
        if is_linear:
            if abs(book.entry_usd6[at] + paid) > ENTRY_LIMIT_USD6:
                return ENTRY_OUT
            book.entry_usd6[at] += paid
        else:
            if abs(book.cash_usd6[row] - paid) > CASH_LIMIT_USD6:
                return PAID_OUT
            book.cash_usd6[row] -= paid
        _add_residue(residue, added_usd21)
    if events.kind[n] == COLLATERAL_SET:
        if lots > LOTS_LIMIT or lots < -LOTS_LIMIT:
            return LOTS_OUT
        change = lots - book.lots[at]
    else:
        if lots > LOTS_LIMIT - book.lots[at] or lots < -LOTS_LIMIT - book.lots[at]:
            return LOTS_OUT
        change = lots
    book.lots[at] += change
    if index < listed.greeks_usd9.shape[0]:
        pair = place_of(book.pair_keys, row << INSTRUMENT_BITS | np.int64(listed.underlying[index]))
        for column in range(4):
            book.pair_greeks_usd9[pair, column] += change * listed.greeks_usd9[index, column]
    if book.lots[at] == 0 and book.entry_usd6[at] != 0:  # closed: the profit since entry becomes cash
        if abs(book.cash_usd6[row] - book.entry_usd6[at]) > CASH_LIMIT_USD6:
            return CLOSED_OUT
        book.cash_usd6[row] -= book.entry_usd6[at]
        book.entry_usd6[at] = 0
    return DONE


@njit(cache=True, nogil=True, error_model="numpy")
def apply_rows(
    events: EventColumns, begin: int, end: int, book: BookColumns, listed: ListedColumns, residue: Int64Array
) -> tuple[int, int]:
    """Apply events begin..end-1 in place; every leg and pair that they trade is there already.

    residue int64[2] += what rounding added, in 1e-21 USD: residue[0] + residue[1] * 2**RESIDUE_LIMB_BITS. Returns
    (end, DONE), or the event that leaves a range and which: what of it comes before that is applied, but not the
    residue of a notional that leaves a range.
    """
    for n in range(begin, end):
        row, cash_usd6 = events.row[n], events.cash_usd6[n]
        held = book.cash_usd6[row]
        if cash_usd6 > CASH_LIMIT_USD6 - held or cash_usd6 < -CASH_LIMIT_USD6 - held:
            return n, CASH_OUT
        book.cash_usd6[row] = held + cash_usd6
        if events.kind[n] != CASH:
            found = _trade(events, n, book, listed, residue)
            if found != DONE:
                return n, found
    return end, DONE


@njit(cache=True, nogil=True, error_model="numpy")
def missing_keys(have: Int64Array, wanted: Int64Array) -> Int64Array:
    """Distinct keys of ascending `wanted` that are not in ascending `have`."""
    found = np.empty(wanted.shape[0], np.int64)
    count = 0
    for n in range(wanted.shape[0]):
        if n > 0 and wanted[n] == wanted[n - 1]:
            continue
        at = place_of(have, wanted[n])
        if at == have.shape[0] or have[at] != wanted[n]:
            found[count] = wanted[n]
            count += 1
    return found[:count].copy()


@njit(cache=True, nogil=True, error_model="numpy")
def merge_places(have: Int64Array, new: Int64Array) -> Int64Array:
    """Where each of ascending `new`, none of which is in `have`, stands in the two together."""
    places = np.empty(new.shape[0], np.int64)
    for n in range(new.shape[0]):
        places[n] = place_of(have, new[n]) + n
    return places


@njit(cache=True, nogil=True, error_model="numpy")
def widened(values: Int64Array, places: Int64Array, new: Int64Array) -> Int64Array:
    """`values` with `new` at `places` of the result (ascending), the others in their order around them."""
    out = np.empty(values.shape[0] + places.shape[0], np.int64)
    at = 0
    for n in range(places.shape[0]):
        for to in range(at + n, places[n]):
            out[to] = values[to - n]
        at = places[n] - n
        out[places[n]] = new[n]
    for to in range(at + places.shape[0], out.shape[0]):
        out[to] = values[to - places.shape[0]]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def widened_table(values: Int64Array, places: Int64Array) -> Int64Array:
    """The same for rows of a table int64[P,C]: zeros at `places`."""
    out = np.zeros((values.shape[0] + places.shape[0], values.shape[1]), np.int64)
    n = 0
    for to in range(out.shape[0]):
        if n < places.shape[0] and places[n] == to:
            n += 1
        else:
            for column in range(values.shape[1]):
                out[to, column] = values[to - n, column]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def lots_of_rows(rows: Int64Array, keys: Int64Array, lots: Int64Array) -> Int64Array:
    """Lots of the legs of some rows, row after row."""
    begin, end = np.empty(rows.shape[0], np.int64), np.empty(rows.shape[0], np.int64)
    count = 0
    for n in range(rows.shape[0]):
        begin[n] = place_of(keys, rows[n] << INSTRUMENT_BITS)
        end[n] = begin[n]
        while end[n] < keys.shape[0] and keys[end[n]] >> INSTRUMENT_BITS == rows[n]:
            end[n] += 1
        count += end[n] - begin[n]
    out = np.empty(count, np.int64)
    count = 0
    for n in range(rows.shape[0]):
        for at in range(begin[n], end[n]):
            out[count] = lots[at]
            count += 1
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def net_values_usd6(
    rows: Int64Array, book: BookColumns, mark_usd9: FloatArray, haircut_usd9: FloatArray, out_usd6: FloatArray
) -> None:
    """NLV of some rows at the marks per lot f64[J], float64[n]: cash, and leg by leg value less entry cost.

    Lots held count at the mark after the collateral factor, owed ones at the mark; instruments beyond J count nothing.
    Plain float64 in the order of the keys, so equal inputs give equal bits.
    """
    for n in range(rows.shape[0]):
        total = np.float64(book.cash_usd6[rows[n]])
        at = place_of(book.keys, rows[n] << INSTRUMENT_BITS)
        while at < book.keys.shape[0] and book.keys[at] >> INSTRUMENT_BITS == rows[n]:
            index, lots, value = book.keys[at] & INSTRUMENT_MASK, book.lots[at], 0.0
            if index < mark_usd9.shape[0]:
                price = haircut_usd9[index] if lots > 0 else mark_usd9[index]
                value = np.float64(lots) * price / _USD9_PER_USD6
            total += value - np.float64(book.entry_usd6[at])
            at += 1
        out_usd6[n] = total


@njit(cache=True, nogil=True, error_model="numpy")
def line_rises_usd6(
    rows: Int64Array, book: BookColumns, lots_before: Int64Array, bound_usd9: FloatArray, out_usd6: FloatArray
) -> None:
    """Sum of |lots moved| x bound of one lot f64[J], float64[n]; `lots_before`: of `lots_of_rows` with the same keys.

    A lot of an instrument beyond J can do anything.
    """
    count = 0
    for n in range(rows.shape[0]):
        total = 0.0
        at = place_of(book.keys, rows[n] << INSTRUMENT_BITS)
        while at < book.keys.shape[0] and book.keys[at] >> INSTRUMENT_BITS == rows[n]:
            moved = np.float64(abs(book.lots[at] - lots_before[count]))
            if moved != 0.0:
                index = book.keys[at] & INSTRUMENT_MASK
                bound = bound_usd9[index] if index < bound_usd9.shape[0] else np.inf
                total += moved * bound / _USD9_PER_USD6
            at += 1
            count += 1
        out_usd6[n] = total
