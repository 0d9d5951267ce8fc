"""Fits in the stream: sets depend neither on how long a fit takes, nor on who dies meanwhile; a replay never fits."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from engine_worlds import GENESIS_MS, Inputs, event, genesis_ticks, listings, scenario_set, spot
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.risk_model.garch_model import GarchKind, walk_forward_garch
from oracles.risk_model.refits import FitRequest, fitted
from oracles.risk_model.state import RiskModelState
from schemas import log_records as records
from schemas.codec import decode_inputs
from schemas.risk_parameters import RiskParameters, ScenarioModel, VarianceModel, parse_parameters
from schemas.topics import INPUTS, INSTRUMENTS, MARKET_LOG
from streams.engine.model_epochs import ModelEpochs
from streams.engine.output import Output
from streams.engine.sequence import Sequencer
from streams.simulate.in_process import Pipeline

BLOCKS, BAR_MS, DELAY, REFIT, LEAST, WINDOW = 330, 3_600_000, 12, 40, 100, 150
SWITCH = 250  # from this block on another kind


def governed(kind: str) -> RiskParameters:
    variance = VarianceModel(
        kind=kind, refit_bars=REFIT, fit_bars=WINDOW, fit_bars_min=LEAST, refit_delay_blocks=DELAY  # type: ignore[arg-type]
    )  # fmt: skip
    model = ScenarioModel(
        epoch_bars=4, bar_ms=BAR_MS, scenarios=256, residuals=256, residuals_min=8, volatility_min_e6=0,
        volatility_max_e6=100_000_000, rise_max_e6=1_000_000_000, fall_max_e6=1_000_000, variance=variance,
    )  # fmt: skip
    return RiskParameters(finality_depth_blocks=2, scenario_model=model)


def inputs(kind: str = "garch-t", blocks: int = BLOCKS) -> Inputs:
    """An hour a block; another kind of GARCH on the way."""
    rng, made = random.Random(3), Inputs()
    made.add_listings(listings(governed(kind)))
    price, calm = {"X": 100.0, "Y": 10.0}, 0.01
    for number in range(blocks):
        if number == SWITCH:
            document = msgspec.to_builtins(governed("gjr-skew-t"))
            made.add_listings([event("parameters", "p-2", document=document)])
        when = GENESIS_MS + BAR_MS * number
        ticks = genesis_ticks() if number == 0 else []
        calm = 0.2 * 0.01 + 0.8 * calm * rng.choice([0.6, 1.0, 1.5])
        for name in price:
            price[name] *= 1 + rng.gauss(0, calm)
            if number:
                ticks.append(spot(f"{name}{number}", name, when - 300, price[name]))
        made.add_block(number, [], ticks, None, declared=False, time_ms=when)
    return made


class Fitting(Pipeline):
    """Sequencer, model and a fitter that needs `latency` blocks; at the blocks of `kills` the model is
    restored from the checkpoint before, and the fits under way are gone. `answers`: the fits that are answered at all.
    """

    def __init__(self, latency: int, kills: tuple[int, ...] = (), answers: int = 1_000) -> None:
        super().__init__({scenario_set().digest: scenario_set()}, 1)
        self.model, self.fed, self.latency = ModelEpochs(checkpoint_every=1), 0, latency
        self.kills, self.answers = set(kills), answers
        self.under_way: dict[tuple[str, int], tuple[int, FitRequest]] = {}
        self.outputs: list[Output] = []
        self.requests: list[FitRequest] = []
        self.listed: list[dict] = []

    def _readers(self, topic: str, partition: int) -> tuple[Sequencer, ...]:
        return (self.sequencer,) if topic in (*INPUTS, MARKET_LOG) else ()

    def push(self, topic: str, partition: int, raw: bytes) -> None:
        super().push(topic, partition, raw)
        while self.fed < len(self.logs[MARKET_LOG, 0]):
            value, offset, self.fed = self.logs[MARKET_LOG, 0][self.fed], self.fed, self.fed + 1
            self.outputs += [o for found in self.model.steps(MARKET_LOG, 0, offset, value) for o in found]
            if records.read_header(value).kind == records.BARRIER:
                self._after_block(self.model.block)

    def _after_block(self, block: int) -> None:
        if block in self.kills:
            self.model, self.under_way = ModelEpochs.load(self.model.dump()), {}
        for request in self.model.requests():
            name = (request.underlying, request.time_ms)
            if name not in self.under_way:
                self.under_way[name] = block + self.latency, request
                self.requests.append(request)
        for due, request in list(self.under_way.values()):
            if due == block and len(self.listed) < self.answers:
                for output in self.model.answer(request, fitted(request)):
                    self.listed.append(orjson.loads(output.value or b""))
                    super().push(INSTRUMENTS, 0, output.value or b"")


@lru_cache(maxsize=64)
def run(latency: int = 1, kills: tuple[int, ...] = (), answers: int = 1_000, kind: str = "garch-t") -> Fitting:
    pipeline, made = Fitting(latency, kills, answers), inputs(kind)
    place: dict[tuple[str, int], int] = {}
    for log in made.order:
        pipeline.push(log[0], log[1], made.logs[log][place.get(log, 0)])
        place[log] = place.get(log, 0) + 1
    return pipeline


def replayed(log: list[bytes]) -> list[Output]:
    """What a machine without any fitter says of a log."""
    model = ModelEpochs(checkpoint_every=1)
    return [o for offset, raw in enumerate(log) for found in model.steps(MARKET_LOG, 0, offset, raw) for o in found]


def test_fits_are_asked_for_at_their_bars_and_recorded() -> None:
    asked = [(one.underlying, one.kind, one.returns.size) for one in run().requests]
    times = [one.time_ms for one in run().requests]
    assert asked[:4] == [("X", "garch-t", 100), ("Y", "garch-t", 100), ("X", "garch-t", 140), ("Y", "garch-t", 140)]
    assert asked[4:6] == [("X", "garch-t", 150), ("Y", "garch-t", 150)]
    assert times[2] - times[0] == REFIT * BAR_MS
    assert {kind for _, kind, _ in asked} == {"garch-t", "gjr-skew-t"}
    assert len(run().listed) == len(asked)
    assert (run().model.refits.late, run().model.refits.lost) == (0, 0)
    assert len({one["id"] for one in run().listed}) == len(asked)
    for one in run().listed:
        assert decode_inputs(INSTRUMENTS, orjson.dumps(one))[0][1] is None


def test_a_replay_needs_no_fitter_and_what_it_reads_is_what_a_fit_gives() -> None:
    assert replayed(run().logs[MARKET_LOG, 0]) == run().outputs
    for request, one in zip(run().requests, run().listed, strict=True):
        found = fitted(request)
        assert {name: one[name] for name in found._fields} == found._asdict()


@settings(deadline=None, max_examples=6)
@given(latency=st.integers(0, DELAY // 2 - 1), kills=st.lists(st.integers(0, BLOCKS // 20), max_size=3, unique=True))
def test_sets_do_not_depend_on_how_long_fits_take_or_on_who_dies_meanwhile(latency: int, kills: list[int]) -> None:
    """A fit that a kill begins anew is still in time: kills are far enough from each other."""
    made = run(latency, tuple(20 * place for place in sorted(kills)))
    assert (made.model.refits.late, made.model.refits.lost) == (0, 0)
    assert made.outputs == run().outputs
    assert replayed(made.logs[MARKET_LOG, 0]) == made.outputs


def test_killed_in_the_middle_of_a_fit_the_same_bytes_come() -> None:
    asked_at = 100 + 3  # the first fits are asked for with this block, whose finality is two
    killed = run(5, (asked_at + 2,))
    assert killed.requests[0].time_ms == run().requests[0].time_ms
    assert [r.time_ms for r in killed.requests[:4]] == [killed.requests[0].time_ms] * 4, "asked for again"
    assert killed.model.refits.late == 0
    assert killed.outputs == run().outputs


def test_a_late_fit_is_in_force_with_the_block_after_and_the_log_says_so() -> None:
    late = run(DELAY + 5)
    assert late.model.refits.late == len(late.listed) > 0
    assert late.outputs != run().outputs
    assert replayed(late.logs[MARKET_LOG, 0]) == late.outputs


def test_a_lost_fit_leaves_the_one_before_and_is_followed_by_the_next() -> None:
    lost = run(1, (), 2)  # the first fits of X and Y are answered, none after
    assert lost.model.refits.lost > 0
    assert lost.model.model is not None
    assert replayed(lost.logs[MARKET_LOG, 0]) == lost.outputs
    assert lost.model.refits.asked.keys() == {"X", "Y"}, "the newest is asked for still"
    assert [history.garch[0] > 0 for history in lost.model.model.returns[:2]] == [False, False], "of another kind"
    answered_again = run(1, (), 4)
    assert answered_again.model.refits.lost < lost.model.refits.lost


def test_the_variance_in_force_is_that_of_the_batch() -> None:
    """The stream's filter is the walk-forward one, but for the rounding of the recorded parameters."""
    pipeline = run()
    model = pipeline.model.model
    assert model is not None
    history = model.returns[0]
    request = [r for r in pipeline.requests if r.underlying == "X" and r.kind == "gjr-skew-t"][-1]
    since = (int(model.time_ms[0]) - request.time_ms) // BAR_MS
    x = np.concatenate([[0.0], history.last(request.returns.size + since)])
    path = walk_forward_garch(x, GarchKind.GJR_SKEW_T, 10_000, WINDOW, request.returns.size)
    assert history.garch[4] == pytest.approx(path.variance[-1], rel=1e-5)
    assert history.garch_variance(24) == pytest.approx(path.mean_variance(24)[-1], rel=1e-5)


@pytest.mark.parametrize("kind", ["ewma", "historical", "multi-speed"])
def test_variances_that_need_no_fit_are_followed_at_once(kind: str) -> None:
    model = ModelEpochs()
    made = inputs(kind, 120).pipeline(1)
    for offset, raw in enumerate(made.logs[MARKET_LOG, 0]):
        for _ in model.steps(MARKET_LOG, 0, offset, raw):
            pass
    assert model.requests() == []
    state = model.model
    assert state is not None
    returns = state.returns[0].last(10_000)
    expected = {
        "historical": np.mean(returns**2),
        "ewma": _ewma(returns),
        "multi-speed": state.spot_stddev(0, 0, 1) ** 2,
    }
    assert state.spot_stddev(0, int(state.time_ms[0]), 1) ** 2 == pytest.approx(expected[kind], rel=1e-9)
    assert RiskModelState.from_bytes(state.to_bytes()).to_bytes() == state.to_bytes()


def _ewma(returns: np.ndarray) -> float:
    value, gain = 0.0, 1.0 - 0.94 ** (1 / 24)
    for n, one in enumerate(returns, 1):
        value += max(gain, 1.0 / n) * (one * one - value)
    return float(value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"underlying": "Q"}, "underlying Q is not listed"),
        ({"beta_e12": 960_000_000_000}, "must be below one"),
        ({"gamma_e12": -70_000_000_000}, "must not be negative"),
    ],
)
def test_a_fit_that_makes_no_sense_is_refused(change: dict[str, Any], reason: str) -> None:
    fit = event("model_fit", "g", underlying="X", kind="garch-t", time_ms=0, omega_e18=1) | {
        "alpha_e12": 50_000_000_000, "gamma_e12": 0, "beta_e12": 900_000_000_000,
    }  # fmt: skip
    catalogue = run().model.catalogue
    assert catalogue.refusal(fit) is None
    assert reason in str(catalogue.refusal(fit | change))


def test_a_fit_that_nobody_asked_for_changes_nothing() -> None:
    model = ModelEpochs.load(run().model.dump())
    before = model.dump()
    stray = dict(run().listed[0], id="stray", omega_e18=1)
    model.refits.take(stray, model.parameters.scenario_model.variances, model.block)
    assert model.dump() == before


def test_governed_numbers_of_fits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="fit_bars_min is above fit_bars"):
        parse_parameters({"scenario_model": {"variance": {"fit_bars": 200, "fit_bars_min": 201}}})
