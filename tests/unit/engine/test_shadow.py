"""An account of the engine as cases of a preset: the same worth, leg by leg, and the same stress where rows agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from portfolio_worlds import account_of, market_and_tables

from kernels.layout import SPOT
from oracles.presets.document import preset
from oracles.presets.evaluate import evaluate
from streams.engine.portfolio import assessment_of, margins_of
from streams.engine.shadow import shadow_cases
from streams.engine.what_if import Refused

CATALOGUE, TABLES, PARAMETERS = market_and_tables()
COUNT = len(CATALOGUE.instruments)
PERPETUALS = [i for i, listed in enumerate(CATALOGUE.instruments) if listed.kind == "perpetual"]
held = st.dictionaries(st.integers(0, COUNT - 1), st.integers(-3_000, 3_000), max_size=COUNT)


def without_short_coins(lots: dict[int, int]) -> dict[int, int]:
    return {i: abs(n) if CATALOGUE.instruments[i].kind == "spot" else n for i, n in lots.items()}


@settings(max_examples=40, deadline=None)
@given(lots=held.map(without_short_coins), entry=st.integers(-(10**9), 10**9))
def test_the_cases_are_worth_what_the_account_is(lots: dict[int, int], entry: int) -> None:
    """Equity: marks of options to the rounding of a mark per lot, profits and coins exactly."""
    account = account_of(CATALOGUE, lots, 0, entry)
    cases = shadow_cases(account, CATALOGUE, TABLES)
    margin = assessment_of(margins_of([account], TABLES, PARAMETERS), 0, PARAMETERS).margin
    worth_usd = sum(evaluate(case, preset("stress")).equity for case in cases)
    assert worth_usd == pytest.approx(margin.equity_usd6 / 1e6, abs=1e-9 * sum(map(abs, lots.values())) + 1e-4)
    underlyings = {CATALOGUE.instruments[i].underlying for i, n in lots.items() if n}
    assert [case.id for case in cases] == [f"account {CATALOGUE.underlyings[u].symbol}" for u in sorted(underlyings)]


@pytest.mark.parametrize("index", PERPETUALS)
@pytest.mark.parametrize("lots", [700, -700])
def test_a_perpetuals_stress_is_the_engines(index: int, lots: int) -> None:
    account = account_of(CATALOGUE, {index: lots}, 10**9)
    margin = assessment_of(margins_of([account], TABLES, PARAMETERS), 0, PARAMETERS).margin
    (case,) = shadow_cases(account, CATALOGUE, TABLES)
    assert evaluate(case, preset("stress")).risks["stress"] == pytest.approx(margin.stress_loss_usd6 / 1e6, abs=2e-6)


def test_coins_move_unless_they_are_stable_and_factors_become_haircuts() -> None:
    coins = [i for i, listed in enumerate(CATALOGUE.instruments) if listed.kind == "spot"]
    assert coins
    for index in coins:
        (case,) = shadow_cases(account_of(CATALOGUE, {index: 10}, 0), CATALOGUE, TABLES)
        (coin,) = case.positions.collateral
        listed = CATALOGUE.instruments[index]
        assert coin.offsets_risk is not CATALOGUE.underlyings[listed.underlying].stable
        assert coin.mm_haircut == pytest.approx(1 - listed.collateral_factor_e6 / 1e6)
        assert TABLES.instruments.kind[index] == SPOT


def test_what_has_no_price_is_refused() -> None:
    nothing_alive = TABLES.instruments._replace(alive=np.zeros(COUNT, np.bool_))
    dead = replace(TABLES, instruments=nothing_alive)
    with pytest.raises(Refused, match="no price"):
        shadow_cases(account_of(CATALOGUE, {PERPETUALS[0]: 1}, 0), CATALOGUE, dead)
    assert shadow_cases(account_of(CATALOGUE, {}, 5), CATALOGUE, TABLES) == []


def test_a_case_of_a_run_takes_any_preset() -> None:
    lots = {i: (-1) ** i * 40 for i in range(COUNT) if CATALOGUE.instruments[i].kind != "spot"}
    for case in shadow_cases(account_of(CATALOGUE, lots, 0), CATALOGUE, TABLES):
        for name in ("derive-pm2", "deribit-pm", "span-scan", "greeks", "isolated"):
            found = evaluate(case, preset(name))
            assert found.initial_requirement > 0
