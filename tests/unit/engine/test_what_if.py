"""What-if applies trades as the log does, and says before and after by the one decision."""

from __future__ import annotations

import pytest
from engine_worlds import Inputs, cash, fill, genesis_ticks, listings, option_name
from portfolio_worlds import account_of, market_and_tables

from schemas.risk_parameters import RiskParameters
from streams.engine.portfolio import alone, assessment_of
from streams.engine.pre_trade import one_lot_terms
from streams.engine.risk import Risk
from streams.engine.what_if import Position, Refused, Trade, mark_price_usd9, portfolio, what_if, with_changes

USD6, USD9 = 10**6, 10**9
CALL = option_name(100, "call")


def machine_after(extra: list[dict]) -> Risk:
    """One account with cash, a perpetual and a short call; `extra` events of block 1."""
    inputs = Inputs()
    inputs.add_listings(listings(RiskParameters()))
    events = [cash("c", 0, "a", 500), fill("f1", 0, "a", "X-PERP", 300, 101), fill("f2", 0, "a", CALL, -200, 4)]
    inputs.add_block(0, events, genesis_ticks(), len(listings(RiskParameters())))
    if extra:
        inputs.add_block(1, extra, [], None)
    return inputs.pipeline(1).risks[0]


def test_hypothetical_trades_are_the_real_ones() -> None:
    """Cash, entry cost, lots: as if the fills had come; a closing trade realises its profit."""
    now = machine_after([])
    fills = [
        fill("t1", 1, "a", "X-PERP", -300, 104.5),
        fill("t2", 1, "a", CALL, 150, 3.25),
        fill("t3", 1, "a", "Y-PERP", -40, 9.75),
        cash("t4", 1, "a", 12.5),
    ]
    then = machine_after(fills)
    trades = [Trade(f["instrument"], f["lots"], f["price_usd9"]) for f in fills if f["type"] == "fill"]
    tables = now._tables()
    assert tables is not None
    found = with_changes(alone(now.book, 0), trades, 12_500_000, now.catalogue, tables)
    expected = alone(then.book, 0)
    for name in ("keys", "lots", "entry_usd6", "cash_usd6"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name


def test_before_is_what_the_run_said_and_nothing_is_changed() -> None:
    now = machine_after([])
    tables, account = now._tables(), alone(now.book, 0)
    assert tables is not None
    kept = account.to_plain()
    found = what_if(account, [Trade("X-PERP", -100)], 5 * USD6, now.catalogue, tables, now.parameters)
    assert account.to_plain() == kept
    assert found.before == assessment_of(now.margins, 0, now.parameters)
    assert found.after.margin.maintenance_margin_usd6 < found.before.margin.maintenance_margin_usd6
    assert found.after.margin.nlv_usd6 == found.before.margin.nlv_usd6 + 5 * USD6  # a trade at the mark is free
    assert found.trades == (Trade("X-PERP", -100, 100 * USD9),)
    assert found.bound is not None
    assert found.bound.initial_margin_usd6 >= found.after.margin.initial_margin_usd6


def test_a_trade_may_call_an_account_and_a_deposit_cures_it() -> None:
    catalogue, tables, p = market_and_tables()
    account = account_of(catalogue, {}, 70 * USD6)
    called = what_if(account, [Trade("X-PERP", 1_000)], 0, catalogue, tables, p).after
    assert called.state != "healthy"
    assert called.cure is not None
    cured = what_if(account, [Trade("X-PERP", 1_000)], called.cure.deposit_usd6, catalogue, tables, p)
    assert (cured.after.state, cured.after.cure) == ("healthy", None)
    short = what_if(account, [Trade("X-PERP", 1_000)], called.cure.deposit_usd6 - 1, catalogue, tables, p)
    assert short.after.state == "margin_call"


def test_one_lot_terms_may_be_made_once() -> None:
    catalogue, tables, p = market_and_tables()
    account = account_of(catalogue, {0: 100}, 1_000 * USD6)
    given = what_if(account, [Trade("X-PERP", 5)], 0, catalogue, tables, p, one_lot_terms(tables))
    assert given == what_if(account, [Trade("X-PERP", 5)], 0, catalogue, tables, p)


def test_a_dear_price_costs_nlv_and_no_margin() -> None:
    catalogue, tables, p = market_and_tables()
    account = account_of(catalogue, {}, 1_000 * USD6)
    index = catalogue.instrument_index[CALL]
    mark = mark_price_usd9(index, catalogue, tables)
    fair, dear = (
        what_if(account, [Trade(CALL, 100, price)], 0, catalogue, tables, p).after.margin
        for price in (mark, mark + 2 * USD9)
    )
    assert fair.maintenance_margin_usd6 == dear.maintenance_margin_usd6
    assert fair.nlv_usd6 - dear.nlv_usd6 == 2 * USD6


def test_a_hypothetical_portfolio_holds_what_it_says() -> None:
    """Options and coins are held, perpetuals enter at the mark or at a price of their own."""
    catalogue, tables, _ = market_and_tables()
    positions = [Position("X-PERP", 200, 90 * USD9), Position("X-FUT", -100), Position(CALL, -50), Position("X", 10)]
    found = portfolio(7 * USD6, positions, catalogue, tables)
    held = dict(zip(found.keys.tolist(), found.lots.tolist(), strict=True))
    assert held == {catalogue.instrument_index[p.instrument]: p.lots for p in positions}
    assert found.cash_usd6.tolist() == [7 * USD6]
    entry = dict(zip(found.keys.tolist(), found.entry_usd6.tolist(), strict=True))
    assert [entry[catalogue.instrument_index[n]] for n in ("X-PERP", "X-FUT", CALL, "X")] == [
        180 * USD6, -100 * USD6, 0, 0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "trade"),
    [
        ("instrument", Trade("Z-PERP", 1)),
        ("lots", Trade("X-PERP", 0)),
        ("lots", Trade("X-PERP", 2**40)),
        ("price", Trade("X-PERP", 1, -1)),
        ("price", Trade("X-PERP", 1, 10**17 + 1)),
    ],
)
def test_bad_trades_are_refused_by_field(field: str, trade: Trade) -> None:
    catalogue, tables, p = market_and_tables()
    with pytest.raises(Refused, match=f"^{field}: ") as refused:
        what_if(account_of(catalogue, {}, 0), [trade], 0, catalogue, tables, p)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "cash_usd6", "positions"),
    [
        ("cash", 2**53, []),
        ("instrument", 0, [Position("X-PERP", 1), Position("X-PERP", 2)]),
        ("entry_price", 0, [Position("X", 1, USD9)]),
        ("lots", 0, [Position("X", 0)]),
        ("instrument", 0, [Position("X-NEVER", 1)]),
    ],
)
def test_bad_portfolios_are_refused_by_field(field: str, cash_usd6: int, positions: list[Position]) -> None:
    catalogue, tables, _ = market_and_tables()
    with pytest.raises(Refused, match=f"^{field}: "):
        portfolio(cash_usd6, positions, catalogue, tables)


def test_cash_that_leaves_its_range_is_refused() -> None:
    catalogue, tables, p = market_and_tables()
    rich = account_of(catalogue, {}, 2**60)
    with pytest.raises(Refused, match="leave their range"):
        what_if(rich, [], 2**52, catalogue, tables, p)
    with pytest.raises(Refused, match=r"^deposit: "):
        what_if(rich, [], -(2**53), catalogue, tables, p)
