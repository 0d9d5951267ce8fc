"""Rows by packed names are those of the book's dictionary, whatever is named, however the accounts came and went."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import log_records as records
from schemas.catalogue import Catalogue
from streams.engine.account_index import AccountIndex
from streams.engine.book import Book

names = st.text(st.sampled_from("ab/é\0"), max_size=6)


def packed(wanted: list[str]) -> records.PackedEvents:
    """An event of cash for each."""
    rows = np.zeros(len(wanted), records.EVENT_ROW)
    rows["kind"], rows["account"], rows["instrument"], rows["cash_usd6"] = records.CASH, np.arange(len(wanted)), -1, 1
    head = records.pack_header(records.EVENTS, 1, 1, 1, records.NO_HASH, entries=len(rows), partition=0)
    raw = records.pack_events(head, records.Events(wanted, rows))
    return records.read_packed_events(raw, records.read_header(raw))


@given(st.lists(st.lists(names, max_size=8), max_size=8), st.lists(names, max_size=5))
@settings(max_examples=200, deadline=None)
def test_rows_are_found_while_accounts_come(batches: list[list[str]], asked: list[str]) -> None:
    index, accounts = AccountIndex(), list[str]()
    for batch in batches:
        accounts += [name for name in dict.fromkeys(batch) if name not in accounts]
        for wanted in (batch, asked, batch + asked):
            found = index.rows_of(packed(wanted), accounts)
            if all(name in accounts for name in wanted):
                assert found is not None
                assert found.tolist() == [accounts.index(name) for name in wanted]
            else:
                assert found is None


def test_a_book_that_forgets_accounts_gives_their_rows_to_others() -> None:
    book = Book()

    def named(*wanted: str) -> list[int]:
        return book.take_up(packed(list(wanted)), Catalogue()).named.tolist()

    assert named("a", "b", "c") == [0, 1, 2]
    assert named("c", "a") == [2, 0]
    book.forget_accounts(1)
    assert named("d", "b", "a") == [1, 2, 0]
    assert named("a", "b", "d") == [0, 2, 1]
