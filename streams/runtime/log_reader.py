"""Reads logs with a plain consumer of its own, outside any group: for checkpoints, gap checks and the watchdog."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from streams.runtime.broker_access import connected
from streams.runtime.settings import RuntimeSettings

Log = tuple[str, int]  # full topic name, partition
Span = tuple[int, int]  # offsets low <= offset < high


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

    async def ends(self, logs: Iterable[Log]) -> dict[Log, int]:
        """The offset after the last readable record of each (topic, partition)."""
        asked = [TopicPartition(*log) for log in logs]
        await self._know(asked)
        found = await self.consumer.end_offsets(asked)
        return {(at.topic, at.partition): offset for at, offset in found.items()}

    async def bounds(self, topic: str, partition: int) -> Span:
        """First offset kept, and the offset after the last record."""
        return (await self.bounds_of([(topic, partition)]))[topic, partition]

    async def bounds_of(self, logs: Iterable[Log]) -> dict[Log, Span]:
        """The bounds of each (topic, partition)."""
        asked = [TopicPartition(*log) for log in logs]
        await self._know(asked)
        first, last = await asyncio.gather(self.consumer.beginning_offsets(asked), self.consumer.end_offsets(asked))
        return {(at.topic, at.partition): (first[at], last[at]) for at in asked}

    async def _know(self, logs: Collection[TopicPartition]) -> None:
        """aiokafka finds out that it knows nothing of a topic by a failed question, and sleeps before the next one."""
        client = self.consumer._client
        unknown = {log.topic for log in logs} - client.cluster.topics()
        await asyncio.gather(*(client.add_topic(topic) for topic in sorted(unknown)))

    async def read(self, topic: str, partition: int, low: int, high: int) -> list[ConsumerRecord]:
        """All records with low <= offset < high. Compaction and transactions may have left holes anywhere."""
        return (await self.read_spans({(topic, partition): (low, high)}))[topic, partition]

    async def read_spans(self, spans: Mapping[Log, Span]) -> dict[Log, list[ConsumerRecord]]:
        """The same of several logs, fetched side by side."""
        found: dict[Log, list[ConsumerRecord]] = {log: [] for log in spans}
        async with self._alone():
            async for record in self._scan(spans):
                found[record.topic, record.partition].append(record)
        return found

    async def first_between(self, topic: str, partition: int, low: int, high: int) -> int | None:
        """Offset of the first record with low <= offset < high, or None where there is only a hole."""
        async with self._alone():
            async for record in self._scan({(topic, partition): (low, high)}):
                return record.offset
        return None

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nothing stays assigned: a fetch that waits for records to come holds up every other request."""
        async with self._lock:
            try:
                yield
            finally:
                if self.consumer.assignment():
                    self.consumer.assign([])

    async def _scan(self, spans: Mapping[Log, Span]) -> AsyncIterator[ConsumerRecord]:
        """Records of each log in their order, of several logs as they come."""
        left = {TopicPartition(*log): span for log, span in spans.items() if span[0] < span[1]}
        if left:
            self.consumer.assign(list(left))
        for at, (low, _) in left.items():
            self.consumer.seek(at, low)
        while left:
            for at, batch in (await self.consumer.getmany(*left, timeout_ms=200)).items():
                for record in batch:
                    if left[at][0] <= record.offset < left[at][1]:
                        yield record
            for at in [at for at, (_, high) in left.items() if await self.consumer.position(at) >= high]:
                self.consumer.pause(at)
                del left[at]
