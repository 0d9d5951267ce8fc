"""One market, random portfolios and random parameters for whatever looks at a single account."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from engine_worlds import GENESIS_MS, WHALES, listings, option, scenario_set
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.catalogue import Catalogue
from schemas.log_records import EXPIRY_ROW, SPOT_ROW, Market
from schemas.risk_parameters import RiskParameters, StressRow
from streams.engine.book import LINEAR_KINDS, Book
from streams.engine.market import RecordedMarket
from streams.engine.portfolio import empty_account
from streams.engine.tables import Tables, build_tables, scenario_table_of

HARMLESS = StressRow(name="nothing", reason="a row that takes nothing", weight_e6=0, spot_move_e6=0)


@lru_cache(maxsize=4)
def market_and_tables(
    stressed: bool = True, gaining: bool = False, scenarios: int = 128, shaped: bool = False
) -> tuple[Catalogue, Tables, RiskParameters]:
    """X at 100 with a smile (38 %), Y at 10, S at 1; 30 days to expiry. Not `stressed`: no stress row takes anything.
    `gaining`: the first instrument gains in every scenario, so that whoever is long of it has a negative shortfall.
    `shaped`: a set with curvature and term."""
    parameters = RiskParameters() if stressed else RiskParameters(stress_rows=(HARMLESS,))
    catalogue = Catalogue.from_listings([*listings(), option(90, "put")])
    market = RecordedMarket()
    market.fit_to(catalogue)
    one = 10**9
    spots = np.array([(0, 0, 100 * one, 0), (1, 0, 10 * one, 0), (2, 0, one, 0)], SPOT_ROW)
    smile = (0, 0, 100 * one, 0, 6_000_000, 30_000_000, -200_000_000, 0, 200_000_000)
    market.record(Market(spots, np.array([smile], EXPIRY_ROW)), GENESIS_MS)
    table = scenario_table_of(scenario_set(1, scenarios, shaped), catalogue)
    tables = build_tables(catalogue, market, parameters, table)
    if gaining:
        tables.pnl.values[0] = np.abs(tables.pnl.values[0]) + 1
    return catalogue, tables, parameters


def account_of(catalogue: Catalogue, lots: dict[int, int], cash_usd6: int, entry_usd6: int = 0) -> Book:
    """An account with these lots by instrument; perpetuals and futures each entered at `entry_usd6`."""
    account = empty_account("account")
    held = sorted((i, q) for i, q in lots.items() if q)
    account.cash_usd6[0] = cash_usd6
    account.keys = np.array([i for i, _ in held], np.int64)
    account.lots = np.array([q for _, q in held], np.int64)
    linear = [catalogue.instruments[i].kind in LINEAR_KINDS for i, _ in held]
    account.entry_usd6 = np.where(np.array(linear, np.bool_), entry_usd6, 0).astype(np.int64)
    return account


def lots_of_any_size() -> st.SearchStrategy[int]:
    """Mostly small, sometimes beyond the fast path."""
    return st.one_of(
        st.integers(-3_000, 3_000), st.integers(-2, 2), st.sampled_from([*WHALES.values(), -(2**38), 2**39])
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Catalogue, Tables, RiskParameters]:
    """The market with parameters under which any of the terms may bind."""
    catalogue, tables, parameters = market_and_tables(draw(st.booleans()), draw(st.booleans()))
    return (
        catalogue,
        tables,
        replace(
            parameters,
            short_option_minimum_e6=draw(st.sampled_from([0, 10_000, 333_333, 1_000_000])),
            gross_notional_charge_e6=draw(st.sampled_from([0, 1, 500, 77_777])),
            initial_margin_multiplier_e6=draw(st.sampled_from([1_000_000, 1_250_000, 1_333_333])),
        ),
    )


@st.composite
def accounts(draw: st.DrawFn, instruments: int = 12, lots: st.SearchStrategy[int] | None = None) -> Book:
    """Nothing, one leg or many; perhaps on the wide path."""
    catalogue, _, _ = market_and_tables()
    sizes = lots_of_any_size() if lots is None else lots
    drawn = draw(st.dictionaries(st.integers(0, instruments - 1), sizes, max_size=8))
    cash, entry = draw(st.integers(-(10**12), 10**12)), draw(st.integers(-(10**10), 10**10))
    return account_of(catalogue, drawn, cash, entry)
