"""The model worker on a broker: scenario sets follow the market while it runs; a kill -9 in mid-work changes none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import orjson
from msgspec import UNSET, structs

from oracles.scenario_set import redraw
from schemas.events import ParametersListing
from schemas.risk_parameters import RiskParameters, ScenarioModel, parameters_document
from schemas.topics import BLOCKS_DONE
from streams.pipeline.run import RunOptions, run_world
from streams.pipeline.scenario_store import load_scenario_sets
from streams.replay.world import World
from streams.runtime.kafka_process import Broker
from streams.runtime.log_reader import LogReader
from streams.runtime.settings import RuntimeSettings
from streams.sink.current_run import read_current_run
from tests.chaos.world import chaos_world

BLOCKS, KILLED_AT = 40, 15
GOVERNED = RiskParameters(
    finality_depth_blocks=2,
    scenario_model=ScenarioModel(
        epoch_bars=2, bar_ms=2_000, horizon_seconds=60, scenarios=256, residuals=256, volatility_min_e6=200_000
    ),
)


def world() -> World:
    """The chaos world with epochs; its blocks do not count listings, for the model adds some."""
    made = chaos_world(seed=3, blocks=BLOCKS, events=200)
    listings = [
        structs.replace(one, document=parameters_document(GOVERNED)) if isinstance(one, ParametersListing) else one
        for one in made.listings
    ]
    blocks = (one._replace(block=structs.replace(one.block, listing_count=UNSET)) for one in made.blocks)
    return World(made.name, listings, made.scenario_set, GOVERNED, BLOCKS, blocks)


def test_sets_follow_the_market_and_a_killed_worker_draws_them_again(broker: Broker, tmp_path: Path) -> None:
    killed: list[int] = []

    def listener(kind: str, event: dict[str, Any]) -> None:
        if kind == "block_done" and event["block"] == KILLED_AT:
            killed.append(int((tmp_path / "run" / "workers" / "model.pid").read_text()))
            os.kill(killed[0], signal.SIGKILL)

    options = RunOptions(broker.address, tmp_path, 1, 2, paced_ms=200, sink=False, gateway=False, model=True)
    figures = run_world(world(), options, listener).figures
    assert figures["blocks"] == BLOCKS
    assert killed
    digests, sets = asyncio.run(_recorded(tmp_path))
    assert len(set(digests)) >= 4
    for digest in set(digests[1:]) - {world().scenario_set.digest}:
        assert redraw(sets[digest]).digest == digest
    epochs = [sets[digest].seed for digest in digests[1:] if digest != world().scenario_set.digest]
    assert epochs == sorted(epochs)
    with contextlib.suppress(ProcessLookupError):
        os.kill(killed[0], 0)
        raise AssertionError("the killed worker is still there")


async def _recorded(data: Path) -> tuple[list[str], dict[str, Any]]:
    """(scenario digest of every block in order, every set on the broker)."""
    run = read_current_run(data)
    assert run is not None
    settings = RuntimeSettings(bootstrap=run.bootstrap, prefix=run.prefix)
    reader = LogReader(settings)
    await reader.start()
    try:
        topic = settings.topic(BLOCKS_DONE)
        low, high = await reader.bounds(topic, 0)
        done = [orjson.loads(record.value) for record in await reader.read(topic, 0, low, high)]
    finally:
        await reader.stop()
    return [one["scenario_digest"] for one in done], await load_scenario_sets(settings)
