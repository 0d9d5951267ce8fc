"""The loops beside the numpy functions whose place they take."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.loops import assign, sort

FLOATS = st.lists(st.floats(allow_nan=False, allow_infinity=True), max_size=80)


@given(FLOATS)
def test_sort_is_numpy_s(values: list[float]) -> None:
    ours = np.array(values, np.float64)
    sort(ours)
    assert ours.tolist() == sorted(values)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 63, 64, 1_000])
def test_rising_falling_and_equal_values_are_sorted(size: int) -> None:
    rising = np.arange(size, dtype=np.float64)
    for values in (rising.copy(), rising[::-1].copy(), np.full(size, 7.0)):
        expected = np.sort(values)
        sort(values)
        np.testing.assert_array_equal(values, expected)


@given(FLOATS)
def test_assign_copies(values: list[float]) -> None:
    source, out = np.array(values, np.float64), np.zeros(len(values))
    assign(out, source)
    np.testing.assert_array_equal(out, source)
