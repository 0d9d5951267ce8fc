"""Backtest statistics against published values (vectors/es_and_backtests.json) and scipy."""

import json
import math
import pathlib

import numpy as np
import pytest
from scipy import stats

from oracles.backtest.attribution import kolmogorov_smirnov, spearman
from oracles.backtest.coverage import (
    Transitions,
    chi_squared_tail,
    conditional_coverage,
    independence,
    kupiec,
    traffic_light,
    transitions,
)
from oracles.backtest.shortfall import diebold_mariano, fissler_ziegel, z1, z2

VECTORS = json.loads((pathlib.Path(__file__).parent / "vectors" / "es_and_backtests.json").read_text())
PRINTED = VECTORS["kupiec_published_statistics"]
REGIONS = [
    (float(tail), int(observations), *bounds)
    for tail, by_size in VECTORS["kupiec_reject_at_or_outside"]["regions"].items()
    for observations, bounds in by_size.items()
]


@pytest.mark.parametrize("case", PRINTED, ids=[f"{case['x']} of {case['T']}" for case in PRINTED])
def test_kupiec_as_printed(case: dict) -> None:
    found = kupiec(case["x"], case["T"], case["p"])
    assert found.ratio == pytest.approx(case["published_LR"], abs=6e-4)
    assert found.ratio == pytest.approx(case["computed_LR"], rel=1e-10)
    assert found.p_value == pytest.approx(case["computed_p"], rel=1e-9)
    assert found.p_value == pytest.approx(case["published_p"], rel=0.04)


@pytest.mark.parametrize(("tail", "observations", "lower", "upper"), REGIONS)
def test_kupiec_regions(tail: float, observations: int, lower: int, upper: int) -> None:
    """Kupiec's table at 95 %: the first counts outside are rejected, the last inside are not."""
    assert kupiec(upper, observations, tail).p_value < 0.05 <= kupiec(upper - 1, observations, tail).p_value
    if lower >= 0:
        assert kupiec(lower, observations, tail).p_value < 0.05 <= kupiec(lower + 1, observations, tail).p_value


def test_kupiec_does_not_underflow() -> None:
    assert math.isfinite(kupiec(206, 4_015, 0.01).ratio)


@pytest.mark.parametrize("case", VECTORS["basel_zones"], ids=lambda case: str(case["exceptions"]))
def test_basel_zones(case: dict) -> None:
    assert traffic_light(case["exceptions"], 250, 0.01) == case["zone"]


@pytest.mark.parametrize("case", VECTORS["christoffersen_independence"])
def test_christoffersen(case: dict) -> None:
    counts = Transitions(case["n00"], case["n01"], case["n10"], case["n11"])
    assert independence(counts).ratio == pytest.approx(case["lr_ind"], rel=1e-10)


def test_transitions_are_counted() -> None:
    series = np.array([0, 0, 1, 1, 0, 1, 0, 0], bool)
    assert transitions(series) == Transitions(2, 2, 2, 1)
    assert transitions(series[:0]) == Transitions(0, 0, 0, 0)


def test_conditional_coverage_is_the_sum() -> None:
    series = np.zeros(500, bool)
    series[[3, 4, 5, 100, 300, 301]] = True
    found = conditional_coverage(series, 0.01)
    assert found.ratio == kupiec(6, 500, 0.01).ratio + independence(transitions(series)).ratio
    assert found.p_value == pytest.approx(stats.chi2.sf(found.ratio, 2))


@pytest.mark.parametrize("degrees", [1, 2])
def test_chi_squared(degrees: int) -> None:
    for ratio in (0.0, 0.1, 3.841459, 50.0):
        assert chi_squared_tail(ratio, degrees) == pytest.approx(stats.chi2.sf(ratio, degrees), rel=1e-12)


@pytest.mark.parametrize("law", ["normal", "3", "5", "10", "100"])
def test_critical_values_of_z2(law: str) -> None:
    """Acerbi and Szekely's -0.7 (5 %, T = 250, 2.5 %), for the normal and for t tails, from our statistic."""
    draw, tail, paths = np.random.default_rng(1), 0.025, 20_000
    if law == "normal":
        loss, var = draw.standard_normal((paths, 250)), stats.norm.isf(tail)
        es = VECTORS["expected_shortfall"]["normal"]["es_975"]
    else:
        loss, var = draw.standard_t(int(law), (paths, 250)), stats.t.isf(tail, int(law))
        es = VECTORS["expected_shortfall"]["student_t"].get(law, {}).get("es_975_unscaled")
    ones = np.ones(250)
    values = [z2(path, var * ones, es * ones, tail) for path in loss]
    expected = VECTORS["acerbi_szekely_z2"]["simulated"][law]
    assert np.quantile(values, 0.05) == pytest.approx(expected["p5"], abs=0.02)
    assert np.mean(values) == pytest.approx(0, abs=0.01)


def test_z1_and_z2_by_hand() -> None:
    loss, var, es = np.array([1.0, 3.0, 6.0, 0.0]), np.full(4, 2.0), np.full(4, 4.0)
    assert z1(loss, var, es) == pytest.approx(1 - (3 / 4 + 6 / 4) / 2)
    assert z2(loss, var, es, 0.5) == pytest.approx(1 - (3 / 4 + 6 / 4) / 2)
    assert math.isnan(z1(loss, var + 9, es))
    assert z2(loss, var + 9, es, 0.5) == 1.0


def test_the_true_forecast_has_the_least_fissler_ziegel_score() -> None:
    loss = np.random.default_rng(2).standard_normal(400_000)
    tail, ones = 0.025, np.ones(400_000)
    var, es = stats.norm.isf(tail), VECTORS["expected_shortfall"]["normal"]["es_975"]
    best = fissler_ziegel(loss, var * ones, es * ones, tail).mean()
    for by in (0.9, 1.1):
        assert fissler_ziegel(loss, by * var * ones, es * ones, tail).mean() > best
        assert fissler_ziegel(loss, var * ones, by * es * ones, tail).mean() > best
    # at the truth the mean of the first two terms is one: E[(L - V)+] = tail (E - V)
    assert best == pytest.approx(math.log(es), abs=0.01)


def test_diebold_mariano_of_independent_scores_is_a_t_statistic() -> None:
    draw = np.random.default_rng(3)
    score, against = draw.normal(0.1, 1, 5_000), draw.normal(0, 1, 5_000)
    plain = diebold_mariano(score, against, 0)
    difference = score - against
    assert plain.statistic == pytest.approx(difference.mean() / (difference.std() / math.sqrt(5_000)))
    assert diebold_mariano(against, score, 0).statistic == -plain.statistic
    assert diebold_mariano(score, score, 5) == (0.0, 0.0, 1.0)


def test_diebold_mariano_widens_for_correlated_scores() -> None:
    draw = np.random.default_rng(4)
    noise = np.convolve(draw.normal(0, 1, 20_010), np.ones(11), "valid")
    narrow = diebold_mariano(noise + 0.5, np.zeros(20_000), 0).statistic
    wide = diebold_mariano(noise + 0.5, np.zeros(20_000), 50).statistic
    assert 2.4 < narrow / wide < 3.6  # the root of 11 is 3.3


def test_attribution_statistics_are_scipys() -> None:
    draw = np.random.default_rng(5)
    left = draw.normal(size=300).round(1)
    right = left + draw.normal(0, 0.5, 300).round(1)
    assert spearman(left, right) == pytest.approx(stats.spearmanr(left, right).statistic)
    assert kolmogorov_smirnov(left, right) == pytest.approx(stats.ks_2samp(left, right).statistic)
