"""Reads logs with a plain consumer of its own, outside any group: for checkpoints, gap checks and the watchdog."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from streams.runtime.broker_access import connected
from streams.runtime.settings import RuntimeSettings


class LogReader:
    """One connection; calls are serialised by a lock, so that nobody's seek disturbs another's read.

    Topic names are full names. Every call may raise aiokafka.errors.KafkaError while the broker is away.
    """

    def __init__(self, settings: RuntimeSettings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Raises BrokerUnreachable."""
        self._consumer = AIOKafkaConsumer(
            **self._settings.client_options(),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=1,
            retry_backoff_ms=20,
            request_timeout_ms=self._settings.request_timeout_ms,
            metadata_max_age_ms=self._settings.metadata_age_ms,
            max_partition_fetch_bytes=8 << 20,
            isolation_level=self._settings.isolation,
        )
        await connected(self._consumer, self._settings)

    async def stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    @property
    def consumer(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise RuntimeError("LogReader.start() has not run")
        return self._consumer

    async def topics(self) -> dict[str, int]:
        """Every visible topic and its number of partitions."""
        cluster = await self.consumer._client.fetch_all_metadata()
        return {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in cluster.topics()}

    async def ends(self, logs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The offset after the last readable record of each (topic, partition)."""
        found = await self.consumer.end_offsets([TopicPartition(topic, partition) for topic, partition in logs])
        return {(at.topic, at.partition): offset for at, offset in found.items()}

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset kept, and the offset after the last record."""
        at = TopicPartition(topic, partition)
        first = await self.consumer.beginning_offsets([at])
        last = await self.consumer.end_offsets([at])
        return first[at], last[at]

    async def read(self, topic: str, partition: int, low: int, high: int) -> list[ConsumerRecord]:
        """All records with low <= offset < high. Compaction and transactions may have left holes anywhere."""
        async with self._alone():
            return [record async for record in self._scan(TopicPartition(topic, partition), low, high)]

    async def first_between(self, topic: str, partition: int, low: int, high: int) -> int | None:
        """Offset of the first record with low <= offset < high, or None where there is only a hole."""
        async with self._alone():
            async for record in self._scan(TopicPartition(topic, partition), low, high):
                return record.offset
        return None

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nothing stays assigned: a fetch that waits for records to come holds up every other request."""
        async with self._lock:
            try:
                yield
            finally:
                self.consumer.assign([])

    async def _scan(self, at: TopicPartition, low: int, high: int) -> AsyncIterator[ConsumerRecord]:
        if high <= low:
            return
        self.consumer.assign([at])
        self.consumer.seek(at, low)
        while await self.consumer.position(at) < high:
            for batch in (await self.consumer.getmany(at, timeout_ms=200)).values():
                for record in batch:
                    if low <= record.offset < high:
                        yield record
