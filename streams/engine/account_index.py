"""Rows of accounts by their packed names: what `Book.row_of` says, for kernels. No state: made again from the names."""

from __future__ import annotations

import numpy as np

from kernels.account_names import FREE, NameTable, rows_of_names, take_in
from schemas.log_records import PackedEvents


class AccountIndex:
    """Covers the first `count` accounts of a list that only grows."""

    def __init__(self) -> None:
        self.count = self._text_bytes = 0
        hashes, places, text = np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
        self._table = NameTable(np.full(1, FREE, np.int64), hashes, places, places, text)

    def rows_of(self, events: PackedEvents, accounts: list[str]) -> np.ndarray | None:
        """Rows int64[n] of the accounts that the events name; None if one of them is new."""
        if self.count < len(accounts):
            self._cover(accounts)
        rows = np.empty(len(events.lengths), np.int64)
        if events.text_at + int(events.lengths.sum()) > len(events.raw):
            return None
        text = np.frombuffer(events.raw, np.uint8)
        return rows if rows_of_names(self._table, text, events.text_at, events.lengths, rows) else None

    def _cover(self, accounts: list[str]) -> None:
        """Take in the accounts that are new; columns get room for a quarter more, slots for
        twice as many at least."""
        names = [name.encode() for name in accounts[self.count :]]
        table, first, count = self._table, self.count, len(accounts)
        ends = self._text_bytes + np.cumsum([len(name) for name in names])
        hashes, begin, end = (_with_room(old, first, count) for old in (table.hashes, table.begin, table.end))
        table = NameTable(table.slots, hashes, begin, end, _with_room(table.text, self._text_bytes, int(ends[-1])))
        table.text[self._text_bytes : ends[-1]] = np.frombuffer(b"".join(names), np.uint8)
        table.begin[first], table.begin[first + 1 : count], table.end[first:count] = self._text_bytes, ends[:-1], ends
        if 2 * count > len(table.slots):
            first, table = 0, table._replace(slots=np.full(1 << (4 * count - 1).bit_length(), FREE, np.int64))
        take_in(table, first, count, table.slots)
        self._table, self.count, self._text_bytes = table, count, int(ends[-1])


def _with_room(old: np.ndarray, used: int, count: int) -> np.ndarray:
    """The same, or with room for a quarter more than `count` where there is too little."""
    if count <= len(old):
        return old
    wider = np.zeros(count + count // 4 + 64, old.dtype)
    wider[:used] = old[:used]
    return wider
