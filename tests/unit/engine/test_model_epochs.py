"""Scenario sets follow the market: drawn from the log alone, governed, redrawn by anyone, never of a fork."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from engine_worlds import GENESIS_MS, Inputs, event, genesis_ticks, listings, scenario_set, spot, surface, underlying

from oracles.risk_model.growth import extended
from oracles.risk_model.inputs import REFERENCE_VOLATILITY
from oracles.risk_model.scenarios import FHS_MODEL, ResidualBank, redraw_fhs
from oracles.risk_model.state import Bar, ModelSpec, RiskModelState
from oracles.scenario_set import MODEL, ScenarioSet, redraw
from schemas import log_records as records
from schemas.risk_parameters import RiskParameters, ScenarioModel, parse_parameters
from schemas.topics import BLOCKS_DONE, INSTRUMENTS, MARKET_LOG
from streams.engine.model_epochs import ModelEpochs
from streams.engine.output import Output
from streams.simulate.in_process import Pipeline

NUMBER_FIELD = 4
BLOCKS, FINALITY, BLOCK_MS, BAR_MS, EPOCH_BARS = 120, 2, 1_800_000, 3_600_000, 4
GOVERNED = ScenarioModel(
    epoch_bars=EPOCH_BARS, bar_ms=BAR_MS, horizon_seconds=3_600, scenarios=256, residuals=256, residuals_min=8,
    volatility_min_e6=500_000, volatility_max_e6=2_000_000, rise_max_e6=200_000, fall_max_e6=100_000,
)  # fmt: skip


def time_of(number: int) -> int:
    """Half an hour a block."""
    return GENESIS_MS + BLOCK_MS * number


class Modelled(Pipeline):
    """The pure pipeline with the model in its loop."""

    def __init__(self) -> None:
        self.sets: dict[str, ScenarioSet] = {scenario_set().digest: scenario_set()}
        self.banks: dict[str, ResidualBank] = {}
        super().__init__(self.sets, 2)
        self.model, self.fed = ModelEpochs(checkpoint_every=1), 0
        self.outputs: list[Output] = []
        self.chunks: list[bytes] = []

    def push(self, topic: str, partition: int, raw: bytes) -> None:
        super().push(topic, partition, raw)
        while self.fed < len(self.logs[MARKET_LOG, 0]):
            offset, self.fed = self.fed, self.fed + 1
            for found in self.model.steps(MARKET_LOG, 0, offset, self.logs[MARKET_LOG, 0][offset]):
                for output in found:
                    self._carry(output)

    def _carry(self, output: Output) -> None:
        self.outputs.append(output)
        if output.topic == INSTRUMENTS:
            super().push(INSTRUMENTS, 0, output.value or b"")
        elif not (output.key or b"").endswith(b"/manifest"):
            self.chunks.append(output.value or b"")
        else:
            raw, self.chunks = b"".join(self.chunks), []
            kind = ResidualBank if raw.startswith(b"DPMERES") else ScenarioSet
            found = kind.from_bytes(raw)  # type: ignore[attr-defined]
            assert (output.key or b"").decode().split("/")[0] == found.digest
            (self.banks if kind is ResidualBank else self.sets)[found.digest] = found


def world(seed: int = 1, wild_from: int = 60) -> Inputs:
    """A calm market that becomes a wild one; a third coin is listed on the way."""
    rng, inputs = random.Random(seed), Inputs()
    listed = listings(RiskParameters(finality_depth_blocks=FINALITY, scenario_model=GOVERNED))
    inputs.add_listings(listed)
    price = {"X": 100.0, "Y": 10.0}
    for number in range(BLOCKS):
        ticks = genesis_ticks() if number == 0 else []
        for name in price:
            price[name] *= 1 + rng.gauss(0, 0.05 if number >= wild_from else 0.000_1)
            if number:
                ticks.append(spot(f"{name}{number}", name, time_of(number) - 300, price[name]))
        if number and number % 5 == 0:
            ticks.append(surface(f"s{number}", time_of(number) - 200, level=rng.uniform(0.8, 1.2)))
        if number == 30:
            inputs.add_listings([underlying("Z")])
            price["Z"] = 5.0
        inputs.add_block(number, [], ticks, None, declared=False, time_ms=time_of(number))
    return inputs


@lru_cache(maxsize=2)
def run(seed: int = 1) -> Modelled:
    pipeline, inputs = Modelled(), world(seed)
    place: dict[tuple[str, int], int] = {}
    for log in inputs.order:
        pipeline.push(*log, inputs.logs[log][place.get(log, 0)])
        place[log] = place.get(log, 0) + 1
    return pipeline


def drawn() -> list[ScenarioSet]:
    """The sets of all epochs, in the order of their listings."""
    digests = [orjson.loads(o.value or b"")["digest"] for o in run().outputs if o.topic == INSTRUMENTS]
    return [run().sets[digest] for digest in digests]


def test_every_epoch_has_a_set_that_takes_effect_and_is_named_by_its_epoch() -> None:
    listed = [orjson.loads(o.value or b"") for o in run().outputs if o.topic == INSTRUMENTS]
    first = time_of(0) // (BAR_MS * EPOCH_BARS)
    last = time_of(BLOCKS - 2 - FINALITY) // (BAR_MS * EPOCH_BARS)
    assert [one["id"] for one in listed] == [f"scenario-epoch-{n}" for n in range(first + 1, last + 1)]
    assert [one.seed for one in drawn()] == list(range(first + 1, last + 1))
    used = {orjson.loads(done)["scenario_digest"] for done in run().values(BLOCKS_DONE)}
    assert used >= {scenario_set().digest, *(one["digest"] for one in listed[:-1])}  # the last may wait for a block


def test_anyone_draws_the_sets_again_from_what_is_published() -> None:
    models = [one.model for one in drawn()]
    assert models[0] == MODEL
    assert models[-1] == FHS_MODEL
    for one in drawn():
        again = redraw(one) if one.model == MODEL else redraw_fhs(one, run().banks[one.source])
        assert again.digest == one.digest


def test_volatilities_follow_the_market_within_bounds_and_speeds() -> None:
    years = (GOVERNED.horizon_seconds / (365 * 86_400)) ** 0.5
    series = np.array([one.volatility_e9[one.underlyings.index("X")] / 1e9 / years for one in drawn()])
    assert series.min() >= GOVERNED.volatility_min_e6 / 1e6 * (1 - 1e-6)
    assert series.max() <= GOVERNED.volatility_max_e6 / 1e6 * (1 + 1e-6)
    ratio = series[1:] / series[:-1]
    assert ratio.max() <= 1.2 * (1 + 1e-6)
    assert ratio.min() >= 0.9 * (1 - 1e-6)
    assert series[0] == pytest.approx(REFERENCE_VOLATILITY, rel=1e-6)  # a calm market without a year of history
    assert ratio.max() == pytest.approx(1.2, rel=1e-6)  # as fast as it may, to its bound
    assert series[-1] == pytest.approx(GOVERNED.volatility_max_e6 / 1e6, rel=1e-6)


def test_a_coin_that_comes_later_joins_the_sets() -> None:
    assert [("Z" in one.underlyings) for one in (drawn()[0], drawn()[-1])] == [False, True]
    z = drawn()[-1]
    assert z.spot_log_return[z.underlyings.index("Z")].any()


def with_partitions(pipeline: Modelled, partitions: int) -> Modelled:
    """Where it goes on with another number of partitions: the model as it is, at the beginning of another log."""
    pipeline.model = ModelEpochs.load(pipeline.model.dump())
    pipeline.model.begin_log()
    pipeline.fed = 0
    made = pipeline.with_partitions(partitions)
    assert isinstance(made, Modelled)
    return made


@pytest.mark.parametrize("cut", [9, 150, 301])
def test_another_number_of_partitions_changes_no_set(cut: int) -> None:
    pipeline, inputs = Modelled(), world()
    place: dict[tuple[str, int], int] = {}
    for number, log in enumerate(inputs.order):
        if number == cut:
            pipeline = with_partitions(pipeline, 3)
        pipeline.push(*log, inputs.logs[log][place.get(log, 0)])
        place[log] = place.get(log, 0) + 1
    assert pipeline.outputs == run().outputs
    assert pipeline.model.next_offset == len(pipeline.logs[MARKET_LOG, 0])


@pytest.mark.parametrize("cut", [1, 40, 97, 150])
def test_a_worker_restored_anywhere_says_the_same(cut: int) -> None:
    log, outputs = run().logs[MARKET_LOG, 0], []
    model = ModelEpochs(checkpoint_every=1)
    for offset, raw in enumerate(log):
        if offset == cut:
            model = ModelEpochs.load(model.dump())
        for repeat in range(2 if offset == cut + 3 else 1):  # a repeated record changes nothing
            for found in model.steps(MARKET_LOG, 0, offset, raw):
                assert not (repeat and found)
                outputs += found
    assert outputs == run().outputs


def test_what_a_rollback_takes_back_no_bar_has_seen() -> None:
    """Blocks of a fork with wild prices are retracted before they are final: the same sets as without them."""
    log, model, outputs = run().logs[MARKET_LOG, 0], ModelEpochs(), []
    number, offset = 0, 0
    barriers = 0
    for raw in log:
        header = records.read_header(raw)
        forks = []
        if header.kind == records.BARRIER:
            barriers += 1
            if barriers == 50:
                barrier = records.read_barrier(raw, header)
                wild = barrier.market.spots.copy()
                wild["spot_usd9"] *= 3
                fork = barrier._replace(market=records.Market(wild, barrier.market.expiries))
                head = (header.block, header.time_ms, header.block_hash)
                forks = [
                    lambda n, f=fork, h=head: records.pack_barrier(
                        records.pack_header(records.BARRIER, n, *h, entries=len(f.counts)), f
                    ),
                    lambda n, h=head: records.pack_rollback(
                        records.pack_header(records.ROLLBACK, n, h[0] - 1, h[1] - 1_000, h[2]),
                        records.Rollback(1, h[0]),
                    ),
                ]
        for fork_record in forks:
            number += 1
            for found in model.steps(MARKET_LOG, 0, offset, fork_record(number)):
                outputs += found
            offset += 1
        if header.kind != records.FENCE:
            number += 1
        fields = list(records.HEADER.unpack_from(raw))
        fields[NUMBER_FIELD] = number if header.kind != records.FENCE else 0
        renumbered = records.HEADER.pack(*fields) + raw[records.HEADER.size :]
        for found in model.steps(MARKET_LOG, 0, offset, renumbered):
            outputs += found
        offset += 1
    assert outputs == run().outputs


def test_without_epochs_nothing_is_said() -> None:
    model = ModelEpochs()
    quiet = Pipeline({scenario_set().digest: scenario_set()}, 1)
    quiet.push_listings(listings(RiskParameters(finality_depth_blocks=0)))
    for number in range(6):
        ticks = [spot(f"x{number}", "X", time_of(number) - 300, 100 + number)] if number else genesis_ticks()
        quiet.push_block(
            event("block", f"b{number}") | {"number": number, "hash": "0x" + f"{number + 1:064x}",
            "parent_hash": "0x" + f"{number:064x}", "time_ms": time_of(number), "event_count": 0}, [], ticks,
        )  # fmt: skip
    for offset, raw in enumerate(quiet.logs[MARKET_LOG, 0]):
        assert [o for found in model.steps(MARKET_LOG, 0, offset, raw) for o in found] == []


def test_a_grown_state_is_the_old_one_with_strangers() -> None:
    rng = np.random.default_rng(4)
    small, large = ModelSpec(("X",), ("X",), residuals=300), ModelSpec(("X", "Z"), ("X", "Z"), residuals=300)
    state, alone = RiskModelState(small), RiskModelState(small)
    for n in range(80):
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 1)))[0]
        bar = {"X": Bar(close * 1.001, close * 0.999, close)}
        if n == 50:
            state = extended(state, large)
        more = {"Z": Bar(6.0 + n / 100, 5.0, 5.5 + n / 200)} if n >= 50 else {}
        for one, bars in ((state, bar | more), (alone, bar)):
            smiles = {name: (0.6 + 0.001 * n, -0.5 + 0.02 * (n % 3)) for name in bars if name == "X" or n >= 50}
            volatilities = {name: level for name, (level, _) in smiles.items()}
            one.update(
                (n + 1) * 3_600_000, bars, volatilities, {name: (s, 2 + s, s / 9) for name, (_, s) in smiles.items()}
            )
    assert state.spot_stddev(0, 80 * 3_600_000, 1) == alone.spot_stddev(0, 80 * 3_600_000, 1)
    np.testing.assert_array_equal(state.residuals(1)[:, 0], alone.residuals(1)[:, 0])
    assert [state.surface_stddev(f, 1) for f in (0, 2, 4, 6)] == [alone.surface_stddev(f, 1) for f in (0, 1, 2, 3)]
    np.testing.assert_array_equal(state.returns[0].last(99), alone.returns[0].last(99))
    assert np.isfinite(state.stddev(1)).all()
    for wrong in (ModelSpec(("Z", "X"), ("X",), residuals=300), ModelSpec(("X", "Z"), ("X",), residuals=301)):
        with pytest.raises(ValueError, match=r"assets|lengths"):
            extended(alone, wrong)


@pytest.mark.parametrize(
    "fields",
    [{"scenarios": 1_000}, {"volatility_min_e6": 5, "volatility_max_e6": 4}, {"bar_ms": 7_000, "horizon_seconds": 60}],
)
def test_governed_numbers_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match="scenario_model"):
        parse_parameters({"scenario_model": fields})
