"""The model worker on a broker: scenario sets follow the market while it runs; a kill -9 in mid-work changes none."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import orjson
from msgspec import UNSET, structs

from oracles.scenario_set import redraw
from schemas.events import ParametersListing
from schemas.risk_parameters import RiskParameters, ScenarioModel, parameters_document
from schemas.topics import BLOCKS_DONE, INSTRUMENTS
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


def world() -> World:
    """The chaos world with epochs; its blocks do not count listings, for the model adds some."""
    made = chaos_world(seed=3, blocks=BLOCKS, events=200)
    listings = [
        structs.replace(one, document=parameters_document(GOVERNED)) if isinstance(one, ParametersListing) else one
        for one in made.listings
    ]
    blocks = (one._replace(block=structs.replace(one.block, listing_count=UNSET)) for one in made.blocks)
    return World(made.name, listings, made.scenario_set, GOVERNED, BLOCKS, blocks)


class Site:
    """A pipeline with a model worker, fed by parts; a part ends when the model has said what it has to say of it."""

    def __init__(self, config: PipelineConfig, blocks: Iterator[BlockInputs]) -> None:
        self.settings, self.blocks = config.settings(), blocks
        self.observer = Observer(self.settings, config.partitions, lambda kind, event: None)
        self.feeder, self.reader = Feeder(self.settings), LogReader(self.settings)
        self.pid_file = Path(config.folder) / "model.pid"

    async def feed(self, count: int) -> None:
        """So many blocks, and the sets of all epochs that end in them."""
        number = 0
        for _ in range(count):
            inputs = next(self.blocks)
            await self.feeder.send_inputs(inputs)
            await self.feeder.announce(inputs)
            number = inputs.block.number
            await self.observer.wait_for(partial(self.observer.is_done, number), LIMIT_S)
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
        name = self.settings.topic(topic)
        low, high = await self.reader.bounds(name, 0)
        found = [orjson.loads(record.value) for record in await self.reader.read(name, 0, low, high)]
        return [one for value in found for one in (value if isinstance(value, list) else [value])]


async def test_sets_follow_the_market_and_a_killed_worker_draws_them_again(broker: Broker, tmp_path: Path) -> None:
    made = world()
    options = RunOptions(broker.address, tmp_path, 1, 2, sink=False, gateway=False, model=True)
    config = await prepare(made, options, broker.address)
    site = Site(config, made.blocks)
    with workers(config):
        reading = asyncio.create_task(site.observer.run())
        await asyncio.gather(site.feeder.start(), site.reader.start())
        await site.feeder.send_listings(made)
        await site.feed(PART)
        before = await site.listed()
        os.kill(int(site.pid_file.read_text()), signal.SIGKILL)
        await site.feed(PART)
        await site.feed(BLOCKS - 2 * PART)
        listed, digests, sets = await site.listed(), await site.digests(), await load_scenario_sets(site.settings)
        reading.cancel()
        await asyncio.gather(reading, site.feeder.stop(), site.reader.stop(), return_exceptions=True)
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
