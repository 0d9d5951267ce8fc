"""Compiled application of account events against its twin, to the byte: any rows, any order, also beyond the ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from book_twin import SlowBook, copied, look, trade_effects
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import account_events
from kernels.account_events import NOTIONAL_LIMIT_USD6, notional_usd6
from schemas import log_records as records
from schemas import quantities
from schemas.catalogue import Catalogue
from schemas.risk_parameters import RiskParameters
from streams.engine import trades
from streams.engine.book import Book
from streams.engine.lines import Lines
from streams.engine.market import RecordedMarket
from streams.engine.output import Fault
from streams.engine.trades import LotTerms

KINDS = ("perpetual", "future", "call", "put", "spot")
EXPONENTS = (-12, -9, -3, -1, 0, 2, 3, 6)
UNDERLYINGS, EXPIRY_MS = 3, 2_000_000_000_000
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def catalogue() -> Catalogue:
    """Every kind with every exponent, spread over the underlyings."""
    found = Catalogue()
    for u in range(UNDERLYINGS):
        found.apply({"type": "underlying", "underlying": f"U{u}"})
    for number, (kind, exponent) in enumerate((kind, exponent) for kind in KINDS for exponent in EXPONENTS):
        dated = kind in ("future", "call", "put")
        found.apply(
            {
                "type": "instrument", "instrument": f"i{number}", "underlying": f"U{number % UNDERLYINGS}",
                "kind": kind, "lot_exponent": exponent, "expiry_ms": EXPIRY_MS if dated else None,
                "strike_usd9": 10**12 if kind in ("call", "put") else None,
            }
        )  # fmt: skip
    return found


CATALOGUE = catalogue()
COUNT = len(CATALOGUE.instruments)
EDGES = (2**59, 2**60 - 1, 2**60, 2**60 + 1, 2**61, 2**62, INT64_MAX, INT64_MIN + 1, INT64_MIN)
small, anything = st.integers(-20, 20), st.integers(INT64_MIN, INT64_MAX)
edges = st.sampled_from(
    [s * e + d for e in EDGES for s in (1, -1) for d in (0, 1, -1) if -(2**63) <= s * e + d < 2**63]
)
lots_given = st.one_of(small, small, st.integers(-(2**40), 2**40), edges, anything)
prices = st.one_of(st.integers(0, 10**6), st.integers(0, 10**17), st.integers(-(10**12), 10**12), anything)
cash_given = st.one_of(small, st.integers(-(2**53), 2**53), edges)
tame_lots, tame_prices, tame_cash = st.integers(-3, 3), st.integers(0, 10**14), st.integers(-(10**12), 10**12)
KIND_CODES = (records.FILL, records.CASH, records.COLLATERAL_ADD, records.COLLATERAL_SET, records.FUNDING)


@st.composite
def batches(draw: st.DrawFn, wild: bool = True, most: int = 4) -> list[records.Events]:
    """Some records of account.log; wild: with numbers that leave their ranges."""
    lots, price, cash = (lots_given, prices, cash_given) if wild else (tame_lots, tame_prices, tame_cash)
    found = []
    for _ in range(draw(st.integers(1, most))):
        names = draw(st.lists(st.sampled_from([f"account {n} é" for n in range(9)]), min_size=1, unique=True))
        rows = []
        for _ in range(draw(st.integers(1, 12))):
            kind = draw(st.sampled_from(KIND_CODES))
            account = records.EVERY_ACCOUNT if kind == records.FUNDING else draw(st.integers(0, len(names) - 1))
            index = -1 if kind == records.CASH else draw(st.integers(0, COUNT - 1) | st.sampled_from([0, 3, 20]))
            rows.append((kind, (0, 0, 0), account, index, 0, draw(lots), draw(price), draw(cash)))
        found.append(records.Events(names, np.array(rows, records.EVENT_ROW)))
    return found


def greeks_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(2**40), 2**40, (count, 4))


def packed(events: records.Events) -> records.PackedEvents:
    """The same as they come from a record."""
    head = records.pack_header(records.EVENTS, 1, 1, 1, records.NO_HASH, entries=len(events.rows), partition=0)
    raw = records.pack_events(head, events)
    return records.read_packed_events(raw, records.read_header(raw))


def applied(book: Book, events: records.Events | records.PackedEvents, greeks: np.ndarray) -> Any:
    """The rows touched, or what was said."""
    try:
        return book.apply_events(events, CATALOGUE, greeks).tolist()
    except (Fault, ArithmeticError) as fault:  # either halts a partition
        return f"{type(fault).__name__}: {fault}"


def fill(lots: int, price_usd9: int, index: int) -> list[records.Events]:
    row = np.array([(records.FILL, (0, 0, 0), 0, index, 0, lots, price_usd9, 0)], records.EVENT_ROW)
    return [records.Events(["a"], row)]


@given(batches(), st.integers(0, 5), st.sampled_from([COUNT, COUNT - 5, 0]))
@example(fill(INT64_MIN, INT64_MIN, 0), 0, COUNT)
@example(fill(1, 500, 3) + fill(1, 1_500, 3), 0, COUNT)
@example(fill(2**40, 10**17, 0) + fill(-(2**40), 1, 0), 0, COUNT)
@settings(max_examples=300, deadline=None)
def test_books_are_equal_to_the_byte(log: list[records.Events], seed: int, priced: int) -> None:
    fast, slow, greeks = Book(), SlowBook(), greeks_of(seed, priced)
    for events in log:
        assert applied(fast, packed(events), greeks) == applied(slow, events, greeks)
        assert fast.to_plain() == slow.to_plain()
        fast.drop_closed()
        slow.drop_closed()


def everything(accounts: range, lots: int) -> records.Events:
    """Each of the accounts trades each instrument."""
    pairs = [(n, index) for n in range(len(accounts)) for index in range(COUNT)]
    rows = [(records.COLLATERAL_ADD, (0, 0, 0), n, index, 0, lots, 0, 0) for n, index in pairs]
    return records.Events([f"account {n}" for n in accounts], np.array(rows, records.EVENT_ROW))


def test_room_is_made_for_whatever_comes() -> None:
    """More legs than there is room for, in accounts that are there and in more new ones than were thought of."""
    fast, slow, greeks = Book(), SlowBook(), greeks_of(1, COUNT)
    for events in (everything(range(2), 1), everything(range(1, 9), -1), everything(range(80, 160), 2)):
        assert applied(fast, packed(events), greeks) == applied(slow, events, greeks)
        opened = fast.with_room()
        assert (opened.spans[:, 1::3] <= opened.spans[:, 2::3]).all()
        assert (opened.spans[:, 2::3] <= [len(opened.legs), len(opened.pairs)]).all()
    assert fast.to_plain() == slow.to_plain()


def test_packed_positions_are_never_changed_in_place() -> None:
    """Barriers and checkpoints hold them."""
    book, greeks = Book(), greeks_of(1, COUNT)
    book.apply_events(everything(range(3), 5), CATALOGUE, greeks)
    held = book.packed()
    before = [column.copy() for column in held]
    book.apply_events(everything(range(1, 4), 7), CATALOGUE, greeks)
    book.settle(0, 10**9, CATALOGUE)
    book.rebuild_greeks(CATALOGUE, greeks)
    for column, was in zip(held, before, strict=True):
        np.testing.assert_array_equal(column, was)


@given(batches(wild=False), batches(wild=False, most=1), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_effects_of_trades_are_those_of_the_books(
    earlier: list[records.Events], log: list[records.Events], seed: int
) -> None:
    book, greeks = Book(), greeks_of(seed, COUNT)
    for events in earlier:
        book.apply_events(events, CATALOGUE, greeks)
    rng = np.random.default_rng(seed)
    lot = LotTerms(*rng.uniform(0, 10**12, (2, COUNT - 2)), rng.uniform(0, 10**12, COUNT - 1))
    slow = copied(book)
    found = trades.trade_effects(book, log[0], CATALOGUE, greeks, lot)
    expected = trade_effects(slow, log[0], CATALOGUE, greeks, lot)
    changes = zip(found.nlv_change_usd6.tolist(), found.line_rise_usd6.tolist(), strict=True)
    assert dict(zip(found.rows.tolist(), changes, strict=True)) == expected
    assert [book.accounts[row] for row in found.named.tolist()] == log[0].names
    assert book.to_plain() == slow.to_plain()


@given(batches(wild=False), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_a_look_at_the_lines_is_that_of_the_twin(log: list[records.Events], seed: int) -> None:
    book, rng, p = Book(), np.random.default_rng(seed), RiskParameters()
    for events in log:
        book.apply_events(events, CATALOGUE, greeks_of(seed, COUNT))
    count, lines = len(book.accounts), Lines()
    lines.fit_to(count)
    lines.line_usd6[:] = -np.sort(-rng.integers(0, 10**12, (count, 2)), axis=1)
    lines.base_usd6[:] = lines.line_usd6[:, 0] * rng.uniform(0.9, 1.1, count)
    lines.base_usd6[rng.random(count) < 0.1] = np.nan
    lines.armed[:], lines.unsettled[:] = rng.random((count, 2)) < 0.5, True
    now, then = (market(rng, time_ms) for time_ms in (1_000, 0))
    rows = np.flatnonzero(rng.random(count) < 0.7)
    twin = Lines.from_plain(lines.to_plain())
    below, estimates = lines.look(rows, book, now, then, p)
    expected_below, expected = look(twin, rows, book, now, then, p)
    assert rows[below].tolist() == expected_below
    np.testing.assert_array_equal(estimates, np.array(expected))
    assert lines.armed.tolist() == twin.armed.tolist()
    assert np.flatnonzero(~lines.unsettled).tolist() == rows.tolist()
    for row, estimate in zip(rows.tolist(), expected, strict=True):
        np.testing.assert_equal(lines.estimate(row, book, now, then), estimate)


def market(rng: np.random.Generator, time_ms: int) -> RecordedMarket:
    found = RecordedMarket()
    found.fit_to(CATALOGUE)
    found.time_ms = time_ms
    found.spot_usd9[:] = rng.integers(1, 10**14, UNDERLYINGS) * (rng.random(UNDERLYINGS) < 0.8)
    found.volatility_e9[:] = rng.integers(1, 10**9, UNDERLYINGS) * (rng.random(UNDERLYINGS) < 0.8)
    return found


@given(lots_given, prices, st.integers(-12, 6))
@example(INT64_MIN, INT64_MIN, -12)
@example(2**61, 1_000, 0)
@example(2**61 - 1, 1_000, 0)
@example(5, 100, 0)
@example(15, 100, 0)
@settings(max_examples=500, deadline=None)
def test_notionals_are_exact_in_128_bits(lots: int, price_usd9: int, exponent: int) -> None:
    exact = quantities.notional_usd6(lots, price_usd9, exponent)
    added = exact * quantities.USD21_PER_USD6 - quantities.notional_usd21(lots, price_usd9, exponent)
    found, found_added, fits = notional_usd6(lots, price_usd9, exponent)
    assert fits == (abs(exact) < NOTIONAL_LIMIT_USD6) or (fits and abs(exact) == NOTIONAL_LIMIT_USD6)
    if fits:
        assert (found, found_added) == (exact, added)


def test_kinds_are_those_of_the_log() -> None:
    names = ("FILL", "CASH", "COLLATERAL_SET", "FUNDING", "EVERY_ACCOUNT")
    assert [getattr(account_events, name) for name in names] == [getattr(records, name) for name in names]


@pytest.mark.parametrize(
    ("kind", "account", "instrument", "said"),
    [
        (records.FILL, records.EVERY_ACCOUNT, 0, "names no account"),
        (records.FILL, 0, -1, "an event of instrument -1"),
    ],
)
def test_rows_that_no_log_has_are_faults(kind: int, account: int, instrument: int, said: str) -> None:
    rows = np.array([(kind, (0, 0, 0), account, instrument, 0, 1, 1, 0)], records.EVENT_ROW)
    with pytest.raises(Fault, match=said):
        Book().apply_events(records.Events(["a"], rows), CATALOGUE, greeks_of(0, COUNT))
    for rows["account"], rows["instrument"] in ((0, COUNT), (1, 0)):
        with pytest.raises(IndexError):
            Book().apply_events(records.Events(["a"], rows), CATALOGUE, greeks_of(0, COUNT))
