"""Fills and records a second of risk workers, beside a plain consumer, a per-event Faust agent and Quix Streams.

The workers hold the genesis block, are frozen, the log is appended, they are thawed: seconds are from there to the last
blocks.done on the broker. Each block is 40 records of fills with a market tick between them, then a barrier at which
every account of the partition is computed exactly. Rows are of one worker with one partition, unless they say "default
partitions": one worker as it is deployed, with all partitions of an installation that sets nothing. Its units are
applied by two threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaProducer

from schemas import log_records as records
from schemas.topics import ACCOUNT_LOG
from streams.pipeline.config import PipelineConfig
from streams.runtime.topics_admin import TopicSpec, delete_topics, ensure_topics
from tests.bench.rows import Row
from tests.bench.spine_log import Shape, SpineLog, small_shape
from tests.bench.spine_peers import expected, fills_of, run_peer
from tests.bench.spine_recorded import RecordedLog
from tests.bench.spine_site import Site, load, running_broker, site

CALM = Shape(accounts=1_000, blocks=100)
CALLS = Shape(accounts=1_000, blocks=60, calls=12)
SINGLE = Shape(accounts=1_000, blocks=200, records_a_block=1)
DEFAULT_PARTITIONS = PipelineConfig(bootstrap="", prefix="", folder="").partitions
SPREAD = Shape(accounts=1_000 * DEFAULT_PARTITIONS, partitions=DEFAULT_PARTITIONS, blocks=25)
SPREAD_CALLS = replace(SPREAD, calls=12 * DEFAULT_PARTITIONS)
CALM_GOAL, CALLS_GOAL, AGENT_GOAL = 400_000, 200_000, 20
PEER_FILLS, PEER_FILLS_SMALL = 60_000, 300
PEERS = {"faust": "per-event Faust agent", "quix": "Quix Streams"}
RAW = "raw aiokafka, same log"


class Flow(NamedTuple):
    """A measured run: `raw`: what a plain consumer made of the same partition 0, where it was asked for."""

    fills: int
    records: int
    seconds: float
    cpu_s: float
    resident_mb: float
    digest: str
    calls: int
    raw: dict[str, Any] | None

    @property
    def fills_per_s(self) -> float:
        return self.fills / self.seconds

    @property
    def fills_per_cpu_s(self) -> float:
        return self.fills / max(self.cpu_s, 1e-3)


def rows(small: bool, broker: str = "kafka") -> Iterator[Row]:
    """All rows; `small` in half a minute."""
    with running_broker(broker) as process:
        address = process.address
        calm = _flow(address, _shape(CALM, small), compare=True)
        agent = _peer(address, "faust", small)
        yield _row("fills, 250 a record, no calls", calm, CALM_GOAL, small)
        yield _records_row("records, 250 fills a record", calm)
        yield _beside_raw("250 fills a record", calm)
        yield _beside_peer("faust", calm, agent, small)
        yield _beside_peer("quix", calm, _peer(address, "quix", small), small)
        yield _row("fills, 250 a record, 12 calls a block", _flow(address, _shape(CALLS, small)), CALLS_GOAL, small)
        if not small:
            yield _row("fills, 250 a record, a barrier behind each", _flow(address, SINGLE), 0, small)
        recorded = _recorded(address, small)
        yield _row("fills, recorded record sizes (hyperliquid)", recorded, 0, small)
        yield _records_row("records, recorded record sizes (hyperliquid)", recorded)
        yield _beside_raw("recorded record sizes (hyperliquid)", recorded)
        yield from _spread(address, small)


def _shape(shape: Shape, small: bool) -> Shape:
    return small_shape(shape) if small else shape


def _flow(address: str, shape: Shape, workers: int = 1, compare: bool = False) -> Flow:
    log = SpineLog(shape)
    values = [
        [value for block in log.blocks(p) for value in (*block.events, block.barrier)] for p in range(shape.partitions)
    ]
    return asyncio.run(_measured(address, log, values, workers, shape.fills, compare))


def _recorded(address: str, small: bool) -> Flow:
    log = RecordedLog(blocks=6 if small else None)
    return asyncio.run(_measured(address, log, [log.values], 1, log.fills, compare=True))


async def _measured(
    address: str, log: SpineLog | RecordedLog, values: list[list[bytes]], workers: int, fills: int, compare: bool
) -> Flow:
    last_block = records.read_header(values[0][-1]).block
    async with site(address, log, workers=workers) as found:
        await found.wait_until_shared()
        found.signal(signal.SIGSTOP)
        used_s = found.usage().cpu_s
        await asyncio.gather(*(found.append(p, these) for p, these in enumerate(values)))
        began_s = found.signal(signal.SIGCONT)
        await found.wait_until_said(last_block)
        usage, done = found.usage(), await found.done()
        seconds = max(one.time_ms for one in done) / 1e3 - began_s
        digests = [one.value["state_digest"] for one in sorted(done) if one.block == last_block]
        calls = sum(len(one.value["events"]) for one in await found.calls())
        raw = await _raw(found, address) if compare else None
    count = sum(map(len, values))
    digest = digests[0] if len(digests) == 1 else "+".join(one[:8] for one in digests)
    return Flow(fills, count, seconds, usage.cpu_s - used_s, usage.resident_mb, digest, calls, raw)


async def _raw(found: Site, address: str) -> dict[str, Any]:
    topic = found.settings.topic(ACCOUNT_LOG)
    _, end = await found.reader.bounds(topic, 0)
    return await asyncio.to_thread(run_peer, "raw", address, topic, end)


def _peer(address: str, name: str, small: bool) -> dict[str, Any] | str:
    """What a per-event peer made of the first fills of the log, or why it did not run."""
    if name == "quix" and importlib.util.find_spec("quixstreams") is None:
        return "not installed"
    shape = _shape(replace(CALM, blocks=10), small)
    count = PEER_FILLS_SMALL if small else PEER_FILLS
    log = SpineLog(shape)
    values = (value for block in log.blocks(0) for value in block.events)
    fills = [fill for fill, _ in zip(fills_of(values), range(count), strict=False)]
    try:
        return asyncio.run(_fed(address, name, fills)) | {"expected": expected(fills)}
    except RuntimeError as error:
        return f"not run: {error}"


async def _fed(address: str, name: str, fills: list[dict[str, Any]]) -> dict[str, Any]:
    """Append the fills to a topic of their own, one message each, and run the peer on it."""
    async with _single_topic(address) as (topic, producer):
        waiting = [await producer.send(topic, orjson.dumps(fill), partition=0) for fill in fills]
        await asyncio.gather(*waiting)
        return await asyncio.to_thread(run_peer, name, address, topic, len(fills))


@contextlib.asynccontextmanager
async def _single_topic(address: str) -> AsyncIterator[tuple[str, AIOKafkaProducer]]:
    """A topic of one partition with a producer, gone afterwards."""
    topic, producer = f"fills-{uuid.uuid4().hex[:10]}", AIOKafkaProducer(bootstrap_servers=address, linger_ms=5)
    await ensure_topics(address, [TopicSpec(topic, 1)])
    await producer.start()
    try:
        yield topic, producer
    finally:
        await producer.stop()
        await delete_topics(address, [topic])


def _spread(address: str, small: bool) -> Iterator[Row]:
    """One worker with the default number of partitions; then the same log by 2 and 4 workers."""
    deployed = f"one worker, default partitions ({DEFAULT_PARTITIONS})"
    alone = _flow(address, _shape(SPREAD, small))
    yield _row(f"fills, 250 a record, no calls, {deployed}", alone, CALM_GOAL, small)
    calls = _flow(address, _shape(SPREAD_CALLS, small))
    yield _row(f"fills, 250 a record, 12 calls a block and partition, {deployed}", calls, CALLS_GOAL, small)
    for workers in (2,) if small else (2, 4):
        flow, name = _flow(address, _shape(SPREAD, small), workers), f"fills, {workers} workers, default partitions"
        yield Row(
            name=name, value=round(flow.fills_per_s), unit="fills/s", peer="1 worker",
            ratio=round(flow.fills_per_s / alone.fills_per_s, 2), ok=flow.digest == alone.digest,
            goal="the same state",
            size=_size(flow), memory_mb=flow.resident_mb, checksum=flow.digest,
        )  # fmt: skip


def _size(flow: Flow) -> str:
    return (
        f"{flow.fills} fills, {flow.records} records, {flow.calls} calls; "
        f"{flow.fills_per_cpu_s:.0f} fills a CPU second, {flow.cpu_s / flow.seconds:.2f} cores; {load()}"
    )


def _row(name: str, flow: Flow, goal: int, small: bool) -> Row:
    return Row(
        name=name, value=round(flow.fills_per_s), unit="fills/s", goal=f">= {goal}" if goal else "",
        ok=(small or flow.fills_per_s >= goal) if goal else None, size=_size(flow), memory_mb=flow.resident_mb,
        checksum=flow.digest,
    )  # fmt: skip


def _records_row(name: str, flow: Flow) -> Row:
    return Row(
        name=name, value=round(flow.records / flow.seconds), unit="records/s", size=_size(flow), checksum=flow.digest
    )


def _beside_raw(name: str, flow: Flow) -> Row:
    """A plain consumer does nothing with what it reads: a ratio near 1 would be the most there is."""
    assert flow.raw is not None
    its = flow.raw["records"] / flow.raw["seconds"]
    return Row(
        name=f"records beside a plain consumer, {name}", value=round(flow.records / flow.seconds), unit="records/s",
        peer=f"{RAW}: {its:,.0f} records/s", ratio=round(flow.records / flow.seconds / its, 3), size=load(),
        checksum=flow.digest,
    )  # fmt: skip


def _beside_peer(name: str, flow: Flow, found: dict[str, Any] | str, small: bool) -> Row:
    title = f"fills beside {PEERS[name]}"
    if isinstance(found, str):
        return Row(name=title, value=None, unit="fills/s", peer=PEERS[name], goal=found)
    its, is_agent = found["fills"] / found["seconds"], name == "faust"
    ratio, its_per_cpu_s = flow.fills_per_s / its, found["fills"] / max(found["cpu_s"], 1e-3)
    return Row(
        name=title, value=round(flow.fills_per_s), unit="fills/s", peer=f"{PEERS[name]}: {its:,.0f} fills/s",
        ratio=round(ratio, 1), goal=f">= {AGENT_GOAL}x" if is_agent else "the same book",
        ok=found["checksum"] == found["expected"] and (small or not is_agent or ratio >= AGENT_GOAL),
        size=f"{found['fills']} fills, one JSON message each, booked in memory; {its_per_cpu_s:.0f} fills a CPU "
        f"second, ours {flow.fills_per_cpu_s / its_per_cpu_s:.1f} times as many; {load()}", checksum=found["checksum"],
    )  # fmt: skip
