"""kernels.sampling: obvious twins of radius, weight and moves; sizes that are no multiple of a tile; the limits."""

import math

import numpy as np
import pytest
from scipy.special import gammaincinv, ndtri

from kernels import sampling


def words(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, shape, dtype=np.uint32)


def test_radius_and_weight_are_those_of_the_definition() -> None:
    points = np.concatenate([words(200), np.array([0, 2**32 - 1], np.uint32)])
    radius, weight = sampling.radii(points)
    for word, g, w in zip(points.tolist(), radius, weight, strict=True):
        v = (word + 0.5) / 2**32
        assert g == pytest.approx(math.sqrt(2.5 / gammaincinv(2.5, v**2.5)), rel=1e-6 if v > 0.999 else 1e-13)
        assert w == pytest.approx(2.5 * v**1.5, rel=1e-14)


def moves_twin(points: np.ndarray, radius: np.ndarray, loadings: np.ndarray, limit: np.ndarray) -> np.ndarray:
    shocks = ndtri((points + 0.5) / 2.0**32) * radius
    return np.clip(loadings @ shocks, -limit[:, None], limit[:, None]) * 1e9


@pytest.mark.parametrize(("factors", "directions", "scenarios"), [(1, 1, 1), (5, 3, 7), (4, 8, 256), (7, 6, 1027)])
def test_moves_are_the_rounded_product(factors: int, directions: int, scenarios: int) -> None:
    rng = np.random.default_rng(factors)
    points, radius = words(directions, scenarios), rng.uniform(0.3, 4.0, scenarios)
    loadings, limit = rng.standard_normal((factors, directions)) * 0.1, rng.uniform(0.1, 2.0, factors)
    found = sampling.factor_moves(points, radius, loadings, limit)
    assert found.dtype == np.int32
    assert found.shape == (factors, scenarios)
    assert np.abs(found - moves_twin(points, radius, loadings, limit)).max() <= 0.5 + 1e-4


def test_each_scenario_is_computed_alone() -> None:
    """A tile, its width and what stands beside a scenario change nothing: the same bits one by one."""
    points, radius = words(9, 600), np.linspace(0.5, 3.0, 600)
    loadings, limit = np.random.default_rng(1).standard_normal((3, 9)), np.ones(3)
    whole = sampling.factor_moves(points, radius, loadings, limit)
    for s in (0, 255, 256, 599):
        one = sampling.factor_moves(np.ascontiguousarray(points[:, s : s + 1]), radius[s : s + 1], loadings, limit)
        assert (one[:, 0] == whole[:, s]).all()
