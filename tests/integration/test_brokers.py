"""What DPME needs of a broker, on the development broker and on Apache Kafka alike, with unmodified clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, MessageSizeTooLargeError
from aiokafka.structs import OffsetAndMetadata

from streams.runtime.kafka_process import Broker
from streams.runtime.topics_admin import TopicsError, TopicSpec, delete_topics, ensure_topics
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.integration.conftest import Topics

LIMIT_S = 40.0


@contextlib.asynccontextmanager
async def producing(broker: Broker, **options: object) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=broker.address, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@contextlib.asynccontextmanager
async def consuming(broker: Broker, *names: str, **options: object) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(*names, bootstrap_servers=broker.address, auto_offset_reset="earliest", **options)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def read_all(broker: Broker, topic: str, partition: int = 0, start: int = 0) -> list[bytes | None]:
    """Values of one partition from `start` to its present end."""
    at = TopicPartition(topic, partition)
    values: list[bytes | None] = []
    async with consuming(broker) as consumer, asyncio.timeout(LIMIT_S):
        consumer.assign([at])
        consumer.seek(at, start)
        end = (await consumer.end_offsets([at]))[at]
        while await consumer.position(at) < end:
            values += [r.value for records in (await consumer.getmany(timeout_ms=200)).values() for r in records]
    return values


async def test_order_offsets_keys_and_tombstones(broker: Broker, topics: Topics) -> None:
    topic = await topics.make("order", 3)
    async with producing(broker) as producer:
        sent = [await producer.send(topic, b"%d" % i, partition=i % 3) for i in range(300)]
        done = await asyncio.gather(*sent)
        tombstone = await producer.send_and_wait(topic, None, key=b"gone", partition=0)
    assert [d.offset for d in done if d.partition == 1] == list(range(100))
    assert tombstone.offset == 100
    assert await read_all(broker, topic, 0) == [b"%d" % i for i in range(0, 300, 3)] + [None]
    assert await read_all(broker, topic, 2, start=98) == [b"296", b"299"]


async def test_large_backlog_arrives_whole(broker: Broker, topics: Topics) -> None:
    topic = await topics.make("large")
    values = [bytes([i % 251]) * 200_000 for i in range(30)]
    async with producing(broker, compression_type="gzip") as producer:
        for value in values[:3]:
            await producer.send_and_wait(topic, value)
    async with producing(broker) as producer:
        for value in values[3:]:
            await producer.send_and_wait(topic, value)
    assert await read_all(broker, topic) == values


async def test_offset_beyond_the_end_is_reset_by_the_clients_policy(broker: Broker, topics: Topics) -> None:
    topic = await topics.make("range")
    async with producing(broker) as producer:
        await producer.send_and_wait(topic, b"only")
    async with consuming(broker) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 99)
        record = await asyncio.wait_for(consumer.getone(), LIMIT_S)
    assert (record.offset, record.value) == (0, b"only")


async def test_long_poll_returns_when_a_record_arrives(broker: Broker, topics: Topics) -> None:
    """A fetch that may wait 30 s returns at once on the record, and the broker does not answer it empty before."""
    topic = await topics.make("poll")
    async with consuming(broker, fetch_max_wait_ms=30_000) as consumer, producing(broker) as producer:
        consumer.assign([TopicPartition(topic, 0)])
        waiting = asyncio.create_task(consumer.getone())
        assert not (await asyncio.wait([waiting], timeout=0.3))[0]
        await producer.send_and_wait(topic, b"now")
        assert (await asyncio.wait_for(waiting, 15)).value == b"now"


async def test_topics_are_created_with_their_partitions_and_deleted(broker: Broker, topics: Topics) -> None:
    topic = await topics.make("made", 5, cleanup_policy="compact")
    await ensure_topics(broker.address, [TopicSpec(topic, 5)])
    with pytest.raises(TopicsError, match="has 5 partitions, not 4"):
        await ensure_topics(broker.address, [TopicSpec(topic, 4)])
    with pytest.raises(TopicsError, match="InvalidTopicError"):
        await ensure_topics(broker.address, [TopicSpec("../outside", 1)])
    async with producing(broker) as producer:
        await producer.send_and_wait(topic, b"old", key=b"k", partition=4)
    await delete_topics(broker.address, [topic, topics.prefix + "never-there"])
    await ensure_topics(broker.address, [TopicSpec(topic, 5)])
    assert await read_all(broker, topic, 4) == []


async def test_unknown_topics_are_not_created_by_use(broker: Broker, topics: Topics) -> None:
    async with producing(broker, request_timeout_ms=1500) as producer:
        with pytest.raises(KafkaError):
            await producer.send_and_wait(topics.prefix + "nobody-made-it", b"x")


async def test_too_large_a_message_is_refused(broker: Broker, topics: Topics) -> None:
    topic = await topics.make("small", max_message_bytes="2000")
    async with producing(broker) as producer:
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topic, b"x" * 3000)
        assert (await producer.send_and_wait(topic, b"x" * 1000)).offset == 0


async def test_idempotent_producer_over_broker_kills(broker: Broker, topics: Topics) -> None:
    """The broker is killed in mid-stream, twice: every record is there once and in order."""
    topic, total = await topics.make("kills", 2), 900
    async with producing(broker, enable_idempotence=True, request_timeout_ms=60_000, retry_backoff_ms=50) as producer:
        acks = []
        for i in range(total):
            acks.append(await producer.send(topic, b"%d" % i, partition=i % 2))
            if i % 300 == 150:
                await asyncio.gather(*acks[: i // 2])
                await asyncio.to_thread(broker.kill)
                await asyncio.to_thread(broker.start)
            if i % 10 == 0:
                await asyncio.sleep(0)
        done = await asyncio.wait_for(asyncio.gather(*acks), 60)
    for partition in (0, 1):
        assert await read_all(broker, topic, partition) == [b"%d" % i for i in range(partition, total, 2)]
        assert [d.offset for d in done if d.partition == partition] == list(range(total // 2))


class Rounds(ConsumerRebalanceListener):
    """Counts how often a member is given partitions."""

    def __init__(self) -> None:
        self.assigned: list[set[TopicPartition]] = []

    async def on_partitions_revoked(self, revoked: object) -> None:
        pass

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.assigned.append(set(assigned))


def member(
    broker: Broker, topic: str, instance: str | None = None, session_ms: int = 3000
) -> tuple[AIOKafkaConsumer, Rounds]:
    rounds = Rounds()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.address,
        group_id=topic + ".group",
        group_instance_id=instance,
        auto_offset_reset="earliest",
        session_timeout_ms=session_ms,
        heartbeat_interval_ms=200,
        rebalance_timeout_ms=5000,
        enable_auto_commit=False,
    )
    consumer.subscribe([topic], listener=rounds)
    return consumer, rounds


async def test_group_of_two_shares_and_takes_over(broker: Broker, topics: Topics) -> None:
    topic = await topics.make("shared", 4)
    every = {TopicPartition(topic, p) for p in range(4)}
    first, _ = member(broker, topic)
    second, _ = member(broker, topic)
    await first.start()
    await wait_until(lambda: first.assignment() == every)
    await second.start()
    await wait_until(lambda: len(first.assignment()) == 2 and first.assignment() | second.assignment() == every)
    async with producing(broker) as producer:
        for p in range(4):
            await producer.send_and_wait(topic, b"%d" % p, partition=p)
    seen: list[bytes] = []

    async def all_seen() -> bool:
        for consumer in (first, second):
            seen.extend(r.value for records in (await consumer.getmany(timeout_ms=50)).values() for r in records)
        return len(seen) == 4

    await wait_until(all_seen)
    assert sorted(seen) == [b"0", b"1", b"2", b"3"]
    await second.stop()
    await wait_until(lambda: first.assignment() == every)
    await first.stop()


async def test_static_member_restarts_without_a_rebalance(broker: Broker, topics: Topics) -> None:
    """Also the group's leader, and over a kill of the broker; who stays away is replaced when its session ends."""
    topic = await topics.make("static", 4)
    every = {TopicPartition(topic, p) for p in range(4)}
    first, _ = member(broker, topic, "first", 6000)
    other, rounds = member(broker, topic, "other", 6000)
    await first.start()
    await other.start()
    await wait_until(lambda: len(first.assignment()) == 2 and first.assignment() | other.assignment() == every)
    kept, noticed = first.assignment(), len(rounds.assigned)
    for _ in range(2):
        await first.stop()
        first, _ = member(broker, topic, "first", 6000)
        await first.start()
        await wait_until(lambda: first.assignment() == kept)  # noqa: B023
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        await wait_until(lambda: commits(first, topic, 1))  # noqa: B023
        await wait_until(lambda: commits(other, topic, 1))
    assert len(rounds.assigned) == noticed
    await first.stop()
    await wait_until(lambda: other.assignment() == every)
    await other.stop()


async def commits(consumer: AIOKafkaConsumer, topic: str, offset: int) -> bool:
    """Whether a commit of this member is accepted: it is still in its generation."""
    try:
        await consumer.commit({at: OffsetAndMetadata(offset, "") for at in consumer.assignment()})
    except (KafkaError, IllegalStateError):
        return False
    return bool(consumer.assignment())


async def test_committed_offsets_survive_a_kill_of_the_broker(broker: Broker, topics: Topics) -> None:
    topic = await topics.make("committed")
    async with producing(broker) as producer:
        for i in range(10):
            await producer.send_and_wait(topic, b"%d" % i)
    consumer, _ = member(broker, topic)
    await consumer.start()
    await asyncio.wait_for(consumer.getone(), LIMIT_S)
    await consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(7, "seven")})
    await consumer.stop()
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.start)
    consumer, _ = member(broker, topic)
    await consumer.start()
    record = await asyncio.wait_for(consumer.getone(), LIMIT_S)
    await consumer.stop()
    assert (record.offset, record.value) == (7, b"7")


FAUST_APP = """
import os, faust
app = faust.App(
    os.environ["APP_ID"], broker="kafka://" + os.environ["BROKER"], web_enabled=False, topic_disable_leader=True,
    topic_allow_declare=False, consumer_auto_offset_reset="earliest", datadir=os.environ["DATADIR"],
    broker_session_timeout=6.0, broker_heartbeat_interval=1.0,
)
inputs = app.topic(os.environ["INPUT"], value_type=bytes, value_serializer="raw")
outputs = app.topic(os.environ["OUTPUT"], value_type=bytes, value_serializer="raw")

@app.agent(inputs)
async def double(numbers):
    async for number in numbers:
        await outputs.send(value=b"%d" % (2 * int(number)))

app.main()
"""


async def test_unmodified_faust_worker(broker: Broker, topics: Topics, tmp_path: object) -> None:
    """A worker as its own process; killed in between, the next one goes on where the commits stand."""
    source, result = await topics.make("in", 2), await topics.make("out")
    environment = {
        **os.environ,
        "APP_ID": topics.prefix + "app",
        "BROKER": broker.address,
        "INPUT": source,
        "OUTPUT": result,
        "DATADIR": str(tmp_path),
    }
    command = [sys.executable, "-c", FAUST_APP, "worker", "--without-web", "-l", "warn"]

    async def outputs_hold(numbers: range) -> bool:
        return {b"%d" % (2 * i) for i in numbers} <= set(await read_all(broker, result))

    async with producing(broker) as producer:
        for numbers in (range(40), range(40, 80)):
            worker = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                for i in numbers:
                    await producer.send_and_wait(source, b"%d" % i, partition=i % 2)
                await wait_until(lambda: outputs_hold(numbers), 60)  # noqa: B023
            finally:
                worker.kill()
                worker.wait()
