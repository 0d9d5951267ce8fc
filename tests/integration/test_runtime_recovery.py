"""Real Faust workers under the supervisor, killed with SIGKILL: what readers take equals the plain fold."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import runtime_toy_machines as toy

from streams.runtime.checkpoints import CheckpointReader
from streams.runtime.log_reader import LogReader
from streams.runtime.producer import new_producer

RECORDS = 300  # a partition
LIMIT_S = 60.0
NAMES = ("adder-0", "adder-1", "pairer-0")


class Run:
    """Topics, a producer, a reader, and workers under a supervisor."""

    def __init__(self, topics: Any, folder: Path) -> None:
        self.topics, self.folder = topics, folder
        self.settings = toy.settings_for(topics.address, topics.prefix)
        self.reader, self.producer = LogReader(self.settings), new_producer(self.settings)
        self.supervisor: subprocess.Popen[bytes] | None = None

    async def start(self, *names: str) -> None:
        for topic, partitions in toy.TOPICS.items():
            await self.topics.make(topic, partitions)
        for topic, partitions in toy.CHECKPOINT_TOPICS.items():
            await self.topics.make(topic, partitions, cleanup_policy="compact")
        await asyncio.gather(self.reader.start(), self.producer.start())
        self.supervise(*names)

    def supervise(self, *names: str) -> None:
        program = [sys.executable, toy.__file__, self.topics.address, self.topics.prefix, str(self.folder), *names]
        with open(self.folder / "supervisor.log", "ab") as log:
            self.supervisor = subprocess.Popen(program, stderr=log)

    def stop_workers(self) -> int:
        assert self.supervisor is not None
        self.supervisor.terminate()
        return self.supervisor.wait(LIMIT_S)

    async def stop(self) -> None:
        if self.supervisor is not None:
            self.supervisor.kill()
            self.supervisor.wait()
        await asyncio.gather(self.reader.stop(), self.producer.stop())

    def signal(self, name: str, number: int) -> None:
        with contextlib.suppress(OSError, ValueError):  # just dead, or not yet born
            os.kill(int((self.folder / f"{name}.pid").read_text()), number)

    async def values(self, topic: str, partition: int) -> list[bytes]:
        full_name = self.settings.topic(topic)
        low, high = await self.reader.bounds(full_name, partition)
        return [record.value for record in await self.reader.read(full_name, partition, low, high)]

    async def length(self, topic: str, partition: int = 0) -> int:
        return (await self.reader.bounds(self.settings.topic(topic), partition))[1]

    async def taken(self, topic: str, partition: int) -> list[int]:
        numbers, faults = toy.once(await self.values(topic, partition))
        assert faults == []
        return numbers

    def notes(self, event: str, *names: str) -> list[dict[str, Any]]:
        lines = itertools.chain(*((self.folder / f"{name}.log").read_text().splitlines() for name in names))
        found = [json.loads(line) for line in lines if line.startswith('{"event"')]
        return sorted((one for one in found if one["event"] == event), key=lambda one: one["time_s"])


@pytest.fixture
async def run(topics: Any, tmp_path: Path) -> AsyncIterator[Run]:
    made = Run(topics, tmp_path)
    yield made
    await made.stop()


def number(partition: int, index: int) -> int:
    return (index * 37 + partition * 11) % 101


async def produce(run: Run, low: int, high: int) -> None:
    for index in range(low, high):
        sends = [
            await run.producer.send(run.settings.topic("numbers"), b"%d" % number(at, index), partition=at)
            for at in range(toy.PARTITIONS)
        ]
        await asyncio.gather(*sends)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await condition():
            await asyncio.sleep(0.02)


def fold(partition: int, count: int = RECORDS) -> list[int]:
    return list(itertools.accumulate(number(partition, index) for index in range(count)))


async def whole(run: Run) -> bool:
    """The last round's total is there."""
    values = await run.values("totals", 0)
    return bool(values) and max(json.loads(value)["sequence"] for value in values) == RECORDS


async def require_plain_fold(run: Run) -> None:
    sums = [fold(at) for at in range(toy.PARTITIONS)]
    for at in range(toy.PARTITIONS):
        assert await run.taken("sums", at) == sums[at]
        wanted = [number(at, index) for index in range(RECORDS) if number(at, index) % 7 == 0]
        assert await run.taken("flags", at) == wanted
    assert await run.taken("totals", 0) == [sum(pair) for pair in zip(*sums, strict=True)]


async def test_killed_workers_lose_nothing_and_repeat_nothing_but_bytes(run: Run) -> None:
    await run.start(*NAMES)
    part = RECORDS // 6
    for round_number, victim in enumerate(("adder-0", "pairer-0", "adder-1", "adder-0", "pairer-0", "adder-1")):
        producing = asyncio.create_task(produce(run, round_number * part, (round_number + 1) * part))
        wanted = round_number * part + part // 3

        async def moving(at_least: int = wanted) -> bool:
            return await run.length("totals") > at_least

        await until(moving)
        run.signal(victim, signal.SIGKILL)
        await producing
    await until(lambda: whole(run))
    await require_plain_fold(run)
    assert run.stop_workers() == 0
    assert [one for name in NAMES for one in run.notes("die", name)] == []
    sources = [set(one["sources"].values()) for one in run.notes("restore", *NAMES)]
    assert {"checkpoint"} in sources  # later lives did not begin at the beginning


async def test_workers_killed_all_at_once_go_on_from_their_checkpoints(run: Run) -> None:
    await run.start(*NAMES)
    await produce(run, 0, RECORDS // 2)

    async def halfway() -> bool:
        return await run.length("totals") >= RECORDS // 2

    await until(halfway)

    async def written() -> bool:
        logs = [(topic, at) for topic, count in toy.CHECKPOINT_TOPICS.items() for at in range(count)]
        readers = {topic: CheckpointReader(run.reader, run.settings.topic(topic)) for topic, _ in logs}
        return None not in [await readers[topic].newest(at) for topic, at in logs]

    await until(written)
    assert run.supervisor is not None
    run.supervisor.kill()  # its children die with it
    run.supervisor.wait()
    await produce(run, RECORDS // 2, RECORDS)
    seen = len(run.notes("restore", *NAMES))
    run.supervise(*NAMES)
    await until(lambda: whole(run))
    await require_plain_fold(run)
    resumed = run.notes("restore", *NAMES)[seen:]
    assert "empty" not in {source for one in resumed for source in one["sources"].values()}


async def test_a_stop_by_sigterm_ends_in_order_and_the_next_life_repeats_little(run: Run) -> None:
    await run.start(*NAMES)
    await produce(run, 0, RECORDS // 2)
    started = time.monotonic()

    async def halfway() -> bool:
        return await run.length("totals") >= RECORDS // 2

    await until(halfway)
    assert run.stop_workers() == 0, f"killed after {time.monotonic() - started} s"
    assert len(run.notes("stopped", *NAMES)) == len(NAMES)
    run.supervise(*NAMES)
    await produce(run, RECORDS // 2, RECORDS)
    await until(lambda: whole(run))
    await require_plain_fold(run)
