"""Faust's aiokafka transport with the one seam that checkpoints need, and mends of its consumer.

At the end of every rebalance, after heartbeats have resumed and before the flow does, Faust asks its consumer to seek
to the committed offsets. `CheckpointConsumer.seek_to_committed` answers with the shell's positions instead. (Seeks made
in Faust's assignment signals are overwritten by that very call.)

Faust spends about 0.1 ms of CPU on a message: two tasks, two queues, three locks. So what was fetched of a partition
passes through it in runs: one message, one event of the agent, for up to RUN_RECORDS records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord
from faust.tables.manager import TableManager
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams.runtime.exits import MEMBERSHIP_LOST, die

RUN_RECORDS, RUN_BYTES = 256, 2 << 20  # of a run, at most (one record may be larger)


class RecordRun(NamedTuple):
    """Consecutive records of a partition, which Faust takes for one record."""

    records: Sequence[ConsumerRecord]

    @property
    def last(self) -> ConsumerRecord:
        return self.records[-1]


class RunMessage(ConsumerMessage):
    """Faust's message of a run: no key and no value of its own, the offset of its last record."""

    records: Sequence[ConsumerRecord]


def runs_of(records: Sequence[ConsumerRecord]) -> Iterator[RecordRun]:
    """The records of a fetch in runs of limited size, in their order."""
    begin = size = 0
    for at, record in enumerate(records):
        size += record.serialized_value_size
        if at + 1 - begin == RUN_RECORDS or size >= RUN_BYTES:
            yield RecordRun(records[begin : at + 1])
            begin, size = at + 1, 0
    if begin < len(records):
        yield RecordRun(records[begin:])


class ConsumerThread(AIOKafkaConsumerThread):
    """Sets what Faust has no settings for, and ends the process when a static membership is lost."""

    app: Any

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        settings = self.app.runtime.settings
        consumer._fetch_max_wait_ms = settings.fetch_wait_ms
        consumer._isolation_level = settings.isolation
        if settings.consumer_request_timeout_ms is not None:  # Faust refuses a request timeout below the session
            consumer._client._request_timeout_ms = settings.consumer_request_timeout_ms
        return consumer

    async def _fetch_records(self, *arguments: Any, **options: Any) -> dict[TP, list[RecordRun]]:
        fetched = await super()._fetch_records(*arguments, **options)
        return {at: list(runs_of(records)) for at, records in fetched.items()}

    async def on_start(self) -> None:
        await super().on_start()
        if self.app.runtime.settings.static_membership:
            self._exit_when_membership_is_lost()

    def _exit_when_membership_is_lost(self) -> None:
        """We slept beyond the session, or another process has our name. aiokafka would join again and expel the other
        one, for ever: its heartbeats carry no instance id, so the broker cannot tell them apart."""
        coordinator = self._ensure_consumer()._coordinator
        reset = coordinator.reset_generation

        def lost() -> None:
            if coordinator.generation > 0 and not coordinator._closing.done():
                die("membership lost", code=MEMBERSHIP_LOST)
            reset()

        coordinator.reset_generation = lost

    def forget_static_name(self) -> None:
        """From now on a stop sends LeaveGroup, so that others take over within a heartbeat."""
        self._ensure_consumer()._coordinator._group_instance_id = None


class CheckpointConsumer(Consumer):
    """Answers "committed offsets" with the positions of the restored units."""

    app: Any

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: RecordRun) -> RunMessage:
        last = record.last
        message = RunMessage(
            last.topic, last.partition, last.offset, last.timestamp / 1e3, last.timestamp_type, None, None, None, None,
            tp=tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip
        message.records = record.records
        return message

    def leave_on_stop(self) -> None:
        """Drain: when the consumer stops it leaves the group, static name or not."""
        if isinstance(self._thread, ConsumerThread):
            self._thread.forget_static_name()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        try:
            positions = await self.app.runtime.restore(set(self.assignment()))
        except asyncio.CancelledError:  # the next rebalance has begun
            raise
        except Exception as exception:  # Faust would stand still without a word
            die("restore", exception)
        await self.seek_wait(positions)  # raises IllegalStateError if revoked meanwhile: Faust asks again
        return positions


class CheckpointTransport(Transport):
    Consumer = CheckpointConsumer


class PromptTableManager(TableManager):
    """There are no tables: Faust's one waits a second for them at every start."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()
