"""The model worker on a broker: sets follow the market, fits are made beside it; a kill -9 in mid-work changes none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import orjson
from aiokafka.structs import ConsumerRecord
from msgspec import UNSET, structs

from oracles.risk_model.refits import FitRequest, fitted
from oracles.scenario_set import redraw
from schemas.events import ParametersListing
from schemas.risk_parameters import RiskParameters, ScenarioModel, VarianceModel, parameters_document
from schemas.topics import BLOCKS_DONE, INSTRUMENTS, MARKET_LOG
from streams.engine.model_epochs import ModelEpochs
from streams.engine.output import Output
from streams.pipeline.config import PipelineConfig
from streams.pipeline.feed import Feeder
from streams.pipeline.observe import Observer
from streams.pipeline.run import RunOptions, prepare, workers
from streams.pipeline.scenario_store import load_scenario_sets
from streams.replay.world import BlockInputs, World
from streams.runtime.kafka_process import Broker
from streams.runtime.log_reader import LogReader
from tests.chaos.world import BLOCK_MS, START_MS, chaos_world
from tests.waiting import wait_until

BLOCKS, PART, LIMIT_S, FINALITY, BAR_MS, EPOCH_BARS = 40, 18, 90.0, 2, 2_000, 2
GOVERNED = RiskParameters(
    finality_depth_blocks=FINALITY,
    scenario_model=ScenarioModel(
        epoch_bars=EPOCH_BARS, bar_ms=BAR_MS, horizon_seconds=60, scenarios=256, residuals=256,
        volatility_min_e6=200_000,
    ),
)  # fmt: skip


REFITTED_BLOCKS, ASKED_AT, REFIT_BARS = 60, 34, 15  # the block that asks for the first fits is the 34th
REFITTED = structs.replace(
    GOVERNED,
    scenario_model=structs.replace(
        GOVERNED.scenario_model, bar_ms=BLOCK_MS, epoch_bars=4,
        variance=VarianceModel(
            kind="gjr-skew-t", refit_bars=REFIT_BARS, fit_bars=40, fit_bars_min=30, refit_delay_blocks=14,
        ),
    ),
)  # fmt: skip


def world(parameters: RiskParameters, blocks: int) -> World:
    """The chaos world with epochs; its blocks do not count listings, for the model adds some."""
    made = chaos_world(seed=3, blocks=blocks, events=200)
    listings = [
        structs.replace(one, document=parameters_document(parameters)) if isinstance(one, ParametersListing) else one
        for one in made.listings
    ]
    uncounted = (one._replace(block=structs.replace(one.block, listing_count=UNSET)) for one in made.blocks)
    return World(made.name, listings, made.scenario_set, parameters, blocks, uncounted)


class Site:
    """A pipeline with a model worker, fed by parts; a part ends when the model has said what it has to say of it."""

    def __init__(self, config: PipelineConfig, blocks: Iterator[BlockInputs]) -> None:
        self.settings, self.blocks = config.settings(), blocks
        self.observer = Observer(self.settings, config.partitions, lambda kind, event: None)
        self.feeder, self.reader = Feeder(self.settings), LogReader(self.settings)
        self.pid_file = Path(config.folder) / "model.pid"

    async def feed_only(self, count: int) -> int:
        """So many blocks, margined; the number of the last."""
        number = 0
        for _ in range(count):
            inputs = next(self.blocks)
            await self.feeder.send_inputs(inputs)
            await self.feeder.announce(inputs)
            number = inputs.block.number
            await self.observer.wait_for(partial(self.observer.is_done, number), LIMIT_S)
        return number

    async def feed(self, count: int) -> None:
        """So many blocks, and the sets of all epochs that end in them."""
        number = await self.feed_only(count)
        last = (START_MS + BLOCK_MS * (number - FINALITY)) // (BAR_MS * EPOCH_BARS)

        async def said() -> bool:
            return f"scenario-epoch-{last}" in await self.listed()

        await wait_until(said, LIMIT_S, poll_s=0.1)

    async def listed(self) -> list[str]:
        return [one["id"] for one in await self._events(INSTRUMENTS) if str(one.get("id")).startswith("scenario-epoch")]

    async def digests(self) -> list[str]:
        """Of the set that each block was margined by, in order."""
        return [one["scenario_digest"] for one in await self._events(BLOCKS_DONE)]

    async def _events(self, topic: str) -> list[dict]:
        found = [orjson.loads(record.value) for record in await self.records(topic)]
        return [one for value in found for one in (value if isinstance(value, list) else [value])]

    async def records(self, topic: str) -> list[ConsumerRecord]:
        name = self.settings.topic(topic)
        return await self.reader.read(name, 0, *await self.reader.bounds(name, 0))

    async def replayed(self) -> Replayed:
        """What a machine without any fitter makes of market.log, once every fit that it asks for is listed (the next
        block records it)."""
        found = replay(await self.records(MARKET_LOG))
        asked = {named(one) for one in found.requests}
        async with asyncio.timeout(LIMIT_S):
            while not asked <= {(one["underlying"], one["time_ms"]) for one in await self.listings("model_fit")}:
                await asyncio.sleep(0.1)
        return found

    async def listings(self, kind: str) -> list[dict]:
        """Of a type, repeats left out."""
        found = [one for one in await self._events(INSTRUMENTS) if one["type"] == kind]
        return list({one["id"]: one for one in found}.values())


class Replayed(NamedTuple):
    machine: ModelEpochs
    outputs: list[Output]
    requests: list[FitRequest]


def named(request: FitRequest) -> tuple[str, int]:
    return request.underlying, request.time_ms


def replay(log: list[ConsumerRecord]) -> Replayed:
    """The log through a machine, and all fits that it asked for."""
    machine, outputs = ModelEpochs(), list[Output]()
    requests: dict[tuple[str, int], FitRequest] = {}
    for record in log:
        for found in machine.steps(MARKET_LOG, 0, record.offset, record.value, record.headers):
            outputs += found
        requests |= {named(one): one for one in machine.requests()}
    return Replayed(machine, outputs, list(requests.values()))


@contextlib.asynccontextmanager
async def running(made: World, broker: Broker, folder: Path) -> AsyncIterator[Site]:
    """Workers with a model, listings sent, everything read."""
    options = RunOptions(broker.address, folder, 1, 2, sink=False, gateway=False, model=True)
    config = await prepare(made, options, broker.address)
    site = Site(config, made.blocks)
    with workers(config):
        reading = asyncio.create_task(site.observer.run())
        await asyncio.gather(site.feeder.start(), site.reader.start())
        try:
            await site.feeder.send_listings(made)
            yield site
        finally:
            reading.cancel()
            await asyncio.gather(reading, site.feeder.stop(), site.reader.stop(), return_exceptions=True)


async def test_sets_follow_the_market_and_a_killed_worker_draws_them_again(broker: Broker, tmp_path: Path) -> None:
    made = world(GOVERNED, BLOCKS)
    async with running(made, broker, tmp_path) as site:
        await site.feed(PART)
        before = await site.listed()
        os.kill(int(site.pid_file.read_text()), signal.SIGKILL)
        await site.feed(PART)
        await site.feed(BLOCKS - 2 * PART)
        listed, digests, sets = await site.listed(), await site.digests(), await load_scenario_sets(site.settings)
    epochs = list(dict.fromkeys(listed))
    assert epochs[: len(before)] == before
    assert [int(name.rpartition("-")[2]) for name in epochs] == sorted(
        {int(name.rpartition("-")[2]) for name in epochs}
    )
    used = [digest for digest in dict.fromkeys(digests) if digest and digest != made.scenario_set.digest]
    assert len(used) >= 3
    assert [sets[digest].seed for digest in used] == sorted(sets[digest].seed for digest in used)
    for digest in used:
        assert redraw(sets[digest]).digest == digest


async def test_fits_are_recorded_and_a_worker_killed_in_one_makes_it_again(broker: Broker, tmp_path: Path) -> None:
    made = world(REFITTED, REFITTED_BLOCKS)
    async with running(made, broker, tmp_path) as site:
        await site.feed_only(ASKED_AT)
        os.kill(int(site.pid_file.read_text()), signal.SIGKILL)
        assert (await site.replayed()).requests
        for blocks in (REFIT_BARS, REFITTED_BLOCKS - ASKED_AT - REFIT_BARS):
            await site.feed(blocks)
            replayed = await site.replayed()
        sets, fits = await site.listings("scenario_set"), await site.listings("model_fit")
    said = [orjson.loads(one.value or b"") for one in replayed.outputs if one.topic == INSTRUMENTS]
    assert [(one["id"], one["digest"]) for one in sets[1:]] == [(one["id"], one["digest"]) for one in said]
    assert len(replayed.requests) >= 4
    listed = {(one["underlying"], one["time_ms"]): one for one in fits}
    for request in replayed.requests:
        one, again = listed.pop(named(request)), fitted(request)
        assert {name: one[name] for name in again._fields} == again._asdict()
    assert not listed
    assert (replayed.machine.refits.late, replayed.machine.refits.lost) == (0, 0)
    model = replayed.machine.model
    assert model is not None
    assert sum(history.garch[0] > 0 for history in model.returns) >= 2
