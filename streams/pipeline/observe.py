"""Reads what a pipeline says, as any reader would: repeats dropped, losses seen, digests and latencies kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from schemas import log_records as records
from schemas.codec import decode_output
from schemas.decisions import HEALTHY, INSOLVENT, LIQUIDATABLE, MARGIN_CALL
from schemas.margin_batch import decode_batch
from schemas.topics import (
    ACCOUNT_LOG,
    BLOCKS_DONE,
    ENFORCEMENT_OUTPUTS,
    LIQUIDATIONS,
    MARGIN_BATCHES,
    MARGIN_CALLS,
    MARGIN_WARNINGS,
    QUARANTINE,
    RISK_OUTPUTS,
)
from streams.engine.enforcement import FLAGGED, RETRACTION
from streams.runtime.broker_access import connected
from streams.runtime.log_reader import LogReader
from streams.runtime.once import Once
from streams.runtime.settings import RuntimeSettings

Listener = Callable[[str, dict[str, Any]], None]
FLAGS = (LIQUIDATABLE, INSOLVENT)
EVENT_KINDS = {MARGIN_WARNINGS: "margin_warning", MARGIN_CALLS: "margin_call", LIQUIDATIONS: "liquidation"}


def _liquidation_id(flag_id: str) -> str:
    """Of the liquidation that a flag becomes: block/account/state[/epoch]."""
    for state in FLAGS:
        flag_id = flag_id.replace(f"/{state}", f"/{FLAGGED}")
    return flag_id


class OutputsBroken(Exception):
    """A hole or a conflict in the outputs: must never happen, whatever was killed."""


class PartitionHalted(Exception):
    """A risk partition stands still; the message says why."""


class Observer:
    """Follows the outputs of all partitions, and the barriers of account.log for their times."""

    def __init__(self, settings: RuntimeSettings, partitions: int, listener: Listener) -> None:
        self.settings, self.partitions, self.listener = settings, partitions, listener
        self.once: dict[tuple[str, int], Once] = defaultdict(Once)
        self.hashes: dict[tuple[str, int], Any] = defaultdict(lambda: hashlib.blake2b(digest_size=16))
        self.counts: dict[str, int] = defaultdict(int)
        self.repeats = 0
        self.awaited: set[str] = set()  # ids of liquidations that flags demand
        self.liquidated: set[str] = set()
        self.barrier_ms: dict[tuple[int, int], int] = {}
        self.last_call_ms: dict[tuple[int, int], int] = {}
        self.done_ms: dict[tuple[int, int], int] = {}
        self.done: dict[int, dict[int, dict]] = defaultdict(dict)  # block -> partition -> blocks.done
        self.batches: dict[int, Any] = {}  # partition -> latest table
        self.wide_accounts: set[str] = set()
        self.quarantined: set[bytes] = set()
        self.event_records: set[tuple[int, int]] = set()
        self.ends: dict[str, int] = {}  # "topic/partition" of an output -> offset after the last record read
        self.changed = asyncio.Condition()
        self.failure: Exception | None = None

    async def run(self) -> None:
        """Read until cancelled. A failure is kept for whoever waits."""
        consumer = AIOKafkaConsumer(
            **self.settings.client_options(),
            group_id=None,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
            request_timeout_ms=self.settings.request_timeout_ms,
            max_partition_fetch_bytes=8 << 20,
            enable_auto_commit=False,
        )
        await connected(consumer, self.settings)
        try:
            consumer.assign([TopicPartition(self.settings.topic(t), p) for t, p in self._logs()])
            while True:
                for _, batch in (await consumer.getmany(timeout_ms=500)).items():
                    for record in batch:
                        self.take(record)
                async with self.changed:
                    self.changed.notify_all()
        except Exception as error:
            self.failure = error
            async with self.changed:
                self.changed.notify_all()
        finally:
            await consumer.stop()

    def _logs(self) -> list[tuple[str, int]]:
        spread = [(t, p) for t in (ACCOUNT_LOG, *RISK_OUTPUTS) for p in range(self.partitions)]
        return [*spread, *((topic, 0) for topic in ENFORCEMENT_OUTPUTS), (QUARANTINE, 0)]

    # -- records

    def take(self, record: ConsumerRecord) -> None:
        """One record of any followed log."""
        topic, partition = self.settings.short(record.topic), record.partition
        if topic == ACCOUNT_LOG:
            self._take_log(partition, record)
            return
        self.ends[f"{topic}/{partition}"] = record.offset + 1
        if topic == QUARANTINE:
            self.quarantined.add(record.key or b"")
        else:
            self._take_output(topic, partition, record)

    def _take_log(self, partition: int, record: ConsumerRecord) -> None:
        header = records.read_header(record.value)
        if header.kind == records.BARRIER:
            self.barrier_ms.setdefault((header.block, partition), record.timestamp)
        elif header.kind == records.EVENTS and (partition, header.number) not in self.event_records:
            self.event_records.add((partition, header.number))
            rows = records.read_events(record.value, header).rows
            self.counts["fills"] += int((rows["kind"] == records.FILL).sum())

    def _take_output(self, topic: str, partition: int, record: ConsumerRecord) -> None:
        if topic == MARGIN_BATCHES:
            head, table = decode_batch(record.value)
            value: dict[str, Any] = {"seq": head.seq, "block": head.block, "table": table}
        else:
            value = decode_output(record.value)
        verdict = self.once[topic, partition].take(value["seq"], record.value)
        if verdict == "repeat":
            self.repeats += 1
            return
        if verdict != "new":
            raise OutputsBroken(f"{verdict} in {topic}/{partition} at record {value['seq']}")
        self.hashes[topic, partition].update(record.value)
        self._take_new(topic, partition, value, record.timestamp)

    def _take_new(self, topic: str, partition: int, value: dict[str, Any], timestamp_ms: int) -> None:
        if topic == MARGIN_BATCHES:
            self._take_batch(partition, value)
        elif topic == BLOCKS_DONE:
            self._take_done(partition, value, timestamp_ms)
        elif topic in EVENT_KINDS:
            if topic == MARGIN_CALLS:
                self.last_call_ms[value["block"], partition] = timestamp_ms
            for event in value["events"]:
                self._take_event(topic, event)

    def _take_event(self, topic: str, event: dict[str, Any]) -> None:
        kind = RETRACTION if event["type"] == RETRACTION else EVENT_KINDS[topic]
        self.counts[kind] += 1
        self.counts["flag"] += event.get("to") in FLAGS
        self.counts["call"] += event.get("to") == MARGIN_CALL
        self.counts["release"] += event.get("to") == HEALTHY
        if kind == "liquidation":
            self.liquidated.add(event["id"])
        elif event.get("to") in FLAGS:
            self.awaited.add(_liquidation_id(event["id"]))
        elif kind == RETRACTION and topic == MARGIN_CALLS:
            self.awaited.discard(_liquidation_id(event["retracts"]))
        self.listener(kind, event)

    def _take_batch(self, partition: int, value: dict[str, Any]) -> None:
        table = value["table"]
        self.batches[partition] = table
        wide = table.column("wide").to_numpy(zero_copy_only=False)
        if wide.any():
            self.wide_accounts.update(table.column("account").filter(wide).to_pylist())
        self.listener("batch", {"block": value["block"], "partition": partition, "table": table})

    def _take_done(self, partition: int, value: dict[str, Any], timestamp_ms: int) -> None:
        if value["halted"]:
            raise PartitionHalted(f"partition {partition} halted: {value['halted']}")
        block = value["block"]
        if "rollback_from" in value:
            self._take_rollback(partition, block)
            return
        self.done_ms[block, partition] = timestamp_ms
        self.done[block][partition] = value
        if len(self.done[block]) == self.partitions:
            self.counts["blocks"] += 1
            self.listener("block_done", self._summary(block))
            self.done.pop(block - 2, None)

    def _take_rollback(self, partition: int, block: int) -> None:
        """A partition is back at `block`."""
        self.counts["rollback"] += partition == 0
        for gone in [b for b, p in self.done_ms if p == partition and b > block]:
            del self.done_ms[gone, partition]
            self.done[gone].pop(partition, None)

    def _summary(self, block: int) -> dict[str, Any]:
        parts = self.done[block].values()
        latency = self.call_latencies_ms(block)
        return {
            "block": block,
            "time_ms": max(p["time_ms"] for p in parts),
            "accounts": sum(p["accounts"] for p in parts),
            "warnings": sum(p["warnings"] for p in parts),
            "calls": sum(p["calls"] for p in parts),
            "first": sum(p["first"] for p in parts),
            "states": {s: sum(p["states"].get(s, 0) for p in parts) for p0 in parts for s in p0["states"]},
            "block_ms": self.block_latency_ms(block),
            "first_ms": max(latency) if latency else None,
        }

    # -- waiting

    async def wait_for(self, is_true: Callable[[], bool], limit_s: float) -> None:
        """Until the condition holds; raises what broke the outputs, or TimeoutError."""
        async with asyncio.timeout(limit_s), self.changed:
            while not is_true():
                if self.failure is not None:
                    raise self.failure
                await self.changed.wait()

    def is_done(self, block: int) -> bool:
        """Every partition has done the block."""
        return all((block, p) in self.done_ms for p in range(self.partitions))

    async def catch_up(self, limit_s: float) -> None:
        """Read every output to its present end: a broker may hand out blocks.done before what was appended earlier."""
        reader = LogReader(self.settings)
        await reader.start()
        try:
            logs = {(self.settings.topic(t), p): f"{t}/{p}" for t, p in self._logs() if t != ACCOUNT_LOG}
            wanted = {logs[at]: end for at, end in (await reader.ends(logs)).items()}
        finally:
            await reader.stop()
        await self.wait_for(lambda: all(self.ends.get(log, 0) >= end for log, end in wanted.items()), limit_s)

    def is_enforced(self) -> bool:
        """Every flag has become a liquidation."""
        return self.awaited <= self.liquidated

    # -- figures

    def call_latencies_ms(self, block: int | None = None) -> list[int]:
        """Barrier append to the append of the last calls, per block and partition that has calls."""
        found = []
        for (n, p), at_ms in self.last_call_ms.items():
            if (block is None or n == block) and (n, p) in self.barrier_ms:
                found.append(at_ms - self.barrier_ms[n, p])
        return found

    def block_latency_ms(self, block: int) -> int:
        """First barrier append of a block to its last blocks.done."""
        begun = [self.barrier_ms[block, p] for p in range(self.partitions) if (block, p) in self.barrier_ms]
        ended = [self.done_ms[block, p] for p in range(self.partitions) if (block, p) in self.done_ms]
        return max(ended) - min(begun) if begun and ended else 0

    def output_digest(self) -> str:
        """Over all deduplicated output values by topic, partition, sequence."""
        whole = hashlib.blake2b(digest_size=16)
        for (topic, partition), partial in sorted(self.hashes.items()):
            whole.update(f"{topic}/{partition}:".encode() + partial.digest())
        return whole.hexdigest()

    def state_digest(self, block: int) -> str:
        """Over the state digests of all partitions at a block."""
        whole = hashlib.blake2b(digest_size=16)
        for partition, done in sorted(self.done[block].items()):
            whole.update(f"{partition}:{done['state_digest']}".encode())
        return whole.hexdigest()

    def accounts(self, block: int) -> int:
        return sum(done["accounts"] for done in self.done[block].values())

    def nearest(self, count: int) -> list[dict[str, Any]]:
        """Accounts whose NLV is nearest to their IM in the latest batches, by distance of NLV / IM from 1."""
        rows = []
        for table in self.batches.values():
            initial = table.column("initial_margin_usd6").to_numpy()
            nlv = table.column("nlv_usd6").to_numpy()
            ratio = np.divide(nlv, initial, out=np.full(len(nlv), np.inf), where=initial > 0)
            for place in np.argsort(np.abs(ratio - 1), kind="stable")[:count].tolist():
                if np.isfinite(ratio[place]):
                    rows.append({**table.slice(place, 1).to_pylist()[0], "ratio": float(ratio[place])})
        nearest = sorted(rows, key=lambda row: (abs(row["ratio"] - 1), row["account"]))[:count]
        return sorted(nearest, key=lambda row: (row["ratio"], row["account"]))
