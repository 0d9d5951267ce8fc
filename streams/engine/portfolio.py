"""One account apart from its partition: the same book, the same events, the same decision.

An account alone is a `Book` with one row, so that a hypothetical trade is applied by the code that applies recorded
fills, and a hypothetical margin is computed by the code that computes every margin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from schemas.decisions import STATES, Cure, Margin
from schemas.risk_parameters import RiskParameters
from streams.engine.book import INSTRUMENT_MASK, Book, Legs
from streams.engine.margin import HEALTHY, Margins, Sums, account_sums, compute, cure, empty_margins
from streams.engine.reports import margin_of
from streams.engine.tables import Tables


class Assessment(Struct, frozen=True):
    """What the engine says of an account at one market: numbers, state and, unless it is healthy, the cure."""

    margin: Margin
    state: str
    cure: Cure | None


def alone(book: Book, row: int) -> Book:
    """Account `row` as a book of one row, without Greeks; changing it leaves `book` as it is."""
    leg = book.leg_slice(row)
    found = empty_account(book.accounts[row])
    found.cash_usd6 = book.cash_usd6[row : row + 1].copy()
    found.keys = book.keys[leg] & INSTRUMENT_MASK
    found.lots, found.entry_usd6 = book.lots[leg].copy(), book.entry_usd6[leg].copy()
    found.drop_closed()
    return found


def empty_account(name: str) -> Book:
    """A book of one account that has nothing."""
    book = Book()
    book.accounts, book.row_of, book.cash_usd6 = [name], {name: 0}, np.zeros(1, np.int64)
    return book


def joined_legs(accounts: Sequence[Book]) -> Legs:
    """CSR view of accounts that are each a book of one row."""
    pointer = np.concatenate([[0], np.cumsum([len(account.keys) for account in accounts])]).astype(np.int64)
    nothing = np.zeros(0, np.int64)
    keys = np.concatenate([nothing, *(account.keys for account in accounts)])
    lots = np.concatenate([nothing, *(account.lots for account in accounts)])
    return Legs(pointer, (keys & INSTRUMENT_MASK).astype(np.int32), lots)


def sums_of(accounts: Sequence[Book], tables: Tables, p: RiskParameters) -> tuple[Legs, Sums]:
    """Legs of the accounts, and everything of the decision that needs no scenario: O(legs)."""
    legs = joined_legs(accounts)
    cash = np.array([int(account.cash_usd6[0]) for account in accounts], np.int64)
    entry = np.array([int(account.entry_usd6.sum()) for account in accounts], np.int64)
    return legs, account_sums(legs, cash, entry, tables, p)


def margins_of(accounts: Sequence[Book], tables: Tables, p: RiskParameters) -> Margins:
    """Exact margins of accounts, each a book of one row: entry n is the account n.

    Raises:
        Fault: an account holds an instrument that cannot be priced.
    """
    legs, sums = sums_of(accounts, tables, p)
    margins = empty_margins(len(accounts))
    compute(legs, np.arange(len(accounts)), sums, tables, p, margins)
    return margins


def assessment_of(margins: Margins, place: int, p: RiskParameters) -> Assessment:
    """Entry `place` of the arrays as a value."""
    margin = margin_of(margins, place, tuple(row.name for row in p.stress_rows))
    state = int(margins.state[place])
    remedy = None if state == HEALTHY else cure(margin.nlv_usd6, margin.initial_margin_usd6)
    return Assessment(margin, STATES[state], remedy)
