"""Another number of partitions for a stopped installation (infra/docs/partitions.md).

The old logs are fenced and read to their end; the machines, re-bucketed, become the first checkpoints of a new
generation of topics; the old market.log is sealed, and the configuration names the new generation. Until the seal
stands nothing of the old generation has changed, and it may go on; from then on it cannot, and only the last step, the
configuration, is missing: running the change again does that step.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from msgspec import structs

from schemas import log_records as records
from schemas.topics import (
    ALL_CHECKPOINTS,
    CHECKPOINTS,
    CHECKPOINTS_ENFORCEMENT,
    CHECKPOINTS_MODEL,
    CHECKPOINTS_SEQUENCER,
    GENESIS,
    MARKET_LOG,
    OF_A_GENERATION,
    generation_specs,
)
from streams.engine.model_epochs import ModelEpochs
from streams.engine.output import Fault
from streams.engine.rebucket import Machines, rebucket
from streams.pipeline.at_the_end import READS_ONLY, EndOfLogs, Stopped, Tell
from streams.pipeline.config import PREFIX, PipelineConfig
from streams.runtime.broker_access import connected
from streams.runtime.checkpoints import Checkpoint, CheckpointReader, encode
from streams.runtime.log_reader import LogReader
from streams.runtime.producer import new_producer
from streams.runtime.settings import RuntimeSettings
from streams.runtime.topics_admin import TopicSpec, delete_topics, ensure_topics, members_of
from streams.sink.store import is_server

ROLES = ("sequencer", "risk", "enforcement", "model", "sink")
POLL_S = 0.5
CHANGED = ("partitions", "generation", "store")  # fields of the configuration
Unit = tuple[str, int, Any]  # checkpoint topic, its partition, machine


class PartitionChangeError(Exception):
    """The change cannot be made now; nothing has changed. The message says what to do."""


class Change(NamedTuple):
    """What the installation is after the change."""

    generation: int
    partitions: int
    block: int
    accounts: int
    store: str


def change_partitions(path: Path, config: PipelineConfig, partitions: int, tell: Tell) -> Change:
    """Make the change; returns when the configuration file is the new one. Raises PartitionChangeError.

    Args:
        path: the configuration file that `config` was read from; it is replaced.
    """
    for name in CHANGED:
        if PREFIX + name.upper() in os.environ:
            raise PartitionChangeError(
                f"{PREFIX}{name.upper()} wins over {path}: unset it (and wherever workers start)"
            )
    return asyncio.run(_change(path, config, partitions, tell))


async def _change(path: Path, config: PipelineConfig, partitions: int, tell: Tell) -> Change:
    settings = config.settings()
    await _require_stopped(config, tell)
    reader, producer = LogReader(settings), new_producer(settings)
    await asyncio.gather(reader.start(), connected(producer, settings))
    try:
        if (topic := settings.topic(MARKET_LOG)) not in await reader.topics():
            where = f"the broker at {config.bootstrap} has no topic {topic}"
            raise PartitionChangeError(f"{where}: is this the right installation? (dpme run topics makes a new one's)")
        work = _Work(config, EndOfLogs(settings, config.partitions, reader, producer, tell))
        seal = await work.seal()
        if seal is None:
            if partitions == config.partitions:
                raise PartitionChangeError(f"the installation has {partitions} partitions already")
            seal = await work.prepare(partitions)
        elif seal.partitions != partitions:
            raise PartitionChangeError(
                f"a change to {seal.partitions} partitions was cut short, and must be finished first: "
                f"--to {seal.partitions}"
            )
        found = await work.check(seal)
        tell("writing the configuration", 0, 1)
        store = _next_store(config.store, seal.generation)
        _rewrite(path, {"partitions": seal.partitions, "generation": seal.generation, "store": store})
        await work.tidy(seal.generation)
        return Change(seal.generation, seal.partitions, *found, store)
    finally:
        await asyncio.gather(reader.stop(), producer.stop())


async def _require_stopped(config: PipelineConfig, tell: Tell) -> None:
    """No worker of the installation may live. A static member that has stopped stays one for its session."""
    groups = [config.settings(g).group_id(role) for role in ROLES for g in range(config.groups_of(role))]
    ends_s = time.monotonic() + 2 * config.session_s
    while found := await members_of(config.bootstrap, groups, security=config.settings().security):
        if time.monotonic() > ends_s:
            names = ", ".join(sorted({name for members in found.values() for name in members}))
            raise PartitionChangeError(f"workers still run: {names}; stop every worker of the installation first")
        tell("waiting for the sessions of stopped workers to end", 0, 1)
        await asyncio.sleep(POLL_S)


class _Work:
    """The steps of a change, over the logs of the old generation."""

    def __init__(self, config: PipelineConfig, logs: EndOfLogs) -> None:
        self.config, self.logs, self.token = config, logs, secrets.token_bytes(16)
        self.reader, self.producer, self.tell = logs.reader, logs.producer, logs.tell

    def of(self, generation: int) -> RuntimeSettings:
        return structs.replace(self.config, generation=generation).settings()

    async def seal(self) -> records.Seal | None:
        """The seal that stands at the end of the old market.log, if one does."""
        end = await self.logs.end(MARKET_LOG, 0)
        found, holder = None, b""
        for record in await self.logs.between(MARKET_LOG, 0, max(0, end - 1_000), end):
            header = records.read_header(record.value)
            if header.kind == records.FENCE:
                holder = record.value[records.HEADER.size :]
            elif header.kind == records.SEAL and dict(record.headers).get("token") == holder:
                found = records.read_seal(record.value)
        return found

    async def _append(self, kind: int, body: bytes, block: int = 0) -> int:
        """A record without a number at the end of the old market.log; its offset."""
        raw = records.pack_header(kind, 0, block, 0, records.NO_HASH) + body
        topic, headers = self.logs.settings.topic(MARKET_LOG), [("token", self.token)]
        return (await self.producer.send_and_wait(topic, raw, partition=0, headers=headers)).offset

    async def prepare(self, partitions: int) -> records.Seal:
        """Everything up to the seal, which ends the old generation."""
        fenced_at = await self._append(records.FENCE, self.token)
        stopped = await self.logs.machines()
        made, model = self._rebucketed(stopped, partitions), await self.logs.model()
        generation = await self._next_generation()
        specs = [
            TopicSpec(self.of(generation).topic(s.name), s.partitions, s.configs, self.config.replication_factor)
            for s in generation_specs(partitions)
        ]
        await ensure_topics(self.config.bootstrap, specs, security=self.logs.settings.security)
        await self._write(self.of(generation), made, model)
        seal = records.Seal(generation, partitions)
        block = max(0, made.risks[0].block)
        sealed_at = await self._append(records.SEAL, records.pack_seal(b"", seal), block)
        for record in await self.logs.between(MARKET_LOG, 0, fenced_at + 1, sealed_at):
            if records.read_header(record.value).kind == records.FENCE:
                raise PartitionChangeError("a sequencer began to work meanwhile: stop it, and run the change again")
        return seal

    def _rebucketed(self, stopped: Stopped, partitions: int) -> Machines:
        self.tell("re-bucketing accounts", 0, 1)
        try:
            return rebucket(*stopped, partitions, READS_ONLY)
        except Fault as fault:
            raise PartitionChangeError(
                f"{fault}; start the workers again, wait until another block is done, and stop them"
            ) from fault

    async def _next_generation(self) -> int:
        """The next number of which no topic exists: one that was begun and left is not taken up again."""
        known = await self.reader.topics()
        generation = self.config.generation + 1
        while any(self.of(generation).topic(name) in known for name in OF_A_GENERATION):
            generation += 1
        return generation

    async def _write(self, settings: RuntimeSettings, made: Machines, model: ModelEpochs) -> None:
        """Genesis: every machine as a checkpoint to start from, and once more where nothing is ever removed."""
        units = _units(made, model)
        for place, (topic, unit, machine) in enumerate(units):
            self.tell("writing checkpoints", place, len(units))
            checkpoint = Checkpoint(max(0, made.risks[0].block), dict(machine.positions()), machine.dump())
            _, found = encode(checkpoint, settings.checkpoint_chunk_bytes)
            for name, partition in ((GENESIS, place), (topic, unit)):
                await _send_all(self.producer, settings.topic(name), partition, found)

    async def check(self, seal: records.Seal) -> tuple[int, int]:
        """Every first checkpoint must be whole -> (block, accounts)."""
        settings, block, accounts = self.of(seal.generation), 0, 0
        units = seal.partitions + len(ALL_CHECKPOINTS) - 1
        for unit in range(units):
            self.tell("checking checkpoints", unit, units)
            found = await CheckpointReader(self.reader, settings.topic(GENESIS)).newest(unit)
            if found is None:
                raise PartitionChangeError(
                    f"{settings.topic(GENESIS)}/{unit} has no whole checkpoint: restore the broker"
                )
            block = found.mark
            if unit < seal.partitions:
                accounts += len(msgspec.msgpack.decode(found.state)["book"]["accounts"])
        return block, accounts

    async def tidy(self, generation: int) -> None:
        """Topics of changes that were begun and left."""
        left = {self.of(g).topic(n) for g in range(self.config.generation + 1, generation) for n in OF_A_GENERATION}
        security = self.logs.settings.security
        await delete_topics(self.config.bootstrap, left & set(await self.reader.topics()), security=security)


def _units(made: Machines, model: ModelEpochs) -> list[Unit]:
    risks: list[Unit] = [(CHECKPOINTS, risk.partition, risk) for risk in made.risks]
    others = {
        CHECKPOINTS_SEQUENCER: made.sequencer,
        CHECKPOINTS_ENFORCEMENT: made.enforcement,
        CHECKPOINTS_MODEL: model,
    }
    return [*risks, *((topic, 0, machine) for topic, machine in others.items())]


async def _send_all(producer: AIOKafkaProducer, topic: str, partition: int, found: list[Any]) -> None:
    for sent in [await producer.send(topic, value, key=key, partition=partition) for key, value in found]:
        await sent


def _next_store(store: str, generation: int) -> str:
    """The store of a generation: each has logs, and so a store, of its own."""
    if not store:
        return ""
    if is_server(store):
        base, _, database = store.rstrip("/").rpartition("/")
        if base.endswith(("clickhouse:/", "clickhouses:/")):  # no database named: the default one
            base, database = store.rstrip("/"), "dpme"
        return f"{base}/{re.sub(r'_g[0-9]+$', '', database)}_g{generation}"
    return re.sub(r"\.g[0-9]+$", "", store) + f".g{generation}"


def _rewrite(path: Path, fields: dict[str, Any]) -> None:
    """Replace fields of the file at once: a reader sees the old file or the new one."""
    values = {**msgspec.json.decode(path.read_bytes()), **fields}
    new = path.with_suffix(f".{os.getpid()}.new")
    with open(new, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(values)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
