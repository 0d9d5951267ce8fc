"""The sup bound against brute force: never below the exact terms, whatever the tables do."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.expected_shortfall import account_terms_wide
from kernels.layout import PnlTable
from kernels.open_book import INSTRUMENT_BITS
from kernels.reprice import pnl_change_bounds
from kernels.screening import SATURATED_USD9, add_traded_lots, change_bounds, stress_change_bounds, sup_bounds

INSTRUMENTS, SCENARIOS, ROWS = 5, 8, 4


def draw_pnl(rng: np.random.Generator, magnitude: int) -> PnlTable:
    values = rng.integers(-magnitude, magnitude + 1, (INSTRUMENTS, SCENARIOS)).astype(np.int32)
    exponent = rng.integers(0, 4, INSTRUMENTS).astype(np.int8)
    full = values.astype(np.int64) << exponent[:, None].astype(np.int64)
    return PnlTable(values, exponent, full.min(axis=1), full.max(axis=1), np.abs(values.astype(np.int64)).max(axis=1))


Change = tuple[np.ndarray, np.ndarray]


def increases(
    pointers: np.ndarray, legs: np.ndarray, lots: np.ndarray, shortfall: Change, stress: Change
) -> np.ndarray:
    """Of both terms, of every account."""
    out = np.empty((2, len(pointers) - 1), np.int64)
    sup_bounds(0, len(pointers) - 1, pointers, legs, lots, change_bounds(shortfall, stress), out)
    return out


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    magnitude=st.sampled_from([1, 100, 2**20, 2**31 - 2]),
    lots_limit=st.sampled_from([1, 1000, 2**24, 2**40]),
    related=st.booleans(),
)
def test_the_bound_is_never_below_the_exact_terms(seed: int, magnitude: int, lots_limit: int, related: bool) -> None:
    rng = np.random.default_rng(seed)
    old = draw_pnl(rng, magnitude)
    new = draw_pnl(rng, magnitude)
    if related:  # a small common move, where the bound is close and a wrong one would show
        new = old._replace(values=(old.values // 2).astype(np.int32))
    weights = rng.integers(0, 100, SCENARIOS).astype(np.int32)
    weights[0] += 2
    tail_mass = int(rng.integers(1, weights.sum()))
    old_stress, new_stress = rng.integers(-magnitude, magnitude + 1, (2, INSTRUMENTS, ROWS))
    stress_weight_e6 = rng.integers(0, 1_000_001, ROWS)
    legs = np.flatnonzero(rng.random(INSTRUMENTS) < 0.7).astype(np.int32)
    lots = rng.integers(-lots_limit, lots_limit + 1, legs.size)
    pointers = np.array([0, legs.size], np.int64)

    before = account_terms_wide(legs, lots, old, weights, tail_mass, old_stress, stress_weight_e6)
    now = account_terms_wide(legs, lots, new, weights, tail_mass, new_stress, stress_weight_e6)
    bounds = stress_change_bounds(new_stress, old_stress, stress_weight_e6)
    increase, stress_increase = increases(pointers, legs, lots, pnl_change_bounds(new, old), bounds)[:, 0].tolist()

    assert increase == SATURATED_USD9 or now.es_usd9 <= before.es_usd9 + increase
    assert stress_increase == SATURATED_USD9 or now.stress_usd9 <= max(0, before.stress_usd9 + stress_increase)
    if magnitude * lots_limit < 2**50:
        assert SATURATED_USD9 not in (increase, stress_increase)


def test_the_bound_is_attained_by_one_leg_that_moves_alike_everywhere() -> None:
    rng = np.random.default_rng(1)
    old = draw_pnl(rng, 1000)._replace(exponent=np.zeros(INSTRUMENTS, np.int8))
    new = old._replace(values=old.values - np.int32(7))
    legs, lots = np.array([2], np.int32), np.array([3])
    weights, flat = np.ones(SCENARIOS, np.int32), np.zeros((INSTRUMENTS, 1), np.int64)
    before, now = (account_terms_wide(legs, lots, table, weights, 2, flat, np.array([0])) for table in (old, new))
    change = pnl_change_bounds(new, old)
    increase = increases(np.array([0, 1]), legs, lots, change, change)[0, 0]
    assert now.es_usd9 == before.es_usd9 + increase == before.es_usd9 + 21


def draw_lots(rng: np.random.Generator, limit: int) -> dict[int, int]:
    held = np.flatnonzero(rng.random(INSTRUMENTS) < 0.6)
    return {int(i): int(rng.integers(-limit, limit + 1)) for i in held}


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    magnitude=st.sampled_from([1, 100, 2**20, 2**31 - 2]),
    lots_limit=st.sampled_from([1, 1000, 2**24, 2**60]),
    by_shortfall=st.booleans(),
)
def test_the_bound_of_trades_is_never_below_the_exact_terms(
    seed: int, magnitude: int, lots_limit: int, by_shortfall: bool
) -> None:
    """Lots and tables change at once; one lot by its worst scenario, or by its expected shortfall."""
    rng, row = np.random.default_rng(seed), int(seed % 3)
    old, new = draw_pnl(rng, magnitude), draw_pnl(rng, magnitude)
    weights = rng.integers(1, 100, SCENARIOS).astype(np.int32)
    tail_mass, weight_e6 = int(rng.integers(1, weights.sum())), rng.integers(0, 1_000_001, ROWS)
    old_stress, new_stress = rng.integers(-magnitude, magnitude + 1, (2, INSTRUMENTS, ROWS))
    then, now = draw_lots(rng, lots_limit), draw_lots(rng, lots_limit)

    def terms(lots: dict[int, int], pnl: PnlTable, stress: np.ndarray) -> np.ndarray:
        legs, size = np.array(list(lots), np.int32), np.array(list(lots.values()), np.int64)
        return np.array(account_terms_wide(legs, size, pnl, weights, tail_mass, stress, weight_e6)[:2], object)

    one_lot = np.array(
        [[terms({i: side}, old, old_stress) for i in range(INSTRUMENTS)] for side in (1, -1)], np.int64
    ).transpose(2, 0, 1).copy()  # fmt: skip
    if not by_shortfall:
        one_lot[0] = -old.minimum_usd9, old.maximum_usd9
    legs = np.array(list(now), np.int32), np.array(list(now.values()), np.int64)
    pointers = np.array([0] * (row + 1) + [len(now)], np.int64)
    keys = np.array([row << INSTRUMENT_BITS | i for i in then] + [(row + 1) << INSTRUMENT_BITS], np.int64)
    held = np.array([*then.values(), 2**60], np.int64)  # the last one is another row's
    stress_change = stress_change_bounds(new_stress, old_stress, weight_e6)
    increase = increases(pointers, *legs, pnl_change_bounds(new, old), stress_change)
    add_traded_lots(np.array([row]), pointers, *legs, keys, held, one_lot, new.exponent, increase)
    if increase[0, row] != SATURATED_USD9:
        shortfall, stress = terms(then, old, old_stress) + increase[:, row].astype(object)
        assert (terms(now, new, new_stress) <= [shortfall, max(0, stress)]).all()
    assert not increase[:, :row].any()
    assert (increase[0, row] == SATURATED_USD9) == (increase[1, row] == SATURATED_USD9)
    if magnitude * lots_limit < 2**50:
        assert SATURATED_USD9 not in increase[:, row]
