"""Logs in memory whose acknowledgements the test holds back, and a counting machine, for tests of the shell's rules."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from streams.runtime.machine import Headers, LogPosition, Output

PREFIX = "unit."


class Stored(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Fed(NamedTuple):
    """A record as a shell is fed it."""

    offset: int
    value: bytes | None
    headers: Headers = ()


class MemoryLogs:
    """Appends at once; while `held` is set, acknowledgements of these topics wait for `release`."""

    def __init__(self) -> None:
        self.logs: dict[tuple[str, int], list[Stored]] = defaultdict(list)
        self.held: set[str] = set()
        self._waiting: list[asyncio.Future[object]] = []

    async def send(self, topic, value=None, key=None, partition=None, timestamp_ms=None, headers=None):
        log = self.logs[topic, partition]
        log.append(Stored(len(log), key, value, headers or []))
        acknowledged = asyncio.get_running_loop().create_future()
        if topic in self.held:
            self._waiting.append(acknowledged)
        else:
            acknowledged.set_result(None)
        return acknowledged

    def release(self, exception: Exception | None = None) -> None:
        for acknowledged in self._waiting:
            if exception is None:
                acknowledged.set_result(None)
            else:
                acknowledged.set_exception(exception)
        self._waiting.clear()

    def values(self, topic: str, partition: int = 0) -> list[bytes | None]:
        return [record.value for record in self.logs[PREFIX + topic, partition]]

    # what CheckpointReader asks of a LogReader

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        kept = self.logs[topic, partition]
        return (kept[0].offset, kept[-1].offset + 1) if kept else (0, 0)

    async def read(self, topic: str, partition: int, low: int, high: int) -> list[Stored]:
        return [record for record in self.logs[topic, partition] if low <= record.offset < high]

    async def bounds_of(self, logs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
        return {log: await self.bounds(*log) for log in logs}

    async def read_spans(self, spans: Mapping[tuple[str, int], tuple[int, int]]) -> dict[tuple[str, int], list[Stored]]:
        return {log: await self.read(*log, *span) for log, span in spans.items()}

    def compact(self, topic: str, partition: int) -> None:
        """As Kafka does, tombstones too; the log's last record always stays."""
        log = self.logs[topic, partition]
        newest = {record.key: record.offset for record in log}
        keep = [record for record in log if newest[record.key] == record.offset and record.value is not None]
        self.logs[topic, partition] = keep if keep[-1:] == log[-1:] else [*keep, log[-1]]


class Counter:
    """Adds integers of every log it is fed; `long` numbers run in a thread; an even sum leaves early."""

    def __init__(self, positions: dict[LogPosition, int], total: int = 0, count: int = 0) -> None:
        self.at, self.total, self.count = positions, total, count

    def positions(self) -> dict[LogPosition, int]:
        return dict(self.at)

    def steps(
        self, topic: str, partition: int, offset: int, value: bytes | None, headers: Headers
    ) -> Iterator[list[Output]]:
        self.total += int(value or b"0")
        if self.total % 2 == 0:
            yield [Output("early", partition, None, b"%d" % self.total)]
        self.count += 1
        yield [Output("sums", partition, b"%d" % self.count, b"%d" % self.total, (("kind", b"sum"),))]
        self.at[topic, partition] = offset + 1

    def start(self) -> list[Output]:
        return []

    def is_long(self, topic: str, value: bytes | None) -> bool:
        return value is not None and value.startswith(b"00")

    def checkpoint_mark(self) -> int | None:
        return self.count

    def dump(self) -> bytes:
        return json.dumps([[[*log, at] for log, at in sorted(self.at.items())], self.total, self.count]).encode()


class CounterFactory:
    """A unit per partition, or one unit for everything."""

    def __init__(self, single: bool = False, topics: tuple[str, ...] = ("numbers",)) -> None:
        self.single, self.topics = single, topics

    def empty(self, unit: int) -> Counter:
        return Counter({(topic, unit): 0 for topic in self.topics})

    def load(self, unit: int, raw: bytes) -> Counter:
        positions, total, count = json.loads(raw)
        return Counter({(topic, partition): at for topic, partition, at in positions}, total, count)

    def unit_of(self, topic: str, partition: int) -> int:
        return 0 if self.single else partition
