"""Brokers for the integration suite: one process of each kind a session, fresh topic names for each test."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from streams.runtime.kafka_process import Broker, DevelopmentBroker, KafkaBroker
from streams.runtime.topics_admin import TopicSpec, delete_topics, ensure_topics

BROKERS = ["dev", pytest.param("kafka", marks=pytest.mark.kafka)]


@pytest.fixture(scope="session")
def dev_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with DevelopmentBroker(tmp_path_factory.mktemp("dev")) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    if missing:
        stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stop(f"{' and '.join(missing)} missing: apt install --no-install-recommends default-jre-headless maven")
    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Broker:
    """A running broker, started again if the test before left it dead."""
    process: Broker = request.getfixturevalue(f"{request.param}_process")
    process.start()
    return process


class Topics:
    """Topics under a prefix of their own."""

    def __init__(self, address: str) -> None:
        self.address, self.prefix, self.names = address, f"t{uuid.uuid4().hex[:10]}.", set[str]()

    async def make(self, name: str, partitions: int = 1, **configs: str) -> str:
        """Creates the topic and returns its full name; configuration names with _ for the dot."""
        dotted = {key.replace("_", "."): value for key, value in configs.items()}
        spec = TopicSpec(self.prefix + name, partitions, dotted)
        self.names.add(spec.name)
        await ensure_topics(self.address, [spec])
        return spec.name


@pytest.fixture
async def topics(broker: Broker) -> AsyncIterator[Topics]:
    made = Topics(broker.address)
    yield made
    broker.start()
    await delete_topics(broker.address, made.names)
