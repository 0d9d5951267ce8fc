"""What accounts held before they were touched: once, whole, in order, and the same after a checkpoint."""

import numpy as np

from streams.engine.book import INSTRUMENT_BITS, Book
from streams.engine.held import Held, Holdings


def book_of(lots: dict[tuple[int, int], int]) -> Book:
    book = Book()
    book.accounts = [f"a{row}" for row in range(1 + max(row for row, _ in lots))]
    book.keys = np.array([row << INSTRUMENT_BITS | i for row, i in sorted(lots)], np.int64)
    book.lots = np.array([lots[key] for key in sorted(lots)], np.int64)
    return book


def columns(held: Held) -> list[list[int]]:
    return [column.tolist() for column in held.holdings()]


def test_parts_come_together_in_order_and_survive_a_checkpoint() -> None:
    book, held = book_of({(0, 2): 5, (1, 0): -7, (1, 3): 0, (2, 1): 9}), Held()
    assert columns(held) == [[], [], []]
    held.remember(book, np.array([1]), np.array([1, 2]), np.array([-6, 0, 9]))
    held.remember(book, np.array([0]), np.array([0, 1]), np.array([4, -7, 1]))
    keys = [2, 1 << INSTRUMENT_BITS, 1 << INSTRUMENT_BITS | 3]
    assert columns(held) == [[0, 1], keys, [4, -6, 0]]
    assert columns(Held.from_plain(held.to_plain())) == columns(held)
    assert columns(Held.from_plain([])) == [[], [], []]  # a checkpoint that does not say


def test_an_account_with_nothing_is_remembered_too() -> None:
    book, held = book_of({(0, 2): 5, (2, 1): 9}), Held(Holdings())
    held.remember(book, np.array([1]), np.array([1]), np.zeros(0, np.int64))
    assert columns(held) == [[1], [], []]
