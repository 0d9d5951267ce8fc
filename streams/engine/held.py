"""What accounts held when their margins were computed, of those touched since: what their trades are bounded from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.open_book import INSTRUMENT_BITS
from streams.engine.book import Book

_NOTHING = np.zeros(0, np.int64)


class Holdings(NamedTuple):
    """`rows` int64[n] ascending, and all that they held: keys int64[L] ascending, lots int64[L]."""

    rows: np.ndarray = _NOTHING
    keys: np.ndarray = _NOTHING
    lots: np.ndarray = _NOTHING


class Held:
    """Holdings remembered part by part, no row twice. A touched account that is not here has no bound of its trades."""

    def __init__(self, first: Holdings | None = None) -> None:
        self.parts = [first or Holdings()]

    def remember(self, book: Book, rows: np.ndarray, touched: np.ndarray, lots: np.ndarray) -> None:
        """`rows`, among `touched` (both ascending), held what `lots` has of them: lots of the legs of `touched`."""
        pointer, instruments, *_ = book.legs_of(touched)
        size = np.diff(pointer)
        keys = np.repeat(touched << INSTRUMENT_BITS, size) | instruments
        chosen = np.repeat(np.isin(touched, rows, assume_unique=True), size)
        self.parts.append(Holdings(rows, keys[chosen], lots[chosen]))

    def holdings(self) -> Holdings:
        """Everything remembered."""
        rows, keys, lots = (np.concatenate(columns) for columns in zip(*self.parts, strict=True))
        order = np.argsort(keys, kind="stable")
        return Holdings(np.sort(rows), keys[order], lots[order])

    def to_plain(self) -> list[bytes]:
        return [column.tobytes() for column in self.holdings()]

    @classmethod
    def from_plain(cls, plain: list[bytes]) -> Held:
        return cls(Holdings(*(np.frombuffer(raw, np.int64).copy() for raw in plain))) if plain else cls()
