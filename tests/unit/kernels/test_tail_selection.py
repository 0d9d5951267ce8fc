"""kernels.tail_selection: compaction at every length and threshold, the hinge bound at any t."""

from fractions import Fraction

import numpy as np
import pytest

from kernels.tail_selection import UNBOUNDED, compact, tail_cost, tail_threshold, tail_threshold_near


@pytest.mark.parametrize("size", [1, 7, 8, 63, 64, 65, 128, 200, 1024])
@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.97, 1.0])
def test_compaction_keeps_what_is_above_in_order(size: int, quantile: float) -> None:
    rng = np.random.default_rng(size)
    losses = rng.integers(-50, 50, size) * 2 ** int(rng.integers(1, 50))
    weights = rng.integers(0, 2**20, size).astype(np.int32)
    t = int(np.quantile(losses, quantile, method="lower")) - (quantile == 0.0)
    kept, kept_weights = np.full(size, -1), np.full(size, -1, np.int32)
    count, total = compact(losses, weights, t, kept, kept_weights)
    above = losses > t
    assert (count, total) == (above.sum(), weights[above].sum())
    assert np.array_equal(kept[:count], losses[above])
    assert np.array_equal(kept_weights[:count], weights[above])


def test_the_threshold_is_its_definition_whatever_the_guess() -> None:
    """Smallest loss with at most the tail mass above it: ties, neighbours, zero weights, guesses from far outside."""
    rng = np.random.default_rng(5)
    for _ in range(300):
        size, spread = int(rng.integers(1, 40)), int(rng.choice([1, 3, 2**20, 2**60]))
        losses = rng.integers(-spread, spread, size)
        weights = (rng.integers(0, 2**20, size) * (rng.random(size) < 0.8)).astype(np.int32)
        weights[0] += 2
        total = int(weights.sum())
        mass = int(rng.integers(1, total))
        expected = min(int(v) for v in losses if weights[losses > v].sum() <= mass)
        assert tail_threshold(losses, weights, size, mass) == expected
        floor = int(losses.min()) - int(rng.integers(1, 3))
        for guess in (-(2**61), floor, floor + 1, expected - 1, expected, expected + 1, int(losses.max()), 2**61):
            assert tail_threshold_near(losses, weights, size, mass, floor, total, guess) == expected


def test_the_cost_at_any_t_is_its_definition_rounded_up() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        losses = rng.integers(-(2**60), 2**60, 16) >> int(rng.integers(0, 60))
        weights = rng.integers(0, 2**26, 16).astype(np.int32)
        t, mass = int(rng.choice(losses)) + int(rng.integers(-5, 5)), int(weights.sum() // 3) + 1
        excess = sum(int(w) * max(int(v) - t, 0) for v, w in zip(losses, weights))
        expected = t - (-excess // mass)
        found = tail_cost(losses, weights, 16, t, mass)
        assert found == (expected if excess // mass < 2**62 - 2**33 else found)
        assert found >= min(expected, UNBOUNDED)


def test_a_cost_that_does_not_fit_is_no_bound() -> None:
    losses, weights = np.array([2**60, 0]), np.array([2**30 - 1, 1], np.int32)
    assert Fraction(2**60 * (2**30 - 1), 100) > 2**63
    assert tail_cost(losses, weights, 2, 0, 100) == UNBOUNDED
