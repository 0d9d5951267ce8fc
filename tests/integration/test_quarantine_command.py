"""`dpme quarantine` on a broker: what the sequencer refused is listed, shown, and sent again; nothing counts twice."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import orjson
import pytest
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1]))
from engine_worlds import Inputs, block, cash, fill, genesis_ticks, listings, time_of

from schemas.topics import ACCOUNT_FILLS, BLOCKS_DONE, CHAIN_BLOCKS, QUARANTINE, topic_specs
from streams.cli.quarantine import app
from streams.pipeline.config import PipelineConfig, write_config
from streams.runtime.kafka_process import Broker
from streams.runtime.log_reader import LogReader
from streams.runtime.producer import new_producer
from streams.runtime.topics_admin import TopicSpec, delete_topics, ensure_topics
from streams.simulate.in_process import Pipeline


class Installation:
    """The pure pipeline, with its inputs and its quarantine on a broker."""

    def __init__(self, address: str, folder: Path) -> None:
        self.config = PipelineConfig(
            bootstrap=address, prefix=f"t{uuid.uuid4().hex[:10]}.", folder=str(folder), partitions=1
        )
        self.settings, self.file = self.config.settings(), folder / "config.json"
        self.names = [self.settings.topic(spec.name) for spec in topic_specs(1)]
        write_config(self.file, self.config)
        specs = [TopicSpec(self.settings.topic(s.name), s.partitions, s.configs) for s in topic_specs(1)]
        asyncio.run(ensure_topics(address, specs))
        inputs = Inputs()
        inputs.add_listings(listings())
        wrong = [fill("f", 0, "a", "Z", 1, 100), {**cash("m", 0, "a", 1), "amount_usd6": "1"}]
        inputs.add_block(0, [cash("c", 0, "a", 1_000), *wrong], genesis_ticks(), len(listings()))
        inputs.add(ACCOUNT_FILLS, b"\xff", 2)
        self.pipeline: Pipeline = inputs.pipeline(1)
        asyncio.run(self._publish())

    async def _publish(self) -> None:
        producer = new_producer(self.settings)
        await producer.start()
        try:
            for (topic, partition), values in self.pipeline.logs.items():
                if topic in (ACCOUNT_FILLS, QUARANTINE):
                    for value in values:
                        await producer.send_and_wait(self.settings.topic(topic), value, partition=partition)
        finally:
            await producer.stop()

    def command(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--config", str(self.file)])

    def json(self, *arguments: str) -> dict:
        result = self.command(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return orjson.loads(result.stdout.splitlines()[-1])

    def take_new(self) -> None:
        """Give the sequencer what came to the broker behind what it has read."""
        for partition, value in asyncio.run(self._new()):
            self.pipeline.push(ACCOUNT_FILLS, partition, value)

    async def _new(self) -> list[tuple[int, bytes]]:
        reader = LogReader(self.settings)
        await reader.start()
        topic, found = self.settings.topic(ACCOUNT_FILLS), []
        try:
            for partition in range(4):
                _, end = await reader.bounds(topic, partition)
                held = len(self.pipeline.logs[ACCOUNT_FILLS, partition])
                found += [(partition, r.value) for r in await reader.read(topic, partition, held, end)]
        finally:
            await reader.stop()
        return found

    def done(self) -> list[int]:
        return [orjson.loads(value)["events"] for value in self.pipeline.values(BLOCKS_DONE)]


@pytest.fixture
def installation(broker: Broker, tmp_path: Path) -> Iterator[Installation]:
    made = Installation(broker.address, tmp_path)
    yield made
    asyncio.run(delete_topics(broker.address, made.names))


def test_list_show_and_replay(installation: Installation, tmp_path: Path) -> None:
    listed = installation.json("list")
    assert sorted(e["reason"] for e in listed["entries"]) == ["malformed", "unknown_instrument", "wrong_type"]
    (unknown,) = installation.json("list", "--reason", "unknown_instrument", "--block-to", "0")["entries"]
    shown = installation.command("show", unknown["id"]).output
    assert '"instrument":"Z"' in shown
    assert "list the instrument" in shown

    assert installation.json("replay", "--reason", "unknown_instrument")["sent"] == 0  # without --yes
    installation.take_new()
    assert installation.pipeline.sequencer.intake.repeats == 0
    assert installation.json("replay", unknown["id"], "--yes")["sent"] == 1
    installation.take_new()
    assert installation.pipeline.sequencer.intake.repeats == 1  # the same bytes: recognised

    corrected = tmp_path / "corrected.json"
    corrected.write_bytes(orjson.dumps(fill("f", 1, "a", "X-PERP", 1, 100)) + b"\n")
    for _ in range(2):  # sent twice, it counts once
        assert installation.json("replay", unknown["id"], "--edit", str(corrected), "--yes")["sent"] == 1
    installation.take_new()
    installation.pipeline.push(CHAIN_BLOCKS, 0, orjson.dumps(block(1, time_of(1), 1, 0, None)))
    assert installation.done() == [1, 1]
    assert installation.pipeline.sequencer.intake.repeats == 2
    assert installation.json("replay", unknown["id"], "--edit", str(corrected), "--yes")["sent"] == 1
    installation.take_new()
    assert installation.pipeline.sequencer.intake.repeats == 3  # after the close too


def test_what_cannot_be_taken_is_not_sent(installation: Installation) -> None:
    refused = installation.command("replay", "--reason", "malformed", "--yes")
    assert refused.exit_code == 1
    assert "would be refused again" in refused.output
    assert "not in quarantine" in str(installation.command("show", "account.fills/9/9/9").exception)
    assert installation.command("replay").exit_code == 2
    assert installation.command("list", "--reason", "bad").exit_code == 2


def test_a_missing_topic_is_named(broker: Broker, tmp_path: Path) -> None:
    config = PipelineConfig(bootstrap=broker.address, prefix="nobody.", folder=str(tmp_path))
    (tmp_path / "c.json").write_bytes(msgspec.json.encode(config))
    result = CliRunner().invoke(app, ["list", "--config", str(tmp_path / "c.json")])
    assert "has no topic nobody.quarantine" in str(result.exception)
