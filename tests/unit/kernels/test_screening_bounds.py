"""kernels.screening: hand-computed bounds, saturation, outward rounding."""

import numpy as np

from kernels.screening import SATURATED_USD9, change_bounds, stress_change_bounds, sup_bounds


def bounds(
    pointers: list[int], legs: list[int], lots: list[int], low: list[int], high: list[int], stress: int = 0
) -> list[list[int]]:
    """Both increases; the stress rows' changes are those of the scenarios, and `stress` more."""
    change = np.array(low, np.int64), np.array(high, np.int64)
    changes, out = (
        change_bounds(change, (change[0] + stress, change[1] + stress)),
        np.empty((2, len(pointers) - 1), np.int64),
    )
    arrays = np.array(pointers, np.int64), np.array(legs, np.int32), np.array(lots, np.int64)
    sup_bounds(0, len(pointers) - 1, *arrays, changes, out)
    return out.tolist()


def bound(lots: list[int], low: list[int], high: list[int]) -> int:
    (shortfall,), (stress,) = bounds([0, len(lots)], list(range(len(lots))), lots, low, high)
    assert shortfall == stress
    return shortfall


def test_long_legs_lose_the_low_and_short_legs_the_high() -> None:
    assert bound([2, -3], [-5, -1], [7, 4]) == 10 + 12
    assert bound([2], [3], [8]) == -6  # gains everywhere: the requirement must fall
    assert bound([], [0], [0]) == 0


def test_accounts_are_separate() -> None:
    found = bounds([0, 1, 1, 3], [1, 0, 1], [1, 1, -1], [-1, -2], [3, 4], stress=1)
    assert found == [[2, 0, 5], [1, 0, 5]]  # one lot more of all: 1 for the long leg, 1 - 1 for the pair


def test_one_term_that_might_not_fit_bounds_neither() -> None:
    assert bounds([0, 1], [0], [2**40], [0], [0], stress=2**21) == [[SATURATED_USD9], [SATURATED_USD9]]


def test_only_the_accounts_asked_for() -> None:
    changes, out = change_bounds(*[(np.array([-1]), np.array([3]))] * 2), np.full((2, 3), 7)
    sup_bounds(1, 2, np.array([0, 1, 2, 3]), np.zeros(3, np.int32), np.array([1, -2, 1]), changes, out)
    assert out.tolist() == [[7, 6, 7]] * 2


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
