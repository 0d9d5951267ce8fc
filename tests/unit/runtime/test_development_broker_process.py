"""The development broker as a process: what it prints, whom it refuses, and raw bytes on its port."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import BrokerResponseError, KafkaError

from streams.runtime.kafka_process import BrokerError, DevelopmentBroker, KafkaBroker
from streams.runtime.topics_admin import TopicSpec, ensure_topics

COMMAND = [sys.executable, "-m", "streams.runtime.development_broker"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevelopmentBroker]:
    with DevelopmentBroker(tmp_path_factory.mktemp("broker")) as running:
        assert isinstance(running, DevelopmentBroker)
        yield running


def refusal(*arguments: str) -> str:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_says_what_it_is_and_where(broker: DevelopmentBroker) -> None:
    said = broker.log_path.read_text().splitlines()[0]
    assert said == (
        "DPME development broker (single node, loopback only, not for production) "
        f"listening on 127.0.0.1:{broker.port}, log in {broker.home}"
    )


def test_a_second_broker_on_the_same_folder_is_refused(broker: DevelopmentBroker) -> None:
    said = refusal("--data", str(broker.home), "--port", "0")
    assert "is used by another broker: stop it, or give another folder" in said


def test_runs_in_a_session_of_its_own(broker: DevelopmentBroker) -> None:
    """Ctrl-C in a terminal signals the foreground process group: the broker is not in ours."""
    pid = broker.pid()
    assert pid is not None
    assert os.getsid(pid) == os.getpgid(pid) == pid != os.getsid(0)


def test_port_in_use(broker: DevelopmentBroker, tmp_path: Path) -> None:
    said = refusal("--data", str(tmp_path), "--port", str(broker.port))
    assert "in use" in said
    assert "another port by --port" in said


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "another folder by --data" in refusal("--data", str(tmp_path / "file" / "data"), "--port", "0")


def test_a_broker_that_does_not_start_is_reported_with_its_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BrokerError, match="in use"):
        DevelopmentBroker(tmp_path / "data", taken.getsockname()[1]).start()


@pytest.mark.parametrize("missing", ["java", "mvn"])
def test_kafka_without_java_or_maven_names_the_packages(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in {"java", "mvn"} - {missing}:
        (tools / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(BrokerError, match=f"{missing} is missing: apt install .*default-jre-headless maven"):
        KafkaBroker(tmp_path / "home", library=tmp_path / "lib").start()


def exchange(broker: DevelopmentBroker, frame: bytes) -> bytes:
    """Sends bytes; what comes back until the broker closes (empty) or one whole frame is there."""
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as connection:
        connection.sendall(frame)
        with connection.makefile("rb") as stream:
            size = stream.read(4)
            return stream.read(struct.unpack(">i", size)[0]) if size else b""


def frame(key: int, version: int, body: bytes) -> bytes:
    content = struct.pack(">hhih", key, version, 77, -1) + body
    return struct.pack(">i", len(content)) + content


@pytest.mark.parametrize(
    ("bytes_sent", "logged"),
    [
        (frame(24, 0, b""), "API 24 version 0 is not supported: use Apache Kafka"),
        (frame(3, 12, b""), "API 3 version 12 is not supported"),
        (frame(18, 3, b""), "API 18 version 3 is not supported"),
        (frame(3, 5, b"\x7f\xff\xff\xff"), "connection closed"),
        (frame(0, 7, b"\x00"), "connection closed"),
        (struct.pack(">i", 1 << 30), "a frame of 1073741824 bytes"),
        (struct.pack(">i", -5), "connection closed"),
        (b"GET / HTTP/1.1\r\n\r\n", "a frame of 1195725856 bytes"),
    ],
)
def test_what_cannot_be_answered_closes_the_connection(
    broker: DevelopmentBroker, bytes_sent: bytes, logged: str
) -> None:
    before = len(broker.log_path.read_text().splitlines())
    assert exchange(broker, bytes_sent) == b""
    lines = broker.log_path.read_text().splitlines()[before:]
    assert len(lines) == 1
    assert logged in lines[0]


def test_clients_are_told_the_versions(broker: DevelopmentBroker) -> None:
    answer = exchange(broker, frame(18, 0, b""))
    correlation_id, code, count = struct.unpack_from(">ihi", answer)
    assert (correlation_id, code) == (77, 0)
    table = {struct.unpack_from(">hhh", answer, 10 + 6 * i) for i in range(count)}
    assert {(0, 7, 7), (1, 4, 4), (11, 5, 5), (18, 0, 0)} <= table
    assert not {24, 25, 26, 28, 29} & {key for key, _, _ in table}


async def test_transactions_are_refused(broker: DevelopmentBroker) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.address, transactional_id="tx")
    with pytest.raises(KafkaError, match="UnsupportedVersion"):
        await producer.start()
    await producer.stop()


async def test_producer_ids_are_never_given_twice(tmp_path: Path) -> None:
    seen = []
    with DevelopmentBroker(tmp_path) as broker:
        for _ in range(3):
            producer = AIOKafkaProducer(bootstrap_servers=broker.address, enable_idempotence=True)
            await producer.start()
            seen.append(producer._txn_manager.producer_id)
            await producer.stop()
            broker.kill()
            broker.start()
    assert len(set(seen)) == 3


async def test_configurations_are_kept_over_a_kill(tmp_path: Path) -> None:
    with DevelopmentBroker(tmp_path) as broker:
        await ensure_topics(broker.address, [TopicSpec("kept", 2, {"cleanup.policy": "compact", "retention.ms": "-1"})])
        broker.kill()
        broker.start()
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
        await admin.start()
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "kept")])
        await admin.close()
    ((code, _, _, name, entries),) = answer.resources
    assert (code, name) == (0, "kept")
    assert {entry[0]: entry[1] for entry in entries} == {"cleanup.policy": "compact", "retention.ms": "-1"}


async def test_a_torn_log_of_a_killed_broker_is_mended(tmp_path: Path) -> None:
    with DevelopmentBroker(tmp_path) as broker:
        await ensure_topics(broker.address, [TopicSpec("torn", 1)])
        async with AIOKafkaProducer(bootstrap_servers=broker.address) as producer:
            for value in (b"one", b"two"):
                await producer.send_and_wait("torn", value)
        broker.kill()
        with open(tmp_path / "topics" / "torn" / "0.log", "ab") as file:
            file.write(os.urandom(40))
        broker.start()
        async with AIOKafkaProducer(bootstrap_servers=broker.address) as producer:
            assert (await producer.send_and_wait("torn", b"three")).offset == 2
        async with AIOKafkaConsumer("torn", bootstrap_servers=broker.address, auto_offset_reset="earliest") as consumer:
            assert [(await consumer.getone()).value for _ in range(3)] == [b"one", b"two", b"three"]


async def test_search_by_time_is_refused(broker: DevelopmentBroker) -> None:
    await ensure_topics(broker.address, [TopicSpec("times", 1)])
    async with AIOKafkaConsumer("times", bootstrap_servers=broker.address) as consumer:
        with pytest.raises(BrokerResponseError, match="UnsupportedVersion"):
            await consumer.offsets_for_times(dict.fromkeys(consumer.assignment(), 5))
