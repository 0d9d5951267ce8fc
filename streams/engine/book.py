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
    EVENT_WORDS,
    FULL,
    FUNDED,
    LOTS_LIMIT,
    LOTS_OUT,
    PAID_OUT,
    RESIDUE_LIMB_BITS,
    UNFIT,
    ListedColumns,
    admit,
    apply_rows,
)
from kernels.account_sums import greeks_of_legs
from kernels.open_book import (
    INSTRUMENT_BITS,
    INSTRUMENT_MASK,
    PAIRS,
    PAIRS_END,
    OpenBook,
    Positions,
    holders_of,
    legs_of_rows,
    opened,
    packed_legs,
    packed_pairs,
)
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
SPARE_LEGS, SPARE_ACCOUNTS = 1, 64  # room of an open book: for each account; for those to come
SPARE_SHARE = 8  # and at its end, for one leg in so many
_NOTHING = np.zeros(0, np.int64)


class Legs(NamedTuple):
    """CSR view: account_ptr int64[A+1], leg_instrument int32[L], leg_lots int64[L]."""

    account_ptr: np.ndarray
    leg_instrument: np.ndarray
    leg_lots: np.ndarray


class Taken(NamedTuple):
    """Events taken up: `words` int64[N,5] as kernels.account_events has them, the rows int64 of the accounts they name,
    which rows they will touch (of events of their own, and of holders of what is funded), bool[A], and the places of
    the fundings among them.
    """

    words: np.ndarray
    named: np.ndarray
    touched: np.ndarray
    fundings: list[int]


def _packed_column(name: str) -> property:
    """A column of the packed positions: replaced, never changed in place, as barriers and checkpoints share it."""

    def read(book: Book) -> np.ndarray:
        return getattr(book.packed(), name)

    def replace(book: Book, value: np.ndarray) -> None:
        book._packed, book._open = book.packed()._replace(**{name: value}), None

    return property(read, replace)


class Book:
    """Rows are accounts in the order of their first event in the log.

    Positions are packed (`keys` and what belongs to them) or open (kernels.open_book), never both: events and estimates
    have them open, everybody else packs them by asking.

    `residue_usd21`: what rounding to micro-USD has taken from all accounts of the partition (negative: given to them)
    in fills, funding and settlement. With it money is conserved exactly: sum of cash - entries + residue changes by
    deposits, withdrawals and fees alone, where every lot bought is a lot sold.
    """

    def __init__(self) -> None:
        self.accounts: list[str] = []
        self.row_of: dict[str, int] = {}
        self._index = AccountIndex()
        self.cash_usd6 = np.zeros(0, np.int64)
        self.residue_usd21 = 0
        nothing = np.zeros(0, np.int64)
        self._packed: Positions | None = Positions(nothing, nothing, nothing, nothing, np.zeros((0, 4), np.int64))
        self._open: OpenBook | None = None

    keys = _packed_column("keys")
    lots = _packed_column("lots")
    entry_usd6 = _packed_column("entry_usd6")  # notional paid for open perpetuals and futures
    pair_keys = _packed_column("pair_keys")  # row << 24 | underlying
    pair_greeks_usd9 = _packed_column("pair_greeks_usd9")

    # -- packed and open

    def packed(self) -> Positions:
        """Positions as sorted arrays; what was open is closed."""
        if self._packed is None:
            self._pack(keeps_closed=True)
        assert self._packed is not None
        return self._packed

    def _pack(self, keeps_closed: bool) -> None:
        assert self._open is not None
        count = min(len(self.accounts), len(self._open.spans))  # who has just come has nothing yet
        legs, pairs = packed_legs(self._open, count, keeps_closed), packed_pairs(self._open, count)
        self._packed, self._open = Positions(*legs, *pairs), None

    def with_room(self) -> OpenBook:
        """Positions with room for more, and cash; for all accounts that there are."""
        if self._open is None or len(self._open.spans) < len(self.accounts):
            self._open_with(np.full(len(self.accounts) + SPARE_ACCOUNTS, SPARE_LEGS))
        elif self._open.cash_usd6 is not self.cash_usd6:
            self._open = self._open._replace(cash_usd6=self.cash_usd6)
        assert self._open is not None
        return self._open

    def _open_with(self, room: np.ndarray) -> None:
        """`room` int64[A]: legs that each account can take."""
        packed = self.packed()
        more = len(packed.keys) // SPARE_SHARE + len(room)
        self._open = OpenBook(self.cash_usd6, *opened(packed, room, more))
        self._packed = None

    # -- events

    def apply_events(
        self, events: records.Events | records.PackedEvents, catalogue: Catalogue, greeks_usd9: np.ndarray
    ) -> np.ndarray:
        """Apply packed events in order; Greeks (int64[I,4] per lot) move with the lots. Returns rows touched."""
        taken = self.take_up(events, catalogue)
        self.carry_out(taken, catalogue, greeks_usd9)
        return np.flatnonzero(taken.touched)

    def take_up(self, events: records.Events | records.PackedEvents, catalogue: Catalogue) -> Taken:
        """Accounts, legs and pairs of everything the events name are there afterwards; nothing else changes."""
        named, underlying = self._rows_of(events), catalogue.columns().underlying
        words = events.rows.copy().view(np.int64).reshape(-1, EVENT_WORDS)
        touched = np.zeros(len(self.accounts), np.bool_)
        found = admit(words, named, underlying, self.with_room(), touched)
        if found == UNFIT:
            _refuse(events.rows, named, underlying)
        if found == FULL:
            of_one = events.rows["account"][events.rows["account"] != records.EVERY_ACCOUNT]
            room = np.bincount(named[of_one], minlength=len(self.accounts) + SPARE_ACCOUNTS) + SPARE_LEGS
            self._open_with(room)
            found = admit(words, named, underlying, self.with_room(), touched)
        if found != FUNDED:
            return Taken(words, named, touched, [])
        fundings = np.flatnonzero(events.rows["kind"] == records.FUNDING).tolist()
        for index in {int(events.rows["instrument"][at]) for at in fundings}:
            touched[holders_of(index, self.with_room(), len(self.accounts))[0]] = True
        return Taken(words, named, touched, fundings)

    def carry_out(self, taken: Taken, catalogue: Catalogue, greeks_usd9: np.ndarray) -> None:
        """Apply what was taken up, in its order: in compiled stretches between fundings."""
        listed = catalogue.columns()
        columns = ListedColumns(listed.kind, listed.lot_exponent, listed.underlying, greeks_usd9)
        begin = 0
        for at in taken.fundings:
            self._apply(taken, begin, at, columns)
            event = taken.words[at : at + 1].view(records.EVENT_ROW)[0, 0]
            self._fund(int(event["instrument"]), int(event["price_usd9"]), catalogue)
            begin = at + 1
        self._apply(taken, begin, len(taken.words), columns)

    def _apply(self, taken: Taken, begin: int, end: int, listed: ListedColumns) -> None:
        """Events begin to end - 1, none of them a funding. Raises Fault where a number leaves its range."""
        residue = np.zeros(2, np.int64)
        at, found = apply_rows(taken.words, taken.named, begin, end, self.with_room(), listed, residue)
        self.residue_usd21 += int(residue[0]) + (int(residue[1]) << RESIDUE_LIMB_BITS)
        if found != DONE:
            self._say_what_is_out(taken, at, found, listed)

    def _say_what_is_out(self, taken: Taken, at: int, found: int, listed: ListedColumns) -> None:
        """Raises the Fault with the number itself, which may have any size."""
        event = taken.words[at : at + 1].view(records.EVENT_ROW)[0, 0]
        row, index = int(taken.named[event["account"]]), int(event["instrument"])
        lots, price_usd9 = int(event["lots"]), int(event["price_usd9"])
        leg = int(np.searchsorted(self.keys, row << INSTRUMENT_BITS | index))
        if found == CASH_OUT:
            self._add_cash(row, int(event["cash_usd6"]))
        elif found == CLOSED_OUT:
            self._add_cash(row, -int(self.entry_usd6[leg]))
        elif found == LOTS_OUT:
            held = 0 if event["kind"] == records.COLLATERAL_SET else int(self.lots[leg])
            self._within(held + lots, LOTS_LIMIT, row)
        paid = self._paid_usd6(lots, price_usd9, int(listed.lot_exponent[index]))
        if found == PAID_OUT:
            self._add_cash(row, -paid)
        assert found == ENTRY_OUT
        self._within(int(self.entry_usd6[leg]) + paid, ENTRY_LIMIT_USD6, row)

    def _fund(self, index: int, amount_usd9: int, catalogue: Catalogue) -> None:
        """Every holder of a perpetual pays `amount_usd9` a unit (who is short receives it)."""
        rows, lots = holders_of(index, self.with_room(), len(self.accounts))
        paid = self._paid_each_usd6(lots, amount_usd9, catalogue.instruments[index].lot_exponent)
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
        """All but the first `count`; positions are to be replaced too."""
        self.packed()
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
        lots, entry_usd6 = self.lots.copy(), self.entry_usd6.copy()
        self.lots, self.entry_usd6 = lots, entry_usd6
        for at in due:
            row, index = int(self.keys[at]) >> INSTRUMENT_BITS, int(self.keys[at]) & INSTRUMENT_MASK
            instrument = catalogue.instruments[index]
            payoff = payoff_usd9(instrument.kind, instrument.strike_usd9, price_usd9)
            self._add_cash(row, -self._paid_usd6(-int(lots[at]), payoff, instrument.lot_exponent))
            self._add_cash(row, -int(entry_usd6[at]))
            lots[at] = entry_usd6[at] = 0
        self.drop_closed()
        return rows

    def drop_closed(self) -> None:
        """Forget legs without lots, so that equal positions are equal arrays."""
        if self._packed is None:
            self._pack(keeps_closed=False)
            return
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
        ends = np.searchsorted(self.keys, np.arange(len(self.accounts) + 1) << INSTRUMENT_BITS)
        sums = np.concatenate((np.zeros(1, np.int64), np.cumsum(self.entry_usd6)))
        return np.diff(sums[ends])  # sums may wrap: their differences do not care

    def rebuild_greeks(self, catalogue: Catalogue, greeks_usd9: np.ndarray) -> None:
        """Greeks of every account and underlying from its lots and the Greeks of one lot, int64[I,4]."""
        packed = self.packed()
        pairs = greeks_of_legs(packed.keys, packed.lots, catalogue.columns().underlying, greeks_usd9)
        self._packed = Positions(*packed[:3], *pairs)

    # -- one account

    def leg_slice(self, row: int) -> slice:
        low, high = np.searchsorted(self.keys, (row << INSTRUMENT_BITS, (row + 1) << INSTRUMENT_BITS))
        return slice(int(low), int(high))

    def legs_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Legs of some accounts: pointer int64[n+1] by account; instruments int32, lots and entry costs int64, account
        after account."""
        return legs_of_rows(rows, self.with_room())

    def pairs_of(self, row: int) -> np.ndarray:
        """An account's Greeks: underlying, delta, gamma, vega, theta, int64[n,5]."""
        book = self.with_room()
        return book.pairs[book.spans[row, PAIRS] : book.spans[row, PAIRS_END]]

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
        """Positions as views, not copied: packed columns are replaced, never changed in place."""
        return {
            "accounts": self.accounts,
            "cash_usd6": self.cash().tobytes(),
            "residue_usd21": str(self.residue_usd21),
            **{name: column.reshape(-1).data for name, column in self.packed()._asdict().items()},
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


def _refuse(rows: np.ndarray, named: np.ndarray, underlying: np.ndarray) -> None:
    """Raises what is wrong with events that no sequencer writes."""
    of_one = rows["account"] != records.EVERY_ACCOUNT
    named[rows["account"][of_one]]
    if not (of_one | (rows["kind"] == records.FUNDING)).all():
        raise Fault("an event other than a funding names no account")
    traded = rows["instrument"][of_one & (rows["kind"] != records.CASH)]
    if int(traded.min(initial=0)) < 0:
        raise Fault(f"an event of instrument {int(traded.min())}")
    underlying[traded]
