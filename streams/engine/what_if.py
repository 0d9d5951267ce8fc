"""What if: the margin of an account after trades and deposits that did not happen, or of a portfolio nobody holds.

Pure: book state, changes and tables in, assessments out. Changes are packed as the log packs events and applied by the
book that applies those; margins are computed by the decision that computes every margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.quantities import CASH_MAX_USD6, LOTS_MAX, PRICE_MAX_USD9, divide_half_even
from schemas.risk_parameters import RiskParameters
from streams.engine.book import LINEAR_KINDS, Book
from streams.engine.output import Fault
from streams.engine.portfolio import Assessment, alone, assessment_of, empty_account, margins_of
from streams.engine.pre_trade import OneLotTerms, PreTradeBound, one_lot_terms, pre_trade_bound
from streams.engine.tables import Tables

HYPOTHETICAL = "portfolio"
NO_GREEKS = np.zeros((0, 4), np.int64)


class Refused(ValueError):
    """A change that cannot be taken: `field` names what is wrong, the message says why."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field, self.why = field, why


class Trade(Struct, frozen=True):
    """A fill of `lots` (negative: sold), at a price per unit of the underlying or, without one, at the mark."""

    instrument: str
    lots: int
    price_usd9: int | None = None


class Position(Struct, frozen=True):
    """Lots held. Perpetuals and futures were entered at `entry_price_usd9`, or without one at the mark; options and
    coins are simply held: what they cost has left the cash already."""

    instrument: str
    lots: int
    entry_price_usd9: int | None = None


class WhatIf(Struct, frozen=True):
    """The account as it is and after the changes, at one market, and the bound that no scenario was needed for."""

    account: str
    trades: tuple[Trade, ...]
    deposit_usd6: int
    before: Assessment
    after: Assessment
    bound: PreTradeBound | None


def what_if(
    account: Book,
    trades: Sequence[Trade],
    deposit_usd6: int,
    catalogue: Catalogue,
    tables: Tables,
    p: RiskParameters,
    one_lot: OneLotTerms | None = None,
) -> WhatIf:
    """Margins of an account (a book of one row: `portfolio.alone`) before and after the changes.

    Trades without a price are told with the mark they were taken at. `one_lot` are the one-lot terms of these tables:
    who asks more than once a market makes them once.

    Raises:
        Refused: a trade or the deposit cannot be taken; nothing is changed.
    """
    priced = tuple(_with_price(trade, catalogue, tables) for trade in trades)
    after = with_changes(account, priced, deposit_usd6, catalogue, tables)
    margins = margins_of([account, after], tables, p)
    one_lot = one_lot_terms(tables) if one_lot is None else one_lot
    bound = pre_trade_bound(margins, 0, account, after, one_lot, tables, p)
    before, then = assessment_of(margins, 0, p), assessment_of(margins, 1, p)
    return WhatIf(account.accounts[0], priced, deposit_usd6, before, then, bound)


def with_changes(
    account: Book, trades: Iterable[Trade], deposit_usd6: int, catalogue: Catalogue, tables: Tables
) -> Book:
    """A copy of the account after a deposit (negative: withdrawal) and fills.

    Raises:
        Refused: see `what_if`.
    """
    if abs(deposit_usd6) >= CASH_MAX_USD6:
        raise Refused("deposit", f"{deposit_usd6} micro-USD is out of range")
    rows = [_row(records.CASH, 0, 0, 0, deposit_usd6)]
    for trade in trades:
        index = instrument_index(trade.instrument, catalogue, tables)
        price = _with_price(trade, catalogue, tables).price_usd9 or 0
        rows.append(_row(records.FILL, index, _lots(trade.instrument, trade.lots), price, 0))
    return _applied(alone(account, 0), rows, catalogue)


def portfolio(cash_usd6: int, positions: Iterable[Position], catalogue: Catalogue, tables: Tables) -> Book:
    """A portfolio nobody holds, as the book of one account.

    Raises:
        Refused: cash or a position cannot be taken; each instrument may stand once.
    """
    if abs(cash_usd6) >= CASH_MAX_USD6:
        raise Refused("cash", f"{cash_usd6} micro-USD is out of range")
    rows, seen = [_row(records.CASH, 0, 0, 0, cash_usd6)], set()
    for position in positions:
        index = instrument_index(position.instrument, catalogue, tables)
        if index in seen:
            raise Refused("instrument", f"{position.instrument} stands twice: state its lots once")
        seen.add(index)
        lots = _lots(position.instrument, position.lots)
        linear = catalogue.instruments[index].kind in LINEAR_KINDS
        if position.entry_price_usd9 is not None and not linear:
            raise Refused("entry_price", f"{position.instrument} has no entry price: perpetuals and futures only")
        if linear:
            trade = _with_price(Trade(position.instrument, lots, position.entry_price_usd9), catalogue, tables)
            rows.append(_row(records.FILL, index, lots, trade.price_usd9 or 0, 0))
        else:
            rows.append(_row(records.COLLATERAL_ADD, index, lots, 0, 0))
    return _applied(empty_account(HYPOTHETICAL), rows, catalogue)


def instrument_index(symbol: str, catalogue: Catalogue, tables: Tables) -> int:
    """Index of a listed instrument that has a price now.

    Raises:
        Refused: it is not listed, or has no price (none has come yet, or it is settled).
    """
    index = catalogue.instrument_index.get(symbol)
    if index is None:
        raise Refused("instrument", f"{symbol!r} is not listed")
    if not tables.instruments.alive[index] or tables.pnl.exponent[index] < 0:
        raise Refused("instrument", f"{symbol} has no price at this block: it is settled, or none has come yet")
    return index


def mark_price_usd9(index: int, catalogue: Catalogue, tables: Tables) -> int:
    """Mark per unit of the underlying, from the mark per lot."""
    mark, exponent = int(tables.columns_usd9[0, index]), catalogue.instruments[index].lot_exponent
    return mark * 10**-exponent if exponent <= 0 else divide_half_even(mark, 10**exponent)


def _with_price(trade: Trade, catalogue: Catalogue, tables: Tables) -> Trade:
    index = instrument_index(trade.instrument, catalogue, tables)
    price = trade.price_usd9
    if price is not None and not 0 <= price <= PRICE_MAX_USD9:
        raise Refused("price", f"{price} nano-USD a unit is out of range for {trade.instrument}")
    if price is None:
        price = mark_price_usd9(index, catalogue, tables)
    return Trade(trade.instrument, trade.lots, price)


def _lots(instrument: str, lots: int) -> int:
    if lots == 0 or abs(lots) >= LOTS_MAX:
        raise Refused("lots", f"{instrument} needs a number other than 0 and below {LOTS_MAX:,} in size, not {lots}")
    return lots


def _row(kind: int, index: int, lots: int, price_usd9: int, cash_usd6: int) -> tuple:
    return (kind, (0, 0, 0), 0, index, 0, lots, price_usd9, cash_usd6)


def _applied(account: Book, rows: list[tuple], catalogue: Catalogue) -> Book:
    """Apply packed events to the book, as the log's are."""
    events = records.Events(account.accounts, np.array(rows, records.EVENT_ROW))
    try:
        account.apply_events(events, catalogue, NO_GREEKS)
    except Fault as fault:
        raise Refused("lots", str(fault)) from fault
    account.drop_closed()
    return account
