"""Scenario sets of the risk model: drawn again to the same digest, small sampling error, fallbacks by name."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from kernels.layout import NANO, WEIGHT_TOTAL
from oracles.merkle import scenario_root
from oracles.risk_model import scenarios as module
from oracles.risk_model.inputs import ScenarioInputs, SurfaceParameters, scenario_inputs
from oracles.risk_model.scenarios import Jumps, ResidualBank, draw_fhs_set, draw_jump_set, redraw_fhs, redraw_jumps
from oracles.risk_model.state import Bar, Finding, ModelSpec, RiskModelState
from oracles.scenario_set import PLAIN_KINDS, ScenarioSet, redraw
from tests.risk_model_worlds import HOUR_MS, bar_at, implied, market

ASSETS, SURFACES = ("A0", "A1", "NEW", "FLAT"), ("A0", "A1")
NUMBER = 6_000


@pytest.fixture(scope="module")
def state() -> RiskModelState:
    """A0 with a volatility, A1, a coin of one week, a price that never moves."""
    found = RiskModelState(ModelSpec(ASSETS, ("A0",)))
    one, two, new = market(NUMBER, 3)
    vol = implied(NUMBER)
    for t in range(NUMBER):
        bars = {"A0": bar_at(one, t), "A1": bar_at(two, t), "FLAT": Bar(1.0, 1.0, 1.0)}
        if t >= NUMBER - 168:
            bars["NEW"] = bar_at(new, t)
        found.update(int(one.time_ms[t]), bars, {"A0": float(vol[t])})
    return found


@pytest.fixture(scope="module")
def inputs(state: RiskModelState) -> ScenarioInputs:
    return scenario_inputs(state, SURFACES, 86_400)


def drawn(inputs: ScenarioInputs, size: int = 1024) -> ScenarioSet:
    return draw_fhs_set(
        inputs.underlyings, inputs.option_underlyings, inputs.volatilities, inputs.correlation, inputs.bank, seed=3,
        scenarios=size, horizon_seconds=inputs.horizon_seconds,
    )  # fmt: skip


JUMPS = Jumps(20.0, np.full(14, 4.0), np.stack([np.full(14, -0.02), np.zeros(14)]), np.full((2, 14), 0.04))


def jumping(inputs: ScenarioInputs, size: int = 1024) -> ScenarioSet:
    return draw_jump_set(
        inputs.underlyings, inputs.option_underlyings, inputs.volatilities, inputs.correlation, JUMPS, seed=3,
        scenarios=size, horizon_seconds=inputs.horizon_seconds,
    )  # fmt: skip


def test_sets_are_drawn_again_from_their_bytes(inputs: ScenarioInputs) -> None:
    for made in (drawn(inputs), jumping(inputs)):
        read = ScenarioSet.from_bytes(made.to_bytes())
        assert (read.digest, read.version, read.size) == (made.digest, 4, 1024)
        assert int(read.weights.sum()) == WEIGHT_TOTAL
        assert len(scenario_root(read)) == 32
        with pytest.raises(ValueError, match="cannot be drawn again"):
            redraw(read)
    bank = ResidualBank.from_bytes(inputs.bank.to_bytes())
    made = drawn(inputs)
    assert redraw_fhs(ScenarioSet.from_bytes(made.to_bytes()), bank).digest == made.digest
    made = jumping(inputs)
    assert redraw_jumps(ScenarioSet.from_bytes(made.to_bytes())).digest == made.digest


def test_sets_of_version_3_are_still_drawn_and_read(inputs: ScenarioInputs) -> None:
    """As they were recorded: without curvature and term, from a bank without their residuals."""
    surfaces = len(SURFACES)
    kept = np.r_[: len(ASSETS) + 2 * surfaces, len(ASSETS) + 4 * surfaces : len(ASSETS) + 5 * surfaces]
    none = np.zeros(0)
    older = inputs._replace(
        volatilities=replace(inputs.volatilities, curvature=none, term=none),
        correlation=inputs.correlation[np.ix_(kept, kept)],
        bank=ResidualBank(
            module.factor_names(ASSETS, SURFACES, PLAIN_KINDS), inputs.bank.horizon_seconds,
            inputs.bank.whitened_e6[kept],
        ),
    )  # fmt: skip
    read = ScenarioSet.from_bytes(drawn(older).to_bytes())
    assert (read.version, read.kinds, read.factor_count) == (3, PLAIN_KINDS, 10)
    assert redraw_fhs(read, older.bank).digest == read.digest
    with pytest.raises(ValueError, match="other factors"):
        redraw_fhs(replace(read, source=inputs.bank.digest), inputs.bank)
    fewer = Jumps(20.0, *(part[..., :10] for part in (JUMPS.own_per_year, JUMPS.mean, JUMPS.stddev)))
    made = draw_jump_set(ASSETS, SURFACES, older.volatilities, older.correlation, fewer, seed=3, scenarios=256)
    assert made.version == 3
    assert redraw_jumps(ScenarioSet.from_bytes(made.to_bytes())).digest == made.digest


def test_moves_are_recoloured_residuals_times_volatility(inputs: ScenarioInputs) -> None:
    whole = module.all_vectors(drawn(inputs), inputs.bank)
    root = np.linalg.cholesky(whole.correlation_e9 / NANO)
    moves = root @ (inputs.bank.whitened_e6 / 1e6) * inputs.volatilities.stacked()[:, None]
    found = whole.factors() / NANO
    inside = np.abs(moves[:4]) < 1.49
    assert found[:4][inside] == pytest.approx(moves[:4][inside], abs=3e-8)


def test_selected_vectors_estimate_the_shortfall_of_all(inputs: ScenarioInputs) -> None:
    """Long, short, spreads: 1,024 of about 6,000 vectors are within a few per cent, and far better than plain ones."""
    books = np.concatenate([np.eye(14)[:6], -np.eye(14)[:6], [[1, -1] + [0] * 12, [-1, 1] + [0] * 12]])
    made = drawn(inputs)
    errors = module.sampling_errors(made, inputs.bank, books)
    whole = module.all_vectors(made, inputs.bank)
    truth = module.shortfalls(whole, books)
    rng = np.random.Generator(np.random.Philox(4))
    plain = []
    for _ in range(20):
        kept = rng.choice(whole.size, 1024, replace=False)
        chosen = whole.filled(whole.factors()[:, kept], np.full(1024, WEIGHT_TOTAL // 1024, np.int32))
        plain.append(module.shortfalls(chosen, books) / truth - 1.0)
    assert np.sqrt(np.mean(errors**2)) < 0.04
    assert np.sqrt(np.mean(errors**2)) < 0.6 * np.sqrt(np.mean(np.square(plain)))


def test_jumps_add_their_variance_and_come_together(inputs: ScenarioInputs) -> None:
    made = jumping(inputs, 4096)
    weights, moves = made.weights / WEIGHT_TOTAL, made.factors() / NANO
    days = 1 / 365
    mean = moves @ weights
    variance = (moves**2) @ weights - mean**2
    jumps = days * (20 * (0.02**2 + 0.04**2) + 4 * 0.04**2)
    assert variance[:2] == pytest.approx(inputs.volatilities.spot[:2] ** 2 + jumps, rel=0.05)
    assert mean[:2] == pytest.approx(np.full(2, 20 * -0.02 * days), rel=0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"own_per_year": np.zeros(3)}, "own_per_year"),
        ({"mean": np.full((2, 14), math.nan)}, "finite"),
        ({"common_per_year": -1.0}, "not negative"),
    ],
)
def test_jumps_that_make_no_sense_are_refused(inputs: ScenarioInputs, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_jump_set(
            inputs.underlyings, inputs.option_underlyings, inputs.volatilities, inputs.correlation,
            replace(JUMPS, **change), seed=1,
        )  # fmt: skip


def test_another_bank_or_model_is_refused(inputs: ScenarioInputs) -> None:
    made, bank = drawn(inputs), inputs.bank
    other = replace(bank, whitened_e6=bank.whitened_e6 + 1)
    with pytest.raises(ValueError, match="not the set's source"):
        redraw_fhs(made, other)
    renamed = replace(bank, factors=bank.factors[::-1])
    with pytest.raises(ValueError, match="other factors"):
        redraw_fhs(replace(made, source=renamed.digest), renamed)
    with pytest.raises(ValueError, match="not drawn from residuals"):
        redraw_fhs(jumping(inputs), bank)
    with pytest.raises(ValueError, match="has no jumps"):
        redraw_jumps(made)
    with pytest.raises(ValueError, match="residual bank"):
        ResidualBank.from_bytes(bank.to_bytes()[:-1])
    empty = replace(bank, whitened_e6=bank.whitened_e6[:, :0])
    with pytest.raises(ValueError, match="empty"):
        redraw_fhs(replace(made, source=empty.digest), empty)


def test_fallbacks_are_named_and_never_below_the_reference(inputs: ScenarioInputs) -> None:
    assert set(inputs.fallbacks) == {
        Finding("short_history", "A0"), Finding("short_history", "A1"), Finding("new_asset", "NEW"),
        Finding("constant_prices", "FLAT"), Finding("no_volatility_history", "A1"),
    }  # fmt: skip
    spot = inputs.volatilities.spot
    reference = spot[0]
    with_noise = math.hypot(reference, 1.0 / math.sqrt(365))
    assert reference >= 1.5 / math.sqrt(365) * (1 - 1e-12)
    assert spot[1] >= reference
    assert spot[2] == pytest.approx(with_noise, rel=1e-9) or spot[2] > with_noise
    assert spot[3] == pytest.approx(with_noise, rel=1e-9)
    assert inputs.correlation[0, 3] == pytest.approx(reference / spot[3], abs=1e-5)
    assert inputs.volatilities.level[1] >= SurfaceParameters().level_volatility / math.sqrt(365)


def test_horizons_from_ten_minutes_to_a_day(state: RiskModelState) -> None:
    found = {seconds: scenario_inputs(state, SURFACES, seconds) for seconds in (600, 1_800, 3_600, 86_400)}
    spots = [i.volatilities.spot for i in found.values()]
    assert all((a < b).all() for a, b in pairwise(spots))
    assert spots[0] == pytest.approx(spots[2] / math.sqrt(6), rel=1e-12)
    assert [i.bank.horizon_seconds for i in found.values()] == [3_600, 3_600, 3_600, 86_400]
    assert all(drawn(i).size == 1024 for i in found.values())
    with pytest.raises(ValueError, match="not whole bars"):
        scenario_inputs(state, SURFACES, 5_400)
    with pytest.raises(ValueError, match="underlyings"):
        scenario_inputs(state, ("XYZ",), 3_600)


def test_a_model_without_a_bar_still_has_inputs_and_no_bank() -> None:
    bare = scenario_inputs(RiskModelState(ModelSpec(("X",), ())), ("X",), 3_600)
    assert bare.volatilities.spot[0] == pytest.approx(1.5 / math.sqrt(8_760))
    assert bare.fallbacks == [Finding("new_asset", "X"), Finding("no_volatility_history", "X")]
    assert bare.bank.whitened_e6.shape == (6, 0)


def test_a_price_that_stops_coming_is_stale(state: RiskModelState) -> None:
    late = RiskModelState.from_bytes(state.to_bytes())
    one = market(NUMBER, 3)[0]
    for k in range(1, 26):
        late.update(int(one.time_ms[-1]) + k * HOUR_MS, {"A0": bar_at(one, NUMBER - 1)}, {})
    assert Finding("stale", "A1") in scenario_inputs(late, (), 3_600).fallbacks
