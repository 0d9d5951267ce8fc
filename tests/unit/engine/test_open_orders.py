"""Open orders: never below brute force over every set of fills, at the gate alone, and part of the state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import orjson
import pytest
from engine_worlds import Inputs, block, cash, event, fill, genesis_ticks, hash_of, listings, option_name, time_of
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from portfolio_worlds import account_of, market_and_tables
from test_risk import Story, margins_of

from schemas import log_records as records
from schemas import refusals
from schemas.risk_parameters import Concentration, ConcentrationTier
from schemas.topics import ACCOUNT_LOG, CHAIN_BLOCKS, MARGIN_BATCHES, QUARANTINE
from streams.engine import gate as g
from streams.engine import open_orders as module
from streams.engine.open_orders import (
    CORNER_ROUNDING_USD6,
    FILL_ROUNDING_USD6,
    OpenOrder,
    OpenOrders,
    worst_excess_usd6,
)
from streams.engine.portfolio import margins_of as margins_of_books
from streams.engine.risk import Risk
from streams.engine.what_if import Trade, with_changes

USD = 10**9
RULES = (
    Concentration(underlying="X", tiers=(ConcentrationTier(above_usd6=50_000_000, rate_e6=17_003),)),
    Concentration(underlying="Y", tiers=(ConcentrationTier(above_usd6=7_000_000, rate_e6=2_001),)),
)
TRADED = st.integers(0, 9).map(lambda n: [i for i, x in enumerate(_listed()) if x.kind != "spot"][n])
SMALL = st.integers(-300, 300)


def _listed() -> list:
    return market_and_tables()[0].instruments


def limit_usd9(index: int, share_e3: int) -> int:
    """A limit around the mark of one unit."""
    catalogue, tables, _ = market_and_tables()
    exponent = catalogue.instruments[index].lot_exponent
    return max(1, int(tables.columns_usd9[0, index]) * 10**-exponent * share_e3 // 1_000)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(TRADED, SMALL, max_size=4),
    st.lists(
        st.tuples(TRADED, SMALL.filter(bool), st.integers(500, 1_500), st.integers(-3_000, 5_000_000)),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([0, 300_000, 1_000_000]),
    st.sampled_from([10_000, 1_000_000]),  # the second makes the short-option minimum bind
    st.booleans(),
)
def test_the_bound_is_never_below_brute_force_over_every_set_of_fills(
    lots: dict[int, int], wanted: list[tuple[int, int, int, int]], share_e6: int, minimum_e6: int, is_large: bool
) -> None:
    """Every order filled whole, by about half, or not at all, in every combination."""
    catalogue, tables, p = market_and_tables()
    p = replace(
        p,
        unrealised_gain_share_e6=share_e6,
        short_option_minimum_e6=minimum_e6,
        concentration=RULES if is_large else (),
    )
    if is_large:
        rules = {"X": 0, "Y": 1}
        names = [catalogue.underlyings[i.underlying].symbol for i in catalogue.instruments]
        kinds = [i.kind for i in catalogue.instruments]
        of = [rules.get(n, -1) if k != "spot" else -1 for n, k in zip(names, kinds, strict=True)]
        tables = type(tables)(**{**_fields(tables), "concentration_rule": np.array(of, np.int32)})
    account = account_of(catalogue, lots, 500_000_000, 3_000_000)
    orders = [OpenOrder(i, n, limit_usd9(i, share_e3), fee) for i, n, share_e3, fee in wanted]
    exponents = catalogue.columns().lot_exponent
    exact = worst_excess_usd6(account, orders, exponents, tables, p)
    with monkeypatched(module, "ORDERS_EXACT", 0):
        loose = worst_excess_usd6(account, orders, exponents, tables, p)
    books = []
    for parts in product((0, 1, 2), repeat=len(orders)):
        done = [(o, int(o.lots * part / 2)) for o, part in zip(orders, parts, strict=True)]
        trades = [Trade(catalogue.instruments[o.instrument].symbol, n, o.price_usd9) for o, n in done if n]
        fees_usd6 = sum(o.fee_usd6 * n // o.lots for o, n in done)  # by what is filled
        books.append(with_changes(account, trades, -fees_usd6, catalogue, tables))
    margins = margins_of_books(books, tables, p)
    excess = margins.nlv_usd6 - margins.initial_margin_usd6
    assert loose <= exact + CORNER_ROUNDING_USD6
    assert exact <= int(excess.min())


@contextmanager
def monkeypatched(where: Any, name: str, value: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, value)
        yield


def _fields(tables: Any) -> dict[str, Any]:
    return {name: getattr(tables, name) for name in type(tables).__dataclass_fields__}


def test_orders_that_hedge_each_other_ask_for_the_worst_set_of_them() -> None:
    """Exact over every set filled whole; the loose bound, with a worst set for each scenario, asks for more."""
    catalogue, tables, p = market_and_tables()
    call, perpetual = (catalogue.instrument_index[name] for name in (option_name(100, "call"), "X-PERP"))
    exponents, empty = catalogue.columns().lot_exponent, account_of(catalogue, {}, 1_000_000)
    orders = [OpenOrder(perpetual, 100, 100 * USD), OpenOrder(perpetual, -100, 100 * USD)]
    orders += [OpenOrder(call, lots, limit_usd9(call, 1_000)) for lots in (-100, 100)]
    exact = worst_excess_usd6(empty, orders, exponents, tables, p)
    with monkeypatched(module, "ORDERS_EXACT", 3):
        assert worst_excess_usd6(empty, orders, exponents, tables, p) < exact - 100_000
    books = [account_of(catalogue, {perpetual: 100 * a, call: 100 * b}, 0) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    most = int(margins_of_books(books, tables, p).initial_margin_usd6.max())
    allowance = CORNER_ROUNDING_USD6 + len(orders) * FILL_ROUNDING_USD6 + len(orders)  # and marks of whole micro-USD
    assert 0 <= 1_000_000 - most - exact <= allowance


def test_one_order_at_the_mark_costs_what_its_worse_side_does() -> None:
    """No position: the bound is the margin of the order filled."""
    catalogue, tables, p = market_and_tables()
    index = catalogue.instrument_index["X-PERP"]
    order, empty = OpenOrder(index, 100, 100 * USD), account_of(catalogue, {}, 1_000_000)
    excess = worst_excess_usd6(empty, [order], catalogue.columns().lot_exponent, tables, p)
    filled = margins_of_books([account_of(catalogue, {index: 100}, 0, 100_000_000)], tables, p)
    assert 0 <= 1_000_000 - int(filled.initial_margin_usd6[0]) - excess <= 3


# -- at the gate alone


def open_orders(event_id: str, number: int, account: str, name: str, **sides: Any) -> dict:
    rest = {"time_ms": time_of(number) - 300, **sides}
    return event("open_orders", event_id, block=number, account=account, instrument=name, **rest)


def bids(event_id: str, number: int, lots: int, **more: Any) -> dict:
    return open_orders(event_id, number, "a", "X-PERP", buy_lots=lots, buy_price_usd9=100 * USD, **more)


def told(*of_blocks: list[dict]) -> Story:
    story = Story()
    for events in of_blocks:
        story.block([], events)
    return story


def test_orders_are_in_no_margin() -> None:
    with_, without = told([bids("o1", 1, 5_000)], []).run(), told([], []).run()
    assert margins_of(with_) == margins_of(without)
    assert with_.values(MARGIN_BATCHES) == without.values(MARGIN_BATCHES)
    assert with_.risks[0].state_digest() != without.risks[0].state_digest()


def test_the_gate_counts_them_at_their_worst_until_they_are_gone() -> None:
    free = g.gate(told([]).run().risks[0], g.CashWithdrawal("a", 1))
    assert free.before is not None
    excess = free.before.nlv_usd6 - free.before.initial_margin_usd6
    held = g.gate(told([bids("o1", 1, 100)]).run().risks[0], g.CashWithdrawal("a", excess))
    assert (held.allowed, held.reason, held.open_orders_usd6 > 0) == (False, g.MARGIN, True)
    assert held.missing_usd6 == held.open_orders_usd6
    left = excess - held.open_orders_usd6
    answers = [g.gate(told([bids("o1", 1, 100)]).run().risks[0], g.CashWithdrawal("a", left + n)) for n in (0, 1)]
    assert [answer.allowed for answer in answers] == [True, False]
    gone = told([bids("o1", 1, 100)], [bids("o2", 2, 0)]).run().risks[0]
    assert g.gate(gone, g.CashWithdrawal("a", excess)).allowed


def test_orders_stand_in_each_others_way_but_never_in_that_of_less_risk() -> None:
    state = told([bids("o1", 1, 200)]).run().risks[0]
    assert g.gate(told([]).run().risks[0], g.Order("a", "X-PERP", 150, 100 * USD)).allowed
    assert g.gate(state, g.Order("a", "X-PERP", 150, 100 * USD)).reason == g.MARGIN
    assert g.gate(state, g.Order("a", "X-PERP", -50, 100 * USD)).allowed


@pytest.mark.parametrize(
    ("sides", "name", "reason", "field"),
    [
        ({"buy_lots": 1}, "X-PERP", refusals.MISSING_FIELD, "buy_price_usd9"),
        ({"sell_lots": 1, "buy_price_usd9": 1}, "X-PERP", refusals.MISSING_FIELD, "sell_price_usd9"),
        ({"buy_lots": 1, "buy_price_usd9": 1}, "X", refusals.WRONG_KIND, "instrument"),
        ({"buy_lots": -1, "buy_price_usd9": 1}, "X-PERP", refusals.OUT_OF_RANGE, "buy_lots"),
        ({"sell_lots": 2**39, "sell_price_usd9": USD * 10**6}, "X-PERP", refusals.POSITION_LIMIT, "sell_lots"),
    ],
)
def test_bad_orders_go_to_quarantine(sides: dict[str, Any], name: str, reason: str, field: str) -> None:
    run = told([open_orders("o1", 1, "a", name, **sides)]).run()
    (found,) = (orjson.loads(raw) for raw in run.values(QUARANTINE))
    assert (found["reason"], found["field"]) == (reason, field)
    assert not run.risks[0].orders.orders


# -- part of the state


def test_orders_survive_a_checkpoint_and_end_with_their_expiry() -> None:
    story = told(
        [bids("o1", 1, 7), open_orders("o2", 1, "b", option_name(100, "call"), sell_lots=3, sell_price_usd9=USD)]
    )
    state = story.run().risks[0]
    again = Risk.load(state.dump(), state.cache)
    assert again.orders.orders == state.orders.orders != {}
    assert again.state_digest() == state.state_digest()
    index = state.catalogue.instrument_index[option_name(100, "call")]
    assert again.orders.of("b") == [OpenOrder(index, -3, USD)]
    again.orders.settle(state.catalogue.instruments[index].expiry, state.catalogue)
    assert (again.orders.of("b"), len(again.orders.of("a"))) == ([], 1)


def test_orders_of_a_branch_that_is_left_are_gone() -> None:
    inputs, other = Inputs(), "0x" + "ab" * 32
    inputs.add_listings(listings())
    inputs.add_block(0, [cash("c0", 0, "a", 30), fill("f0", 0, "a", "X-PERP", 100, 100)], genesis_ticks(), None)
    inputs.add_block(1, [bids("o1", 1, 7, block_hash=hash_of(1))], [], None)
    before = inputs.pipeline(1).risks[0]
    inputs.add(CHAIN_BLOCKS, block(1, time_of(1), 0, 0, None) | {"hash": other})
    after = inputs.pipeline(1).risks[0]
    assert (len(before.orders.of("a")), after.orders.of("a"), after.block) == (1, [], 1)


def test_orders_go_where_their_accounts_go() -> None:
    story = told(
        [bids("o1", 1, 7), *(open_orders(f"o{n}", 1, n, "Y-PERP", sell_lots=1, sell_price_usd9=USD) for n in "bcde")]
    )
    run = story.run(2)
    moved = run.with_partitions(3)
    for risks in (run.risks, moved.risks):
        assert sorted(key for risk in risks for key in risk.orders.orders) == sorted(
            [("a", 0, 1), *((n, 1, -1) for n in "bcde")]
        )
        for risk in risks:
            assert {key[0] for key in risk.orders.orders} <= set(risk.book.accounts)
            assert OpenOrders.unpack(risk.undo.points()[-1].context.orders).orders == risk.orders.orders


def test_a_record_has_a_row_for_each_side() -> None:
    run = told([bids("o1", 1, 7)]).run()
    found = []
    for raw in run.logs[ACCOUNT_LOG, 0]:
        header = records.read_header(raw)
        if header.kind == records.EVENTS and header.block == 1:
            found += records.read_events(raw, header).rows[["kind", "lots", "price_usd9", "cash_usd6"]].tolist()
    assert found == [(records.BUY_ORDERS, 7, 100 * USD, 0), (records.SELL_ORDERS, 0, 0, 0)]


def test_a_stated_fee_counts_and_is_kept_and_a_rebate_does_not_count() -> None:
    free, *others = (told([bids("o1", 1, 7, **fees)]).run().risks[0] for fees in ({}, *FEES))
    asked = [g.gate(state, g.CashWithdrawal("a", 1)).open_orders_usd6 for state in (free, *others)]
    assert [more - asked[0] for more in asked[1:]] == [1_234, 0, 0]
    assert [state.orders.of("a") for state in others] == [
        [OpenOrder(0, 7, 100 * USD, fee)] for fee in (1_234, -5_000, 0)
    ]
    for state in (free, *others):
        assert OpenOrders.unpack(state.orders.pack()).orders == state.orders.orders
    assert others[2].orders.pack() == free.orders.pack() != others[0].orders.pack()


FEES = ({"buy_fee_usd6": 1_234}, {"buy_fee_usd6": -5_000}, {"sell_fee_usd6": 9})  # nothing is open to be sold
