"""A book that is open for events: the legs of each account together by instrument, its pairs by underlying, with room.

A packed book has sorted keys ``row << INSTRUMENT_BITS | instrument`` and nothing between them: a new leg would move
all that stand behind it. In an open one it moves those of its account. An account that has used up its room is moved to
the end, with twice as much of it; what it leaves is lost until the book is packed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.compiling import borrows, compiled
from kernels.layout import Int32Array, Int64Array

INSTRUMENT_BITS = 24
INSTRUMENT_MASK = (1 << INSTRUMENT_BITS) - 1

LEGS, LEGS_END, LEGS_LIMIT, PAIRS, PAIRS_END, PAIRS_LIMIT, SPAN = range(7)
"""Columns of `spans`: first leg of an account, behind its last one, behind the room for more; the same of its pairs."""
INSTRUMENT, LOTS, ENTRY, LEG = range(4)
"""Columns of `legs`."""
UNDERLYING, FIRST_GREEK, PAIR = 0, 1, 5
"""Columns of `pairs`; four Greeks."""


class OpenBook(NamedTuple):
    """Cash int64[A]; `spans` int64[A,6]; `legs` int64[C,3]: instrument, lots, entry cost; `pairs` int64[D,5]:
    underlying, Greeks; `free` int64[2]: first leg and first pair that nobody has.
    """

    cash_usd6: Int64Array
    spans: Int64Array
    legs: Int64Array
    pairs: Int64Array
    free: Int64Array


class Positions(NamedTuple):
    """A packed book: keys int64[L] with lots and entry costs; pair keys int64[P] with Greeks int64[P,4]."""

    keys: Int64Array
    lots: Int64Array
    entry_usd6: Int64Array
    pair_keys: Int64Array
    pair_greeks_usd9: Int64Array


@compiled
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


@borrows
def entry_place(entries: Int64Array, begin: int, end: int, wanted: int | np.int64) -> int:
    """First place in begin..end-1 whose first column is not below `wanted`, or end."""
    while end - begin > 8:
        middle = (begin + end) // 2
        if entries[middle, 0] < wanted:
            begin = middle + 1
        else:
            end = middle
    while begin < end and entries[begin, 0] < wanted:
        begin += 1
    return begin


@borrows
def _moved_to_the_end(
    spans: Int64Array, row: int, column: int | np.int64, entries: Int64Array, free: Int64Array, of: int | np.int64
) -> bool:
    """Gives the account twice the room; False where the array has not that much."""
    begin, end, to = spans[row, column], spans[row, column + 1], free[of]
    size = end - begin
    if to + 2 * size + 2 > entries.shape[0]:
        return False
    for n in range(size):
        for part in range(entries.shape[1]):
            entries[to + n, part] = entries[begin + n, part]
    free[of] = to + 2 * size + 2
    spans[row, column], spans[row, column + 1], spans[row, column + 2] = to, to + size, free[of]
    return True


@borrows
def _put(
    spans: Int64Array,
    row: int,
    column: int | np.int64,
    entries: Int64Array,
    free: Int64Array,
    of: int | np.int64,
    wanted: int | np.int64,
) -> bool:
    end = spans[row, column + 1]
    at = entry_place(entries, spans[row, column], end, wanted)
    if at < end and entries[at, 0] == wanted:
        return True
    if end == spans[row, column + 2]:
        begin = spans[row, column]
        if not _moved_to_the_end(spans, row, column, entries, free, of):
            return False
        at, end = at - begin + spans[row, column], spans[row, column + 1]
    for n in range(end, at, -1):
        for part in range(entries.shape[1]):
            entries[n, part] = entries[n - 1, part]
    entries[at, 0] = wanted
    for part in range(1, entries.shape[1]):
        entries[at, part] = 0
    spans[row, column + 1] = end + 1
    return True


@borrows
def put_leg(book: OpenBook, row: int, instrument: int | np.int64) -> bool:
    """The account has a leg of the instrument afterwards, an empty one if it is new; False where there is no room."""
    return _put(book.spans, row, np.int64(LEGS), book.legs, book.free, np.int64(0), instrument)


@borrows
def put_pair(book: OpenBook, row: int, underlying: int | np.int64) -> bool:
    """The same for its Greeks of an underlying."""
    return _put(book.spans, row, np.int64(PAIRS), book.pairs, book.free, np.int64(1), underlying)


@compiled
def opened(packed: Positions, room: Int64Array, more: int) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
    """(spans, legs, pairs, free) of a packed book, for room.shape[0] accounts, those that it has and others.

    room int64[A]: legs, and as many pairs, that each can take; `more`: of both at the end, for who needs more.
    """
    count, total = room.shape[0], room.sum() + more
    spans = np.empty((count, SPAN), np.int64)
    legs = np.empty((packed.keys.shape[0] + total, LEG), np.int64)
    pairs = np.empty((packed.pair_keys.shape[0] + total, PAIR), np.int64)
    leg = pair = at = to = 0
    for row in range(count):
        spans[row, LEGS], spans[row, PAIRS] = at, to
        while leg < packed.keys.shape[0] and packed.keys[leg] >> INSTRUMENT_BITS == row:
            legs[at, INSTRUMENT] = packed.keys[leg] & INSTRUMENT_MASK
            legs[at, LOTS], legs[at, ENTRY] = packed.lots[leg], packed.entry_usd6[leg]
            leg, at = leg + 1, at + 1
        while pair < packed.pair_keys.shape[0] and packed.pair_keys[pair] >> INSTRUMENT_BITS == row:
            pairs[to, UNDERLYING] = packed.pair_keys[pair] & INSTRUMENT_MASK
            for column in range(4):
                pairs[to, FIRST_GREEK + column] = packed.pair_greeks_usd9[pair, column]
            pair, to = pair + 1, to + 1
        spans[row, LEGS_END], spans[row, PAIRS_END] = at, to
        at, to = at + room[row], to + room[row]
        spans[row, LEGS_LIMIT], spans[row, PAIRS_LIMIT] = at, to
    return spans, legs, pairs, np.array([at, to])


@compiled
def packed_legs(book: OpenBook, count: int, keeps_closed: bool) -> tuple[Int64Array, Int64Array, Int64Array]:
    """(keys, lots, entry costs) of the first `count` accounts; keeps_closed: also of legs without lots."""
    total = 0
    for row in range(count):
        for at in range(book.spans[row, LEGS], book.spans[row, LEGS_END]):
            total += 1 if keeps_closed or book.legs[at, LOTS] != 0 else 0
    keys, lots, entry_usd6 = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.int64)
    to = 0
    for row in range(count):
        for at in range(book.spans[row, LEGS], book.spans[row, LEGS_END]):
            if keeps_closed or book.legs[at, LOTS] != 0:
                keys[to] = row << INSTRUMENT_BITS | book.legs[at, INSTRUMENT]
                lots[to], entry_usd6[to] = book.legs[at, LOTS], book.legs[at, ENTRY]
                to += 1
    return keys, lots, entry_usd6


@compiled
def packed_pairs(book: OpenBook, count: int) -> tuple[Int64Array, Int64Array]:
    """(pair keys, Greeks) of the first `count` accounts."""
    total = 0
    for row in range(count):
        total += book.spans[row, PAIRS_END] - book.spans[row, PAIRS]
    keys, greeks_usd9 = np.empty(total, np.int64), np.empty((total, 4), np.int64)
    to = 0
    for row in range(count):
        for at in range(book.spans[row, PAIRS], book.spans[row, PAIRS_END]):
            keys[to] = row << INSTRUMENT_BITS | book.pairs[at, UNDERLYING]
            for column in range(4):
                greeks_usd9[to, column] = book.pairs[at, FIRST_GREEK + column]
            to += 1
    return keys, greeks_usd9


@compiled
def legs_of_rows(rows: Int64Array, book: OpenBook) -> tuple[Int64Array, Int32Array, Int64Array, Int64Array]:
    """Legs of rows int64[n], row after row: pointer int64[n+1], instruments, lots, entry costs."""
    pointer = np.zeros(rows.shape[0] + 1, np.int64)
    for n in range(rows.shape[0]):
        pointer[n + 1] = pointer[n] + book.spans[rows[n], LEGS_END] - book.spans[rows[n], LEGS]
    total, to = pointer[-1], 0
    instruments, lots, entry_usd6 = np.empty(total, np.int32), np.empty(total, np.int64), np.empty(total, np.int64)
    for n in range(rows.shape[0]):
        for at in range(book.spans[rows[n], LEGS], book.spans[rows[n], LEGS_END]):
            instruments[to] = book.legs[at, INSTRUMENT]
            lots[to], entry_usd6[to] = book.legs[at, LOTS], book.legs[at, ENTRY]
            to += 1
    return pointer, instruments, lots, entry_usd6


@compiled
def holders_of(instrument: int, book: OpenBook, count: int) -> tuple[Int64Array, Int64Array]:
    """(rows ascending, lots) of those of the first `count` accounts that hold it."""
    rows, lots, found = np.empty(count, np.int64), np.empty(count, np.int64), 0
    for row in range(count):
        end = book.spans[row, LEGS_END]
        at = entry_place(book.legs, book.spans[row, LEGS], end, instrument)
        if at < end and book.legs[at, INSTRUMENT] == instrument and book.legs[at, LOTS] != 0:
            rows[found], lots[found], found = row, book.legs[at, LOTS], found + 1
    return rows[:found], lots[:found]
