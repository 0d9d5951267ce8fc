"""Sends a world's inputs to the public input topics, as any producer would."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer

from schemas.codec import encode
from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, FILL_PARTITIONS, INSTRUMENTS, ORACLE_TICKS
from streams.engine.sequence import partition_of
from streams.replay.world import BlockInputs, World
from streams.runtime.broker_access import connected
from streams.runtime.producer import new_producer
from streams.runtime.settings import RuntimeSettings

EVENTS_PER_RECORD = 500


class Feeder:
    """One producer; every call returns when the broker has acknowledged."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self.settings = settings
        self.producer: AIOKafkaProducer = new_producer(settings)

    async def start(self) -> None:
        await connected(self.producer, self.settings)

    async def stop(self) -> None:
        await self.producer.stop()

    async def send_listings(self, world: World) -> None:
        await self._send(INSTRUMENTS, {0: [encode(listing) for listing in world.listings]})

    async def send_inputs(self, inputs: BlockInputs) -> None:
        """Ticks and account events of a block; the block itself is announced apart."""
        await self._send(ORACLE_TICKS, {0: [encode(tick) for tick in inputs.ticks]})
        by_partition: dict[int, list[bytes]] = defaultdict(list)
        for event in inputs.events:
            by_partition[partition_of(_account(event), FILL_PARTITIONS)].append(encode(event))
        await self._send(ACCOUNT_FILLS, by_partition)

    async def announce(self, inputs: BlockInputs) -> None:
        await self._send(CHAIN_BLOCKS, {0: [encode(inputs.block)]})

    async def send_raw(self, topic: str, partition: int, raw: bytes) -> None:
        """Any bytes, for tests of what a bad or repeating producer does."""
        await self.producer.send_and_wait(self.settings.topic(topic), raw, partition=partition)

    async def _send(self, topic: str, events: dict[int, list[bytes]]) -> None:
        waiting = []
        for partition, encoded in events.items():
            for record in _records(encoded):
                waiting.append(await self.producer.send(self.settings.topic(topic), record, partition=partition))
        for sent in waiting:
            await sent


def _account(event: Any) -> str:
    """Account of an event; a funding has none."""
    return str(event.get("account", "") if isinstance(event, dict) else getattr(event, "account", ""))


def _records(encoded: list[bytes]) -> Iterable[bytes]:
    """JSON arrays of at most EVENTS_PER_RECORD events (a single event stands alone)."""
    for at in range(0, len(encoded), EVENTS_PER_RECORD):
        part = encoded[at : at + EVENTS_PER_RECORD]
        yield part[0] if len(part) == 1 else b"[" + b",".join(part) + b"]"
