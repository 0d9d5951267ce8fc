"""kernels.screening: hand-computed bounds, saturation, outward rounding."""

import numpy as np

from kernels.screening import SATURATED_USD9, stress_change_bounds, sup_bound


def bound(lots: list[int], low: list[int], high: list[int]) -> int:
    legs = np.arange(len(lots), dtype=np.int32)
    pointers = np.array([0, len(lots)], np.int64)
    return int(sup_bound(pointers, legs, np.array(lots, np.int64), np.array(low), np.array(high))[0])


def test_long_legs_lose_the_low_and_short_legs_the_high() -> None:
    assert bound([2, -3], [-5, -1], [7, 4]) == 10 + 12
    assert bound([2], [3], [8]) == -6  # gains everywhere: the requirement must fall
    assert bound([], [0], [0]) == 0


def test_accounts_are_separate() -> None:
    out = sup_bound(
        np.array([0, 1, 1, 3], np.int64), np.array([1, 0, 1], np.int32), np.array([1, 1, -1]), np.array([-1, -2]),
        np.array([3, 4]),
    )  # fmt: skip
    assert out.tolist() == [2, 0, 5]


def test_what_might_not_fit_saturates() -> None:
    assert bound([2**40], [-(2**21)], [0]) == SATURATED_USD9
    assert bound([2**62], [-2], [2]) == SATURATED_USD9
    assert bound([-(2**63)], [-1], [1]) == SATURATED_USD9
    assert bound([1], [-(2**62)], [2**62]) == SATURATED_USD9  # a row invalid in one of the tables
    assert bound([2**30] * 4, [-(2**29)] * 4, [2**29] * 4) == SATURATED_USD9
    assert bound([2**30] * 3, [-(2**29)] * 3, [2**29] * 3) == 3 * 2**59


def test_stress_change_bounds_round_outwards() -> None:
    low, high = stress_change_bounds(
        np.array([[3, -3], [10**15, 0]]), np.zeros((2, 2), np.int64), np.array([250_000] * 2)
    )
    assert (low.tolist(), high.tolist()) == ([-1, 0], [1, 250 * 10**12])
    low, high = stress_change_bounds(np.array([[2**60 + 1]]), np.array([[-(2**59)]]), np.array([999_999]))
    exact = (2**60 + 1 + 2**59) * 999_999
    assert (low[0], high[0]) == (exact // 10**6, -(-exact // 10**6))
