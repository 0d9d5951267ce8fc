"""The doctor on an installation: a broker without topics, with them, and with wrong ones; a store that is not there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.topics import topic_specs
from streams.cli.doctor_installation import check_installation
from streams.cli.findings import BAD, OK, OPTIONAL, Finding
from streams.runtime.kafka_process import DevelopmentBroker, free_port
from streams.runtime.topics_admin import TopicSpec, ensure_topics


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevelopmentBroker]:
    with DevelopmentBroker(tmp_path_factory.mktemp("broker")) as made:
        yield made


def config_file(folder: Path, **fields: Any) -> Path:
    path = folder / "live.json"
    path.write_text(json.dumps({"prefix": "d.", "folder": str(folder), "partitions": 2, **fields}))
    return path


def found(path: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in check_installation(path)}


def make_topics(address: str, prefix: str, **changed: str) -> None:
    specs = [TopicSpec(prefix + s.name, s.partitions, {**s.configs, **changed}) for s in topic_specs(2)]
    asyncio.run(ensure_topics(address, specs))


def test_topics_missing_right_and_wrong(broker: DevelopmentBroker, tmp_path: Path) -> None:
    path = config_file(tmp_path, bootstrap=broker.address, prefix="right.", store=str(tmp_path / "store"))
    said = found(path)
    assert (said["configuration"].verdict, said["broker"].verdict, said["store"].verdict) == (OK, OK, OK)
    assert said["topics"].verdict == BAD
    assert "dpme run topics" in said["topics"].advice
    make_topics(broker.address, "right.")
    assert found(path)["topics"].verdict == OK
    make_topics(broker.address, "short.", **{"retention.ms": "1000"})
    said = found(config_file(tmp_path, bootstrap=broker.address, prefix="short."))
    assert said["topics"].verdict == OPTIONAL
    assert "retention.ms is 1000, wanted -1" in said["topics"].found
    said = found(config_file(tmp_path, bootstrap=broker.address, prefix="right.", partitions=3))
    assert "has 2 partitions, not 3" in said["topics"].found


def test_a_broker_and_a_server_that_are_not_there(tmp_path: Path) -> None:
    store = f"clickhouse://127.0.0.1:{free_port()}/dpme"
    said = found(config_file(tmp_path, bootstrap=f"127.0.0.1:{free_port()}", store=store))
    assert (said["broker"].verdict, said["store"].verdict) == (BAD, BAD)
    assert "mend bootstrap" in said["broker"].advice
    assert "no ClickHouse answers" in said["store"].found


def test_a_wrong_configuration_is_the_only_finding(tmp_path: Path) -> None:
    said = found(config_file(tmp_path, bootstrap="b:1", partitions="two"))
    assert list(said) == ["configuration"]
    assert "field partitions" in said["configuration"].found
    assert list(found(tmp_path / "nothing.json")) == ["configuration"]
