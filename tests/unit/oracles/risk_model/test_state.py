"""The streaming state: batch = stream = restored, the same variances as a history, bad input by name, no NaN."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.risk_model.inputs import scenario_inputs
from oracles.risk_model.state import Bar, Finding, ModelSpec, RiskModelState
from oracles.risk_model.variance_model import variance_history
from tests.risk_model_worlds import HOUR_MS, START_MS, bar_at, implied, market

SPEC = ModelSpec(("A0", "A1"), ("A0",), residuals=500)
BARS = market(900, 2)
IMPLIED = implied(900)
SKEWS, CURVATURES, TERMS = (start + np.log(implied(900, 5 + n)) for n, start in enumerate((-0.5, 2.0, 0.1)))


def feed(state: RiskModelState, start: int, stop: int) -> list[Finding]:
    found: list[Finding] = []
    for t in range(start, stop):
        bars = {b.asset: bar_at(b, t) for b in BARS}
        shape = [float(values[t]) for values in (SKEWS, CURVATURES, TERMS)]
        found += state.update(int(BARS[0].time_ms[t]), bars, {"A0": float(IMPLIED[t])}, {"A0": shape})
    return found


@pytest.fixture(scope="module")
def whole() -> RiskModelState:
    state = RiskModelState(SPEC)
    assert feed(state, 0, 900) == []
    return state


@settings(deadline=None, max_examples=5)
@given(cuts=st.lists(st.integers(1, 899), min_size=1, max_size=3, unique=True))
def test_a_stream_with_restarts_is_the_batch(whole: RiskModelState, cuts: list[int]) -> None:
    state, start = RiskModelState(SPEC), 0
    for stop in [*sorted(cuts), 900]:
        feed(state, start, stop)
        state, start = RiskModelState.from_bytes(state.to_bytes()), stop
    assert state.to_bytes() == whole.to_bytes()


def test_variances_are_those_of_the_history(whole: RiskModelState) -> None:
    for u, bars in enumerate(BARS):
        history = variance_history(bars, (1, 24))
        for mine, theirs in zip(whole.variances[u], history.state, strict=True):
            assert (mine == theirs).all()
        assert whole.spot_stddev(1, int(BARS[1].time_ms[-1]), 24) > 0
        assert whole.spot_stddev(u, int(bars.time_ms[-1]), 1) == pytest.approx(history.stddev(1, True)[-1], rel=1e-12)


def test_residuals_recoloured_are_moves_over_their_forecasts() -> None:
    """The last 24-hour residual, by hand: state at its forecast, log return since."""
    then, now = RiskModelState(SPEC), RiskModelState(SPEC)
    feed(then, 0, 875)
    feed(now, 0, 899)
    spots = [math.log(b.close[898] / b.close[874]) for b in BARS]
    shapes = [values[898] - values[874] for values in (SKEWS, CURVATURES, TERMS)]
    moves = np.array([*spots, math.log(IMPLIED[898] / IMPLIED[874]), *shapes])
    expected = np.linalg.solve(then.dcc.root, moves / then.stddev(24))
    assert now.residuals(24)[-1] == pytest.approx(expected, rel=1e-9)
    assert len(now.residuals(1)) == 500


def test_the_option_market_speaks_from_six_hours_on(whole: RiskModelState) -> None:
    state = RiskModelState.from_bytes(whole.to_bytes())
    time_ms = int(state.time_ms[0])
    before = [state.spot_stddev(0, time_ms, h) for h in (1, 5, 6, 24)]
    state.value[2] += math.log(2.0)
    after = [state.spot_stddev(0, time_ms, h) for h in (1, 5, 6, 24)]
    assert after[:2] == before[:2]
    assert all(1.2 < b / a < 2.0 for a, b in zip(before[2:], after[2:]))


NAN = math.nan


@pytest.mark.parametrize(
    ("bar", "name"),
    [
        (None, "missing"),
        (Bar(NAN, 99.0, 100.0), "not_a_number"),
        (Bar(math.inf, 99.0, 100.0), "not_a_number"),
        (Bar(101.0, 0.0, 100.0), "non_positive"),
        (Bar(101.0, 99.0, -1.0), "non_positive"),
        (Bar(101.0, 99.0, 102.0), "range_excludes_close"),
    ],
)
def test_a_bad_bar_is_named_and_left_out(whole: RiskModelState, bar: Bar | None, name: str) -> None:
    state = RiskModelState.from_bytes(whole.to_bytes())
    before = [part.copy() for part in state.variances[1]]
    good = bar_at(BARS[0], 899)
    bars = {"A0": good} | ({"A1": bar} if bar else {})
    time_ms = int(state.time_ms[0]) + HOUR_MS
    assert state.update(time_ms, bars, {"A0": 0.6}) == [Finding(name, "A1")]
    assert all((a == b).all() for a, b in zip(before, state.variances[1], strict=True))
    again = state.update(time_ms + HOUR_MS, {"A0": good, "A1": bar_at(BARS[1], 899)}, {"A0": 0.6})
    assert again == [Finding("gap", "A1")]
    assert all(np.isfinite(part).all() for part in state.variances[1])


@pytest.mark.parametrize(
    ("volatility", "name"), [(NAN, "not_a_number"), (0.0, "non_positive"), (5.0, "boundary_value")]
)
def test_a_bad_volatility_is_named(whole: RiskModelState, volatility: float, name: str) -> None:
    state = RiskModelState.from_bytes(whole.to_bytes())
    bars = {b.asset: bar_at(b, 899) for b in BARS}
    found = state.update(int(state.time_ms[0]) + HOUR_MS, bars, {"A0": volatility})
    assert found == [Finding(name, "A0 volatility")]


@pytest.mark.parametrize("time_ms", [START_MS + 899 * HOUR_MS, START_MS + 900 * HOUR_MS + 1])
def test_times_ascend_on_the_grid(whole: RiskModelState, time_ms: int) -> None:
    with pytest.raises(ValueError, match="times ascend"):
        RiskModelState.from_bytes(whole.to_bytes()).update(time_ms, {}, {})


@pytest.mark.parametrize("spec", [ModelSpec((), ()), ModelSpec(("A",), ("B",)), ModelSpec(("A",), (), horizons=(0,))])
def test_a_spec_that_makes_no_sense_is_refused(spec: ModelSpec) -> None:
    with pytest.raises(ValueError, match=r"underlyings|horizons"):
        RiskModelState(spec)


@pytest.mark.parametrize("data", [b"", b"DPMERMS2\x04\x00\x00\x00null", b"else"])
def test_what_is_no_checkpoint_is_refused(whole: RiskModelState, data: bytes) -> None:
    with pytest.raises(ValueError, match="checkpoint"):
        RiskModelState.from_bytes(data)
    with pytest.raises(ValueError, match="checkpoint"):
        RiskModelState.from_bytes(whole.to_bytes()[:-1])


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.one_of(st.none(), st.floats(allow_nan=True), st.floats(1.0, 200.0), st.just(100.0)),
            st.one_of(st.none(), st.floats(allow_nan=True), st.floats(0.1, 2.0)),
        ),
        max_size=60,
    )
)
def test_whatever_comes_in_nothing_but_numbers_comes_out(inputs: list[tuple[int, float | None, float | None]]) -> None:
    state = RiskModelState(ModelSpec(("A0", "A1"), ("A0",), horizons=(1, 4), residuals=20))
    time_ms = START_MS
    for hours, close, volatility in inputs:
        time_ms += hours * HOUR_MS
        bars = {} if close is None else {"A1": Bar(close, close, close), "A0": Bar(101.0, 99.0, 100.0)}
        state.update(time_ms, bars, {} if volatility is None else {"A0": volatility})
    for seconds in (600, 3_600, 4 * 3_600):
        found = scenario_inputs(state, ("A0", "A1"), seconds)
        assert (found.volatilities.stacked() > 0.0).all()
        assert np.isfinite(found.correlation).all()
        assert np.linalg.eigvalsh(found.correlation)[0] > 0.0
