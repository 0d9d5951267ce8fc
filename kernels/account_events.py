"""Account events applied to a book: cash, lots, entry costs and Greeks moved row by row, in the order of the log.

Everything is an exact integer. A notional is a product of two int64, taken in 128 bits and rounded half-even to
micro-USD; what the rounding takes is summed beside it in units of 1e-21 USD, in two limbs. Positions are sorted keys
``row << INSTRUMENT_BITS | instrument``; pairs of account and underlying are keyed alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.compiling import compiled
from kernels.layout import FUTURE, PERPETUAL, BoolArray, FloatArray, Int8Array, Int32Array, Int64Array

UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]

FILL, CASH, COLLATERAL_SET, FUNDING = 1, 2, 4, 5
"""Kinds of events as the log has them (schemas.log_records); any other moves lots as they are."""
EVERY_ACCOUNT = 0xFFFFFFFF

INSTRUMENT_BITS = 24
INSTRUMENT_MASK = (1 << INSTRUMENT_BITS) - 1
CASH_LIMIT_USD6 = 2**60
ENTRY_LIMIT_USD6 = 2**59
LOTS_LIMIT = 2**60
NOTIONAL_LIMIT_USD6 = 2**61
"""A notional of this size leaves every limit, whatever it is added to."""
RESIDUE_LIMB_BITS = 60

PLACED, SOME_ABSENT, UNFIT = range(3)
"""How `locate` ended: every leg and pair is there, some are not yet, or an event is none that a log has."""

DONE, CASH_OUT, ENTRY_OUT, PAID_OUT, LOTS_OUT, CLOSED_OUT = range(6)
"""How an application ended: all done, or at an event whose cash, entry cost, payment, lots or profit is too large."""

_USD9_PER_USD6 = 1_000.0
_USD6_SCALE = 3  # a product of lots and nano-USD a unit is 10**(lot_exponent - 3) micro-USD
_RESIDUE_SCALE = 15  # micro-USD in 1e-21 USD
_POWERS = np.array([10**n for n in range(19)], np.uint64)
_DIGIT_BITS = np.array([14, 14, 14, 14, 8], np.uint64)  # of a low limb, from above: 2**14 x 10**15 < 2**64
_LOW_HALF = np.uint64(0xFFFFFFFF)


class EventColumns(NamedTuple):
    """Events in their order, [N]: kind, instrument, lots, price a unit, cash; by `locate` the row of the account (-1:
    every one), the places of leg and pair in the book (-1: not there, or the event moves no lots).
    """

    row: Int64Array
    leg: Int64Array
    pair: Int64Array
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
    """What is listed, [I]: kind, lot exponent. Greeks of one lot, int64[J,4], J <= I: the first of them."""

    kind: Int8Array
    lot_exponent: Int64Array
    greeks_usd9: Int64Array


@compiled
def _size(value: int) -> np.uint64:
    """Absolute value, also of -2**63."""
    return np.uint64(0) - np.uint64(value) if value < 0 else np.uint64(value)


@compiled
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """(high, low) limb of the 128-bit product."""
    half = np.uint64(32)
    a_high, a_low, b_high, b_low = a >> half, a & _LOW_HALF, b >> half, b & _LOW_HALF
    low = a_low * b_low
    middle = a_high * b_low + (low >> half)
    other = a_low * b_high + (middle & _LOW_HALF)
    high = a_high * b_high + (middle >> half) + (other >> half)
    return high, (other << half) | (low & _LOW_HALF)


@compiled
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


@compiled
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


@compiled
def place_of(keys: Int64Array, key: int, low: int = 0) -> int:
    """First place from `low` on whose key is not below `key`."""
    high = keys.shape[0]
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _exact_place(keys: Int64Array, key: int) -> int:
    at = place_of(keys, key)
    return at if at < keys.shape[0] and keys[at] == key else -1


@compiled
def locate(
    account: UInt32Array,
    named: Int64Array,
    events: EventColumns,
    underlying: Int32Array,
    book: BookColumns,
    touched: BoolArray,
) -> int:
    """Fill rows, legs and pairs of the events, and mark touched bool[A]. Returns PLACED, SOME_ABSENT or UNFIT.

    account uint32[N]: place in named int64[M], rows of accounts, or EVERY_ACCOUNT; underlying int32[I] of what is
    listed.
    """
    found = PLACED
    for n in range(account.shape[0]):
        events.row[n] = events.leg[n] = events.pair[n] = -1
        if account[n] == EVERY_ACCOUNT:
            if events.kind[n] != FUNDING:
                return UNFIT
            continue
        if account[n] >= named.shape[0]:
            return UNFIT
        row = named[account[n]]
        events.row[n], touched[row] = row, True
        if events.kind[n] == CASH:
            continue
        index = np.int64(events.instrument[n])
        if index < 0 or index >= underlying.shape[0]:
            return UNFIT
        events.leg[n] = _exact_place(book.keys, row << INSTRUMENT_BITS | index)
        events.pair[n] = _exact_place(book.pair_keys, row << INSTRUMENT_BITS | np.int64(underlying[index]))
        if events.leg[n] < 0 or events.pair[n] < 0:
            found = SOME_ABSENT
    return found


@compiled
def _add_residue(residue: Int64Array, added_usd21: np.int64) -> None:
    residue[0] += added_usd21
    carried = residue[0] >> RESIDUE_LIMB_BITS
    residue[1] += carried
    residue[0] -= carried << RESIDUE_LIMB_BITS


@compiled
def _trade(events: EventColumns, n: int, book: BookColumns, listed: ListedColumns, residue: Int64Array) -> int:
    """One event that moves lots; its leg and its pair are there. Returns DONE or what left its range."""
    row, index, lots, at = events.row[n], events.instrument[n], events.lots[n], events.leg[n]
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
        pair = events.pair[n]
        for column in range(4):
            book.pair_greeks_usd9[pair, column] += change * listed.greeks_usd9[index, column]
    if book.lots[at] == 0 and book.entry_usd6[at] != 0:  # closed: the profit since entry becomes cash
        if abs(book.cash_usd6[row] - book.entry_usd6[at]) > CASH_LIMIT_USD6:
            return CLOSED_OUT
        book.cash_usd6[row] -= book.entry_usd6[at]
        book.entry_usd6[at] = 0
    return DONE


@compiled
def apply_rows(
    events: EventColumns, begin: int, end: int, book: BookColumns, listed: ListedColumns, residue: Int64Array
) -> tuple[int, int]:
    """Apply events begin..end-1 in place; every leg and pair that they trade has been located.

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


@compiled
def _wanted_keys(events: EventColumns, second: Int64Array) -> Int64Array:
    """row << INSTRUMENT_BITS | second of the events that move lots, -1 of the others."""
    wanted = np.empty(events.row.shape[0], np.int64)
    for n in range(wanted.shape[0]):
        moves_lots = events.row[n] >= 0 and events.kind[n] != CASH
        wanted[n] = events.row[n] << INSTRUMENT_BITS | second[n] if moves_lots else -1
    return wanted


@compiled
def _underlyings(wanted: Int64Array, instruments: Int64Array, underlying: Int32Array) -> Int64Array:
    """Of the instruments int64[N] where a key is wanted, else 0."""
    found = np.zeros(wanted.shape[0], np.int64)
    for n in range(wanted.shape[0]):
        if wanted[n] >= 0:
            found[n] = underlying[instruments[n]]
    return found


@compiled
def _absent_keys(wanted: Int64Array, places: Int64Array) -> Int64Array:
    """Distinct wanted keys without a place, ascending."""
    absent = np.sort(wanted[(wanted >= 0) & (places < 0)])
    count = 0
    for n in range(absent.shape[0]):
        if n == 0 or absent[n] != absent[n - 1]:
            absent[count] = absent[n]
            count += 1
    return absent[:count]


@compiled
def _merge_places(have: Int64Array, new: Int64Array) -> Int64Array:
    """Where each of ascending `new`, none of which is in `have`, stands in the two together."""
    places = np.empty(new.shape[0], np.int64)
    at = 0
    for n in range(new.shape[0]):
        at = place_of(have, new[n], at)
        places[n] = at + n
    return places


@compiled
def _widened(values: Int64Array, places: Int64Array) -> Int64Array:
    """Rows of int64[P,C] or [P] with zeros at `places` of the result (ascending), the others in their order."""
    out = np.zeros((values.shape[0] + places.shape[0], *values.shape[1:]), np.int64)
    at = 0
    for n in range(places.shape[0]):
        out[at + n : places[n]] = values[at : places[n] - n]
        at = places[n] - n
    out[at + places.shape[0] :] = values[at:]
    return out


@compiled
def _move_places(wanted: Int64Array, places: Int64Array, new: Int64Array, new_at: Int64Array) -> None:
    """Places of the wanted keys after `new` were put at `new_at`."""
    for n in range(wanted.shape[0]):
        if wanted[n] >= 0:
            before = place_of(new, wanted[n])
            places[n] = places[n] + before if places[n] >= 0 else new_at[before]


@compiled
def make_room(events: EventColumns, underlying: Int32Array, book: BookColumns) -> BookColumns:
    """The book with the legs and pairs that located events lack, empty; the events' places are in it then."""
    keys, lots, entry_usd6 = book.keys, book.lots, book.entry_usd6
    pair_keys, greeks_usd9 = book.pair_keys, book.pair_greeks_usd9
    instruments = events.instrument.astype(np.int64)
    wanted = _wanted_keys(events, instruments)
    new = _absent_keys(wanted, events.leg)
    if new.shape[0] > 0:
        at = _merge_places(keys, new)
        _move_places(wanted, events.leg, new, at)
        keys, lots, entry_usd6 = _widened(keys, at), _widened(lots, at), _widened(entry_usd6, at)
        keys[at] = new
    wanted = _wanted_keys(events, _underlyings(wanted, instruments, underlying))
    new = _absent_keys(wanted, events.pair)
    if new.shape[0] > 0:
        at = _merge_places(pair_keys, new)
        _move_places(wanted, events.pair, new, at)
        pair_keys, greeks_usd9 = _widened(pair_keys, at), _widened(greeks_usd9, at)
        pair_keys[at] = new
    return BookColumns(book.cash_usd6, keys, lots, entry_usd6, pair_keys, greeks_usd9)


class Held(NamedTuple):
    """Legs of some rows before a record of events: rows int64[n] ascending, their legs begin..end-1 int64[n] in the
    book, lots of these row after row, and NLV f64[n] micro-USD.
    """

    rows: Int64Array
    begin: Int64Array
    end: Int64Array
    lots: Int64Array
    value_usd6: FloatArray


class LotTerms(NamedTuple):
    """What one lot of each instrument is worth, owed and held (after the collateral factor), and the most that it can
    add to IM: float64[I] nano-USD.
    """

    mark_usd9: FloatArray
    haircut_mark_usd9: FloatArray
    loss_bound_usd9: FloatArray


@compiled
def _net_value_usd6(row: int, begin: int, end: int, book: BookColumns, lot: LotTerms) -> float:
    """Cash, and leg by leg value less entry cost, in the order of the keys, so equal inputs give equal bits.

    Lots held count at the mark after the collateral factor, owed ones at the mark; instruments beyond the terms count
    nothing.
    """
    total = np.float64(book.cash_usd6[row])
    for at in range(begin, end):
        index, lots, value = book.keys[at] & INSTRUMENT_MASK, book.lots[at], 0.0
        if index < lot.mark_usd9.shape[0]:
            price = lot.haircut_mark_usd9[index] if lots > 0 else lot.mark_usd9[index]
            value = np.float64(lots) * price / _USD9_PER_USD6
        total += value - np.float64(book.entry_usd6[at])
    return total


@compiled
def held_by(rows: Int64Array, book: BookColumns, lot: LotTerms) -> Held:
    """What some rows (int64[n], ascending) hold now."""
    begin, end, value_usd6 = np.empty_like(rows), np.empty_like(rows), np.empty(rows.shape[0])
    at = count = 0
    for n in range(rows.shape[0]):
        at = begin[n] = place_of(book.keys, rows[n] << INSTRUMENT_BITS, at)
        while at < book.keys.shape[0] and book.keys[at] >> INSTRUMENT_BITS == rows[n]:
            at += 1
        end[n] = at
        count += at - begin[n]
        value_usd6[n] = _net_value_usd6(rows[n], begin[n], at, book, lot)
    lots = np.empty(count, np.int64)
    count = 0
    for n in range(rows.shape[0]):
        for at in range(begin[n], end[n]):
            lots[count] = book.lots[at]
            count += 1
    return Held(rows, begin, end, lots, value_usd6)


@compiled
def effects_usd6(held: Held, book: BookColumns, lot: LotTerms) -> tuple[FloatArray, FloatArray]:
    """Since `held`, in the same legs: (change of NLV, sum of |lots moved| x the bound of one lot), f64[n] each.

    A lot of an instrument beyond the bounds can do anything.
    """
    change_usd6, rise_usd6 = np.empty(held.rows.shape[0]), np.empty(held.rows.shape[0])
    count = 0
    for n in range(held.rows.shape[0]):
        total = 0.0
        for at in range(held.begin[n], held.end[n]):
            moved = np.float64(abs(book.lots[at] - held.lots[count]))
            if moved != 0.0:
                index = book.keys[at] & INSTRUMENT_MASK
                bound = lot.loss_bound_usd9[index] if index < lot.loss_bound_usd9.shape[0] else np.inf
                total += moved * bound / _USD9_PER_USD6
            count += 1
        after_usd6 = _net_value_usd6(held.rows[n], held.begin[n], held.end[n], book, lot)
        change_usd6[n], rise_usd6[n] = after_usd6 - held.value_usd6[n], total
    return change_usd6, rise_usd6
