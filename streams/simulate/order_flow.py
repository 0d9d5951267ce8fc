"""Trades of the demo world: customers against market makers, at the mark, a few in every block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schemas.events import Fill
from streams.simulate.accounts import (
    RETAIL,
    SPREAD,
    UNDERLYING_SHARES,
    Accounts,
    Ladder,
    draw_lots,
    draw_option,
)
from streams.simulate.venue import Venue

ACCOUNTS_PER_TRADE, TRADES_MIN = 50, 3
CLOSING_SHARE, PERPETUAL_SHARE = 0.5, 0.5


class Moment(NamedTuple):
    """A stretch of a block in which marks stand still: when it begins and ends, price of every instrument."""

    after_ms: int
    before_ms: int
    prices_usd9: np.ndarray


class OrderFlow:
    """Draws the trades of block after block; remembers positions, so that customers also close them."""

    def __init__(self, venue: Venue, accounts: Accounts, ladders: list[Ladder], seed: int) -> None:
        self.venue, self.accounts, self.ladders = venue, accounts, ladders
        self.books = {name: dict(book) for name, book in accounts.books.items()}
        self.generator = np.random.default_rng([seed, 3])
        self.trades_per_block = max(TRADES_MIN, len(self.books) // ACCOUNTS_PER_TRADE)

    def fills(self, block: int, moments: list[Moment]) -> list[Fill]:
        """Both sides of this block's trades."""
        found = []
        for trade in range(self.trades_per_block):
            customer = self.accounts.customers[self.generator.integers(len(self.accounts.customers))]
            maker = self.accounts.makers[self.generator.integers(len(self.accounts.makers))]
            moment = moments[self.generator.integers(len(moments))]
            time_ms = int(self.generator.integers(moment.after_ms + 1, moment.before_ms))
            instrument, lots = self._wish(customer)
            price_usd9 = max(int(moment.prices_usd9[instrument]), 1)
            symbol = self.venue.catalogue.instruments[instrument].symbol
            for side, name, change in (("customer", customer, lots), ("maker", maker, -lots)):
                self._add(name, instrument, change)
                fill = Fill(
                    version=1, id=f"{block}-{trade:04d}-{side}", block=block, time_ms=time_ms, account=name,
                    instrument=symbol, lots=change, price_usd9=price_usd9,
                )  # fmt: skip
                found.append(fill)
        return found

    def _wish(self, customer: str) -> tuple[int, int]:
        """(instrument, signed lots) that a customer wants."""
        book, generator = self.books[customer], self.generator
        closes, picked, is_perpetual = generator.random() < CLOSING_SHARE, generator.random(), generator.random()
        if closes and book:
            instrument = sorted(book)[int(picked * len(book))]
            return instrument, -book[instrument]
        ladder = self.ladders[generator.choice(len(self.ladders), p=UNDERLYING_SHARES)]
        kind = SPREAD if customer.startswith(SPREAD) else RETAIL
        instrument = ladder.perpetual if is_perpetual < PERPETUAL_SHARE else draw_option(ladder, generator)
        return instrument, draw_lots(ladder, kind, generator) * (1 if generator.random() < 0.5 else -1)

    def _add(self, account: str, instrument: int, lots: int) -> None:
        book = self.books[account]
        book[instrument] = book.get(instrument, 0) + lots
        if book[instrument] == 0:
            del book[instrument]
