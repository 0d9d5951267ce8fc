"""Accounts of one partition: cash, positions in lots, and Greeks per account and underlying, all exact integers.

Positions are sorted keys (row << 24 | instrument): equal histories of content give equal arrays, whatever the order in
which accounts met instruments, and a CSR view for the kernels costs one search.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.account_events import (
    CASH_LIMIT_USD6,
    CASH_OUT,
    CLOSED_OUT,
    DONE,
    ENTRY_LIMIT_USD6,
    ENTRY_OUT,
    INSTRUMENT_BITS,
    INSTRUMENT_MASK,
    LOTS_LIMIT,
    LOTS_OUT,
    PAID_OUT,
    RESIDUE_LIMB_BITS,
    SOME_ABSENT,
    UNFIT,
    BookColumns,
    EventColumns,
    ListedColumns,
    apply_rows,
    locate,
    make_room,
)
from kernels.account_sums import greeks_by_pair
from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.quantities import (
    USD9_PER_USD6,
    USD21_PER_USD6,
    divide_half_even,
    notional_usd6,
    notional_usd21,
    saturated,
)
from streams.engine.account_index import AccountIndex
from streams.engine.output import Fault

LINEAR_KINDS = ("perpetual", "future")
PRODUCT_LIMIT = 2**62


class Legs(NamedTuple):
    """CSR view: account_ptr int64[A+1], leg_instrument int32[L], leg_lots int64[L]."""

    account_ptr: np.ndarray
    leg_instrument: np.ndarray
    leg_lots: np.ndarray


class Taken(NamedTuple):
    """Events taken up: their columns, the rows int64 of the accounts they name, and those that they will touch (of
    events of their own, and of holders of what is funded), ascending.
    """

    columns: EventColumns
    named: np.ndarray
    rows: np.ndarray


class Book:
    """Rows are accounts in the order of their first event in the log.

    `residue_usd21`: what rounding to micro-USD has taken from all accounts of the partition (negative: given to them)
    in fills, funding and settlement. With it money is conserved exactly: sum of cash - entries + residue changes by
    deposits, withdrawals and fees alone, where every lot bought is a lot sold.
    """

    def __init__(self) -> None:
        self.accounts: list[str] = []
        self.row_of: dict[str, int] = {}
        self._index = AccountIndex()
        self.cash_usd6 = np.zeros(0, np.int64)
        self.keys = np.zeros(0, np.int64)
        self.lots = np.zeros(0, np.int64)
        self.entry_usd6 = np.zeros(0, np.int64)  # notional paid for open perpetuals and futures
        self.residue_usd21 = 0
        self.pair_keys = np.zeros(0, np.int64)  # row << 24 | underlying
        self.pair_greeks_usd9 = np.zeros((0, 4), np.int64)

    # -- events

    def apply_events(
        self, events: records.Events | records.PackedEvents, catalogue: Catalogue, greeks_usd9: np.ndarray
    ) -> np.ndarray:
        """Apply packed events in order; Greeks (int64[I,4] per lot) move with the lots. Returns rows touched."""
        taken = self.take_up(events, catalogue)
        self.carry_out(taken, catalogue, greeks_usd9)
        return taken.rows

    def take_up(self, events: records.Events | records.PackedEvents, catalogue: Catalogue) -> Taken:
        """Accounts, legs and pairs of everything the events name are there afterwards; nothing else changes."""
        named, columns = self._rows_of(events), _columns(events.rows)
        touched = np.zeros(len(self.accounts), np.bool_)
        account, underlying = events.rows["account"].copy(), catalogue.columns().underlying
        found = locate(account, named, columns, underlying, self.columns(), touched)
        if found == UNFIT:
            _refuse(account, named, columns, underlying)
        if found == SOME_ABSENT:
            self._take(make_room(columns, underlying, self.columns()))
        funded = columns.instrument[columns.kind == records.FUNDING]
        for index in np.unique(funded).tolist() if len(funded) else ():
            touched[self.keys[self.holders(index)] >> INSTRUMENT_BITS] = True
        return Taken(columns, named, np.flatnonzero(touched))

    def carry_out(self, taken: Taken, catalogue: Catalogue, greeks_usd9: np.ndarray) -> None:
        """Apply what was taken up, in its order: in compiled stretches between fundings."""
        events, listed = taken.columns, catalogue.columns()
        columns = ListedColumns(listed.kind, listed.lot_exponent, greeks_usd9)
        begin = 0
        for at in np.flatnonzero(events.kind == records.FUNDING).tolist():
            self._apply(events, begin, at, columns)
            self._fund(int(events.instrument[at]), int(events.price_usd9[at]), catalogue)
            begin = at + 1
        self._apply(events, begin, len(events.row), columns)

    def _apply(self, events: EventColumns, begin: int, end: int, listed: ListedColumns) -> None:
        """Events begin to end - 1, none of them a funding. Raises Fault where a number leaves its range."""
        residue = np.zeros(2, np.int64)
        at, found = apply_rows(events, begin, end, self.columns(), listed, residue)
        self.residue_usd21 += int(residue[0]) + (int(residue[1]) << RESIDUE_LIMB_BITS)
        if found != DONE:
            self._say_what_is_out(events, at, found, listed)

    def _say_what_is_out(self, events: EventColumns, at: int, found: int, listed: ListedColumns) -> None:
        """Raises the Fault with the number itself, which may have any size."""
        row, index = int(events.row[at]), int(events.instrument[at])
        lots, price_usd9 = int(events.lots[at]), int(events.price_usd9[at])
        leg = int(np.searchsorted(self.keys, row << INSTRUMENT_BITS | index))
        if found == CASH_OUT:
            self._add_cash(row, int(events.cash_usd6[at]))
        elif found == CLOSED_OUT:
            self._add_cash(row, -int(self.entry_usd6[leg]))
        elif found == LOTS_OUT:
            held = 0 if events.kind[at] == records.COLLATERAL_SET else int(self.lots[leg])
            self._within(held + lots, LOTS_LIMIT, row)
        paid = self._paid_usd6(lots, price_usd9, int(listed.lot_exponent[index]))
        if found == PAID_OUT:
            self._add_cash(row, -paid)
        assert found == ENTRY_OUT
        self._within(int(self.entry_usd6[leg]) + paid, ENTRY_LIMIT_USD6, row)

    def columns(self) -> BookColumns:
        """The book as the kernels take it."""
        return BookColumns(self.cash_usd6, self.keys, self.lots, self.entry_usd6, self.pair_keys, self.pair_greeks_usd9)

    def _take(self, columns: BookColumns) -> None:
        self.keys, self.lots, self.entry_usd6 = columns.keys, columns.lots, columns.entry_usd6
        self.pair_keys, self.pair_greeks_usd9 = columns.pair_keys, columns.pair_greeks_usd9

    def holders(self, instrument: int) -> np.ndarray:
        """Places of the open legs of an instrument."""
        return np.flatnonzero(((self.keys & INSTRUMENT_MASK) == instrument) & (self.lots != 0))

    def _fund(self, index: int, amount_usd9: int, catalogue: Catalogue) -> None:
        """Every holder of a perpetual pays `amount_usd9` a unit (who is short receives it)."""
        places = self.holders(index)
        rows = self.keys[places] >> INSTRUMENT_BITS
        paid = self._paid_each_usd6(self.lots[places], amount_usd9, catalogue.instruments[index].lot_exponent)
        cash = self.cash_usd6[rows] - paid
        for beyond in np.flatnonzero(np.abs(cash) > CASH_LIMIT_USD6).tolist():
            self._within(int(cash[beyond]), CASH_LIMIT_USD6, int(rows[beyond]))
        self.cash_usd6[rows] = cash

    def _paid_each_usd6(self, lots: np.ndarray, price_usd9: int, lot_exponent: int) -> np.ndarray:
        """`_paid_usd6` of each of many lots, int64; in arrays wherever their products fit."""
        unit = 10 ** max(3 - lot_exponent, 0)
        if unit == 1 or int(np.abs(lots).max(initial=0)) * abs(price_usd9) >= PRODUCT_LIMIT:
            return np.array([self._paid_usd6(n, price_usd9, lot_exponent) for n in lots.tolist()], np.int64)
        product = lots * price_usd9
        paid, rest = np.divmod(product, unit)
        paid += (2 * rest > unit) | ((2 * rest == unit) & (paid & 1 == 1))
        self.residue_usd21 += sum((paid * unit - product).tolist()) * (USD21_PER_USD6 // unit)
        return paid

    def _paid_usd6(self, lots: int, price_usd9: int, lot_exponent: int) -> int:
        """Notional of lots in micro-USD; what rounding adds to it goes to the residue."""
        paid = notional_usd6(lots, price_usd9, lot_exponent)
        self.residue_usd21 += paid * USD21_PER_USD6 - notional_usd21(lots, price_usd9, lot_exponent)
        return paid

    def _rows_of(self, events: records.Events | records.PackedEvents) -> np.ndarray:
        """Rows of the accounts they name, int64; who is not there yet begins here."""
        if isinstance(events, records.PackedEvents):
            found = self._index.rows_of(events, self.accounts)
            if found is not None:
                return found
            events = events.decoded()
        return np.array([self._row(name) for name in events.names], np.int64)

    def _row(self, account: str) -> int:
        row = self.row_of.get(account)
        if row is None:
            row = self.row_of[account] = len(self.accounts)
            self.accounts.append(account)
            if row >= len(self.cash_usd6):
                self.cash_usd6 = np.append(self.cash_usd6, np.zeros(max(64, row), np.int64))
        return row

    def forget_accounts(self, count: int) -> None:
        """All but the first `count`."""
        for account in self.accounts[count:]:
            del self.row_of[account]
        del self.accounts[count:]
        self._index = AccountIndex()

    def _add_cash(self, row: int, amount_usd6: int) -> None:
        self.cash_usd6[row] = self._within(int(self.cash_usd6[row]) + amount_usd6, CASH_LIMIT_USD6, row)

    def _within(self, value: int, limit: int, row: int) -> int:
        """Single events are bounded by the sequencer; that many of them that a sum leaves int64 are a fault."""
        if abs(value) > limit:
            raise Fault(f"cash, entry cost or lots of {self.accounts[row]} leave their range: {value}")
        return value

    # -- barrier

    def settle(self, expiry: int, price_usd9: int, catalogue: Catalogue) -> np.ndarray:
        """Cash settlement of everything that expires there: payoff into cash, entry cost out, position gone.

        Returns the rows whose positions changed.
        """
        over = catalogue.columns().expiry == expiry
        due = np.flatnonzero(over[self.keys & INSTRUMENT_MASK])
        rows = np.unique(self.keys[due] >> INSTRUMENT_BITS)
        for at in due:
            row, index = int(self.keys[at]) >> INSTRUMENT_BITS, int(self.keys[at]) & INSTRUMENT_MASK
            instrument = catalogue.instruments[index]
            payoff = payoff_usd9(instrument.kind, instrument.strike_usd9, price_usd9)
            self._add_cash(row, -self._paid_usd6(-int(self.lots[at]), payoff, instrument.lot_exponent))
            self._add_cash(row, -int(self.entry_usd6[at]))
            self.lots[at] = self.entry_usd6[at] = 0
        self.drop_closed()
        return rows

    def drop_closed(self) -> None:
        """Forget legs without lots, so that equal positions are equal arrays."""
        kept = self.lots != 0
        if not kept.all():
            self.keys, self.lots, self.entry_usd6 = self.keys[kept], self.lots[kept], self.entry_usd6[kept]

    def legs(self) -> Legs:
        """CSR view of all accounts."""
        rows = np.arange(len(self.accounts) + 1, dtype=np.int64) << INSTRUMENT_BITS
        instruments = (self.keys & INSTRUMENT_MASK).astype(np.int32)
        return Legs(np.searchsorted(self.keys, rows).astype(np.int64), instruments, self.lots)

    def entry_by_account(self) -> np.ndarray:
        """Sum of entry notionals, int64[A] micro-USD."""
        total = np.zeros(len(self.accounts), np.int64)
        np.add.at(total, self.keys >> INSTRUMENT_BITS, self.entry_usd6)
        return total

    def rebuild_greeks(self, catalogue: Catalogue, greeks_usd9: np.ndarray) -> None:
        """Greeks of every account and underlying from its lots and the Greeks of one lot, int64[I,4]."""
        underlying = catalogue.columns().underlying.astype(np.int64)
        instruments = (self.keys & INSTRUMENT_MASK).astype(np.int32)
        of_leg = (self.keys >> INSTRUMENT_BITS) << INSTRUMENT_BITS
        if len(of_leg):
            of_leg = of_leg | underlying[instruments]
        self.pair_keys, pair_of_leg = np.unique(of_leg, return_inverse=True)
        self.pair_greeks_usd9 = np.zeros((len(self.pair_keys), 4), np.int64)
        greeks_by_pair(
            pair_of_leg.astype(np.int64).reshape(-1), instruments, self.lots, greeks_usd9, self.pair_greeks_usd9
        )

    # -- one account

    def leg_slice(self, row: int) -> slice:
        low, high = np.searchsorted(self.keys, (row << INSTRUMENT_BITS, (row + 1) << INSTRUMENT_BITS))
        return slice(int(low), int(high))

    def legs_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Legs of some accounts: pointer int64[n+1] by account, and the places of their legs, account after account."""
        low = np.searchsorted(self.keys, rows << INSTRUMENT_BITS)
        size = np.searchsorted(self.keys, (rows + 1) << INSTRUMENT_BITS) - low
        pointer = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        return pointer, np.arange(pointer[-1]) + np.repeat(low - pointer[:-1], size)

    def copy_of(self, account: str) -> Book:
        """A book of one account alone, without Greeks: for what-ifs."""
        twin, row = Book(), self.row_of.get(account)
        twin._row(account)
        if row is not None:
            leg = self.leg_slice(row)
            twin.cash_usd6[0] = self.cash_usd6[row]
            twin.keys = self.keys[leg] & INSTRUMENT_MASK
            twin.lots, twin.entry_usd6 = self.lots[leg].copy(), self.entry_usd6[leg].copy()
        return twin

    def value_usd6(self, at: int, mark_usd9: int) -> int:
        """Value of a leg at its mark per lot; profit since entry for perpetuals and futures."""
        return saturated(divide_half_even(int(self.lots[at]) * mark_usd9, USD9_PER_USD6) - int(self.entry_usd6[at]))

    # -- checkpoint

    def to_plain(self) -> dict:
        arrays = ("keys", "lots", "entry_usd6", "pair_keys", "pair_greeks_usd9")
        plain = {name: getattr(self, name).tobytes() for name in arrays}
        return {
            "accounts": self.accounts,
            "cash_usd6": self.cash().tobytes(),
            "residue_usd21": str(self.residue_usd21),
            **plain,
        }

    @classmethod
    def from_plain(cls, plain: dict) -> Book:
        book = cls()
        book.accounts = list(plain["accounts"])
        book.row_of = {name: row for row, name in enumerate(book.accounts)}
        for name in ("cash_usd6", "keys", "lots", "entry_usd6", "pair_keys"):
            setattr(book, name, np.frombuffer(plain[name], np.int64).copy())
        book.residue_usd21 = int(plain["residue_usd21"])
        book.pair_greeks_usd9 = np.frombuffer(plain["pair_greeks_usd9"], np.int64).reshape(-1, 4).copy()
        return book

    def cash(self) -> np.ndarray:
        """Cash of the accounts there are, int64[A]."""
        return self.cash_usd6[: len(self.accounts)]


def payoff_usd9(kind: str, strike_usd9: int, price_usd9: int) -> int:
    """What one unit is worth at its settlement price."""
    if kind == "call":
        return max(price_usd9 - strike_usd9, 0)
    if kind == "put":
        return max(strike_usd9 - price_usd9, 0)
    return price_usd9


def _columns(rows: np.ndarray) -> EventColumns:
    """Columns of packed rows; where they belong in a book is to be located."""
    row, leg, pair = np.empty((3, len(rows)), np.int64)
    fields = ("kind", "instrument", "lots", "price_usd9", "cash_usd6")
    return EventColumns(row, leg, pair, *(rows[field].copy() for field in fields))


def _refuse(account: np.ndarray, named: np.ndarray, events: EventColumns, underlying: np.ndarray) -> None:
    """Raises what is wrong with events that no sequencer writes."""
    of_one = account != records.EVERY_ACCOUNT
    named[account[of_one]]
    if not (of_one | (events.kind == records.FUNDING)).all():
        raise Fault("an event other than a funding names no account")
    traded = events.instrument[of_one & (events.kind != records.CASH)]
    if int(traded.min(initial=0)) < 0:
        raise Fault(f"an event of instrument {int(traded.min())}")
    underlying[traded]
