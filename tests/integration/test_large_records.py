"""A batch of very many accounts is one record: producer, topic, broker and reader must all let it through."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import MARGIN_BATCHES, RECORD_BYTES_MAX, topic_specs
from streams.runtime.kafka_process import Broker
from streams.runtime.producer import new_producer
from streams.runtime.settings import RuntimeSettings
from tests.integration.conftest import Topics


async def test_a_record_above_kafkas_default_limit_goes_through(broker: Broker, topics: Topics) -> None:
    configs = next(spec.configs for spec in topic_specs(1) if spec.name == MARGIN_BATCHES)
    name = await topics.make(MARGIN_BATCHES, **{key.replace(".", "_"): value for key, value in configs.items()})
    value = bytes(range(256)) * (RECORD_BYTES_MAX // 2 // 256)
    producer = new_producer(RuntimeSettings(bootstrap=broker.address))
    await producer.start()
    try:
        await producer.send_and_wait(name, value, partition=0)
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(name, 0)])
        assert (await consumer.getone()).value == value
    finally:
        await consumer.stop()
