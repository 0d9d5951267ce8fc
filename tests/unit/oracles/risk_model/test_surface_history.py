"""Shapes of surfaces, and open interest, in the state: what history says is drawn, else the governed numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kernels.option_rows import expiry_loadings
from oracles.risk_model.inputs import ScenarioInputs, SurfaceParameters, scenario_inputs
from oracles.risk_model.scenarios import draw_fhs_set
from oracles.risk_model.smile_shape import NO_SHAPE, WIDTH, shape_of, slice_shape
from oracles.risk_model.state import SHAPES, Finding, ModelSpec, RiskModelState
from oracles.scenario_set import TO_LEVEL
from oracles.surface_fit import Slice
from tests.risk_model_worlds import HOUR_MS, START_MS, bar_at, market

BARS, BETA, DAY_MS = 3_000, -1.5, 86_400_000
YEAR = math.sqrt(3_600 / (8_760 * 3_600))


def fed(shapes: np.ndarray | None, bars: int = BARS) -> RiskModelState:
    """`shapes` [bars,3]: skew, curvature, term."""
    (one,) = market(bars, 1)
    state = RiskModelState(ModelSpec(("A0",), ("A0",), residuals=2_500))
    for t in range(bars):
        more = {} if shapes is None else {"A0": shapes[t].tolist()}
        state.update(int(one.time_ms[t]), {"A0": bar_at(one, t)}, {"A0": 0.6 + 0.01 * (t % 7)}, more, {"A0": 1e9 + t})
    return state


def following(beta: float, noise: float, start: float = -0.4, seed: int = 5) -> np.ndarray:
    """A number that moves by beta times the return, and by noise of its own."""
    (one,) = market(BARS, 1)
    moves = np.diff(np.log(one.close), prepend=math.log(one.close[0]))
    rng = np.random.Generator(np.random.Philox(seed))
    return np.cumsum(beta * moves + noise * rng.standard_normal(BARS)) + start


def only(kind: str, values: np.ndarray) -> np.ndarray:
    """Shapes of which the others stand still."""
    shapes = np.tile([-0.4, 2.0, 0.1], (len(values), 1))
    shapes[:, SHAPES.index(kind)] = values
    return shapes


def regression(inputs: ScenarioInputs, kind: str) -> float:
    """Weighted beta of the drawn moves of a kind on the drawn spot returns."""
    made = draw_fhs_set(
        inputs.underlyings, inputs.option_underlyings, inputs.volatilities, inputs.correlation, inputs.bank, seed=1,
        scenarios=1_024, horizon_seconds=3_600,
    )  # fmt: skip
    spot, moves, weight = made.spot_log_return[0] / 1e9, getattr(made, kind)[0] / 1e9, made.weights / made.weights.sum()
    centred = spot - weight @ spot
    return float(weight @ (centred * moves) / (weight @ (centred * centred)))


def assert_beta(state: RiskModelState, kind: str, beta: float) -> None:
    """The spot's volatility is that of an asset with less than a year, above its own."""
    inputs = scenario_inputs(state, ("A0",), 3_600)
    spot, own = float(inputs.volatilities.spot[0]), float(getattr(inputs.volatilities, kind)[0])
    found, at = regression(inputs, kind), 2 + SHAPES.index(kind)
    assert found == pytest.approx(float(inputs.correlation[0, at]) * own / spot, rel=0.25)
    assert 0.6 < found * spot / state.spot_stddev(0, int(state.time_ms[0]), 1) / beta < 1.5


@pytest.mark.parametrize(("kind", "beta"), [("skew", BETA), ("skew", -BETA), ("curvature", -9.0), ("term", 0.9)])
def test_the_beta_of_a_shape_is_that_of_the_history(kind: str, beta: float) -> None:
    """No sign is taken for granted."""
    assert_beta(fed(only(kind, following(beta, 0.003 * abs(beta)))), kind, beta)


@pytest.mark.parametrize("shapes", [None, only("skew", np.full(BARS, -0.4))])
def test_without_a_history_that_moves_the_governed_numbers_stand(shapes: np.ndarray | None) -> None:
    found, given = scenario_inputs(fed(shapes), ("A0",), 3_600), SurfaceParameters()
    for at, kind in enumerate(SHAPES, 2):
        annual = getattr(given, f"{kind}_volatility")
        assert getattr(found.volatilities, kind)[0] == pytest.approx(annual * YEAR)
        assert found.correlation[1, at] == pytest.approx(TO_LEVEL.get(kind, 0.0), abs=1e-5)
    assert found.correlation[0, 2] == 0.0


@pytest.mark.parametrize("kind", SHAPES)
def test_a_bad_shape_is_named_and_left_out(kind: str) -> None:
    state = fed(only(kind, following(BETA, 0.004)), 100)
    before, time_ms = state.vol_of_vol.copy(), START_MS + 100 * HOUR_MS
    for value, name in ((math.nan, "not_a_number"), (101.0, "boundary_value")):
        given = [value if other == kind else None for other in SHAPES]
        found = state.update(time_ms, {"A0": bar_at(market(100, 1)[0], 99)}, {}, {"A0": given})
        assert Finding(name, f"A0 {kind}") in found
        time_ms += HOUR_MS
    np.testing.assert_array_equal(state.vol_of_vol, before)


def surface_at(time_ms: int, level: float, term: float, bend: float) -> list[Slice]:
    """Four expiries, weeks apart, whose volatility at the forward is exp(level + term x loading); `bend` of wings."""
    found = []
    for days in (7, 20, 55, 150):
        years = days / 365
        at_forward = math.exp(2 * (level + term * expiry_loadings(years)[0])) * years
        b, sigma = bend * at_forward, 0.2
        values = (at_forward - b * sigma, b, 0.0, 0.0, sigma)
        found.append(Slice(time_ms + days * DAY_MS, *(round(value * 1e9) for value in values)))
    return found


def test_recorded_surfaces_whose_curvature_and_term_follow_the_spot() -> None:
    """From slices to scenarios: the shape is read back, and both betas are drawn."""
    terms, bends = following(0.9, 0.0025, 0.1), 2.0 * np.exp(following(-4.0, 0.012, 0.0, 6))
    shapes, expected = np.empty((BARS, 3)), np.empty(BARS)
    for t in range(BARS):
        found = shape_of(surface_at(START_MS, math.log(0.6), terms[t], bends[t]), START_MS)
        shapes[t] = [float(value or 0) / 1e9 for value in found]
        root = math.sqrt(1.0 + bends[t] * (math.hypot(WIDTH, 0.2) - 0.2))
        expected[t] = (root - 1.0) / WIDTH**2
    assert np.abs(shapes[:, 0]).max() < 1e-9
    np.testing.assert_allclose(shapes[:, 1], expected, rtol=1e-6)
    np.testing.assert_allclose(shapes[:, 2], terms, atol=0.02 + 0.05 * np.abs(terms).max())
    spot = np.diff(np.log(market(BARS, 1)[0].close))
    betas = {kind: float(np.polyfit(spot, np.diff(shapes[:, at]), 1)[0]) for at, kind in enumerate(SHAPES) if at}
    assert betas["term"] == pytest.approx(0.9, rel=0.1)
    state = fed(shapes)
    assert_beta(state, "term", betas["term"])
    assert_beta(state, "curvature", betas["curvature"])


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


def volatility(one: Slice, k: float) -> float:
    a, b, rho, m, sigma = (value / 1e9 for value in one[1:])
    return math.sqrt(a + b * (rho * (k - m) + math.hypot(k - m, sigma)))


def test_a_slices_shape_is_the_parabola_through_three_volatilities() -> None:
    one = smile(30, 0.01, -0.3)
    skew, curvature = slice_shape(one)
    for k in (-WIDTH, 0.0, WIDTH):
        assert volatility(one, k) / volatility(one, 0.0) == pytest.approx(1 + skew * k + curvature * k * k, rel=1e-12)
    assert skew < 0 < curvature


def test_skew_and_curvature_are_those_at_thirty_days() -> None:
    near, far = smile(20, 0.01, -0.5), smile(50, 0.02, 0.1)
    expected = [(2 * a + b) / 3 for a, b in zip(slice_shape(near), slice_shape(far), strict=True)]
    assert list(shape_of([far, near], 0)[:2]) == pytest.approx([value * 1e9 for value in expected], abs=1)
    for given, time_ms, says in (([near], 0, near), ([near, far], 25 * DAY_MS, far)):
        alone = [value * 1e9 for value in slice_shape(says)]
        assert list(shape_of(given, time_ms)[:2]) == pytest.approx(alone, abs=1), "the near one is over"
    assert shape_of([], 0) == NO_SHAPE
    assert shape_of([Slice(DAY_MS, 0, 0, 0, 0, 1)], 0) == NO_SHAPE


def test_the_term_is_the_slope_between_the_maturities_that_there_are() -> None:
    def flat(days: float, volatility: float) -> Slice:
        return Slice(round(days * DAY_MS), round(volatility**2 * days / 365 * 1e9), 0, 0, 0, 100_000_000)

    expected = math.log(0.6 / 0.5) / (expiry_loadings(60 / 365)[0] - expiry_loadings(20 / 365)[0])
    assert (shape_of([flat(20, 0.5), flat(60, 0.6)], 0).term_e9 or 0) / 1e9 == pytest.approx(expected, rel=1e-6)
    assert shape_of([flat(20, 0.5)], 0).term_e9 is None
    assert shape_of([flat(28, 0.5), flat(32, 0.6)], 0).term_e9 is None, "too near to each other"
    assert shape_of([flat(1, 0.5), flat(8, 0.6)], 0).term_e9 is None, "both before the slope begins"
    wide = [flat(1, 0.9), flat(30 / 2.25, 0.5), flat(120, 0.6), flat(400, 0.1)]
    assert (shape_of(wide, 0).term_e9 or 0) / 1e9 == pytest.approx(math.log(0.6 / 0.5), rel=1e-6)
