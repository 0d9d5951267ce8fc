"""Faults of what is stored: damaged checkpoints, a record that contradicts the log, a full disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from schemas import log_records
from schemas.topics import ACCOUNT_LOG, CHECKPOINTS, CHECKPOINTS_ENFORCEMENT, CHECKPOINTS_SEQUENCER
from streams.runtime.log_reader import LogReader
from streams.runtime.producer import new_producer
from streams.sink.store import FREE_BYTES_MIN
from tests.chaos.faults import fault

if TYPE_CHECKING:
    from tests.chaos.acts import Tormentor

TOPIC_OF = {"risk": CHECKPOINTS, "sequencer": CHECKPOINTS_SEQUENCER, "enforcement": CHECKPOINTS_ENFORCEMENT}
FULL_S = 4.0
SMALL_DISK = "a store on a disk of its own (root)"
NEVER = 1 << 40  # a decision that there will not be


@fault("corrupt checkpoint", "a chunk of every newest checkpoint has other bytes; then the workers are killed",
       *TOPIC_OF, always=tuple(TOPIC_OF))  # fmt: skip
async def corrupt_checkpoint(on: Tormentor, role: str) -> None:
    await _damage(on, "corrupt checkpoint", role, b"?")


@fault("missing chunk", "a chunk of every newest checkpoint is gone; then the workers are killed", *TOPIC_OF,
       always=tuple(TOPIC_OF))  # fmt: skip
async def missing_chunk(on: Tormentor, role: str) -> None:
    await _damage(on, "missing chunk", role, None)


async def _damage(on: Tormentor, name: str, role: str, value: bytes | None) -> None:
    settings = on.config.settings()
    topic, units = settings.topic(TOPIC_OF[role]), on.config.partitions if role == "risk" else 1
    reader, producer = LogReader(settings), new_producer(settings)
    await asyncio.gather(reader.start(), producer.start())
    try:
        for unit in range(units):
            log = await reader.read(topic, unit, *await reader.bounds(topic, unit))
            if chunks := [record.key for record in log if not record.key.endswith(b"/m") and record.value is not None]:
                await producer.send_and_wait(topic, value, key=chunks[-1], partition=unit)
        for who in on.names_to_disturb(role):
            on.begun(name, who)
            on.signal(who, signal.SIGKILL)
    finally:
        await asyncio.gather(reader.stop(), producer.stop())


@fault("halt partition", "a record that contradicts the log halts one partition for good; the others go on", "log")
async def halt_partition(on: Tormentor, role: str) -> None:
    partition = on.chance.randrange(on.config.partitions)
    raw = log_records.pack_header(log_records.BARRIER, NEVER, 0, 0, log_records.NO_HASH)
    on.begun("halt partition", role)
    on.halted[partition] = raw
    producer = new_producer(on.config.settings())
    await producer.start()
    try:
        await producer.send_and_wait(on.config.settings().topic(ACCOUNT_LOG), raw, partition=partition)
    finally:
        await producer.stop()


@fault("full disk", "the disk of the store is full for a while: the sink stops loudly, the others go on", "sink",
       needs=SMALL_DISK, always=("sink",), takes_s=7.0)  # fmt: skip
async def full_disk(on: Tormentor, role: str) -> None:
    on.begun("full disk", "sink")
    filler = Path(on.config.store) / "filler"
    free = shutil.disk_usage(on.config.store).free
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - FREE_BYTES_MIN // 2))
    try:
        await asyncio.sleep(FULL_S)
    finally:
        filler.unlink()
