"""Risk workers on a broker over a log made for measuring: started, fed, frozen, killed, asked for times and memory.

Times of records are the broker's (LogAppendTime), so that a producer's and a worker's clocks do not matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from schemas import log_records as records
from schemas.topics import ACCOUNT_LOG, BLOCKS_DONE, MARGIN_CALLS
from streams.pipeline.config import PipelineConfig
from streams.pipeline.scenario_store import publish_scenario_set
from streams.runtime.kafka_process import Broker, DevelopmentBroker, KafkaBroker
from streams.runtime.log_reader import LogReader
from streams.runtime.once import Once
from streams.runtime.producer import new_producer
from tests.bench.rows import MEBIBYTE
from tests.bench.spine_log import SpineLog
from tests.bench.spine_recorded import RecordedLog
from tests.chaos.notes import notes
from tests.installation import stamped_topics, supervised
from tests.waiting import wait_until

POLL_S, LIMIT_S = 0.02, 240.0
AHEAD = 512  # records sent before their acknowledgements are waited for

Log = SpineLog | RecordedLog


class Said(NamedTuple):
    """An output, first of its number: whose, which block, when the broker appended it, its value."""

    partition: int
    block: int
    time_ms: int
    value: dict[str, Any]


class Usage(NamedTuple):
    """Of the risk workers together: CPU seconds so far; the largest resident size, MiB."""

    cpu_s: float
    resident_mb: float


@contextlib.contextmanager
def running_broker(kind: str) -> Iterator[Broker]:
    """A broker of its own, "dev" or "kafka", on a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dpme-bench-") as folder:
        broker: Broker = DevelopmentBroker(folder) if kind == "dev" else KafkaBroker(folder)
        with broker:
            yield broker


class Site:
    """An installation of risk workers and nothing else; whoever measures appends to account.log itself."""

    def __init__(self, config: PipelineConfig, partitions: int) -> None:
        self.config, self.settings, self.partitions = config, config.settings(), partitions
        self.producer, self.reader = new_producer(self.settings), LogReader(self.settings)

    async def append(self, partition: int, values: Iterable[bytes]) -> None:
        """Records of account.log, in order; returns when the broker has them."""
        waiting = []
        for value in values:
            waiting.append(await self.producer.send(self.settings.topic(ACCOUNT_LOG), value, partition=partition))
            if len(waiting) == AHEAD:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)

    async def begin(self, log: Log) -> None:
        """Append the genesis block and wait until every partition has done it."""
        for partition in range(self.partitions):
            await self.append(partition, log.genesis(partition))
        await self.wait_until_said(records.read_header(log.genesis(0)[-1]).block)

    async def wait_until_said(self, block: int) -> None:
        """Until the last record of blocks.done of every partition is of this block or a later one."""
        topic = self.settings.topic(BLOCKS_DONE)

        async def said(partition: int) -> bool:
            return await self._last_said(topic, partition) >= block

        for partition in range(self.partitions):
            await wait_until(partial(said, partition), LIMIT_S, POLL_S)

    async def _last_said(self, topic: str, partition: int) -> int:
        _, end = await self.reader.bounds(topic, partition)
        last = await self.reader.read(topic, partition, max(0, end - 1), end)
        return int(msgspec.json.decode(last[-1].value)["block"]) if last else -1

    async def wait_until_everybody_said(self, copies: int) -> None:
        """Until every partition's first block was said by so many groups."""
        logs = [(self.settings.topic(BLOCKS_DONE), p) for p in range(self.partitions)]

        async def said() -> bool:
            return min((await self.reader.ends(logs)).values()) >= copies

        await wait_until(said, LIMIT_S, POLL_S)

    async def wait_until_shared(self) -> None:
        """Until the partitions are spread over all workers of the first group, each of which has some."""

        def shared() -> bool:
            held = self._held()
            return min(held, default=0) > 0 and sum(held) == self.partitions

        await wait_until(shared, LIMIT_S, POLL_S)

    def _held(self) -> list[int]:
        """Partitions of each worker, by what it noted last."""
        paths = [Path(self.config.folder) / f"risk-{n}.log" for n in range(self.config.risk_workers)]
        found = [[one for one in notes(path) if one["event"] == "restore"] if path.exists() else [] for path in paths]
        return [len(restores[-1]["offsets"]) if restores else 0 for restores in found]

    async def said(self, topic: str) -> list[Said]:
        """Everything said so far, repeats dropped; a hole or a conflict is an error, and so is a halt."""
        found = []
        for partition in range(self.partitions):
            once = Once()
            full_name = self.settings.topic(topic)
            for record in await self.reader.read(full_name, partition, *await self.reader.bounds(full_name, partition)):
                value = msgspec.json.decode(record.value)
                verdict = once.take(value["seq"], record.value)
                if verdict not in ("new", "repeat") or value.get("halted"):
                    raise AssertionError(f"{topic}/{partition}: {verdict} {value.get('halted', '')}")
                if verdict == "new":
                    found.append(Said(partition, value["block"], record.timestamp, value))
        return found

    async def barriers_ms(self) -> dict[tuple[int, int], int]:
        """(partition, block) -> when its barrier was appended."""
        found, full_name = {}, self.settings.topic(ACCOUNT_LOG)
        for partition in range(self.partitions):
            for record in await self.reader.read(full_name, partition, *await self.reader.bounds(full_name, partition)):
                if record.value[1] == records.BARRIER:
                    found[partition, records.read_header(record.value).block] = record.timestamp
        return found

    async def done(self) -> list[Said]:
        return await self.said(BLOCKS_DONE)

    async def calls(self) -> list[Said]:
        return await self.said(MARGIN_CALLS)

    # -- processes

    def pids(self) -> dict[str, int]:
        """Living risk workers by name."""
        return {path.stem: int(path.read_text()) for path in sorted(Path(self.config.folder).glob("risk*.pid"))}

    def signal(self, number: int) -> float:
        """Send a signal to every risk worker; returns the wall time in seconds."""
        for pid in self.pids().values():
            os.kill(pid, number)
        return time.time()

    def usage(self) -> Usage:
        cpu, resident = 0.0, 0.0
        for pid in self.pids().values():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
            cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            resident = max(resident, pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE)
        return Usage(cpu, round(resident, 1))


@contextlib.asynccontextmanager
async def site(
    address: str, log: Log, *, workers: int = 1, groups: int = 1, session_s: float = 30.0, every: int = 10
) -> AsyncIterator[Site]:
    """Topics and running workers for the log, whose genesis block is done; all of it gone afterwards."""
    partitions = log.shape.partitions
    with tempfile.TemporaryDirectory(prefix="dpme-bench-") as folder:
        config = PipelineConfig(
            bootstrap=address, prefix=f"b{uuid.uuid4().hex[:10]}.", folder=folder, partitions=partitions,
            risk_workers=workers, groups=groups, session_s=session_s, checkpoint_every=every, log_format="json",
        )  # fmt: skip
        found = Site(config, partitions)
        async with stamped_topics(config):
            try:
                await publish_scenario_set(found.settings, log.scenario_set)
                await asyncio.gather(found.producer.start(), found.reader.start())
                with supervised(config, "tests.bench.spine_workers"):
                    await found.begin(log)
                    yield found
            finally:
                await asyncio.gather(found.producer.stop(), found.reader.stop())


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def load() -> str:
    """The machine's load average of the last minute, as rows say it."""
    return f"load {os.getloadavg()[0]:.1f}"
