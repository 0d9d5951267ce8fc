"""DCC, selection of vectors and jumps: against numpy written the obvious way, and their exact properties."""

import math

import numpy as np
import pytest

from kernels import dcc, jumps
from kernels.sobol import RANDOM_WORDS, scrambled_points
from kernels.vector_selection import select_vectors

RNG = np.random.Generator(np.random.Philox(11))
SETTINGS = dcc.DccSettings(0.01, 0.988, 6.0, 0.999)


def residuals(bars: int, factors: int = 3) -> np.ndarray:
    common = RNG.standard_t(4, (bars, 1))
    return 0.8 * common + 0.6 * RNG.standard_t(4, (bars, factors))


def test_dcc_is_what_engle_writes() -> None:
    z = residuals(500)
    z[7, 1], z[9, 0] = math.nan, 50.0
    state = dcc.empty_dcc(3)
    q, target = np.eye(3), np.eye(3)
    for t, row in enumerate(z, 1):
        dcc.step(state, SETTINGS, row)
        clipped = np.clip(np.nan_to_num(row), -6, 6)
        gain = max(1 - 0.999, 1 / (t + dcc.PRIOR_BARS))
        target = target + gain * (np.outer(clipped, clipped) - target)
        q = (1 - 0.01 - 0.988) * target + 0.01 * np.outer(clipped, clipped) + 0.988 * q
        correlation = q / np.sqrt(np.outer(np.diag(q), np.diag(q)))
        assert dcc.correlation_of(state.root) == pytest.approx(correlation, abs=1e-12)
    assert state.root == pytest.approx(np.linalg.cholesky(correlation), abs=1e-12)


def test_whitening_and_colouring_are_inverse() -> None:
    root = np.linalg.cholesky(np.corrcoef(residuals(300, 5).T))
    z, back = RNG.standard_normal((5, 40)), np.empty((5, 40))
    whitened = np.empty((40, 5))
    for n in range(40):
        dcc.whiten(root, z[:, n].copy(), whitened[n])
    dcc.colour(root, np.ascontiguousarray(whitened.T), back)
    assert back == pytest.approx(z, abs=1e-12)


def test_cholesky_refuses_what_is_not_positive_definite() -> None:
    assert not dcc.cholesky(np.array([[1.0, 2.0], [2.0, 1.0]]), np.zeros((2, 2)))
    assert not dcc.cholesky(np.full((2, 2), math.nan), np.zeros((2, 2)))


def test_selection_is_unbiased_in_mass_and_keeps_the_extremes() -> None:
    whitened = RNG.standard_t(4, (4, 20_000))
    moves = np.linalg.cholesky(0.5 + 0.5 * np.eye(4)) @ whitened
    chosen, weights = select_vectors(moves, whitened, 2048)
    assert weights.sum() == pytest.approx(20_000, rel=0.01)
    assert weights.max() <= 2.0 * 20_000 / 2048 * 1.001
    assert (np.diff(moves[:, chosen].sum(axis=0)) >= 0).all()
    for k in range(4):
        assert set(np.argsort(np.abs(moves[k]))[-10:]) <= set(chosen)
        mean = moves[k, chosen] @ weights / weights.sum()
        assert mean == pytest.approx(moves[k].mean(), abs=0.15)


def test_selection_of_few_vectors_repeats_them_with_their_mass() -> None:
    moves = np.arange(6.0).reshape(2, 3)
    chosen, weights = select_vectors(moves, moves, 8)
    mass = np.bincount(chosen, weights)
    assert mass == pytest.approx(np.ones(3))


def test_probabilities_of_jump_states_are_poisson() -> None:
    own = np.array([0.1, 0.3])
    found = jumps.state_probabilities(0.2, own)
    assert found.sum() == pytest.approx(1.0, abs=1e-15)
    assert found[1].sum() == pytest.approx(0.2 * math.exp(-0.2))
    assert found[:, 0].sum() == pytest.approx(math.exp(-0.4))
    assert found[:, 2].sum() / found[:, 1].sum() == pytest.approx(3.0)
    assert jumps.state_probabilities(0.0, np.zeros(2)).tolist()[0] == [1.0, 0.0, 0.0]


def test_jumps_have_the_moments_of_a_compound_poisson() -> None:
    words = RNG.integers(0, 2**32, (3, RANDOM_WORDS), dtype=np.uint32)
    own, mean = np.array([0.02, 0.0]), np.array([[-0.05, -0.1], [0.02, 0.0]])
    stddev = np.array([[0.03, 0.06], [0.1, 0.0]])
    moves, weights = jumps.draw_jumps(scrambled_points(2**14, words), 0.05, own, mean, stddev)
    weights = weights / weights.sum()
    assert moves @ weights == pytest.approx([0.05 * -0.05 + 0.02 * 0.02, 0.05 * -0.1], rel=0.02)
    second = [0.05 * (0.05**2 + 0.03**2 + 0.05 * 0.05**2) + 0.02 * (0.02**2 + 0.1**2), 0.05 * (0.1**2 + 0.06**2)]
    assert (moves**2) @ weights == pytest.approx(second, rel=0.06)
    both = (moves < -0.01).all(axis=0)
    assert weights[both].sum() > 0.03
