"""kernels.weights: largest remainders."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.weights import integer_weights


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [
        ([1.0, 1.0, 1.0], 10, [4, 3, 3]),  # equal remainders: the lower index first
        ([0.5, 1.5, 8.0], 10, [1, 1, 8]),
        ([0.0, 5.0], 7, [0, 7]),
        ([47.0, 16.0, 15.8, 12.0, 6.1, 3.1], 10, [5, 2, 1, 1, 1, 0]),  # Hamilton's method, a textbook apportionment
    ],
)
def test_known_apportionments(weights: list[float], total: int, expected: list[int]) -> None:
    assert integer_weights(np.array(weights), total).tolist() == expected


@given(st.lists(st.floats(0.0, 1e12), min_size=1, max_size=50).filter(lambda weights: max(weights) > 0.0))
def test_sum_is_exact_and_each_weight_within_one_unit_of_its_share(weights: list[float]) -> None:
    rounded = integer_weights(np.array(weights))
    assert int(rounded.sum(dtype=np.int64)) == 2**30
    assert (rounded >= 0).all()
    share = np.array(weights) / np.sum(weights) * 2.0**30
    assert (np.abs(rounded - share) <= 1.0 + 1e-3).all()


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_unusable_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be"):
        integer_weights(np.array(weights))
