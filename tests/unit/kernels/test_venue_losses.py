"""Losses that fall on the fund: the kernel against Python integers, for any range, in any grouping."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernels.expected_shortfall import INVALID, account_losses
from kernels.layout import INVALID_EXPONENT, PnlTable
from kernels.venue_losses import NOBODY, VenueLosses, as_pnl_table, joined, no_losses, venue_losses

SIZE, INSTRUMENTS = 7, 5


def table(seed: int, magnitude: int = 10**8) -> PnlTable:
    rng = np.random.default_rng(seed)
    values = rng.integers(-magnitude, magnitude, (INSTRUMENTS, SIZE)).astype(np.int32)
    exponent = rng.integers(0, 4, INSTRUMENTS).astype(np.int8)
    spread = values.astype(np.int64) << exponent[:, None]
    return PnlTable(
        values, exponent, spread.min(axis=1), spread.max(axis=1), np.abs(values.astype(np.int64)).max(axis=1)
    )


def portfolios(seed: int, accounts: int, lots_max: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, INSTRUMENTS + 1, accounts)
    legs = [np.sort(rng.choice(INSTRUMENTS, n, replace=False)).astype(np.int32) for n in counts]
    pointer = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    lots = rng.integers(-lots_max, lots_max, int(pointer[-1]))
    resources = rng.integers(-(10**9), 10**11, accounts)
    return pointer, np.concatenate([np.zeros(0, np.int32), *legs]), lots, resources


def twin(pointer: np.ndarray, legs: np.ndarray, lots: np.ndarray, pnl: PnlTable, resources: np.ndarray) -> VenueLosses:
    """Account by account, scenario by scenario, in Python integers."""
    uncovered = []
    for a in range(len(resources)):
        leg = slice(pointer[a], pointer[a + 1])
        losses = account_losses(legs[leg], lots[leg], pnl)
        uncovered.append([max(0, -(-int(loss) // 1_000) - int(resources[a])) for loss in losses])
    out = no_losses(SIZE)
    for s in range(SIZE):
        ranked = sorted((-row[s], a) for a, row in enumerate(uncovered) if row[s])
        out.total_usd6[s] = -sum(value for value, _ in ranked)
        for (value, a), (column, names) in zip(
            ranked,
            ((out.largest_usd6, out.largest_account), (out.second_usd6, out.second_account)),
            strict=False,
        ):
            column[s], names[s] = -value, a
    return out


def assert_equal(found: VenueLosses, expected: VenueLosses) -> None:
    for name in VenueLosses._fields:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)


@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([50, 10**5, 10**10]))
def test_kernel_and_python_integers_agree_for_small_and_wide_accounts(seed: int, accounts: int, lots: int) -> None:
    book, pnl = portfolios(seed, accounts, lots), table(seed)
    found, _ = venue_losses(*book[:3], pnl, book[3])
    assert_equal(found, twin(*book[:3], pnl, book[3]))


@given(st.integers(0, 10**6), st.integers(2, 9), st.data())
def test_groups_of_accounts_join_to_the_whole(seed: int, accounts: int, data: st.DataObject) -> None:
    pointer, legs, lots, resources = portfolios(seed, accounts, 10**5)
    pnl, cut = table(seed), data.draw(st.integers(0, accounts))
    parts = []
    for low, high in ((0, cut), (cut, accounts)):
        begin, end = pointer[low], pointer[high]
        part = (pointer[low : high + 1] - begin, legs[begin:end], lots[begin:end], pnl, resources[low:high])
        parts.append((venue_losses(*part)[0], low))
    assert_equal(joined(parts, SIZE), venue_losses(pointer, legs, lots, pnl, resources)[0])


def test_an_account_without_a_price_counts_nothing_and_says_so() -> None:
    pnl = table(3)
    pnl.exponent[2] = INVALID_EXPONENT
    pointer, legs = np.array([0, 1, 2]), np.array([2, 1], np.int32)
    found, status = venue_losses(pointer, legs, np.array([1, 1_000_000]), pnl, np.array([-5, 0]))
    assert status.tolist() == [INVALID, 0]
    assert found.total_usd6.max() > 0
    assert set(found.largest_account.tolist()) == {1, NOBODY}
    assert set(found.second_account.tolist()) == {NOBODY}


def test_stress_rows_are_a_table_too() -> None:
    stress = np.array([[-(10**15), 10**15, 3]])
    found, _ = venue_losses(
        np.array([0, 1]), np.zeros(1, np.int32), np.array([1]), as_pnl_table(stress), np.array([400])
    )
    assert found.total_usd6.tolist() == [10**12 - 400, 0, 0]
