"""Skews and open interest in the state: what history says is drawn, the governed numbers where it says nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oracles.risk_model.inputs import ScenarioInputs, SurfaceParameters, scenario_inputs
from oracles.risk_model.scenarios import draw_fhs_set
from oracles.risk_model.smile_shape import skew_e9, slice_skew
from oracles.risk_model.state import Finding, ModelSpec, RiskModelState
from oracles.surface_fit import Slice
from tests.risk_model_worlds import HOUR_MS, START_MS, bar_at, market

BARS, BETA, DAY_MS = 3_000, -1.5, 86_400_000
YEAR = math.sqrt(3_600 / (8_760 * 3_600))


def fed(skews: np.ndarray | None, bars: int = BARS) -> RiskModelState:
    (one,) = market(bars, 1)
    state = RiskModelState(ModelSpec(("A0",), ("A0",), residuals=2_500))
    for t in range(bars):
        more = {} if skews is None else {"A0": float(skews[t])}
        state.update(int(one.time_ms[t]), {"A0": bar_at(one, t)}, {"A0": 0.6 + 0.01 * (t % 7)}, more, {"A0": 1e9 + t})
    return state


def skews_of(beta: float, noise: float) -> np.ndarray:
    """A skew that moves by beta times the return, and by noise of its own."""
    (one,) = market(BARS, 1)
    moves = np.diff(np.log(one.close), prepend=math.log(one.close[0]))
    rng = np.random.Generator(np.random.Philox(5))
    return np.cumsum(beta * moves + noise * rng.standard_normal(BARS)) - 0.4


def regression(inputs: ScenarioInputs) -> float:
    """Weighted beta of the drawn skews on the drawn spot returns."""
    made = draw_fhs_set(
        inputs.underlyings, inputs.option_underlyings, inputs.volatilities, inputs.correlation, inputs.bank, seed=1,
        scenarios=1_024, horizon_seconds=3_600,
    )  # fmt: skip
    spot, skew, weight = made.spot_log_return[0] / 1e9, made.skew[0] / 1e9, made.weights / made.weights.sum()
    centred = spot - weight @ spot
    return float(weight @ (centred * skew) / (weight @ (centred * centred)))


@pytest.mark.parametrize("beta", [BETA, -BETA])
def test_the_risk_reversal_beta_is_that_of_the_history(beta: float) -> None:
    """No sign is taken for granted. The spot's volatility is that of an asset with less than a year, above its own."""
    state = fed(skews_of(beta, 0.004))
    inputs = scenario_inputs(state, ("A0",), 3_600)
    spot, skew = float(inputs.volatilities.spot[0]), float(inputs.volatilities.skew[0])
    assert regression(inputs) == pytest.approx(float(inputs.correlation[0, 2]) * skew / spot, rel=0.25)
    own = state.spot_stddev(0, int(state.time_ms[0]), 1)
    assert 0.6 < regression(inputs) * spot / own / beta < 1.5


@pytest.mark.parametrize("skews", [None, np.full(BARS, -0.4)])
def test_without_a_history_that_moves_the_governed_numbers_stand(skews: np.ndarray | None) -> None:
    found = scenario_inputs(fed(skews), ("A0",), 3_600)
    assert found.volatilities.skew[0] == pytest.approx(SurfaceParameters().skew_volatility * YEAR)
    assert found.correlation[0, 2] == 0.0


def test_a_bad_skew_is_named_and_left_out() -> None:
    state = fed(skews_of(BETA, 0.004), 100)
    before, time_ms = state.vol_of_vol.copy(), START_MS + 100 * HOUR_MS
    for value, name in ((math.nan, "not_a_number"), (101.0, "boundary_value")):
        found = state.update(time_ms, {"A0": bar_at(market(100, 1)[0], 99)}, {}, {"A0": value})
        assert Finding(name, "A0 skew") in found
        time_ms += HOUR_MS
    np.testing.assert_array_equal(state.vol_of_vol, before)


def test_open_interest_is_the_last_and_its_mean_and_is_kept() -> None:
    state = fed(None, 800)
    last, mean = state.open_interest[0]
    assert last == 1e9 + 799
    expected = 1e9
    for t in range(800):
        expected += (1 - 0.5 ** (1 / 720)) * (1e9 + t - expected)
    assert mean == pytest.approx(expected, rel=1e-12)
    assert RiskModelState.from_bytes(state.to_bytes()).open_interest.tolist() == [[last, mean]]


def smile(days: float, a: float, rho: float) -> Slice:
    return Slice(round(days * DAY_MS), round(a * 1e9), 30_000_000, round(rho * 1e9), 10_000_000, 200_000_000)


def test_a_slices_skew_is_its_relative_slope_at_the_forward() -> None:
    one = smile(30, 0.01, -0.3)
    b, rho, m, sigma = 0.03, -0.3, 0.01, 0.2
    root = math.hypot(m, sigma)
    w, slope = 0.01 + b * (rho * -m + root), b * (rho - m / root)
    assert slice_skew(one) == pytest.approx(slope / (2 * w), rel=1e-4)


def test_the_skew_is_that_at_thirty_days() -> None:
    near, far = smile(20, 0.01, -0.5), smile(50, 0.02, 0.1)
    expected = (2 * slice_skew(near) + slice_skew(far)) / 3
    assert skew_e9([far, near], 0) == pytest.approx(expected * 1e9, abs=1)
    assert skew_e9([near], 0) == pytest.approx(slice_skew(near) * 1e9, abs=1)
    assert skew_e9([near, far], 25 * DAY_MS) == pytest.approx(slice_skew(far) * 1e9, abs=1), "the near one is over"
    assert skew_e9([], 0) is None
    assert skew_e9([Slice(DAY_MS, 0, 0, 0, 0, 1)], 0) is None
