"""Account events applied to a book: cash, lots, entry costs and Greeks moved row by row, in the order of the log.

Everything is an exact integer. A notional is a product of two int64, taken in 128 bits and rounded half-even to
micro-USD; what the rounding takes is summed beside it in units of 1e-21 USD, in two limbs. The book is an open one
(kernels.open_book): the legs of an account stand together, with room for those that come.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.compiling import borrows, compiled
from kernels.layout import FUTURE, PERPETUAL, BoolArray, FloatArray, Int8Array, Int32Array, Int64Array
from kernels.open_book import (
    ENTRY,
    FIRST_GREEK,
    INSTRUMENT,
    LEGS,
    LEGS_END,
    LOTS,
    PAIRS,
    PAIRS_END,
    OpenBook,
    entry_place,
    put_leg,
    put_pair,
)  # fmt: skip

FILL, CASH, COLLATERAL_SET, FUNDING = 1, 2, 4, 5
"""Kinds of events as the log has them (schemas.log_records); any other moves lots as they are."""
EVERY_ACCOUNT = 0xFFFFFFFF

CASH_LIMIT_USD6 = 2**60
ENTRY_LIMIT_USD6 = 2**59
LOTS_LIMIT = 2**60
NOTIONAL_LIMIT_USD6 = 2**61
"""A notional of this size leaves every limit, whatever it is added to."""
RESIDUE_LIMB_BITS = 60

PLACED, FUNDED, FULL, UNFIT = range(4)
"""How `admit` ended: every leg and pair is there; the same, and some events are fundings; there is no room for another
one; an event is none that a log has."""

DONE, CASH_OUT, ENTRY_OUT, PAID_OUT, LOTS_OUT, CLOSED_OUT = range(6)
"""How an application ended: all done, or at an event whose cash, entry cost, payment, lots or profit is too large."""

_USD9_PER_USD6 = 1_000.0
_USD6_SCALE = 3  # a product of lots and nano-USD a unit is 10**(lot_exponent - 3) micro-USD
_RESIDUE_SCALE = 15  # micro-USD in 1e-21 USD
_POWERS = np.array([10**n for n in range(19)], np.uint64)
_DIGIT_BITS = np.array([14, 14, 14, 14, 8], np.uint64)  # of a low limb, from above: 2**14 x 10**15 < 2**64
_LOW_HALF = np.uint64(0xFFFFFFFF)


class ListedColumns(NamedTuple):
    """What is listed, [I]: kind, lot exponent, underlying. Greeks of one lot, int64[J,4], J <= I: the first of them."""

    kind: Int8Array
    lot_exponent: Int64Array
    underlying: Int32Array
    greeks_usd9: Int64Array


class LotTerms(NamedTuple):
    """What one lot of each instrument is worth, owed and held (after the collateral factor), and the most that it can
    add to IM: float64[I] nano-USD.
    """

    mark_usd9: FloatArray
    haircut_mark_usd9: FloatArray
    loss_bound_usd9: FloatArray


@borrows
def _size(value: int) -> np.uint64:
    """Absolute value, also of -2**63."""
    return np.uint64(0) - np.uint64(value) if value < 0 else np.uint64(value)


@borrows
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """(high, low) limb of the 128-bit product."""
    half = np.uint64(32)
    a_high, a_low, b_high, b_low = a >> half, a & _LOW_HALF, b >> half, b & _LOW_HALF
    low = a_low * b_low
    middle = a_high * b_low + (low >> half)
    other = a_low * b_high + (middle & _LOW_HALF)
    high = a_high * b_high + (middle >> half) + (other >> half)
    return high, (other << half) | (low & _LOW_HALF)


@borrows
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


KIND, INSTRUMENT_WORD, LOTS_WORD, PRICE, CASH_WORD, EVENT_WORDS = 0, 1, 2, 3, 4, 5
"""Words of an event as the log has it, int64[N,5]: kind and account, instrument, lots, nano-USD a unit, micro-USD."""
_ACCOUNT_SHIFT, _KIND_MASK = 32, 0xFF


@borrows
def kind_of(events: Int64Array, n: int) -> np.int64:
    return events[n, KIND] & _KIND_MASK


@borrows
def account_of(events: Int64Array, n: int) -> np.int64:
    """Place in the names of the record, or EVERY_ACCOUNT."""
    return (events[n, KIND] >> _ACCOUNT_SHIFT) & EVERY_ACCOUNT


@borrows
def instrument_of(events: Int64Array, n: int) -> np.int64:
    return np.int64(np.int32(events[n, INSTRUMENT_WORD] & EVERY_ACCOUNT))


@borrows
def _checked(events: Int64Array, named: Int64Array, instruments: int) -> int:
    """PLACED, FUNDED or UNFIT."""
    found = PLACED
    for n in range(events.shape[0]):
        kind, account = kind_of(events, n), account_of(events, n)
        if account == EVERY_ACCOUNT:
            if kind != FUNDING:
                return UNFIT
            found = FUNDED
        elif account >= named.shape[0] or (kind != CASH and not 0 <= instrument_of(events, n) < instruments):
            return UNFIT
    return found


@compiled
def admit(events: Int64Array, named: Int64Array, underlying: Int32Array, book: OpenBook, touched: BoolArray) -> int:
    """Put legs and pairs that the events need and that are not there into the book, empty; mark touched bool[A].

    named int64[M]: rows of the accounts that the record names; underlying int32[I] of what is listed. Returns PLACED,
    FUNDED, FULL (room is to be made, and everything to be admitted again) or UNFIT (the book is as it was).
    """
    found = _checked(events, named, underlying.shape[0])
    if found == UNFIT:
        return found
    for n in range(events.shape[0]):
        account = account_of(events, n)
        if account == EVERY_ACCOUNT:
            continue
        row = named[account]
        touched[row] = True
        if kind_of(events, n) == CASH:
            continue
        index = instrument_of(events, n)
        if not put_leg(book, row, index) or not put_pair(book, row, np.int64(underlying[index])):
            return FULL
    return found


@borrows
def _add_residue(residue: Int64Array, added_usd21: np.int64) -> None:
    residue[0] += added_usd21
    carried = residue[0] >> RESIDUE_LIMB_BITS
    residue[1] += carried
    residue[0] -= carried << RESIDUE_LIMB_BITS


@borrows
def _pay(
    events: Int64Array, n: int, row: int, at: int, book: OpenBook, listed: ListedColumns, residue: Int64Array
) -> int:
    """Cash or entry cost of a fill. Returns DONE or what left its range."""
    index = book.legs[at, INSTRUMENT]
    paid, added_usd21, fits = notional_usd6(events[n, LOTS_WORD], events[n, PRICE], listed.lot_exponent[index])
    is_linear = listed.kind[index] == PERPETUAL or listed.kind[index] == FUTURE
    if not fits:
        return ENTRY_OUT if is_linear else PAID_OUT
    if is_linear:
        if abs(book.legs[at, ENTRY] + paid) > ENTRY_LIMIT_USD6:
            return ENTRY_OUT
        book.legs[at, ENTRY] += paid
    else:
        if abs(book.cash_usd6[row] - paid) > CASH_LIMIT_USD6:
            return PAID_OUT
        book.cash_usd6[row] -= paid
    _add_residue(residue, added_usd21)
    return DONE


@borrows
def _trade(events: Int64Array, n: int, row: int, book: OpenBook, listed: ListedColumns, residue: Int64Array) -> int:
    """One event that moves lots; its leg and its pair are there. Returns DONE or what left its range."""
    kind, index, lots = kind_of(events, n), instrument_of(events, n), events[n, LOTS_WORD]
    at = entry_place(book.legs, book.spans[row, LEGS], book.spans[row, LEGS_END], index)
    if kind == FILL:
        found = _pay(events, n, row, at, book, listed, residue)
        if found != DONE:
            return found
    held = book.legs[at, LOTS]
    if kind == COLLATERAL_SET:
        if lots > LOTS_LIMIT or lots < -LOTS_LIMIT:
            return LOTS_OUT
        change = lots - held
    else:
        if lots > LOTS_LIMIT - held or lots < -LOTS_LIMIT - held:
            return LOTS_OUT
        change = lots
    book.legs[at, LOTS] = held + change
    if index < listed.greeks_usd9.shape[0]:
        wanted = np.int64(listed.underlying[index])
        pair = entry_place(book.pairs, book.spans[row, PAIRS], book.spans[row, PAIRS_END], wanted)
        for column in range(4):
            book.pairs[pair, FIRST_GREEK + column] += change * listed.greeks_usd9[index, column]
    entry_usd6 = book.legs[at, ENTRY]
    if held + change == 0 and entry_usd6 != 0:  # closed: the profit since entry becomes cash
        if abs(book.cash_usd6[row] - entry_usd6) > CASH_LIMIT_USD6:
            return CLOSED_OUT
        book.cash_usd6[row] -= entry_usd6
        book.legs[at, ENTRY] = 0
    return DONE


@compiled
def apply_rows(
    events: Int64Array, named: Int64Array, begin: int, end: int, book: OpenBook, listed: ListedColumns,
    residue: Int64Array,
) -> tuple[int, int]:  # fmt: skip
    """Apply events begin..end-1 in place; they have been admitted, and none of them is a funding.

    residue int64[2] += what rounding added, in 1e-21 USD: residue[0] + residue[1] * 2**RESIDUE_LIMB_BITS. Returns
    (end, DONE), or the event that leaves a range and which: what of it comes before that is applied, but not the
    residue of a notional that leaves a range.
    """
    for n in range(begin, end):
        row, cash_usd6 = named[account_of(events, n)], events[n, CASH_WORD]
        held = book.cash_usd6[row]
        if cash_usd6 > CASH_LIMIT_USD6 - held or cash_usd6 < -CASH_LIMIT_USD6 - held:
            return n, CASH_OUT
        book.cash_usd6[row] = held + cash_usd6
        if kind_of(events, n) != CASH:
            found = _trade(events, n, row, book, listed, residue)
            if found != DONE:
                return n, found
    return end, DONE


@borrows
def _net_value_usd6(row: int, book: OpenBook, lot: LotTerms) -> float:
    """Cash, and leg by leg value less entry cost, in the order of the instruments, so equal inputs give equal bits.

    Lots held count at the mark after the collateral factor, owed ones at the mark; instruments beyond the terms count
    nothing.
    """
    total = np.float64(book.cash_usd6[row])
    for at in range(book.spans[row, LEGS], book.spans[row, LEGS_END]):
        index, lots, value = book.legs[at, INSTRUMENT], book.legs[at, LOTS], 0.0
        if index < lot.mark_usd9.shape[0]:
            price = lot.haircut_mark_usd9[index] if lots > 0 else lot.mark_usd9[index]
            value = np.float64(lots) * price / _USD9_PER_USD6
        total += value - np.float64(book.legs[at, ENTRY])
    return total


@compiled
def held_by(touched: BoolArray, book: OpenBook, lot: LotTerms) -> tuple[Int64Array, Int64Array, FloatArray]:
    """What those touched (bool[A]) hold now: rows int64[n] ascending, lots of their legs row after row, NLV f64[n]."""
    rows = np.flatnonzero(touched)
    value_usd6, count = np.empty(rows.shape[0]), 0
    for n in range(rows.shape[0]):
        count += book.spans[rows[n], LEGS_END] - book.spans[rows[n], LEGS]
        value_usd6[n] = _net_value_usd6(rows[n], book, lot)
    lots = np.empty(count, np.int64)
    count = 0
    for n in range(rows.shape[0]):
        for at in range(book.spans[rows[n], LEGS], book.spans[rows[n], LEGS_END]):
            lots[count] = book.legs[at, LOTS]
            count += 1
    return rows, lots, value_usd6


@compiled
def effects_usd6(
    rows: Int64Array, lots_before: Int64Array, value_before_usd6: FloatArray, book: OpenBook, lot: LotTerms
) -> tuple[FloatArray, FloatArray]:
    """Since `held_by` said the rest: (change of NLV, sum of |lots moved| x the bound of one lot), f64[n] each.

    A lot of an instrument beyond the bounds can do anything.
    """
    change_usd6, rise_usd6 = np.empty(rows.shape[0]), np.empty(rows.shape[0])
    count = 0
    for n in range(rows.shape[0]):
        total = 0.0
        for at in range(book.spans[rows[n], LEGS], book.spans[rows[n], LEGS_END]):
            moved = np.float64(abs(book.legs[at, LOTS] - lots_before[count]))
            if moved != 0.0:
                index = book.legs[at, INSTRUMENT]
                bound = lot.loss_bound_usd9[index] if index < lot.loss_bound_usd9.shape[0] else np.inf
                total += moved * bound / _USD9_PER_USD6
            count += 1
        after_usd6 = _net_value_usd6(rows[n], book, lot)
        change_usd6[n], rise_usd6[n] = after_usd6 - value_before_usd6[n], total
    return change_usd6, rise_usd6
