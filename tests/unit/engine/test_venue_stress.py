"""The fund's sizes against brute force, covers by hand, and a reverse stress whose answer is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.layout import NANO, WEIGHT_TOTAL
from kernels.weights import integer_weights
from oracles.scenario_set import FactorVolatilities, ScenarioSet, draw_scenario_set
from streams.engine.reverse_stress import reverse_stress, tail_probability
from streams.engine.venue_stress import tail_of

SPOT_DEVIATION = 0.02


def two_coins(correlation: float = 0.6) -> ScenarioSet:
    matrix = np.eye(5)
    matrix[0, 1] = matrix[1, 0] = correlation
    deviations = FactorVolatilities(
        np.array([SPOT_DEVIATION, 0.03]), np.array([0.05]), np.array([0.01]), np.array([0.001])
    )
    return draw_scenario_set(("BTC", "ETH"), ("BTC",), deviations, matrix, seed=5, scenarios=512)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.01, 1)), min_size=1, max_size=30), st.integers(500, 999_999))
def test_fund_sizes_are_the_weighted_quantile_and_its_tail_mean(
    drawn: list[tuple[int, float]], confidence_e6: int
) -> None:
    values, weights = np.array([v for v, _ in drawn]), integer_weights(np.array([w for _, w in drawn]))
    quantile, shortfall = tail_of(values, weights, confidence_e6)
    tail = WEIGHT_TOTAL - confidence_e6 * WEIGHT_TOTAL // 10**6
    assert int(weights[values > quantile].sum()) <= tail
    assert quantile == values.min() or int(weights[values >= quantile].sum()) > tail
    excess = sum(int(w) * max(0, int(v) - quantile) for v, w in zip(values, weights, strict=True))
    assert shortfall == -(-(quantile * tail + excess) // tail)  # Rockafellar and Uryasev (2000), eq. 7


def test_the_nearest_scenario_of_a_linear_book_is_the_one_known_in_closed_form() -> None:
    recorded, value_usd6, equity_usd6, fund_usd6 = two_coins(), 10**12, 40 * 10**9, 20 * 10**9

    def losses(scenarios: ScenarioSet) -> np.ndarray:
        moves = scenarios.spot_log_return[0] / NANO
        return np.maximum(0, -value_usd6 * np.expm1(moves) - equity_usd6).astype(np.int64)

    found = reverse_stress(recorded, losses, fund_usd6)
    assert found is not None
    needed = -math.log1p(-(equity_usd6 + fund_usd6) / value_usd6)
    assert found.distance == pytest.approx(needed / SPOT_DEVIATION, rel=2e-3)
    assert found.uncovered_usd6 > fund_usd6
    assert losses(found.scenario)[0] == found.uncovered_usd6
    own = found.scenario.spot_log_return[:, 0] / NANO
    assert own[1] / 0.03 == pytest.approx(
        0.6 * own[0] / SPOT_DEVIATION, rel=0.1
    )  # ETH goes along: its conditional mean


def test_a_spread_book_needs_the_coins_to_part() -> None:
    recorded = two_coins()

    def losses(scenarios: ScenarioSet) -> np.ndarray:
        long, short = scenarios.spot_log_return / NANO
        return np.maximum(0, 10**12 * (short - long)).astype(np.int64)

    found = reverse_stress(recorded, losses, 50 * 10**9)
    assert found is not None
    variance = SPOT_DEVIATION**2 + 0.03**2 - 2 * 0.6 * SPOT_DEVIATION * 0.03
    assert found.distance == pytest.approx(0.05 / math.sqrt(variance), rel=2e-3)


def test_a_fund_that_nothing_exhausts() -> None:
    assert reverse_stress(two_coins(), lambda scenarios: np.zeros(scenarios.size, np.int64), 0) is None


@pytest.mark.parametrize(("quantile", "expected"), [(0.0, 0.5), (2.015048, 0.05), (6.868827, 0.0005)])
def test_tail_probabilities_are_those_of_published_t_tables(quantile: float, expected: float) -> None:
    assert tail_probability(math.sqrt(3 / 5) * quantile) == pytest.approx(expected, rel=1e-5)
