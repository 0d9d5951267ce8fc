"""The shell around machines: guard, inboxes, outputs, checkpoints, restores. It knows nothing of Faust.

Rules it keeps, whoever feeds it:
R1  A record is applied only if its offset is the one the state wants next. Lower: dropped. Higher: in an internal log
    the process ends; in a log with gaps allowed the records between must be shown to be absent (transaction markers,
    compaction, retention) before it is applied.
R2  A checkpoint's manifest is written only after the broker acknowledged every output up to it.
R3  A failed send, or any exception, ends the process: memory never outlives a lost output.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

from streams.engine.output import OlderState
from streams.runtime.checkpoint_writer import CheckpointSchedule, CheckpointWriter
from streams.runtime.checkpoints import Checkpoint, CheckpointReader, Value
from streams.runtime.exits import die
from streams.runtime.machine import Headers, LogPosition, Machine, MachineFactory, Output, PositionsSource
from streams.runtime.notes import note
from streams.runtime.settings import RuntimeSettings

_REPLAY = "the log is applied from its beginning; outputs are sent again, readers drop them"
_NO_WAY_BACK = (
    "logs of a later generation begin with a state: go on with that release (infra/docs/operations.md, Upgrades)"
)

# first_between(topic, partition, low, high): offset of the first record there, None for a hole; short topic names
Saw = Callable[[Output, float], None]  # an output, and seconds since its record was taken up
FirstBetween = Callable[[str, int, int, int], Awaitable["int | None"]]
_BEHIND_NICE = 10  # of threads that apply what another group has applied already
_RESTORED_TOGETHER = 4  # units whose checkpoints are in memory at once
_SLICE_S = 0.05  # records applied in one go: whoever wants the unit (a restore, a question) waits no longer than that


class Producer(Protocol):
    """The part of aiokafka's producer that is used: `send` returns a future of the acknowledgement."""

    async def send(
        self,
        topic: str,
        value: Value = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> Any: ...


class ShellFault(Exception):
    """A broken rule: a gap in an internal log, a machine whose position is not what it was fed."""


class Record(Protocol):
    """What a log holds at an offset; aiokafka's records are such."""

    @property
    def offset(self) -> int: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Run(NamedTuple):
    """Consecutive records of one log, read while the unit was at this generation."""

    generation: int
    topic: str
    partition: int
    records: Sequence[Record]


class Inbox(asyncio.Queue[Run]):
    """Full by the records in its runs, not by the number of runs."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)  # type: ignore[misc]
        self._records = 0

    def _put(self, item: Run) -> None:
        super()._put(item)  # type: ignore[misc]
        self._records += len(item.records)

    def _get(self) -> Run:
        run: Run = super()._get()  # type: ignore[misc]
        self._records -= len(run.records)
        return run

    def qsize(self) -> int:
        return self._records


class Step(NamedTuple):
    """Of applying a run: outputs, seconds since their record was taken up; or how many records more have been applied,
    and the mark of the state as it is then."""

    outputs: list[Output]
    seconds: float = 0.0
    applied: int = 0
    mark: int | None = None


class Unit:
    """A machine with its cursor. The lock is held while a record is applied and while the state is replaced."""

    def __init__(self, number: int, machine: Machine, cursor: dict[LogPosition, int], inbox_records: int) -> None:
        self.number = number
        self.machine = machine
        self.cursor = cursor  # next offset wanted of every log
        self.inbox = Inbox(inbox_records)
        self.lock = asyncio.Lock()
        self.generation = 0  # restores so far; records read before a restore are not applied after it
        self.unacknowledged: set[asyncio.Future[object]] = set()
        self.task: asyncio.Task[None] | None = None

    def wanted(self, log: LogPosition) -> int:
        return self.cursor.get(log, 0)

    def forget_inbox(self) -> None:
        self.generation += 1
        while not self.inbox.empty():
            self.inbox.get_nowait()


class Shell:
    """Units of one worker. Topic names are without prefix in every method; the shell adds it when it sends.

    checkpoint_topic: compacted topic with a partition per unit, or None (then positions_source, or the beginning).
    gap_topics: logs of other writers, where offsets may be missing. saw: told of every output of a record, for metrics.
    """

    def __init__(
        self,
        *,
        settings: RuntimeSettings,
        name: str,
        factory: MachineFactory,
        producer: Producer,
        first_between: FirstBetween,
        gap_topics: Iterable[str] = (),
        checkpoint_topic: str | None = None,
        checkpoint_loader: CheckpointReader | None = None,
        checkpoint_janitor: CheckpointReader | None = None,
        positions_source: PositionsSource | None = None,
        saw: Saw | None = None,
    ) -> None:
        if (checkpoint_topic is None) != (checkpoint_loader is None or checkpoint_janitor is None):
            raise ValueError("a checkpoint topic needs a loader and a janitor, and they need a topic")
        self.settings, self.name, self.factory, self.producer = settings, name, factory, producer
        self.gap_topics = frozenset(gap_topics)
        self.checkpoint_topic, self.positions_source, self._saw = checkpoint_topic, positions_source, saw
        self.units: dict[int, Unit] = {}
        self.count: Counter[str] = Counter()
        self._first_between, self._loader = first_between, checkpoint_loader
        self._owner: Headers = (("owner", name.encode()),)
        self._restoring = asyncio.Lock()
        self._is_prompt = settings.groups == 1  # else its threads give way to the standby until it has caught up
        self._threads = self._pool(0 if self._is_prompt else _BEHIND_NICE)
        self._schedule = CheckpointSchedule(settings.checkpoint_every, settings.group, settings.groups)
        self._writer: CheckpointWriter | None = None
        if checkpoint_janitor is not None:
            chunk = settings.checkpoint_chunk_bytes
            self._writer = self.new_writer(checkpoint_janitor, chunk, laggards_silent=settings.groups > 1)

    def _pool(self, nice: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(
            self.settings.kernel_threads, thread_name_prefix="kernel", initializer=_give_way, initargs=(nice,)
        )

    def caught_up(self) -> None:
        """The worker is where its logs end. A thread that gave way can not take it back, so others take its place."""
        if not self._is_prompt:
            self._is_prompt, before, self._threads = True, self._threads, self._pool(0)
            before.shutdown(wait=False)

    def new_writer(self, janitor: CheckpointReader, chunk_bytes: int, laggards_silent: bool) -> CheckpointWriter:
        return CheckpointWriter(self._send_checkpoint, janitor, chunk_bytes, laggards_silent)

    # -- records ------------------------------------------------------------------------------------------------

    async def feed(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Take records of a log into the inbox of its unit; waits while that is full. Order is kept per unit."""
        unit = self.units.get(self.factory.unit_of(topic, partition))
        if unit is None:
            self.count["unowned"] += len(records)
            return
        await unit.inbox.put(Run(unit.generation, topic, partition, records))

    async def _work(self, unit: Unit) -> None:
        while True:
            run = await unit.inbox.get()
            try:
                while run.records:
                    async with unit.lock:
                        run = run._replace(records=await self._take(unit, run))
                    await asyncio.sleep(0)  # the lock alone lets nobody else run
            except asyncio.CancelledError:
                raise
            except Exception as exception:
                at = unit.wanted((run.topic, run.partition))
                die(f"unit {unit.number}, {run.topic}/{run.partition} offset {at}", exception)

    async def _take(self, unit: Unit, run: Run) -> list[Record]:
        """Apply a run from its beginning, as much of it as one slice of time allows; returns the rest."""
        records = await self._judge(unit, run)
        await self._apply(unit, run, records)
        wanted = unit.wanted((run.topic, run.partition))
        return [record for record in run.records if record.offset >= wanted] if records else []

    async def _judge(self, unit: Unit, run: Run) -> list[Record]:
        """R1: those of its records that are to be applied now, one after the other: up to a gap, or from one on."""
        if run.generation != unit.generation:
            self.count["stale"] += len(run.records)
            return []
        wanted, found = unit.wanted((run.topic, run.partition)), list[Record]()
        for record in run.records:
            if record.offset < wanted:
                self.count["repeated"] += 1
                continue
            if record.offset > wanted:
                if found:
                    break
                await self._require_hole(run, wanted, record.offset)
            found.append(record)
            wanted = record.offset + 1
        return found

    async def _require_hole(self, run: Run, wanted: int, got: int) -> None:
        log = f"{run.topic}/{run.partition}"
        if run.topic not in self.gap_topics:
            raise ShellFault(f"gap in {log}: wanted {wanted}, got {got}")
        between = await self._first_between(run.topic, run.partition, wanted, got)
        if between is not None:
            raise ShellFault(f"{log}: wanted {wanted}, got {got}, but there is a record at {between}")
        self.count["holes"] += 1

    async def _apply(self, unit: Unit, run: Run, records: list[Record]) -> None:
        """A change of threads costs more than a short record: what comes with a long one goes there with it."""
        steps = self._steps(unit, run, records)
        is_long = any(unit.machine.is_long(run.topic, record.value) for record in records)
        loop = asyncio.get_running_loop()
        while step := await loop.run_in_executor(self._threads, next, steps, None) if is_long else next(steps, None):
            await self._send_all(unit, step.outputs)
            self._show(step)
            self.count["applied"] += step.applied
            if step.mark is not None:
                await self._checkpoint(unit, step.mark)

    def _steps(self, unit: Unit, run: Run, records: list[Record]) -> Iterator[Step]:
        """Applies records in whatever thread asks for the next step, until a slice of time is over."""
        began_s = started_s = time.monotonic()
        applied = 0
        for record in records:
            headers = tuple(record.headers or ())
            for outputs in unit.machine.steps(run.topic, run.partition, record.offset, record.value, headers):
                if outputs:  # a step that says nothing is not worth a change of threads
                    yield Step(outputs, time.monotonic() - started_s)
            self._advance(unit, (run.topic, run.partition), record.offset)
            applied += 1
            if (mark := unit.machine.checkpoint_mark()) is not None:
                yield Step([], applied=applied, mark=mark)
                applied = 0
            if (started_s := time.monotonic()) - began_s > _SLICE_S:
                break
        yield Step([], applied=applied)

    def _show(self, step: Step) -> None:
        if self._saw is not None:
            for output in step.outputs:
                self._saw(output, step.seconds)

    def _advance(self, unit: Unit, log: LogPosition, offset: int) -> None:
        unit.cursor[log] = offset + 1
        if self.positions_source is None and (at := unit.machine.positions().get(log)) != offset + 1:
            raise ShellFault(f"the machine of unit {unit.number} stands at {at} of {log} after offset {offset}")

    # -- outputs ------------------------------------------------------------------------------------------------

    async def _send_all(self, unit: Unit, outputs: list[Output]) -> None:
        for output in outputs:
            sent = await self._send(
                output.topic, output.partition, output.key, output.value, output.headers + self._owner
            )
            unit.unacknowledged.add(sent)
            sent.add_done_callback(unit.unacknowledged.discard)

    async def _send_checkpoint(self, unit: int, key: bytes, value: Value) -> asyncio.Future[object]:
        if self.checkpoint_topic is None:
            raise ShellFault("no checkpoint topic")
        return await self._send(self.checkpoint_topic, unit, key, value, self._owner)

    async def _send(
        self, topic: str, partition: int, key: bytes | None, value: Value, headers: Headers
    ) -> asyncio.Future[object]:
        full_name = self.settings.topic(topic)
        sent = asyncio.ensure_future(
            await self.producer.send(full_name, value, key=key, partition=partition, headers=list(headers))
        )
        self.count["sent"] += 1
        sent.add_done_callback(self._on_acknowledged)
        return sent

    def _on_acknowledged(self, sent: asyncio.Future[object]) -> None:
        """R3."""
        if not sent.cancelled() and (exception := sent.exception()) is not None:
            die("output not acknowledged", exception)
        self.count["acknowledged"] += 1

    # -- checkpoints --------------------------------------------------------------------------------------------

    async def _checkpoint(self, unit: Unit, mark: int) -> None:
        """Begin one of the present state, if it is due."""
        if self._writer is None or not self._schedule.due(unit.number, mark):
            return
        if self._writer.busy(unit.number):  # the next mark tries again
            self.count["checkpoints_delayed"] += 1
            return
        self._schedule.taken(unit.number, mark)
        state = await asyncio.get_running_loop().run_in_executor(self._threads, unit.machine.dump)
        checkpoint = Checkpoint(mark, dict(unit.machine.positions()), state)
        self._writer.begin(unit.number, checkpoint, unit.unacknowledged)

    # -- assignment ---------------------------------------------------------------------------------------------

    async def restore(self, assigned: Iterable[LogPosition]) -> dict[LogPosition, int]:
        """The group gave us these logs: the next offset to read of each.

        State in memory stays valid through any rebalance (it is a function of log prefixes) and is replaced only by a
        checkpoint that is ahead of it. Records read before the restore are not applied any more.
        """
        logs = frozenset(assigned)
        async with self._restoring:
            started = time.monotonic()
            numbers = {self.factory.unit_of(*log) for log in logs}
            for number in set(self.units) - numbers:
                await self._drop(number)
            sources = dict[int, str]()
            ordered = sorted(numbers)
            for place in range(0, len(ordered), _RESTORED_TOGETHER):
                sources |= await self._restore_units(ordered[place : place + _RESTORED_TOGETHER], logs)
            offsets = {log: self.units[self.factory.unit_of(*log)].wanted(log) for log in logs}
            self.count["restores"] += 1
            named = {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(offsets.items())}
            took_ms = round(1e3 * (time.monotonic() - started), 1)
            note("restore", ms=took_ms, sources=sources, offsets=named, **self.count)
            return offsets

    async def _restore_units(self, numbers: Sequence[int], logs: frozenset[LogPosition]) -> dict[int, str]:
        """Side by side; where each came from."""
        found = await self._loader.newest_of(numbers) if self._loader else dict.fromkeys(numbers)
        of_unit = {n: frozenset(log for log in logs if self.factory.unit_of(*log) == n) for n in numbers}
        sources = await asyncio.gather(*(self._restore_unit(n, of_unit[n], found[n]) for n in numbers))
        return dict(zip(numbers, sources, strict=True))

    async def _restore_unit(self, number: int, logs: frozenset[LogPosition], found: Checkpoint | None) -> str:
        held = self.units.get(number)
        if held is None:
            loaded = await self._load(number, found) if found else None
            machine = loaded or self.factory.empty(number)
            cursor = await self._starting_cursor(number, machine, logs)
            held = self.units[number] = Unit(number, machine, cursor, self.settings.inbox_records)
            held.task = asyncio.create_task(self._work(held))
            self._taken_over(number, found if loaded else None)
            await self._send_all(held, machine.start())
            return "checkpoint" if loaded else "empty"
        async with held.lock:
            held.forget_inbox()
            if fresh := logs - held.cursor.keys():
                held.cursor.update(await self._starting_cursor(number, held.machine, fresh))
            if found is None or not _is_ahead(found.positions, held.cursor):
                return "memory"
            loaded = await self._load(number, found)
            if loaded is None:
                return "memory"
            held.machine = loaded
            held.cursor = dict(held.machine.positions())
            self._taken_over(number, found)
            await self._send_all(held, held.machine.start())
            return "checkpoint"

    async def _load(self, number: int, found: Checkpoint) -> Machine | None:
        """None for a checkpoint of an older release: the log is applied from its beginning, unless that is a state."""
        loop = asyncio.get_running_loop()
        try:
            machine = await loop.run_in_executor(self._threads, self.factory.load, number, found.state)
        except OlderState as older:
            if self.settings.generation:
                raise ShellFault(f"unit {number}: {older}; {_NO_WAY_BACK}") from older
            note("checkpoint_outdated", unit=number, progress=found.progress, reason=str(older), instead=_REPLAY)
            return None
        if machine.positions() != found.positions:
            raise ShellFault(f"unit {number}: the state of the checkpoint and its positions do not belong together")
        return machine

    async def _starting_cursor(
        self, number: int, machine: Machine, logs: frozenset[LogPosition]
    ) -> dict[LogPosition, int]:
        if self.positions_source is None:
            positions = machine.positions()
            return {**positions, **{log: positions.get(log, 0) for log in logs}}
        answer = self.positions_source(number, logs)
        return dict(await answer if inspect.isawaitable(answer) else answer)

    def _taken_over(self, number: int, found: Checkpoint | None) -> None:
        self._schedule.restored(number, found.mark if found else None)
        if self._writer is not None:
            self._writer.new_owner(number)

    async def _drop(self, number: int) -> None:
        unit = self.units[number]
        async with unit.lock:
            if unit.task is not None:
                unit.task.cancel()
            unit.forget_inbox()
            del self.units[number]

    # -- end, and what others may ask ---------------------------------------------------------------------------

    async def stop(self) -> None:
        """Finish a restore and the records being applied, then wait for acknowledgements and checkpoints under way."""
        async with self._restoring:
            for number in list(self.units):
                await self._drop(number)
        if self._writer is not None:
            await self._writer.drained()
        self._threads.shutdown(wait=False)

    async def ask(self, number: int, question: Callable[[Any], tuple[bool, list[Output]]]) -> bool:
        """Ask a machine between two records; what it has to say with its answer is sent. False where it is not here."""
        unit = self.units.get(number)
        if unit is None:
            return False
        async with unit.lock:
            answer, outputs = question(unit.machine)
            await self._send_all(unit, outputs)
            return answer

    def position(self, log: LogPosition) -> int | None:
        """Next offset wanted, None if the unit is not (yet) here."""
        unit = self.units.get(self.factory.unit_of(*log))
        return None if unit is None else unit.wanted(log)

    def checkpoint_written_s(self) -> float | None:
        """Monotonic time of the newest checkpoint this process wrote."""
        return self._writer.written_s if self._writer is not None else None

    def metrics(self) -> dict[str, int]:
        """Counters since the start, and the present depth of inboxes and of unacknowledged outputs."""
        waiting = sum(unit.inbox.qsize() for unit in self.units.values())
        unsettled = sum(len(unit.unacknowledged) for unit in self.units.values())
        written = self._writer.count if self._writer is not None else {}
        of_role: dict[str, int] = getattr(self.factory, "counts", dict)()  # a role may count more
        depths = {"units": len(self.units), "inbox": waiting, "unacknowledged": unsettled}
        return {**self.count, **of_role, **written, **depths}


def _give_way(nice: int) -> None:
    """Of this thread alone; Linux only. Without privileges there is no way back."""
    if nice and sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


def _is_ahead(candidate: dict[LogPosition, int], held: dict[LogPosition, int]) -> bool:
    """Further in one log and behind in none."""
    logs = candidate.keys() | held.keys()
    pairs = [(candidate.get(log, 0), held.get(log, 0)) for log in logs]
    return all(new >= old for new, old in pairs) and any(new > old for new, old in pairs)
