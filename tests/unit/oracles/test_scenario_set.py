"""oracles.scenario_set: determinism, bytes, weights, moments and tail of the drawn factors, correlations, refusals."""

import json
import math
import pathlib
from dataclasses import replace

import numpy as np
import pytest

from kernels.layout import tail_mass_of_level
from oracles import scenario_set as module
from oracles.scenario_set import FactorVolatilities, ScenarioSet, draw_scenario_set

RECORDED = pathlib.Path(__file__).parents[2] / "reference" / "vectors" / "scenario_set_version_1.bin"
UNDERLYINGS, SURFACES = ("BTC", "ETH", "PEPE"), ("ETH", "BTC")
VOLATILITIES = FactorVolatilities(
    np.array([0.01, 0.012, 0.03]), np.array([0.02, 0.03]), np.array([0.05, 0.05]), np.array([1e-3, 1e-3])
)
CORRELATION = module.default_correlation(module.default_spot_correlation(0, [None, None, 0.5]), [1, 0])


SHAPED = replace(VOLATILITIES, curvature=np.array([0.05, 0.08]), term=np.array([0.01, 0.012]))
SHAPED_CORRELATION = module.default_correlation(
    module.default_spot_correlation(0, [None, None, 0.5]), [1, 0], kinds=SHAPED.kinds
)


def draw_shaped(**changes: int) -> ScenarioSet:
    return draw_scenario_set(
        UNDERLYINGS, SURFACES, SHAPED, SHAPED_CORRELATION, **{"seed": 7, "scenarios": 1024} | changes
    )


def draw(**changes: int) -> ScenarioSet:
    return draw_scenario_set(
        UNDERLYINGS, SURFACES, VOLATILITIES, CORRELATION, **{"seed": 7, "scenarios": 1024} | changes
    )


@pytest.fixture(scope="module")
def drawn() -> ScenarioSet:
    return draw(scenarios=4096)


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others() -> None:
    assert draw().to_bytes() == draw().to_bytes()
    assert draw().digest != draw(seed=8).digest


def test_the_bits_are_those_of_every_machine() -> None:
    """Change this digest only together with ``VERSION``: recorded sets could not be drawn again."""
    assert draw().digest == "f9f64459c4b888ab4232ef234e93c1a3c739734c7ff2858902640393a4384b11"
    assert draw_shaped().digest == "a6c16ddd2092633ce7fd752083aa03917a004f9766abdae84040a011f49579dd"


def test_a_recorded_set_is_drawn_again_from_its_own_bytes(drawn: ScenarioSet) -> None:
    recorded = ScenarioSet.from_bytes(drawn.to_bytes())
    assert module.redraw(recorded).digest == drawn.digest
    forged = replace(recorded, spot_log_return=recorded.spot_log_return + np.int32(1))
    assert module.redraw(forged).digest == drawn.digest != forged.digest


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"level_e6": 975_000},
        {"horizon_seconds": 60},
        {"volatility_e9": np.arange(1, 10) * 1_000_000},
        {"underlyings": ("BTC", "ETH", "SHIB")},
    ],
)
def test_every_published_input_keys_the_draw(drawn: ScenarioSet, change: dict) -> None:
    other = module.redraw(replace(drawn, **change))
    assert (other.weights != drawn.weights).any()


def test_a_set_of_version_1_is_read_but_cannot_be_drawn_again() -> None:
    raw = RECORDED.read_bytes()
    old = ScenarioSet.from_bytes(raw)
    assert (old.version, old.size, old.underlyings, old.option_underlyings) == (1, 16, UNDERLYINGS, SURFACES)
    assert old.to_bytes() == raw
    assert old.digest == "88f0d1b612584cbae3f588212ffcb35b59721c580bfcb878280f0f3f49d4830c"
    assert old.table().spot_log_return.shape == (3, 16)
    with pytest.raises(ValueError, match="version 1"):
        module.redraw(old)


def test_a_set_of_a_later_version_is_refused(drawn: ScenarioSet) -> None:
    with pytest.raises(ValueError, match="version 5"):
        ScenarioSet.from_bytes(drawn.to_bytes().replace(b'"version":2', b'"version":5'))


def test_curvature_and_term_make_a_set_of_version_4_that_anyone_draws_again() -> None:
    made = draw_shaped()
    read = ScenarioSet.from_bytes(made.to_bytes())
    assert (read.version, read.kinds, read.factor_count) == (4, ("level", "skew", "curvature", "term", "rate"), 13)
    assert read.to_bytes() == made.to_bytes()
    assert module.redraw(read).digest == made.digest
    assert (read.curvature == made.curvature).all()
    assert (read.term == made.term).all()
    forged = replace(read, term=read.term + np.int32(1))
    assert module.redraw(forged).digest == made.digest != forged.digest
    other = module.redraw(replace(read, volatility_e9=np.arange(1, 14) * 1_000_000))
    assert (other.weights != made.weights).any()


def test_a_set_without_surfaces_has_nothing_new() -> None:
    none, one = np.zeros(0), np.array([0.01])
    made = draw_scenario_set(("X",), (), FactorVolatilities(one, none, none, none, none, none), np.eye(1), seed=1)
    assert (made.version, made.factor_count) == (2, 1)


def test_the_table_has_curvature_and_term_where_the_set_has() -> None:
    made = draw_shaped()
    table = made.table(["PEPE", "BTC"])
    assert (table.curvature == made.curvature / 1e9).all()
    assert (table.term == made.term / 1e9).all()
    assert draw().table().curvature.size == draw().table().term.size == 0


def test_moments_of_curvature_and_term_are_those_asked_for() -> None:
    made = draw_shaped(scenarios=4096)
    moves, weights = made.factors() / 1e9 / SHAPED.stacked()[:, None], made.weights / 2.0**30
    second = (moves * weights) @ moves.T
    assert np.abs(second - SHAPED_CORRELATION).max() < 0.08
    level, curvature, term = 3, 7, 9
    assert SHAPED_CORRELATION[level, [curvature, term]].tolist() == [-0.55, -0.9]
    assert SHAPED_CORRELATION[curvature, term] == pytest.approx(0.55 * 0.9)


def test_stacked_volatilities_are_those_of_their_kinds() -> None:
    again = FactorVolatilities.unstacked(SHAPED.stacked(), 3, SHAPED.kinds)
    for name in ("spot", *SHAPED.kinds):
        assert (getattr(again, name) == getattr(SHAPED, name)).all()
    only_term = replace(VOLATILITIES, term=np.ones(2))
    with pytest.raises(ValueError, match="volatilities"):
        draw_scenario_set(UNDERLYINGS, SURFACES, only_term, SHAPED_CORRELATION, seed=1)


def test_bytes_round_trip(drawn: ScenarioSet) -> None:
    again = ScenarioSet.from_bytes(drawn.to_bytes())
    assert again.to_bytes() == drawn.to_bytes()
    assert again.digest == drawn.digest
    assert (again.underlyings, again.option_underlyings, again.seed) == (UNDERLYINGS, SURFACES, 7)
    assert len(again.digest) == 64
    for name in ("spot_log_return", "level_log", "skew", "rate_shift", "weights"):
        assert getattr(again, name).dtype == np.int32
        assert (getattr(again, name) == getattr(drawn, name)).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"X" + data[1:],
        lambda data: data[:-4],
        lambda data: data + b"\0",
        lambda data: data[:9],
        lambda data: data[:12] + b"!" + data[13:],
        lambda data: b"",
    ],
)
def test_damaged_bytes_are_refused(drawn: ScenarioSet, damage) -> None:
    with pytest.raises(ValueError, match=r"scenario set"):
        ScenarioSet.from_bytes(damage(drawn.to_bytes()))


def test_weights_are_integers_that_favour_the_tail(drawn: ScenarioSet) -> None:
    assert drawn.weights.dtype == np.int32
    assert int(drawn.weights.sum(dtype=np.int64)) == 2**30
    loss = -drawn.spot_log_return[0].astype(np.int64)
    order = np.argsort(-loss)
    in_tail = np.searchsorted(np.cumsum(drawn.weights[order], dtype=np.int64), tail_mass_of_level(990_000))
    assert in_tail > 2 * 0.01 * drawn.size


def weighted(drawn: ScenarioSet) -> tuple[np.ndarray, np.ndarray]:
    """(weighted covariance, weighted mean) of all factors in units of their volatility."""
    factors = np.concatenate([drawn.spot_log_return, drawn.level_log, drawn.skew, drawn.rate_shift]) / 1e9
    factors /= VOLATILITIES.stacked()[:, None]
    weights = drawn.weights / 2.0**30
    mean = factors @ weights
    return (factors * weights) @ factors.T, mean


def test_moments_are_those_asked_for(drawn: ScenarioSet) -> None:
    second, mean = weighted(drawn)
    assert np.abs(mean).max() < 0.01
    assert np.abs(second - CORRELATION).max() < 0.06
    assert second[0, 1] == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize(("scenarios", "tolerance"), [(1024, 0.05), (4096, 0.025)])
def test_the_expected_shortfall_of_a_spot_is_that_of_a_student_t(scenarios: int, tolerance: float) -> None:
    path = pathlib.Path(__file__).parents[2] / "reference" / "vectors" / "es_and_backtests.json"
    expected = json.loads(path.read_text())["expected_shortfall"]["student_t"]["5"]["es_99_unit_variance"]
    for row in (0, 1):
        for seed in (1, 2, 3):
            drawn = draw(scenarios=scenarios, seed=seed)
            loss, left, total = -drawn.spot_log_return[row] / 1e9, 0.01, 0.0
            for s in np.argsort(-loss):
                taken = min(left, drawn.weights[s] / 2.0**30)
                total, left = total + taken * loss[s], left - taken
            assert total / 0.01 / VOLATILITIES.spot[row] == pytest.approx(expected, rel=tolerance)


def test_table_reorders_the_spots_and_keeps_their_surfaces(drawn: ScenarioSet) -> None:
    table = drawn.table(["PEPE", "BTC"])
    assert (table.spot_log_return == drawn.spot_log_return[[2, 0]] / 1e9).all()
    assert table.option_row.tolist() == [-1, 1]
    assert table.tail_mass == 10_737_418
    assert table.horizon_years == pytest.approx(1 / 8760)
    assert drawn.table().option_row.tolist() == [1, 0, -1]
    with pytest.raises(KeyError):
        drawn.table(["BTC", "DOGE"])


def test_factors_stay_within_their_limits() -> None:
    wild = FactorVolatilities(np.full(3, 50.0), np.full(2, 50.0), np.full(2, 50.0), np.full(2, 50.0))
    wild = replace(wild, curvature=np.full(2, 50.0), term=np.full(2, 50.0))
    drawn = draw_scenario_set(UNDERLYINGS, SURFACES, wild, SHAPED_CORRELATION, seed=1, scenarios=256)
    for factor, limit in zip(
        (drawn.spot_log_return, drawn.level_log, drawn.skew, drawn.curvature, drawn.term, drawn.rate_shift),
        (1.5, 1.5, 1.0, 2.0, 1.0, 0.2),
    ):
        assert np.abs(factor).max() == round(limit * 1e9)


def test_annual_volatilities_scale_with_the_root_of_time() -> None:
    hour = FactorVolatilities.from_annual(np.array([0.6]), np.array([1.2]), np.array([1.0]), np.array([0.02]), 3600)
    assert hour.spot[0] == pytest.approx(0.6 / math.sqrt(8760))
    assert hour.stacked().shape == (4,)


def test_a_coin_without_history_follows_bitcoin_with_beta_one() -> None:
    volatility, correlation = module.fallback_spot(0.6, 0.8)
    assert volatility == pytest.approx(1.0)
    assert correlation * volatility / 0.6 == pytest.approx(1.0)  # beta
    matrix = module.default_spot_correlation(0, [None, None, correlation, 0.5], 0.7)
    assert matrix[0].tolist() == pytest.approx([1.0, 0.7, 0.6, 0.5])
    assert matrix[1, 2] == pytest.approx(0.7 * 0.6)
    assert matrix[2, 3] == pytest.approx(0.6 * 0.5)
    assert np.linalg.eigvalsh(matrix)[0] > 0


def test_repair_gives_a_correlation_matrix_near_the_given_one() -> None:
    impossible = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    repaired = module.nearest_correlation(impossible)
    assert np.linalg.eigvalsh(repaired)[0] > 0
    assert np.diag(repaired).tolist() == [1.0, 1.0, 1.0]
    assert np.abs(repaired - impossible).max() < 0.45
    assert (module.nearest_correlation(CORRELATION) == CORRELATION).all()


@pytest.mark.parametrize(
    ("underlyings", "volatilities", "correlation", "scenarios"),
    [
        (UNDERLYINGS, VOLATILITIES, CORRELATION, 1000),
        (UNDERLYINGS, VOLATILITIES, CORRELATION, 1),
        (UNDERLYINGS, VOLATILITIES, CORRELATION[:-1, :-1], 64),
        (UNDERLYINGS, VOLATILITIES, 2 * CORRELATION, 64),
        (UNDERLYINGS, VOLATILITIES, np.ones((9, 9)) - 2 * np.triu(np.ones((9, 9)), 1), 64),
        (UNDERLYINGS, VOLATILITIES, 2 * np.eye(9) - np.ones((9, 9)), 64),
        (("BTC", "SOL", "PEPE"), VOLATILITIES, CORRELATION, 64),
        (("BTC", "ETH", "ETH"), VOLATILITIES, CORRELATION, 64),
        (UNDERLYINGS, FactorVolatilities(-VOLATILITIES.spot, *[np.ones(2)] * 3), CORRELATION, 64),
        (UNDERLYINGS, FactorVolatilities(np.full(3, 1e4), *[np.ones(2)] * 3), CORRELATION, 64),
        (UNDERLYINGS, VOLATILITIES, 3 * np.ones((9, 9)) - 2 * np.eye(9), 64),
    ],
)
def test_bad_arguments_are_refused(underlyings, volatilities, correlation, scenarios) -> None:
    with pytest.raises(ValueError):
        draw_scenario_set(underlyings, SURFACES, volatilities, correlation, seed=1, scenarios=scenarios)


def test_more_factors_than_sobol_dimensions_are_refused() -> None:
    names, none = [f"C{n}" for n in range(1024)], np.zeros(0)
    volatilities = FactorVolatilities(np.ones(1024), none, none, none)
    with pytest.raises(ValueError, match="1024 factors"):
        draw_scenario_set(names, (), volatilities, np.eye(1024), seed=1)
