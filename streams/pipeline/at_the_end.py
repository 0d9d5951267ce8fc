"""The machines of a stopped installation at the end of its logs, as its workers would have them: from the newest
checkpoints, by the records behind them, and what the workers had not yet sent sent for them (repeats are dropped).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.structs import ConsumerRecord

from schemas import log_records as records
from schemas.codec import decode_output
from schemas.margin_batch import decode_batch
from schemas.topics import (
    ACCOUNT_LOG,
    BLOCKS_DONE,
    CHECKPOINTS,
    CHECKPOINTS_ENFORCEMENT,
    CHECKPOINTS_MODEL,
    CHECKPOINTS_SEQUENCER,
    MARGIN_BATCHES,
    MARGIN_CALLS,
    MARKET_LOG,
    QUARANTINE,
    VENUE_PARTS,
)
from streams.engine.enforcement import Enforcement
from streams.engine.model_epochs import ModelEpochs
from streams.engine.output import Output
from streams.engine.rebucket import Machines, open_events
from streams.engine.risk import Risk
from streams.engine.sequence import Sequencer
from streams.engine.tables import TableCache
from streams.pipeline.scenario_store import load_scenario_sets
from streams.runtime.checkpoints import Checkpoint, CheckpointReader
from streams.runtime.log_reader import LogReader
from streams.runtime.settings import RuntimeSettings
from streams.simulate.in_process import INPUT_PARTITIONS

Tell = Callable[[str, int, int], None]  # what is done, how much of it, of how much
READS_ONLY = b"reads only"  # token of a sequencer that never writes a fence, and so proposes nothing
READ_RECORDS = 2_000


class Stopped(NamedTuple):
    """Machines at the last decision of market.log; packed events of the open block, of every partition."""

    machines: Machines
    open_events: list[bytes]


class EndOfLogs:
    """Reads the logs of an installation whose workers are stopped."""

    def __init__(
        self, settings: RuntimeSettings, partitions: int, reader: LogReader, producer: AIOKafkaProducer, tell: Tell
    ) -> None:
        self.settings, self.partitions, self.reader = settings, partitions, reader
        self.producer, self.tell = producer, tell
        self._sent: list[Any] = []

    async def machines(self) -> Stopped:
        """Everything carried out and said that market.log decides; returns when the broker has acknowledged it."""
        sequencer, outputs = await self._sequencer()
        sets = await load_scenario_sets(self.settings)
        cache = TableCache(sets.__getitem__)
        risks, opened, said = [], [], []
        for partition in range(self.partitions):
            mine = [o for o in outputs if (o.topic, o.partition) == (ACCOUNT_LOG, partition)]
            risk, found, events = await self._risk(partition, mine, cache)
            risks.append(risk)
            said += found
            opened += events
        enforcement = await self._enforcement(said)
        await self._send(o for o in outputs if o.topic == QUARANTINE)
        for sent in self._sent:
            await sent
        return Stopped(Machines(sequencer, risks, enforcement), opened)

    async def _newest(self, topic: str, unit: int) -> Checkpoint | None:
        return await CheckpointReader(self.reader, self.settings.topic(topic)).newest(unit)

    async def tail(self, topic: str, partition: int, begin: int) -> list[ConsumerRecord]:
        """Records of a log from an offset to its end."""
        return await self.between(topic, partition, begin, await self.end(topic, partition))

    async def end(self, topic: str, partition: int) -> int:
        return (await self.reader.bounds(self.settings.topic(topic), partition))[1]

    async def between(self, topic: str, partition: int, begin: int, end: int) -> list[ConsumerRecord]:
        found: list[ConsumerRecord] = []
        for low in range(begin, end, READ_RECORDS):
            self.tell(f"reading {topic}/{partition}", low - begin, end - begin)
            high = min(end, low + READ_RECORDS)
            found += await self.reader.read(self.settings.topic(topic), partition, low, high)
        return found

    async def _last(self, topic: str, partition: int) -> bytes | None:
        end = await self.end(topic, partition)
        found = await self.reader.read(self.settings.topic(topic), partition, max(0, end - 1), end)
        return found[-1].value if found else None

    async def _send(self, outputs: Iterable[Output]) -> None:
        for o in outputs:
            topic = self.settings.topic(o.topic)
            self._sent.append(await self.producer.send(topic, o.value, key=o.key, partition=o.partition))

    # -- the three roles

    async def _sequencer(self) -> tuple[Sequencer, list[Output]]:
        """-> (the machine when every decision is carried out, what it writes for those behind its checkpoint)."""
        found = await self._newest(CHECKPOINTS_SEQUENCER, 0)
        sequencer = Sequencer(self.partitions, INPUT_PARTITIONS, READS_ONLY, checkpoint_every=1)
        if found is not None:
            sequencer = Sequencer.load(found.state, READS_ONLY)
        decisions = await self.tail(MARKET_LOG, 0, sequencer.market_offset)
        wanted = dict(sequencer.read)
        vectors = [dict(record.headers)["positions"] for record in decisions if "positions" in dict(record.headers)]
        for topic, partition, offset in (one for vector in vectors for one in msgspec.json.decode(vector)):
            wanted[topic, partition] = max(wanted[topic, partition], offset)
        outputs: list[Output] = []
        for (topic, partition), end in wanted.items():
            for record in await self.between(topic, partition, sequencer.read[topic, partition], end):
                outputs += _applied(sequencer, topic, partition, record)
        for record in decisions:
            outputs += _applied(sequencer, MARKET_LOG, 0, record)
        return sequencer, outputs

    async def _risk(
        self, partition: int, written: list[Output], cache: TableCache
    ) -> tuple[Risk, list[Output], list[bytes]]:
        """-> (the machine after the last decision, what it says behind its checkpoint, the open block's events)."""
        found = await self._newest(CHECKPOINTS, partition)
        risk = Risk(partition, cache, checkpoint_every=1) if found is None else Risk.load(found.state, cache)
        log = [record.value for record in await self.tail(ACCOUNT_LOG, partition, risk.next_offset)]
        headers = [records.read_header(raw) for raw in log]
        last = max((h.number for h in headers if h.kind != records.EVENTS), default=risk.number)
        new = [o for o in written if records.read_header(o.value or b"").number > last]
        await self._send(new)
        log += [o.value or b"" for o in new]
        said: list[Output] = []
        for place, raw in enumerate(log):
            self.tell(f"applying account.log/{partition}", place, len(log))
            for outputs in risk.steps(ACCOUNT_LOG, partition, risk.next_offset, raw):
                said += outputs
        await self._send([o for o in said if await self._is_new(o)])
        return risk, said, open_events(log)

    async def _enforcement(self, said: list[Output]) -> Enforcement:
        found = await self._newest(CHECKPOINTS_ENFORCEMENT, 0)
        machine = Enforcement(self.partitions, checkpoint_every=1) if found is None else Enforcement.load(found.state)
        outputs: list[Output] = []
        for (topic, partition), offset in list(machine.read.items()):
            for record in await self.tail(topic, partition, offset):
                outputs += _applied(machine, topic, partition, record)
        for one in said:  # what the log has already is dropped by its number
            if one.topic in (MARGIN_CALLS, BLOCKS_DONE, VENUE_PARTS):
                for found_here in machine.steps(one.topic, one.partition, 0, one.value):
                    outputs += found_here
        await self._send([o for o in outputs if await self._is_new(o)])
        return machine

    async def model(self) -> ModelEpochs:
        """The risk model after every decision, at the beginning of the next generation's market.log."""
        found = await self._newest(CHECKPOINTS_MODEL, 0)
        machine = ModelEpochs() if found is None else ModelEpochs.load(found.state)
        outputs: list[Output] = []
        for record in await self.tail(MARKET_LOG, 0, machine.next_offset):
            outputs += _applied(machine, MARKET_LOG, 0, record)
        await self._send(outputs)
        for sent in self._sent:
            await sent
        machine.begin_log()
        return machine

    async def _is_new(self, output: Output) -> bool:
        """Is it behind the last record of its log? One that is not would only be a repeat more."""
        last = await self._last(output.topic, output.partition)
        return last is None or _sequence(output.topic, output.value or b"") > _sequence(output.topic, last)


def _applied(machine: Any, topic: str, partition: int, record: ConsumerRecord) -> Iterator[Output]:
    for outputs in machine.steps(topic, partition, record.offset, record.value, tuple(record.headers)):
        yield from outputs


def _sequence(topic: str, raw: bytes) -> int:
    """Dense number of an output record in its topic partition."""
    return decode_batch(raw)[0].seq if topic == MARGIN_BATCHES else int(decode_output(raw)["seq"])
