"""kernels.expected_shortfall: hand-computed cases, ranges and statuses, tail scenarios, partial computation."""

from typing import NamedTuple

import numpy as np
import pytest

from kernels import expected_shortfall as es
from kernels.layout import INVALID_EXPONENT, PnlTable


class Outputs(NamedTuple):
    es_usd9: np.ndarray
    stress_usd9: np.ndarray
    stress_row: np.ndarray
    tail_threshold: np.ndarray
    status: np.ndarray


def outputs(accounts: int) -> Outputs:
    return Outputs(
        np.full(accounts, -77, np.int64),
        np.full(accounts, -77, np.int64),
        np.full(accounts, -77, np.int32),
        np.full(accounts, es.NO_TAIL_THRESHOLD, np.int64),
        np.full(accounts, -77, np.int8),
    )


def table(values: list[list[int]], exponent: list[int] | None = None) -> PnlTable:
    array = np.array(values, np.int32)
    exponents = np.array(exponent or [0] * len(values), np.int8)
    wide = array.astype(np.int64)
    shifted = wide << np.maximum(exponents, 0)[:, None].astype(np.int64)
    return PnlTable(array, exponents, shifted.min(axis=1), shifted.max(axis=1), np.abs(wide).max(axis=1))


def single(
    pnl: PnlTable, lots: list[int], weights: list[int], tail_mass: int, stress: list[list[int]] | None = None,
    stress_weight_e6: list[int] | None = None, threshold: int = es.NO_TAIL_THRESHOLD,
) -> Outputs:  # fmt: skip
    """Terms of one account that holds ``lots[i]`` of instrument i."""
    out = outputs(1)
    out.tail_threshold[0] = threshold
    rows = np.array(stress or [[0]] * len(lots), np.int64)
    es.account_terms(
        np.array([0, len(lots)], np.int64), np.arange(len(lots), dtype=np.int32), np.array(lots, np.int64),
        np.array([0], np.int64), pnl, np.array(weights, np.int32), tail_mass, rows,
        np.array(stress_weight_e6 or [1_000_000] * rows.shape[1], np.int64), *out,
    )  # fmt: skip
    return out


@pytest.mark.parametrize(
    ("pnl", "weights", "tail_mass", "threshold", "expected"),
    [
        ([-4, -3, -2, -1], [1, 1, 1, 1], 2, 2, 4),  # tail 4, 3: mean 3.5, up
        ([-4, -3, -2, -1], [1, 1, 1, 1], 1, 3, 4),
        ([-4, -3, -2, -1], [2, 2, 2, 2], 3, 3, 4),  # (2*4 + 1*3) / 3 = 3.67
        ([4, 3, 2, 1], [1, 1, 1, 1], 2, -3, -1),  # gains everywhere: mean of -1, -2 is -1.5, up is -1
        ([5, 5, 5, 5], [1, 2, 3, 4], 3, -5, -5),
        ([-9, -9, 0, 0], [1, 1, 1, 1], 2, 0, 9),  # a tie fills the tail exactly
        ([-9, -9, -9, 0], [1, 1, 1, 1], 2, 9, 9),  # a tie overfills it
        ([-100, -10, 0, 0], [0, 1, 1, 2], 1, 0, 10),  # a weight of zero counts for nothing
        ([-7, 0, 0, 0], [1000, 1, 1, 1], 500, 7, 7),  # one scenario heavier than the tail
    ],
)
def test_hand_computed_cases(pnl: list, weights: list, tail_mass: int, threshold: int, expected: int) -> None:
    out = single(table([pnl]), [1], weights, tail_mass)
    assert (out.tail_threshold[0], out.es_usd9[0], out.status[0]) == (threshold, expected, es.FAST)


def test_exponents_shift_the_lots() -> None:
    out = single(table([[-4, -3, 2, 1], [1, 1, 1, -1]], [3, 0]), [2, -5], [1, 1, 1, 1], 1)
    assert out.es_usd9[0] == 4 * 8 * 2 + 5


@pytest.mark.parametrize(
    ("stress", "weights", "expected"),
    [
        ([[-10, -30, 20]], [500_000, 250_000, 1_000_000], (8, 1)),  # 5, 7.5 up
        ([[-10, -20, 20]], [500_000, 250_000, 1_000_000], (5, 0)),  # first row wins the tie
        ([[10, 0, 20]], [500_000, 250_000, 1_000_000], (0, -1)),  # nothing lost: never below zero
        ([[-1, -1, -1]], [0, 1, 1_000_000], (1, 1)),  # one millionth of a unit is rounded up, before a whole one
    ],
)
def test_worst_weighted_stress(stress: list, weights: list, expected: tuple[int, int]) -> None:
    out = single(table([[0, 0]]), [1], [1, 1], 1, stress, weights)
    assert (out.stress_usd9[0], out.stress_row[0]) == expected


def test_stress_weighting_is_exact_where_the_product_leaves_64_bits() -> None:
    loss = 2**60 + 12_345_677
    out = single(table([[0, 0]]), [-1], [1, 1], 1, [[loss]], [999_983])
    assert out.stress_usd9[0] == -(-loss * 999_983 // 1_000_000)


@pytest.mark.parametrize(
    ("pnl", "lots", "stress"),
    [
        (table([[-1, 0]]), [2**31], None),  # lots do not fit 32 bits
        (table([[-1, 0]]), [-(2**31)], None),
        (table([[-1, 0]]), [-(2**63)], None),
        (table([[-1, 0]], [10]), [2**21], None),  # shifted lots do not fit
        (table([[-(2**31) + 1, 0]]), [2**30], None),  # gross at 2**61
        (table([[-(2**31) + 1, 0]] * 3), [3 * 2**28] * 3, None),  # gross of all legs together
        (table([[-1, 0]]), [2**30], [[-(2**31)]]),  # stress gross at 2**61
    ],
)
def test_accounts_out_of_range_are_wide_and_exact_there(pnl: PnlTable, lots: list, stress: list | None) -> None:
    out = single(pnl, lots, [1, 1], 1, stress)
    assert out.status[0] == es.WIDE
    assert (out.es_usd9[0], out.stress_usd9[0], out.stress_row[0]) == (-77, -77, -77)
    rows = np.array(stress or [[0]] * len(lots), np.int64)
    terms = es.account_terms_wide(
        np.arange(len(lots), dtype=np.int32), np.array(lots, np.int64), pnl, np.array([1, 1], np.int32), 1, rows,
        np.full(rows.shape[1], 1_000_000),
    )  # fmt: skip
    losses = [-sum(q * (int(pnl.values[i, s]) << int(pnl.exponent[i])) for i, q in enumerate(lots)) for s in range(2)]
    assert terms.es_usd9 == max(losses)
    assert terms.stress_usd9 == max(0, -sum(q * int(rows[i, 0]) for i, q in enumerate(lots)))


@pytest.mark.parametrize("lots", [2**30 - 1, -(2**30) + 1])
def test_the_edge_of_the_range_is_fast_and_exact(lots: int) -> None:
    pnl = table([[-(2**31) + 1, 2**31 - 1, 0, 17]])
    weights = [2**28] * 4
    out = single(pnl, [lots], weights, 3 * 2**28 + 5)
    terms = es.account_terms_wide(
        np.array([0], np.int32), np.array([lots]), pnl, np.array(weights, np.int32), 3 * 2**28 + 5,
        np.zeros((1, 1), np.int64), np.array([1]),
    )  # fmt: skip
    assert out.status[0] == es.FAST
    assert (out.es_usd9[0], out.tail_threshold[0]) == (terms.es_usd9, terms.tail_threshold_usd9)


def test_an_invalid_row_makes_its_holders_invalid() -> None:
    pnl = table([[-1, 0], [-1, 0]], [0, INVALID_EXPONENT])
    assert single(pnl, [1, 1], [1, 1], 1).status[0] == es.INVALID
    with pytest.raises(ValueError, match="no valid scenario P&L"):
        es.account_losses(np.array([1], np.int32), np.array([1]), pnl)


def test_only_the_chosen_accounts_are_written_and_an_empty_one_is_zero() -> None:
    out = outputs(3)
    es.account_terms(
        np.array([0, 1, 1, 2], np.int64), np.array([0, 0], np.int32), np.array([3, 5]), np.array([1, 2], np.int64),
        table([[-2, 1]]), np.array([1, 1], np.int32), 1, np.array([[-4]]), np.array([1_000_000]), *out,
    )  # fmt: skip
    assert out.es_usd9.tolist() == [-77, 0, 10]
    assert out.stress_usd9.tolist() == [-77, 0, 20]
    assert out.stress_row.tolist() == [-77, -1, 0]
    assert out.status.tolist() == [-77, es.FAST, es.FAST]


def test_tail_scenarios_split_the_boundary_and_reproduce_the_shortfall() -> None:
    losses = np.array([5, 9, 9, 9, -1], dtype=object)
    chosen, tail_weights = es.tail_scenarios(losses, np.array([4, 2, 0, 3, 9], np.int32), 7)
    assert chosen.tolist() == [1, 3, 0]
    assert tail_weights.tolist() == [2, 3, 2]
    out = single(table([[-5, -9, -9, -9, 1]]), [1], [4, 2, 0, 3, 9], 7)
    assert out.es_usd9[0] == -(-(2 * 9 + 3 * 9 + 2 * 5) // 7)


def test_account_losses_are_minus_the_pnl_of_the_legs() -> None:
    pnl = table([[1, -2], [3, 4]], [0, 2])
    losses = es.account_losses(np.array([0, 1], np.int32), np.array([10, -(2**62)]), pnl)
    assert losses.tolist() == [-10 + 2**62 * 12, 20 + 2**62 * 16]
