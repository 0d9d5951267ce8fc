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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import runtime_toy_machines as toy
from aiokafka.structs import ConsumerRecord

from streams.runtime.checkpoints import CheckpointReader
from streams.runtime.exits import DRAIN_SIGNAL, MEMBERSHIP_LOST
from streams.runtime.log_reader import LogReader
from streams.runtime.producer import new_producer
from tests.waiting import wait_until

RECORDS = 300  # a partition
LIMIT_S = 60.0
NAMES = ("adder-0", "adder-1", "pairer-0")


class Run:
    """Topics, a producer, a reader, and workers under a supervisor."""

    def __init__(self, topics: Any, folder: Path) -> None:
        self.topics, self.folder, self.session_s = topics, folder, 6.0
        self.settings = toy.settings_for(topics.address, topics.prefix)
        self.reader, self.producer = LogReader(self.settings), new_producer(self.settings)
        self.supervisor: subprocess.Popen[bytes] | None = None

    async def start(self, *names: str) -> None:
        await self.make_topics()
        self.supervise(*names)

    async def make_topics(self) -> None:
        for topic, partitions in toy.TOPICS.items():
            await self.topics.make(topic, partitions)
        for topic, partitions in toy.CHECKPOINT_TOPICS.items():
            await self.topics.make(topic, partitions, cleanup_policy="compact")
        await asyncio.gather(self.reader.start(), self.producer.start())

    def supervise(self, *names: str) -> None:
        where = [self.topics.address, self.topics.prefix, str(self.folder), str(self.session_s)]
        program = [sys.executable, toy.__file__, *where, *names]
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
        return [record.value for record in await self.records(topic, partition)]

    async def records(self, topic: str, partition: int) -> list[ConsumerRecord]:
        full_name = self.settings.topic(topic)
        low, high = await self.reader.bounds(full_name, partition)
        return await self.reader.read(full_name, partition, low, high)

    async def length(self, topic: str, partition: int = 0) -> int:
        return (await self.reader.bounds(self.settings.topic(topic), partition))[1]

    async def taken(self, topic: str, partition: int) -> list[int]:
        numbers, faults = toy.once(await self.values(topic, partition))
        assert faults == []
        return numbers

    def notes(self, event: str, *names: str) -> list[dict[str, Any]]:
        logs = [path for name in names if (path := self.folder / f"{name}.log").exists()]
        lines = itertools.chain(*(path.read_text().splitlines() for path in logs))
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


async def reached(run: Run, length: int) -> None:
    async def enough() -> bool:
        return await run.length("totals") >= length

    await wait_until(enough)


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

        await reached(run, wanted + 1)
        run.signal(victim, signal.SIGKILL)
        await producing
    await wait_until(lambda: whole(run))
    await require_plain_fold(run)
    assert run.stop_workers() == 0
    assert run.notes("die", *NAMES) == []
    assert run.notes("watchdog_blind", *NAMES) == []
    sources = [set(one["sources"].values()) for one in run.notes("restore", *NAMES)]
    assert {"checkpoint"} in sources  # later lives did not begin at the beginning


async def test_workers_killed_all_at_once_go_on_from_their_checkpoints(run: Run) -> None:
    await run.start(*NAMES)
    await produce(run, 0, RECORDS // 2)
    await reached(run, RECORDS // 2)

    async def written() -> bool:
        logs = [(topic, at) for topic, count in toy.CHECKPOINT_TOPICS.items() for at in range(count)]
        readers = {topic: CheckpointReader(run.reader, run.settings.topic(topic)) for topic, _ in logs}
        return None not in [await readers[topic].newest(at) for topic, at in logs]

    await wait_until(written)
    assert run.supervisor is not None
    run.supervisor.kill()  # its children die with it
    run.supervisor.wait()
    await produce(run, RECORDS // 2, RECORDS)
    seen = len(run.notes("restore", *NAMES))
    run.supervise(*NAMES)
    await wait_until(lambda: whole(run))
    await require_plain_fold(run)
    resumed = run.notes("restore", *NAMES)[seen:]
    assert "empty" not in {source for one in resumed for source in one["sources"].values()}


async def test_a_stop_by_sigterm_ends_in_order_and_the_next_life_repeats_little(run: Run) -> None:
    await run.start(*NAMES)
    await produce(run, 0, RECORDS // 2)
    started = time.monotonic()
    await reached(run, RECORDS // 2)
    assert run.stop_workers() == 0, f"killed after {time.monotonic() - started} s"
    assert len(run.notes("stopped", *NAMES)) == len(NAMES)
    run.supervise(*NAMES)
    await produce(run, RECORDS // 2, RECORDS)
    await wait_until(lambda: whole(run))
    await require_plain_fold(run)


def share(run: Run, name: str) -> list[str]:
    """The logs that the worker got in its last rebalance."""
    restores = run.notes("restore", name)
    return sorted(restores[-1]["offsets"]) if restores else []


async def shared_out(run: Run) -> None:
    async def one_each() -> bool:
        return [len(share(run, name)) for name in ("adder-0", "adder-1")] == [1, 1]

    await wait_until(one_each)


async def test_a_drained_worker_hands_its_partitions_over_and_stays_away(run: Run) -> None:
    await run.start(*NAMES)
    await shared_out(run)
    await produce(run, 0, RECORDS // 2)
    await reached(run, RECORDS // 2)
    run.signal("adder-0", DRAIN_SIGNAL)
    await produce(run, RECORDS // 2, RECORDS)
    await wait_until(lambda: whole(run))
    await require_plain_fold(run)
    assert share(run, "adder-1") == ["numbers/0", "numbers/1"]

    async def gone() -> bool:
        return bool(run.notes("stopped", "adder-0")) and not (run.folder / "adder-0.pid").exists()

    await wait_until(gone)
    assert [one["draining"] for one in run.notes("stopped", "adder-0")] == [True]


async def test_workers_that_start_before_their_topics_wait_for_them(run: Run) -> None:
    run.supervise(*NAMES)

    async def waiting() -> bool:
        return len(run.notes("waiting_for_topics", *NAMES)) == len(NAMES)

    await wait_until(waiting)
    await run.make_topics()
    await produce(run, 0, RECORDS)
    await wait_until(lambda: whole(run))
    await require_plain_fold(run)


async def test_a_hot_standby_writes_the_same_bytes(run: Run) -> None:
    adders = ("adder-0", "adder-standby-0")
    await run.start(*adders, "pairer-0")
    for part, victim in enumerate((*adders, None)):
        await produce(run, part * RECORDS // 3, (part + 1) * RECORDS // 3)
        await reached(run, (part + 1) * RECORDS // 3)
        if victim:
            run.signal(victim, signal.SIGKILL)
    await wait_until(lambda: whole(run))
    await require_plain_fold(run)
    for at in range(toy.PARTITIONS):
        assert {dict(record.headers)["owner"].decode() for record in await run.records("sums", at)} == set(adders)


@pytest.mark.slow
async def test_a_worker_frozen_beyond_its_session_gives_way_and_comes_back(run: Run) -> None:
    run.session_s = 2.0
    await run.start(*NAMES)
    await shared_out(run)
    await produce(run, 0, RECORDS // 2)
    await reached(run, RECORDS // 2)
    run.signal("adder-0", signal.SIGSTOP)
    await produce(run, RECORDS // 2, RECORDS)
    await wait_until(lambda: whole(run))  # the other adder has taken over
    run.signal("adder-0", signal.SIGCONT)

    async def died() -> bool:
        return MEMBERSHIP_LOST in [one["code"] for one in run.notes("die", "adder-0")]

    await wait_until(died)

    async def back() -> bool:
        return len(run.notes("restore", "adder-0")) >= 2

    await wait_until(back)
    await require_plain_fold(run)


async def test_workers_survive_a_broker_that_is_killed(run: Run, broker: Any) -> None:
    await run.start(*NAMES)
    await produce(run, 0, RECORDS // 3)
    await reached(run, RECORDS // 6)
    broker.kill()
    broker.start()
    await produce(run, RECORDS // 3, RECORDS)
    await wait_until(lambda: whole(run))
    await require_plain_fold(run)


async def test_a_replica_without_checkpoints_reads_everything_in_every_life(run: Run) -> None:
    run.session_s = 2.0
    await run.start(*NAMES, "replica-0")
    for end in (RECORDS // 2, RECORDS):
        await produce(run, end - RECORDS // 2, end)

        async def copied(length: int = end) -> bool:
            return len(await run.taken("copies", 0)) == length

        await wait_until(copied)
        if end < RECORDS:
            run.signal("replica-0", signal.SIGTERM)  # leaves the group: it is no static member
    assert await run.taken("copies", 0) == await run.taken("totals", 0)
    assert await run.length("copies") == RECORDS + RECORDS // 2
    assert run.notes("die", "replica-0") == []
