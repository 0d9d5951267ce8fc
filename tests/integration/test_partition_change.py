"""`dpme partitions change` on a broker: the outputs go on as the pure engine's, whatever is killed in mid-change."""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from msgspec import UNSET, structs
from typer.testing import CliRunner, Result

from oracles.risk_model.bars import Bars, write_bars
from schemas.events import OpenInterestListing, ParametersListing
from schemas.margin_batch import decode_batch
from schemas.risk_parameters import RiskParameters, ScenarioModel, parameters_document
from schemas.topics import INSTRUMENTS, MARGIN_BATCHES, MARKET_LOG, PUBLIC_OUTPUTS, topic_specs
from streams.cli.errors import CommandError
from streams.cli.partitions import app
from streams.engine.model_epochs import ModelEpochs
from streams.engine.output import Output
from streams.pipeline import partition_change
from streams.pipeline.config import PipelineConfig, read_config, write_config
from streams.pipeline.feed import Feeder
from streams.pipeline.model_state import mean_open_interest_usd
from streams.pipeline.observe import Observer
from streams.pipeline.scenario_store import publish_scenario_set
from streams.replay.world import BlockInputs, World
from streams.runtime.kafka_process import Broker
from streams.runtime.log_reader import LogReader
from streams.runtime.topics_admin import TopicSpec, delete_topics, ensure_topics
from streams.simulate.in_process import Pipeline
from tests.chaos.arena import read_back, workers
from tests.chaos.expected import Values
from tests.chaos.verdict import take
from tests.chaos.world import chaos_world

BLOCKS = 14


OPEN_INTEREST = OpenInterestListing(version=1, id="open", underlying="BTC", time_ms=0, open_usd6=50_000 * 10**6)


class Installation:
    """Workers, inputs and outputs of a configuration that may change."""

    def __init__(
        self, broker: Broker, folder: Path, world: World | None = None, parameters: RiskParameters | None = None
    ) -> None:
        """With `parameters` a model worker adds listings, so that blocks do not count them."""
        self.world = world or chaos_world(seed=11, blocks=BLOCKS, events=300)
        self.blocks = list(self.world.blocks)
        if parameters is not None:
            document = ParametersListing(version=1, id="parameters", document=parameters_document(parameters))
            listings = [document if isinstance(one, ParametersListing) else one for one in self.world.listings]
            self.world = replace(self.world, listings=[*listings, OPEN_INTEREST])
            self.blocks = [one._replace(block=structs.replace(one.block, listing_count=UNSET)) for one in self.blocks]
        first = PipelineConfig(
            bootstrap=broker.address, prefix=f"t{uuid.uuid4().hex[:10]}.", folder=str(folder), partitions=2,
            session_s=2.0, checkpoint_every=3, log_format="json", model=parameters is not None,
        )  # fmt: skip
        self.file = folder / "config.json"
        write_config(self.file, first)
        asyncio.run(self._prepare(first))

    async def _prepare(self, config: PipelineConfig) -> None:
        settings = config.settings()
        specs = [TopicSpec(settings.topic(s.name), s.partitions, s.configs) for s in topic_specs(config.partitions)]
        await ensure_topics(config.bootstrap, specs)
        await publish_scenario_set(settings, self.world.scenario_set)
        await self._fed(config, lambda feeder: feeder.send_listings(self.world))

    async def _fed(self, config: PipelineConfig, work: Any) -> None:
        feeder = Feeder(config.settings())
        await feeder.start()
        try:
            await work(feeder)
        finally:
            await feeder.stop()

    @property
    def config(self) -> PipelineConfig:
        return read_config(self.file)

    def run(self, blocks: list[BlockInputs]) -> None:
        """Feed the blocks to the workers until all is done, then stop these."""
        with workers(self.config):
            asyncio.run(self._run(blocks))

    async def _run(self, blocks: list[BlockInputs]) -> None:
        config = self.config
        observer = Observer(config.settings(), config.partitions, lambda *_: None)
        reading = asyncio.create_task(observer.run())

        async def feed(feeder: Feeder) -> None:
            for inputs in blocks:
                await feeder.send_inputs(inputs)
                await feeder.announce(inputs)

        try:
            await self._fed(config, feed)
            last = blocks[-1].block.number
            await observer.wait_for(lambda: observer.is_done(last) and observer.is_enforced(), 120)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def outputs(self, generation: int, partitions: int) -> Values:
        """What readers take of a generation."""
        settings = structs.replace(self.config, generation=generation).settings()
        return take(asyncio.run(read_back(settings, partitions))).values

    def command(self, *arguments: str) -> dict:
        """What another command prints of the installation."""
        module = importlib.import_module(f"streams.cli.{arguments[0]}")
        found = CliRunner().invoke(module.app, [*arguments[1:], "--config", str(self.file), "--json"])
        assert found.exit_code == 0, found.output
        made: dict = json.loads(found.stdout.splitlines()[-1])
        return made

    def change(self, to: int) -> Result:
        return CliRunner().invoke(app, ["change", "--config", str(self.file), "--to", str(to), "--json"])

    def pure(self, blocks: list[BlockInputs], before: Pipeline | None = None) -> Pipeline:
        pipeline = before or Pipeline({self.world.scenario_set.digest: self.world.scenario_set}, 2)
        if before is None:
            pipeline.push_listings(self.world.listings)
        for inputs in blocks:
            pipeline.push_block(*inputs)
        return pipeline


def of_outputs(pipeline: Pipeline) -> Values:
    return {log: values for log, values in pipeline.logs.items() if log[0] in PUBLIC_OUTPUTS}


@pytest.fixture
def installation(broker: Broker, tmp_path: Path) -> Iterator[Installation]:
    made = Installation(broker, tmp_path)
    yield made
    asyncio.run(_remove_all(made.config))


async def _remove_all(config: PipelineConfig) -> None:
    reader = LogReader(config.settings())
    await reader.start()
    names = [topic for topic in await reader.topics() if topic.startswith(config.prefix)]
    await reader.stop()
    await delete_topics(config.bootstrap, names)


def test_outputs_go_on_as_the_pure_engines_and_inputs_may_come_meanwhile(installation: Installation) -> None:
    half = BLOCKS // 2
    first, rest = installation.blocks[:half], installation.blocks[half:]
    installation.run(first)
    pure = installation.pure(first)
    assert installation.outputs(0, 2) == of_outputs(pure)
    done = json.loads(installation.change(3).stdout.splitlines()[-1])
    assert (done["partitions"], done["generation"], done["block"]) == (3, 1, first[-1].block.number)
    assert (installation.config.partitions, installation.config.generation) == (3, 1)
    installation.run(rest[:4])
    assert installation.change(1).exit_code == 0
    installation.run(rest[4:])
    second = installation.pure(rest[:4], pure.with_partitions(3))
    third = installation.pure(rest[4:], second.with_partitions(1))
    assert installation.outputs(1, 3) == of_outputs(second)
    assert installation.outputs(2, 1) == of_outputs(third)
    head, table = decode_batch(third.values(MARGIN_BATCHES)[-1])
    account = table.column("account")[0].as_py()
    for command in (["margin", "show", account], ["margin", "show", account, "--block", str(head.block)]):
        shown = installation.command(*command)
        assert (shown["block"], shown["margin"]["nlv_usd6"]) == (head.block, table.column("nlv_usd6")[0].as_py())
    told = [step for step in installation.command("trace", account)["steps"] if step["step"] == "margin"]
    assert [step["block"] for step in told] == [inputs.block.number for inputs in rest[4:]]


def killed_at(installation: Installation, phase: str) -> None:
    """Start the command as a process of its own and kill -9 it when it says that the phase begins."""
    command = [sys.executable, "-m", "streams.cli.main", "partitions", "change"]
    arguments = ["--config", str(installation.file), "--to", "3"]
    with subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(phase):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL, f"it never came to {phase!r}"


def test_killed_in_mid_change_it_goes_on_as_before_or_is_finished(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = installation.blocks[:4], installation.blocks[4:8], installation.blocks[8:]
    installation.run(first)
    for phase in ("applying account.log", "writing checkpoints"):
        killed_at(installation, phase)
        assert (installation.config.partitions, installation.config.generation) == (2, 0)
    installation.run(second)  # nothing has happened to it
    pure = installation.pure([*first, *second])
    assert installation.outputs(0, 2) == of_outputs(pure)

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # the last moment: sealed, the configuration is still the old one
        patched.setattr(partition_change, "_rewrite", dies)
        installation.change(3)
    assert installation.config.partitions == 2
    assert "must be finished first: --to 3" in str(installation.change(4).exception)
    assert installation.change(3).exit_code == 0
    assert installation.config.generation > 1, "the topics of the change that was killed are not taken up again"
    installation.run(third)
    outputs = installation.outputs(installation.config.generation, 3)
    assert outputs == of_outputs(installation.pure(third, pure.with_partitions(3)))
    names = asyncio.run(_topics(installation.config))
    assert not [name for name in names if name.endswith(".g1")], "what was begun and left is removed"


async def _topics(config: PipelineConfig) -> list[str]:
    reader = LogReader(config.settings())
    await reader.start()
    try:
        return [topic for topic in await reader.topics() if topic.startswith(config.prefix)]
    finally:
        await reader.stop()


def test_what_cannot_be_changed_says_why_and_stays(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    before = installation.file.read_bytes()
    installation.run(installation.blocks[:2])
    assert "has 2 partitions already" in str(installation.change(2).exception)
    monkeypatch.setenv("DPME_PARTITIONS", "2")
    assert "DPME_PARTITIONS wins over" in str(installation.change(3).exception)
    monkeypatch.delenv("DPME_PARTITIONS")
    with workers(installation.config):
        asyncio.run(installation._run(installation.blocks[2:4]))
        refused = installation.change(3)
        assert isinstance(refused.exception, CommandError)
        assert "workers still run: enforcement, risk-0, sequencer" in str(refused.exception)
    assert installation.file.read_bytes() == before


def test_a_sequencer_of_the_old_generation_stops_at_the_seal(installation: Installation) -> None:
    """A worker somewhere else with the old configuration must not go on beside the new installation."""
    installation.run(installation.blocks[:2])
    old = installation.config
    assert installation.change(1).exit_code == 0
    stray = installation.file.with_name("stray.json")
    write_config(stray, old)
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.cli.main", "run", "sequencer", "--config", str(stray)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = next(line for line in process.stderr if '"die"' in line)
    finally:
        process.kill()
        process.communicate()
    assert "market.log is over: 1 partitions now, generation 1" in said


FOLLOWED = RiskParameters(
    finality_depth_blocks=1,
    scenario_model=ScenarioModel(epoch_bars=2, bar_ms=1_000, horizon_seconds=60, scenarios=256, residuals=256),
)


async def _records(config: PipelineConfig, topic: str) -> list[tuple[bytes, tuple]]:
    reader = LogReader(config.settings())
    await reader.start()
    name = config.settings().topic(topic)
    found = await reader.read(name, 0, *await reader.bounds(name, 0))
    await reader.stop()
    return [(record.value, tuple(record.headers)) for record in found]


def _bars(folder: Path) -> Path:
    """Forty days of a market with ten thousand times the open interest as volume."""
    close = 100.0 * np.exp(np.cumsum(np.random.default_rng(1).normal(0.0, 0.01, 960)))
    times = 3_600_000 * np.arange(480_000, 480_960)
    write_bars(Bars("BTC", 3_600_000, times, close, close, close, close, np.full(960, 1e6)), folder / "bars.csv")
    return folder / "bars.csv"


def test_the_risk_model_goes_with_it(broker: Broker, tmp_path: Path) -> None:
    """Sets and listings over two changes are those of one model that was fed the logs of all generations."""
    installation = Installation(broker, tmp_path, parameters=FOLLOWED)
    configs = [installation.config]
    for blocks, partitions in ((installation.blocks[:7], 3), (installation.blocks[7:], 1)):
        installation.run(blocks)
        assert installation.change(partitions).exit_code == 0  # says what the worker had not said when it stopped
        configs.append(installation.config)
    pure, said = ModelEpochs(), list[Output]()
    for config in configs:
        before = len(said)
        for offset, (value, headers) in enumerate(asyncio.run(_records(config, MARKET_LOG))):
            said += [o for found in pure.steps(MARKET_LOG, 0, offset, value, headers) for o in found]
        pure.begin_log()
        assert len(said) > before or config is configs[-1], "each generation has sets of its own"
    expected = [orjson.loads(o.value or b"") for o in said if o.topic == INSTRUMENTS]
    values = [orjson.loads(value) for value, _ in asyncio.run(_records(installation.config, INSTRUMENTS))]
    listed = [one for value in values for one in (value if isinstance(value, list) else [value])]
    epochs = {one["id"]: one["digest"] for one in listed if str(one["id"]).startswith("scenario-epoch")}
    assert list(epochs.items()) == [(one["id"], one["digest"]) for one in expected]
    assert pure.model is not None
    assert mean_open_interest_usd(pure) == {"BTC": 50_000.0}
    suggested = installation.command("parameters", "suggest", "--bars", f"BTC={_bars(tmp_path)}")
    tiers = suggested["document"]["concentration"][0]["tiers"]
    assert tiers[-1]["above_usd6"] < 10**6 * 10**6, "by the open interest of 50,000 USD, not by the volume of billions"
    asyncio.run(_remove_all(installation.config))
