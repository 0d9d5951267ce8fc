"""Worst stress losses against Python integers, for every way in which rows fall into vectors."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.account_sums import portfolio_sums
from kernels.worst_stress import worst_stresses

INSTRUMENTS, ACCOUNTS = 20, 6


def worst(legs: list[tuple[int, int]], stress: np.ndarray, weight_e6: list[int]) -> tuple[int, int]:
    """The first of the largest ceil(weight * loss), if above 0."""
    best, row = 0, -1
    for r, weight in enumerate(weight_e6):
        loss = -sum(lots * int(stress[i, r]) for i, lots in legs)
        weighted = -(-loss * weight // 1_000_000)
        if weighted > best:
            best, row = weighted, r
    return best, row


@pytest.mark.parametrize("rows", [0, 1, 3, 7, 8, 9, 31, 32, 40, 64, 91, 100])
def test_all_row_counts(rows: int) -> None:
    rng = np.random.default_rng(rows)
    stress = rng.integers(-(2**40), 2**40, (INSTRUMENTS, rows))
    stress[:, rows // 2 :] = stress[:, : rows - rows // 2]  # ties: the first row wins
    weight_e6 = rng.integers(0, 1_000_001, rows)
    weight_e6[rows // 2 :] = weight_e6[: rows - rows // 2]
    legs = rng.integers(0, INSTRUMENTS, 40).astype(np.int32)
    lots = rng.integers(-(2**15), 2**15, 40)
    pointer = np.array([0, 0, 1, 2, 7, 12, 40], np.int64)
    accounts = np.array([5, 0, 3, 1, 4, 2])
    loss_usd9, row = worst_stresses(pointer, legs, lots, accounts, stress, weight_e6)
    for n, a in enumerate(accounts.tolist()):
        held = slice(int(pointer[a]), int(pointer[a + 1]))
        expected = worst(list(zip(legs[held].tolist(), lots[held].tolist(), strict=True)), stress, weight_e6.tolist())
        assert (int(loss_usd9[n]), int(row[n])) == expected


def test_a_book_that_only_gains_has_no_worst_row() -> None:
    stress = np.arange(1, 1 + INSTRUMENTS * 9).reshape(INSTRUMENTS, 9)
    found = worst_stresses(
        np.array([0, 2], np.int64), np.array([0, 1], np.int32), np.array([5, 7]), np.zeros(1, np.int64), stress,
        np.full(9, 250_000),
    )  # fmt: skip
    assert [column.tolist() for column in found] == [[0], [-1]]


@pytest.mark.parametrize("expiries", [0, 1, 3, 50])
def test_sums_of_portfolios(expiries: int) -> None:
    """Fewer expiries than legs, and more: the same sums."""
    rng = np.random.default_rng(expiries)
    columns = rng.integers(0, 10**12, (3, INSTRUMENTS))
    expiry = rng.integers(-1, max(expiries, 1) if expiries else 0, INSTRUMENTS).astype(np.int32)
    legs, lots = rng.integers(0, INSTRUMENTS, 60).astype(np.int32), rng.integers(-1000, 1000, 60)
    pointer = np.array([0, 0, 1, 3, 20, 60], np.int64)
    out, magnitude = np.zeros((5, 4), np.int64), np.zeros(5)
    portfolio_sums(pointer, legs, lots, columns, expiry, expiries, out, magnitude)
    for a in range(5):
        held = range(int(pointer[a]), int(pointer[a + 1]))
        terms = [(int(legs[n]), int(lots[n])) for n in held]
        mark, haircut, notional = (column.tolist() for column in columns)
        short = [-sum(q * notional[i] for i, q in terms if expiry[i] == e) for e in range(expiries)]
        assert out[a].tolist() == [
            sum(q * mark[i] for i, q in terms),
            sum(q * (haircut[i] if q > 0 else mark[i]) for i, q in terms),
            sum(abs(q) * notional[i] for i, q in terms),
            sum(max(0, value) for value in short),
        ]
        assert magnitude[a] == pytest.approx(sum(abs(q) * max(mark[i], notional[i]) for i, q in terms))
