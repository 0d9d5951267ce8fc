"""The documented examples, as they stand: what they send is taken, and they say the same."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from schemas.topics import BLOCKS_DONE, INPUTS, QUARANTINE, topic_specs
from streams.pipeline.config import PipelineConfig
from streams.runtime.kafka_process import Broker, KafkaBroker
from streams.runtime.log_reader import LogReader
from streams.runtime.settings import RuntimeSettings
from streams.runtime.topics_admin import TopicSpec, delete_topics, ensure_topics
from streams.simulate.in_process import INPUT_PARTITIONS, Pipeline

ROOT = Path(__file__).parents[2]
PRODUCER = ROOT / "infra" / "examples" / "produce_inputs.py"


@pytest.fixture
def settings(broker: Broker) -> Iterator[RuntimeSettings]:
    """A fresh installation's topics."""
    made = PipelineConfig(bootstrap=broker.address, prefix=f"t{uuid.uuid4().hex[:10]}.", folder="").settings()
    specs = [TopicSpec(made.topic(spec.name), spec.partitions, spec.configs) for spec in topic_specs(1)]
    asyncio.run(ensure_topics(broker.address, specs))
    yield made
    asyncio.run(delete_topics(broker.address, [spec.name for spec in specs]))


async def records_of(settings: RuntimeSettings) -> list[tuple[str, int, bytes]]:
    """Everything on the input topics."""
    reader = LogReader(settings)
    await reader.start()
    try:
        found = []
        for name in INPUTS:
            for partition in range(INPUT_PARTITIONS[name]):
                topic = settings.topic(name)
                read = await reader.read(topic, partition, *await reader.bounds(topic, partition))
                found += [(name, partition, record.value) for record in read]
        return found
    finally:
        await reader.stop()


def taken(records: list[tuple[str, int, bytes]]) -> Pipeline:
    """The engine over the records: nothing is refused, the block closes with both events."""
    run = Pipeline({}, 1)
    for record in records:
        run.push(*record)
    assert run.values(QUARANTINE) == []
    done = [orjson.loads(value) for value in run.values(BLOCKS_DONE)]
    assert [(d["block"], d["accounts"], d["events"]) for d in done] == [(1, 1, 2)]
    return run


def produce(settings: RuntimeSettings) -> None:
    command = [sys.executable, str(PRODUCER), settings.bootstrap, settings.prefix]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_the_producer_in_python(settings: RuntimeSettings) -> None:
    produce(settings)
    taken(asyncio.run(records_of(settings)))
    produce(settings)
    assert taken(asyncio.run(records_of(settings))).sequencer.intake.repeats == 6


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
def test_the_console_producer(settings: RuntimeSettings, kafka_process: KafkaBroker) -> None:
    """The commands of infra/docs/inputs.md, with the address, prefix and jars of this test's broker."""
    text = (ROOT / "infra" / "docs" / "inputs.md").read_text()
    (script,) = re.findall(r"```sh\n(.*?)```", text, re.S)
    for written, here in (
        ("127.0.0.1:9092", settings.bootstrap),
        ("--topic dpme.", f"--topic {settings.prefix}"),
        (".dpme/kafka/lib", str(kafka_process.library)),
    ):
        assert script.count(written) == 4
        script = script.replace(written, here)
    ended = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    records = asyncio.run(records_of(settings))
    taken(records)
    produce(settings)
    assert taken(asyncio.run(records_of(settings))).sequencer.intake.repeats == 6  # both say the same
