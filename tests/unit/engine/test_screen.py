"""When a keyframe is renewed: by age, staggered while calm, not while the market jumps; and the bound of one lot."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.expected_shortfall import NO_TAIL_THRESHOLD, account_terms
from kernels.layout import INVALID_EXPONENT
from kernels.screening import SATURATED_USD9
from streams.engine.screen import BOUND_TRADED, KEEP_A_BOUND, STAGES, TRADED, is_due, one_lot_bounds
from streams.engine.tables import Tables
from tests.bench import screening

COUNT, INTERVAL = 64, 8


def chosen(block: int, cleared: int, traded: int = 0, age: int = 1) -> int:
    """How many of COUNT accounts are due, the first `cleared` of them cleared, the last `traded` having traded."""
    place = np.arange(COUNT)
    return int(is_due(np.full(COUNT, block - age), place < cleared, place >= COUNT - traded, INTERVAL, block).sum())


def test_calm_blocks_take_their_share_and_everybody_within_half_the_interval() -> None:
    assert [chosen(block, COUNT) for block in range(4)] == [COUNT * 2 // INTERVAL] * 4
    assert chosen(5, COUNT, age=INTERVAL) == COUNT


def test_while_the_market_jumps_only_who_has_reached_the_limit() -> None:
    assert chosen(5, COUNT * 7 // 8) == COUNT * 2 // INTERVAL
    assert chosen(5, COUNT * 7 // 8 - 1) == 0
    assert chosen(5, 0, age=INTERVAL) == COUNT


def test_those_who_trade_are_no_jump() -> None:
    assert chosen(5, COUNT // 2, traded=COUNT // 2) == COUNT * 2 // INTERVAL
    assert chosen(5, COUNT // 4, traded=COUNT // 2) == 0
    assert chosen(5, 0, traded=COUNT) == COUNT * 2 // INTERVAL


def test_stages_that_keep_a_bound_are_stages() -> None:
    assert set(KEEP_A_BOUND) < set(STAGES)
    assert (STAGES[BOUND_TRADED], STAGES[TRADED]) == ("bound_traded", "exact_traded")


@pytest.fixture(scope="module")
def tables() -> Tables:
    still = np.zeros(screening.UNDERLYINGS)
    return screening._tables(screening._market(still, 1.0, 0.0), screening._scenarios(128, 1))


def test_one_lot_is_bounded_on_both_sides(tables: Tables) -> None:
    count = len(tables.option_expiry)
    terms = [np.zeros(count, np.int64) for _ in range(2)]
    for side, found in zip((1, -1), zip(*one_lot_bounds(tables), strict=True), strict=True):
        account_terms(
            np.arange(count + 1), np.arange(count, dtype=np.int32), np.full(count, side), np.arange(count), tables.pnl,
            tables.scenarios.weights, tables.tail_mass, tables.stress, tables.stress_weight_e6, *terms,
            np.zeros(count, np.int32), np.full(count, NO_TAIL_THRESHOLD), np.zeros(count, np.int8),
        )  # fmt: skip
        assert (found[0] >= terms[0]).all()
        assert found[1].tolist() == terms[1].tolist()  # the worst row itself


def test_a_lot_without_a_price_has_no_bound(tables: Tables) -> None:
    exponent = tables.pnl.exponent.copy()
    exponent[3] = INVALID_EXPONENT
    shortfall, _ = one_lot_bounds(replace(tables, pnl=tables.pnl._replace(exponent=exponent)))
    assert (shortfall == SATURATED_USD9).sum(axis=1).tolist() == [1, 1]
    assert shortfall[:, 3].tolist() == [SATURATED_USD9] * 2
