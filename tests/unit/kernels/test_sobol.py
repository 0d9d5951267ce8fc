"""kernels.sobol: scipy's unscrambled points, an obvious twin of the scrambling, the balance of the net, refusals."""

import numpy as np
import pytest
from scipy.stats import qmc

from kernels import sobol

RANDOM = np.random.default_rng(5).integers(0, 2**32, (64, sobol.RANDOM_WORDS), dtype=np.uint32)


def test_without_scrambling_every_dimension_is_that_of_scipy() -> None:
    zeros = np.zeros((sobol.DIMENSIONS_MAX, sobol.RANDOM_WORDS), np.uint32)
    found = sobol.scrambled_points(256, zeros)
    numbers = np.arange(256)
    gray = numbers ^ (numbers >> 1)  # scipy walks the same points in the order of the Gray code
    expected = qmc.Sobol(sobol.DIMENSIONS_MAX, scramble=False, bits=32).random(256)
    assert (expected == found[:, gray].T / 2.0**32).all()


def scrambled_twin(word: int, random: np.ndarray) -> int:
    """The bits of a word, first the most significant, times a lower triangular matrix modulo 2, plus the shift."""
    matrix = np.zeros((32, 32), np.int64)
    for c in range(32):
        for r in range(c, 32):
            matrix[r, c] = 1 if r == c else int(random[c]) >> (31 - r) & 1
    bits = np.array([word >> (31 - r) & 1 for r in range(32)])
    return int("".join(map(str, matrix @ bits % 2)), 2) ^ int(random[32])


def test_scrambling_is_a_triangular_matrix_and_a_shift() -> None:
    plain = sobol.scrambled_points(64, np.zeros_like(RANDOM[:5]))
    found = sobol.scrambled_points(64, RANDOM[:5])
    for d in range(5):
        assert [scrambled_twin(int(word), RANDOM[d]) for word in plain[d]] == found[d].tolist()


@pytest.mark.parametrize("log2", [0, 1, 7, 12])
def test_every_dimension_has_one_point_in_each_of_as_many_intervals(log2: int) -> None:
    intervals = sobol.scrambled_points(2**log2, RANDOM).astype(np.uint64) >> np.uint64(32 - log2)
    assert (np.sort(intervals, axis=1) == np.arange(2**log2)).all()


@pytest.mark.parametrize("points", [0, 3, 1000, 2**33])
def test_a_number_of_points_that_is_no_power_of_two_is_refused(points: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        sobol.scrambled_points(points, RANDOM[:1])


@pytest.mark.parametrize("dimensions", [0, 1025])
def test_more_dimensions_than_the_table_has_are_refused(dimensions: int) -> None:
    with pytest.raises(ValueError, match="dimensions"):
        sobol.direction_numbers(dimensions)
