"""Scenario sets: time to draw one against scipy and numpy, and the error of expected shortfall against Monte Carlo."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
from scipy.special import gammaincinv, ndtri
from scipy.stats import qmc

from kernels.layout import YEAR_SECONDS
from kernels.weights import integer_weights
from oracles.scenario_set import SURFACE_KINDS, FactorVolatilities, ScenarioSet, draw_scenario_set
from tests.bench.rows import Row, checksum, peak_memory_mb, side_by_side

SPOTS, SURFACES = 18, 8
FACTORS = SPOTS + len(SURFACE_KINDS) * SURFACES
NAMES = [f"C{n:02d}" for n in range(SPOTS)]
UNIT_VARIANCE = math.sqrt(3.0 / 5.0)
VOLATILITIES = FactorVolatilities(np.full(SPOTS, 0.03), *(np.full(SURFACES, v) for v in (0.03, 0.05, 1e-3, 0.05, 0.01)))
LEVEL = 0.99


def correlation() -> np.ndarray:
    """58 factors: spots 0.6, levels 0.5 with each other, -0.3 with spots, -0.5 with their own; every other kind 0.2."""
    matrix = np.eye(FACTORS)
    spot, level = slice(0, SPOTS), slice(SPOTS, SPOTS + SURFACES)
    matrix[spot, spot], matrix[level, level] = 0.6, 0.5
    matrix[spot, level] = matrix[level, spot] = -0.3
    for start in range(SPOTS + SURFACES, FACTORS, SURFACES):
        matrix[start : start + SURFACES, start : start + SURFACES] = 0.2
    for u in range(SURFACES):
        matrix[u, SPOTS + u] = matrix[SPOTS + u, u] = -0.5
    np.fill_diagonal(matrix, 1.0)
    return matrix


def rows(small: bool) -> Iterator[Row]:
    """Speed at two sizes, then the error of the books at two sizes."""
    for scenarios in (256,) if small else (1024, 4096):
        yield _speed(scenarios, small)
    for scenarios in (256,) if small else (1024, 4096):
        yield _accuracy(scenarios, small)


def draw(seed: int, scenarios: int) -> ScenarioSet:
    """The product's set over the 58 factors."""
    return draw_scenario_set(NAMES, NAMES[:SURFACES], VOLATILITIES, correlation(), seed=seed, scenarios=scenarios)


def drawn_by_libraries(seed: int, scenarios: int) -> tuple[np.ndarray, np.ndarray]:
    """The same model by scipy.stats.qmc, scipy.special, LAPACK and BLAS: what version 1 of the sets did."""
    engine = qmc.Sobol(FACTORS + 1, scramble=True, rng=np.random.Generator(np.random.Philox(seed)))
    points = np.clip(engine.random(scenarios), 1e-12, 1 - 1e-12)
    eigenvalues, vectors = np.linalg.eigh(correlation())
    directions = (vectors * np.sqrt(np.maximum(eigenvalues, 0.0)))[:, ::-1]
    radius = np.sqrt(2.5 / gammaincinv(2.5, points[:, 0] ** 2.5))
    moves = ndtri(points[:, 1:]) @ directions.T * radius[:, None] * (VOLATILITIES.stacked() * UNIT_VARIANCE)
    nano = np.ascontiguousarray(np.rint(np.clip(moves.T, -1.5, 1.5) * 1e9).astype(np.int32))
    return nano, integer_weights(2.5 * points[:, 0] ** 1.5)


def _speed(scenarios: int, small: bool) -> Row:
    work, peer = (lambda: draw(1, scenarios)), (lambda: drawn_by_libraries(1, scenarios))
    timings = side_by_side(work, peer, repeats=3 if small else 41, clock=time.process_time)
    found = work()
    return Row(
        name=f"scenario set {scenarios} x {FACTORS}",
        value=round(timings.seconds[0] * 1e3, 3),
        unit="ms",
        peer=f"scipy qmc + numpy ({timings.seconds[1] * 1e3:.2f} ms)",
        ratio=round(timings.ratios[1], 2),
        goal=">= 3x",
        ok=None if small else timings.ratios[1] >= 3.0,
        size=f"{scenarios} scenarios, {FACTORS} factors",
        memory_mb=peak_memory_mb(),
        checksum=checksum(found.factors(), found.weights),
    )


def monte_carlo(seed: int, scenarios: int) -> np.ndarray:
    """Factor moves [D,S] of independent draws of the same distribution."""
    rng = np.random.Generator(np.random.Philox(seed))
    shocks = np.linalg.cholesky(correlation()) @ rng.standard_normal((FACTORS, scenarios))
    radius = np.sqrt(5.0 / rng.chisquare(5.0, scenarios))
    return shocks * radius * (VOLATILITIES.stacked() * UNIT_VARIANCE)[:, None]


def books(moves: np.ndarray) -> np.ndarray:
    """Losses [5,S] of five books: a future, short strangles, a diversified options book, a call spread, a reversal."""
    spot = np.exp(moves[:SPOTS])
    volatility = 0.6 * np.exp(moves[SPOTS : SPOTS + SURFACES])
    rng = np.random.Generator(np.random.Philox(77))

    def option(u: int, strike: float, sign: int) -> np.ndarray:
        now = _price(np.ones(1), strike, np.full(1, 0.6), sign)
        return 100.0 * (_price(spot[u], strike, volatility[u], sign) - now)

    strangles = sum(option(u, 0.9, -1) + option(u, 1.1, 1) for u in range(3))
    maker: np.ndarray = np.zeros(moves.shape[1])
    for u in range(SURFACES):
        for _ in range(6):
            maker += rng.integers(-9, 10) * option(u, float(rng.choice([0.85, 0.95, 1.0, 1.05, 1.15])), 1)
    spread = -(option(4, 1.0, 1) - option(4, 1.1, 1))
    reversal = -5 * (option(2, 0.95, -1) - option(2, 1.05, 1)) - 300.0 * (spot[7] - 1.0)
    return np.stack([-(spot[0] - 1.0) * 1000.0, strangles, maker, spread, reversal])


def _price(spot: np.ndarray, strike: float, volatility: np.ndarray, sign: int) -> np.ndarray:
    """Black-76 at 30 days, per unit of spot."""
    from scipy.special import ndtr

    deviation = volatility * math.sqrt(30 * 86_400 / YEAR_SECONDS)
    d1 = np.log(spot / strike) / deviation + deviation / 2
    return sign * (spot * ndtr(sign * d1) - strike * ndtr(sign * (d1 - deviation)))


def weighted_shortfall(losses: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """99 % expected shortfall of each row of losses [B,S] with weights [S]."""
    found = []
    for loss in losses:
        order = np.argsort(-loss)
        mass = np.minimum(np.cumsum(weights[order] / weights.sum()), 1.0 - LEVEL)
        found.append(float(np.diff(mass, prepend=0.0) @ loss[order]) / (1.0 - LEVEL))
    return np.array(found)


def _accuracy(scenarios: int, small: bool) -> Row:
    """Root mean square error over seeds, and how many Monte Carlo scenarios the same error takes (error**2 ~ 1/S)."""
    repeats, batches = (4, 2) if small else (32, 12)
    truth = np.mean([_monte_carlo_shortfall(1000 + n, 20_000 if small else 200_000) for n in range(batches)], axis=0)
    sets = [draw(seed, scenarios) for seed in range(repeats)]
    ours = _error([weighted_shortfall(books(s.factors() / 1e9), s.weights) for s in sets], truth)
    peer = _error([_monte_carlo_shortfall(seed, scenarios) for seed in range(repeats)], truth)
    fewer = (peer / ours) ** 2
    return Row(
        name=f"expected shortfall error, S={scenarios}",
        value=round(100 * float(ours.mean()), 3),
        unit="% (mean of five books)",
        peer=f"Monte Carlo of the same S ({100 * float(peer.mean()):.2f} %)",
        ratio=round(float(fewer.min()), 1),
        goal=">= 5x fewer scenarios for equal error, in the worst book",
        ok=None if small else bool(fewer.min() >= 5.0),
        size=f"{repeats} seeds; by book " + ", ".join(f"{f:.0f}x" for f in fewer),
        memory_mb=peak_memory_mb(),
        checksum=checksum(*(s.weights for s in sets)),
    )


def _monte_carlo_shortfall(seed: int, scenarios: int) -> np.ndarray:
    return weighted_shortfall(books(monte_carlo(seed, scenarios)), np.ones(scenarios))


def _error(found: list[np.ndarray], truth: np.ndarray) -> np.ndarray:
    """Relative root mean square error by book."""
    return np.sqrt(np.mean((np.array(found) / truth - 1.0) ** 2, axis=0))
