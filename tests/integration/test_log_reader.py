"""The plain reader of logs, on both brokers: what it reads, and that it keeps nothing afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest

from streams.runtime.log_reader import LogReader
from streams.runtime.producer import new_producer
from streams.runtime.settings import RuntimeSettings
from tests.integration.conftest import Topics
from tests.waiting import wait_until

LONG_WAIT_MS = 3_000


@pytest.fixture
async def reader(topics: Topics) -> AsyncIterator[LogReader]:
    made = LogReader(RuntimeSettings(bootstrap=topics.address))
    await made.start()
    yield made
    await made.stop()


async def filled(topics: Topics, counts: list[int]) -> str:
    """A topic whose partitions have so many records: the numbers from 0 on."""
    topic = await topics.make("numbers", len(counts))
    producer = new_producer(RuntimeSettings(bootstrap=topics.address))
    await producer.start()
    for partition, count in enumerate(counts):
        for number in range(count):
            await producer.send_and_wait(topic, b"%d" % number, partition=partition)
    await producer.stop()
    return topic


async def test_spans_of_several_logs_are_read_side_by_side(topics: Topics, reader: LogReader) -> None:
    topic = await filled(topics, [5, 0, 3, 9])
    logs = [(topic, partition) for partition in range(4)]
    bounds = await reader.bounds_of(logs)
    assert list(bounds.values()) == [(0, 5), (0, 0), (0, 3), (0, 9)]
    assert await reader.ends(logs) == {log: end for log, (_, end) in bounds.items()}
    spans = {(topic, 0): (0, 5), (topic, 1): (0, 0), (topic, 2): (2, 2), (topic, 3): (4, 8)}
    read = await reader.read_spans(spans)
    assert {log: [record.offset for record in records] for log, records in read.items()} == {
        log: list(range(*span)) for log, span in spans.items()
    }
    assert [record.value for record in read[topic, 3]] == [b"4", b"5", b"6", b"7"]
    assert await reader.first_between(topic, 3, 2, 5) == 2
    assert await reader.first_between(topic, 3, 5, 5) is None


class Fetches:
    """How many fetches of a reader are under way; those that begin from now on may wait long for records."""

    def __init__(self, reader: LogReader) -> None:
        client, self.under_way, self.begun = reader.consumer._client, 0, 0
        self._send = client.send
        client.send = self.send
        reader.consumer._fetcher._fetch_max_wait_ms = LONG_WAIT_MS

    async def send(self, node: Any, request: Any, **options: Any) -> Any:
        is_fetch = isinstance(request, FetchRequest)
        self.under_way += is_fetch
        self.begun += is_fetch
        try:
            return await self._send(node, request, **options)
        finally:
            self.under_way -= is_fetch


async def test_a_read_of_all_there_is_waits_for_no_record_to_come(topics: Topics, reader: LogReader) -> None:
    """A fetch that waits at the log's end holds up whatever is asked next over the same connection."""
    topic = await filled(topics, [4])
    assert reader.consumer._fetch_max_wait_ms == 1
    fetches = Fetches(reader)
    assert len(await reader.read(topic, 0, 1, 4)) == 3
    assert not reader.consumer.assignment()
    await wait_until(lambda: fetches.under_way == 0, limit_s=20)
    begun = fetches.begun
    assert begun > 0
    assert await reader.ends([(topic, 0)]) == {(topic, 0): 4}
    assert fetches.begun == begun
