"""kernels.eigen against numpy's LAPACK: eigenvalues, orthogonality, order, signs, degenerate matrices, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.eigen import from_eigen, symmetric_eigen


def check(matrix: np.ndarray) -> None:
    size = len(matrix)
    values, vectors = symmetric_eigen(matrix)
    scale = max(1.0, float(np.abs(matrix).max())) * size
    assert np.abs(values - np.linalg.eigvalsh(matrix)[::-1]).max() < 1e-14 * scale
    assert np.abs(vectors @ vectors.T - np.eye(size)).max() < 1e-14 * size
    assert np.abs(from_eigen(values, vectors) - matrix).max() < 1e-14 * scale
    assert (np.diff(values) <= 0.0).all()
    assert (vectors.sum(axis=1) > -1e-12).all()


@given(st.integers(1, 20), st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1.0, 1e6]))
def test_random_symmetric_matrices(size: int, seed: int, scale: float) -> None:
    matrix = np.random.default_rng(seed).standard_normal((size, size)) * scale
    check(matrix + matrix.T)


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((3, 3)),
        np.eye(5),
        np.ones((6, 6)),
        0.7 + 0.3 * np.eye(40),
        np.kron(np.eye(3), np.array([[1.0, 0.5], [0.5, 1.0]])),
        np.array([[1.0, 1e-17], [1e-17, 1.0]]),
        np.diag([3.0, -1.0, 2.0]),
    ],
)
def test_degenerate_matrices(matrix: np.ndarray) -> None:
    check(matrix)


def test_the_input_is_left_alone_and_the_result_repeats_to_the_bit() -> None:
    matrix = 0.4 + 0.6 * np.eye(10)
    before = matrix.copy()
    first, second = symmetric_eigen(matrix), symmetric_eigen(matrix)
    assert (matrix == before).all()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("matrix", [np.ones((2, 3)), np.array([[1.0, 2.0], [3.0, 1.0]]), np.full((2, 2), np.nan)])
def test_what_is_not_symmetric_and_finite_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="symmetric"):
        symmetric_eigen(matrix)
