"""Explanations add up to the unit, and the pre-trade bound never understates: random books, parameters and trades."""

from __future__ import annotations

from fractions import Fraction

from engine_worlds import WHALES, random_world
from hypothesis import given, settings
from hypothesis import strategies as st
from portfolio_worlds import account_of, accounts, market_and_tables, worlds

from schemas.catalogue import Catalogue
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Book
from streams.engine.explain import ADD_ON, LEG, ROUNDING, SATURATION, explain
from streams.engine.margin import HEALTHY
from streams.engine.portfolio import alone, assessment_of, margins_of
from streams.engine.pre_trade import LONG, SHORT, one_lot_terms, pre_trade_bound
from streams.engine.tables import Tables

World = tuple[Catalogue, Tables, RiskParameters]
SMALL = st.integers(-3_000, 3_000)


@given(worlds(), accounts())
@settings(max_examples=150)
def test_rows_sum_to_the_margins_of_the_decision(world: World, account: Book) -> None:
    catalogue, tables, p = world
    told = explain(account, catalogue, tables, p)
    margin = told.assessment.margin
    assert sum(row.maintenance_usd6 for row in told.contributions) == margin.maintenance_margin_usd6
    assert sum(row.initial_usd6 for row in told.contributions) == margin.initial_margin_usd6
    assert sum(row.equity_usd6 for row in told.holdings) == margin.equity_usd6
    assert sum(row.nlv_usd6 for row in told.holdings) == margin.nlv_usd6
    assert told.assessment == assessment_of(margins_of([account], tables, p), 0, p)


@given(worlds(), accounts())
@settings(max_examples=80)
def test_the_rounding_row_is_nothing_but_rounding(world: World, account: Book) -> None:
    """Half a unit for each row, and a unit for each ceiling; no row hides a term."""
    catalogue, tables, p = world
    told = explain(account, catalogue, tables, p)
    (rounding,) = [row for row in told.contributions if row.kind == ROUNDING]
    limit = len(told.contributions) / 2 + 2
    assert max(abs(rounding.maintenance_usd6), abs(rounding.initial_usd6)) <= limit
    (rest,) = [row for row in told.holdings if row.kind == ROUNDING]
    assert max(abs(rest.equity_usd6), abs(rest.nlv_usd6)) <= len(told.holdings) / 2 + 2
    assert not [row for row in told.contributions if row.kind == SATURATION]


@given(worlds(), accounts())
@settings(max_examples=60)
def test_binding_rows_are_the_binding_term(world: World, account: Book) -> None:
    catalogue, tables, p = world
    told = explain(account, catalogue, tables, p)
    margin = told.assessment.margin
    terms = {
        "expected_shortfall": margin.expected_shortfall_usd6,
        "stress": margin.stress_loss_usd6,
        "short_option_minimum": margin.short_option_minimum_usd6,
    }
    assert terms[margin.binding] == max(terms.values())
    shared = sum(r.maintenance_usd6 for r in told.contributions if r.kind not in (ROUNDING, ADD_ON))
    assert abs(shared - terms[margin.binding]) <= len(told.contributions) / 2 + 2


@given(worlds(), accounts())
@settings(max_examples=60)
def test_the_tail_averages_to_the_expected_shortfall(world: World, account: Book) -> None:
    catalogue, tables, p = world
    told = explain(account, catalogue, tables, p)
    if not len(account.keys):
        assert told.tail == ()
        return
    assert sum(row.weight for row in told.tail) == told.tail_mass == tables.tail_mass
    mean = Fraction(sum(row.weight * row.loss_usd6 for row in told.tail), told.tail_mass)
    assert abs(mean - told.assessment.margin.expected_shortfall_usd6) <= 2
    losses = [row.loss_usd6 for row in told.tail]
    assert losses == sorted(losses, reverse=True)


@given(worlds(), accounts(lots=st.integers(-50, 50)), st.integers(0, 10))
@settings(max_examples=40)
def test_one_more_lot_is_the_difference_of_two_decisions(world: World, account: Book, other: int) -> None:
    catalogue, tables, p = world
    told = {row.instrument: row for row in explain(account, catalogue, tables, p, [other]).one_more_lot}
    held = dict(zip(account.keys.tolist(), account.lots.tolist(), strict=True))
    assert set(told) == {catalogue.instruments[i].symbol for i in {*held, other}}
    cash = int(account.cash_usd6[0])
    now = margins_of([account_of(catalogue, held, cash)], tables, p)
    for i in {*held, other}:
        row = told[catalogue.instruments[i].symbol]
        found = (
            (row.maintenance_long_usd6, row.initial_long_usd6),
            (row.maintenance_short_usd6, row.initial_short_usd6),
        )
        for lots, (maintenance, initial) in zip((1, -1), found, strict=True):
            moved = account_of(catalogue, {**held, i: held.get(i, 0) + lots}, cash)
            then = margins_of([moved], tables, p)
            assert maintenance == int(then.maintenance_margin_usd6[0]) - int(now.maintenance_margin_usd6[0])
            assert initial == int(then.initial_margin_usd6[0]) - int(now.initial_margin_usd6[0])


@given(st.integers(0, 40))
@settings(max_examples=6)
def test_every_account_of_a_run_is_explained_to_the_unit(seed: int) -> None:
    """The machine's own margins after its last barrier, whales among them."""
    machine = random_world(seed, whales=True).pipeline(1).risks[0]
    tables = machine._tables()
    assert tables is not None
    for row, name in enumerate(machine.book.accounts):
        told = explain(alone(machine.book, row), machine.catalogue, tables, machine.parameters)
        assert told.account == name
        assert told.assessment == assessment_of(machine.margins, row, machine.parameters)
        for field, column in (("maintenance_usd6", "maintenance_margin_usd6"), ("initial_usd6", "initial_margin_usd6")):
            rows = sum(getattr(contribution, field) for contribution in told.contributions)
            assert rows == int(getattr(machine.margins, column)[row])
    assert set(WHALES) <= set(machine.book.accounts)


def test_a_book_that_gains_in_its_whole_tail_has_nothing_to_share() -> None:
    """ES < 0 and no stress row takes anything: the floor of zero binds, every leg's row is zero."""
    catalogue, tables, p = market_and_tables(stressed=False, gaining=True)
    told = explain(account_of(catalogue, {0: 1_000}, 0), catalogue, tables, p)
    margin = told.assessment.margin
    assert margin.expected_shortfall_usd6 < 0
    assert margin.maintenance_margin_usd6 == margin.add_ons_usd6 > 0
    assert (margin.binding, margin.stress, told.stress) == ("stress", "", None)
    assert [(row.kind, row.maintenance_usd6) for row in told.contributions if row.kind != ROUNDING] == [
        (LEG, 0), (ADD_ON, margin.add_ons_usd6),
    ]  # fmt: skip


# -- the pre-trade bound


@given(
    worlds(), accounts(lots=SMALL), st.dictionaries(st.integers(0, 11), SMALL, max_size=5), st.integers(-(10**9), 10**9)
)
@settings(max_examples=250)
def test_the_bound_never_understates(world: World, before: Book, trades: dict[int, int], cash_usd6: int) -> None:
    catalogue, tables, p = world
    held = dict(zip(before.keys.tolist(), before.lots.tolist(), strict=True))
    lots = {i: held.get(i, 0) + trades.get(i, 0) for i in {*held, *trades}}
    after = account_of(catalogue, lots, int(before.cash_usd6[0]) + cash_usd6)
    margins = margins_of([before, after], tables, p)
    bound = pre_trade_bound(margins, 0, before, after, one_lot_terms(tables), tables, p)
    assert bound is not None
    assert bound.maintenance_margin_usd6 >= margins.maintenance_margin_usd6[1]
    assert bound.initial_margin_usd6 >= margins.initial_margin_usd6[1]
    assert (bound.nlv_usd6, bound.equity_usd6) == (margins.nlv_usd6[1], margins.equity_usd6[1])
    if bound.surely_healthy:
        assert margins.state[1] == HEALTHY
    if not any(trades.values()):
        assert bound.maintenance_margin_usd6 == margins.maintenance_margin_usd6[1]
        assert bound.initial_margin_usd6 == margins.initial_margin_usd6[1]


@given(worlds(), st.integers(0, 11), st.integers(-3_000, 3_000).filter(bool))
@settings(max_examples=60)
def test_the_bound_of_a_single_leg_is_its_margin_up_to_rounding(world: World, index: int, lots: int) -> None:
    """Opening one position from nothing: homogeneous, so only the ceiling of each lot is lost."""
    catalogue, tables, p = world
    before, after = account_of(catalogue, {}, 0), account_of(catalogue, {index: lots}, 0)
    margins = margins_of([before, after], tables, p)
    bound = pre_trade_bound(margins, 0, before, after, one_lot_terms(tables), tables, p)
    assert bound is not None
    slack = 3 + abs(lots) // 500  # a nano-USD of ceiling a lot, and of the floor at zero
    assert 0 <= bound.maintenance_margin_usd6 - int(margins.maintenance_margin_usd6[1]) <= slack


def test_one_lot_terms_are_those_of_accounts_of_one_lot() -> None:
    catalogue, tables, p = market_and_tables()
    found = one_lot_terms(tables)
    for i in range(len(catalogue.instruments)):
        for side, lots in ((LONG, 1), (SHORT, -1)):
            margins = margins_of([account_of(catalogue, {i: lots}, 0)], tables, p)
            assert found.es_usd9[side, i] == margins.es_usd9[0]
            assert found.stress_usd9[side, i] == margins.stress_usd9[0]
    assert found.priced.all()


def test_no_bound_on_the_wide_path() -> None:
    catalogue, tables, p = market_and_tables()
    whale, more = account_of(catalogue, {0: 2**39}, 0), account_of(catalogue, {0: 2**39 + 1}, 0)
    margins = margins_of([whale], tables, p)
    assert margins.wide[0]
    assert pre_trade_bound(margins, 0, whale, more, one_lot_terms(tables), tables, p) is None
    small = account_of(catalogue, {}, 0)
    assert pre_trade_bound(margins_of([small], tables, p), 0, small, whale, one_lot_terms(tables), tables, p) is None
