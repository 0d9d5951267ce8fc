"""The slow, obvious twins of `Book.apply_events`, of the effects of trades and of the look at the lines.

Event by event in Python integers; accounts, positions and Greeks in the same arrays, so that the two can be compared to
the byte, also where an event leaves a range.
"""

from __future__ import annotations

import numpy as np

from kernels.account_events import ENTRY_LIMIT_USD6, LOTS_LIMIT
from kernels.open_book import INSTRUMENT_BITS, INSTRUMENT_MASK
from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.quantities import ONE_E6, ONE_E9, USD9_PER_USD6
from schemas.risk_parameters import RiskParameters
from streams.engine.book import LINEAR_KINDS, Book
from streams.engine.lines import MILLISECONDS_PER_DAY, Lines
from streams.engine.market import RecordedMarket
from streams.engine.trades import LotTerms


class SlowBook(Book):
    """A book that applies one event after the other."""

    def apply_events(self, events: records.Events, catalogue: Catalogue, greeks_usd9: np.ndarray) -> np.ndarray:
        rows = [self._row(name) for name in events.names]
        for event in events.rows:
            if event["account"] != records.EVERY_ACCOUNT and event["kind"] != records.CASH:
                self._put_leg(rows[event["account"]], int(event["instrument"]), catalogue)
        touched: set[int] = set()
        for event in events.rows.tolist():
            kind, _, account, instrument, _, lots, price_usd9, cash_usd6 = event
            if kind == records.FUNDING:
                touched |= set(self._holders(instrument))
                self._fund(instrument, price_usd9, catalogue)
                continue
            touched.add(rows[account])
            self._add_cash(rows[account], cash_usd6)
            if kind != records.CASH:
                self._trade(rows[account], instrument, kind, lots, price_usd9, catalogue, greeks_usd9)
        return np.array(sorted(touched), np.int64)

    def _put_leg(self, row: int, index: int, catalogue: Catalogue) -> None:
        """A leg and its pair, without lots and Greeks."""
        key, pair = row << INSTRUMENT_BITS | index, row << INSTRUMENT_BITS | catalogue.instruments[index].underlying
        if key not in self.keys:
            at = int(np.searchsorted(self.keys, key))
            self.keys = np.insert(self.keys, at, key)
            self.lots, self.entry_usd6 = np.insert(self.lots, at, 0), np.insert(self.entry_usd6, at, 0)
        if pair not in self.pair_keys:
            at = int(np.searchsorted(self.pair_keys, pair))
            self.pair_keys = np.insert(self.pair_keys, at, pair)
            self.pair_greeks_usd9 = np.insert(self.pair_greeks_usd9, at, 0, axis=0)

    def _holders(self, instrument: int) -> list[int]:
        held = zip(self.keys.tolist(), self.lots.tolist(), strict=True)
        return [key >> INSTRUMENT_BITS for key, lots in held if key & INSTRUMENT_MASK == instrument and lots]

    def _trade(
        self, row: int, index: int, kind: int, lots: int, price_usd9: int, catalogue: Catalogue, greeks_usd9: np.ndarray
    ) -> None:
        instrument = catalogue.instruments[index]
        at = int(np.searchsorted(self.keys, row << INSTRUMENT_BITS | index))
        change = lots - int(self.lots[at]) if kind == records.COLLATERAL_SET else lots
        if kind == records.FILL:
            paid = self._paid_usd6(lots, price_usd9, instrument.lot_exponent)
            if instrument.kind in LINEAR_KINDS:
                self.entry_usd6[at] = self._within(int(self.entry_usd6[at]) + paid, ENTRY_LIMIT_USD6, row)
            else:
                self._add_cash(row, -paid)
        self.lots[at] = self._within(int(self.lots[at]) + change, LOTS_LIMIT, row)
        if index < len(greeks_usd9):
            pair = int(np.searchsorted(self.pair_keys, row << INSTRUMENT_BITS | instrument.underlying))
            self.pair_greeks_usd9[pair] += change * greeks_usd9[index]
        if self.lots[at] == 0 and self.entry_usd6[at]:  # closed: the profit since entry becomes cash
            self._add_cash(row, -int(self.entry_usd6[at]))
            self.entry_usd6[at] = 0


def copied(book: Book, kind: type[Book] = SlowBook) -> Book:
    """The same book, apart."""
    return kind.from_plain(book.to_plain())


def trade_effects(
    book: Book, events: records.Events, catalogue: Catalogue, greeks_usd9: np.ndarray, lot: LotTerms
) -> dict[int, tuple[float, float]]:
    """(change of NLV, rise of the lines) of each row touched, from the books before and after."""
    before = copied(book)
    rows = book.apply_events(events, catalogue, greeks_usd9)
    return {
        row: (_nlv_usd6(book, row, lot) - _nlv_usd6(before, row, lot), _rise_usd6(before, book, row, lot))
        for row in rows.tolist()
    }


def _nlv_usd6(book: Book, row: int, lot: LotTerms) -> float:
    if row >= len(book.accounts):
        return 0.0
    total = float(book.cash_usd6[row])
    for at in range(*book.leg_slice(row).indices(len(book.keys))):
        index, lots, value = int(book.keys[at]) & INSTRUMENT_MASK, int(book.lots[at]), 0.0
        if index < len(lot.mark_usd9):
            price = (lot.haircut_mark_usd9 if lots > 0 else lot.mark_usd9)[index]
            value = float(lots) * float(price) / USD9_PER_USD6
        total += value - float(book.entry_usd6[at])
    return total


def _rise_usd6(before: Book, after: Book, row: int, lot: LotTerms) -> float:
    held = dict(zip(before.keys.tolist(), before.lots.tolist(), strict=True))
    total = 0.0
    for at in range(*after.leg_slice(row).indices(len(after.keys))):
        key = int(after.keys[at])
        moved, index = abs(int(after.lots[at]) - held.get(key, 0)), key & INSTRUMENT_MASK
        bound = float(lot.loss_bound_usd9[index]) if index < len(lot.loss_bound_usd9) else np.inf
        if moved:
            total += float(moved) * bound / USD9_PER_USD6
    return total


def look(
    lines: Lines, rows: np.ndarray, book: Book, now: RecordedMarket, then: RecordedMarket, p: RiskParameters
) -> tuple[list[int], list[float]]:
    """(rows below an armed line, estimates), one account after the other; arms what is above again."""
    below, estimates = [], []
    days = (now.time_ms - then.time_ms) / MILLISECONDS_PER_DAY
    for row in rows.tolist():
        change = 0.0
        for key, greeks in zip(book.pair_keys.tolist(), book.pair_greeks_usd9.tolist(), strict=True):
            if key >> INSTRUMENT_BITS == row:
                u = key & INSTRUMENT_MASK
                prices = int(now.spot_usd9[u]), int(then.spot_usd9[u])
                levels = int(now.volatility_e9[u]), int(then.volatility_e9[u])
                r = float(prices[0]) / float(prices[1]) - 1.0 if min(prices) > 0 else 0.0
                dv = float(levels[0] - levels[1]) / ONE_E9 if min(levels) > 0 else 0.0
                delta, gamma, vega, theta = map(float, greeks)
                change += delta * r + gamma * (r * r * 0.5) + vega * dv + theta * days
        estimate = float(lines.base_usd6[row]) + change / USD9_PER_USD6
        for line in (0, 1):
            if estimate * ONE_E6 >= lines.line_usd6[row, line] * p.rearm_ratio_e6:
                lines.armed[row, line] = True
        estimates.append(estimate)
        if any(lines.armed[row, line] and not estimate >= lines.line_usd6[row, line] for line in (0, 1)):
            below.append(row)
    return below, estimates
