"""Rows of accounts by the bytes of their names, as a packed record has them: no name becomes a Python string.

An open hash table: FNV-1a (Fowler, Noll, Vo) of 64 bits, linear probing, every hit compared byte by byte.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.compiling import compiled
from kernels.layout import Int64Array

UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]
UInt64Array = npt.NDArray[np.uint64]

FREE = -1
_FNV_BASIS, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


class NameTable(NamedTuple):
    """slots int64[C]: a row or FREE, C a power of two above the number of rows; by row the hash, and the name as
    text[begin:end], uint8.
    """

    slots: Int64Array
    hashes: UInt64Array
    begin: Int64Array
    end: Int64Array
    text: UInt8Array


@compiled
def _hash(text: UInt8Array, begin: int, end: int) -> np.uint64:
    found = _FNV_BASIS
    for at in range(begin, end):
        found = (found ^ np.uint64(text[at])) * _FNV_PRIME
    return found


@compiled
def _is_named(table: NameTable, row: int, hashed: np.uint64, text: UInt8Array, begin: int, end: int) -> bool:
    if table.hashes[row] != hashed or table.end[row] - table.begin[row] != end - begin:
        return False
    at = 0
    while at < end - begin and table.text[table.begin[row] + at] == text[begin + at]:
        at += 1
    return at == end - begin


@compiled
def rows_of_names(table: NameTable, text: UInt8Array, begin: int, lengths: UInt16Array, rows: Int64Array) -> bool:
    """rows int64[n] of the names that stand one after the other in text from `begin` on; whether all have one."""
    mask = np.uint64(table.slots.shape[0] - 1)
    for n in range(lengths.shape[0]):
        end = begin + int(lengths[n])
        hashed = _hash(text, begin, end)
        slot = hashed & mask
        while table.slots[slot] != FREE and not _is_named(table, table.slots[slot], hashed, text, begin, end):
            slot = (slot + np.uint64(1)) & mask
        if table.slots[slot] == FREE:
            return False
        rows[n], begin = table.slots[slot], end
    return True


@compiled
def take_in(table: NameTable, first: int, end: int, slots: Int64Array) -> None:
    """Hash the names of rows first..end-1, none of which is in slots yet, and put the rows there."""
    mask = np.uint64(slots.shape[0] - 1)
    for row in range(first, end):
        table.hashes[row] = _hash(table.text, table.begin[row], table.end[row])
        slot = table.hashes[row] & mask
        while slots[slot] != FREE:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = row
