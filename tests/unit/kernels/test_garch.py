"""GARCH kernels: the obvious recursion in Python, exact scores, and parameters that come back from simulated paths."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from kernels import garch

THETA = np.array([-0.005, 0.02, 0.08, 0.06, 0.85, 5.5, -0.2])
X = np.random.Generator(np.random.Philox(1)).standard_t(5, 400) * 0.5


def hansen_log_density(z: float, degrees: float, skew: float) -> float:
    """Hansen (1994), eq. 10, as printed."""
    c = math.gamma((degrees + 1) / 2) / math.gamma(degrees / 2) / math.sqrt(math.pi * (degrees - 2))
    a = 4 * skew * c * (degrees - 2) / (degrees - 1)
    b = math.sqrt(1 + 3 * skew**2 - a**2)
    side = 1 - skew if z < -a / b else 1 + skew
    return math.log(b * c) - (degrees + 1) / 2 * math.log1p(((b * z + a) / side) ** 2 / (degrees - 2))


def twin_likelihood(x: np.ndarray, theta: np.ndarray, kind: int) -> float:
    mu, omega, alpha, gamma, beta, degrees, skew = theta
    before = float(np.mean((x - mu) ** 2))
    h, total = omega + (alpha + gamma / 2 + beta) * before, 0.0
    for value in x:
        e = value - mu
        z = e / math.sqrt(h)
        density = stats.norm.logpdf(z) if kind == garch.KIND_NORMAL else hansen_log_density(z, degrees, skew)
        total += density - 0.5 * math.log(h)
        h = omega + (alpha + gamma * (e < 0)) * e * e + beta * h
    return float(total)


@pytest.mark.parametrize("x", [0.3, 1.0, 2.525, 7.5, 40.0, 1e4])
def test_log_gamma(x: float) -> None:
    assert garch.log_gamma(x) == pytest.approx(math.lgamma(x), rel=1e-14, abs=1e-14)


@pytest.mark.parametrize("kind", [garch.KIND_NORMAL, garch.KIND_T, garch.KIND_SKEW_T])
def test_the_likelihood_is_that_of_the_written_out_model(kind: int) -> None:
    theta = THETA.copy()
    theta[garch.SKEW] = -0.2 if kind == garch.KIND_SKEW_T else 0.0
    assert garch.log_likelihood(X, theta, kind) == pytest.approx(twin_likelihood(X, theta, kind), rel=1e-12)


@pytest.mark.parametrize("kind", [garch.KIND_NORMAL, garch.KIND_T, garch.KIND_SKEW_T])
def test_scores_are_the_slopes_of_the_likelihood(kind: int) -> None:
    gradient, outer = np.zeros(7), np.zeros((7, 7))
    garch._add_scores(X, THETA, kind, True, gradient, outer)
    for k in range(7):
        up, down = THETA.copy(), THETA.copy()
        step = 1e-5 * max(abs(THETA[k]), 0.01)
        up[k], down[k] = up[k] + step, down[k] - step
        slope = (garch.log_likelihood(X, up, kind) - garch.log_likelihood(X, down, kind)) / (2 * step)
        assert gradient[k] == pytest.approx(slope, rel=1e-4, abs=1e-3)
    assert np.linalg.eigvalsh(np.tril(outer) + np.tril(outer, -1).T)[0] > -1e-6


def test_the_density_has_unit_mass_mean_zero_and_unit_variance() -> None:
    def moment(k: int) -> float:
        return quad(lambda z: z**k * math.exp(hansen_log_density(z, 5.5, -0.2)), -200, 200, limit=500, points=[0])[0]

    assert [moment(k) for k in range(3)] == pytest.approx([1.0, 0.0, 1.0], abs=1e-4)


def simulated(theta: np.ndarray, size: int) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(5))
    z = rng.standard_t(theta[garch.DEGREES], size) * math.sqrt(1 - 2 / theta[garch.DEGREES])
    h, out = 1.0, np.empty(size)
    for t in range(size):
        out[t] = math.sqrt(h) * z[t]
        h = garch.next_variance(out[t], h, *theta[[garch.OMEGA, garch.ALPHA, garch.GAMMA, garch.BETA]])
    return out


def test_a_fit_finds_what_was_simulated() -> None:
    truth = np.array([0.0, 0.03, 0.05, 0.08, 0.88, 6.0, 0.0])
    x = simulated(truth, 20_000)
    theta, likelihood, iterations = garch.fit(x, garch.KIND_T, False, True)
    assert iterations < garch.ITERATIONS_MAX
    assert theta == pytest.approx(truth, abs=0.02, rel=0.15)
    assert likelihood >= garch.log_likelihood(x, truth, garch.KIND_T)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_a_fit_does_not_depend_on_the_unit(scale: float) -> None:
    theta = garch.fit(X * scale, garch.KIND_SKEW_T, True, True)[0]
    unit = garch.fit(X, garch.KIND_SKEW_T, True, True)[0]
    free_of_unit = [garch.ALPHA, garch.GAMMA, garch.BETA, garch.DEGREES, garch.SKEW]
    assert theta[free_of_unit] == pytest.approx(unit[free_of_unit], rel=1e-3, abs=1e-4)
