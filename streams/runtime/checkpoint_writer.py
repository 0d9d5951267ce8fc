"""Writes checkpoints of the units a worker owns: when it is due, after the acknowledgements, and removes old ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection

from aiokafka.errors import KafkaError

from streams.runtime import checkpoints
from streams.runtime.checkpoints import Checkpoint, CheckpointReader, Manifest, Record, Value
from streams.runtime.exits import die
from streams.runtime.freed_memory import FreedMemory
from streams.runtime.notes import note

# (unit, key, value) -> a future of the acknowledgement
SendRecord = Callable[[int, bytes, Value], Awaitable["asyncio.Future[object]"]]


class CheckpointSchedule:
    """Which marks become checkpoints: the first one of each slot of `every` marks that is this group's turn.

    Units are staggered by their number; hot-standby groups take turns without talking to each other.
    """

    def __init__(self, every: int, group: int = 0, groups: int = 1) -> None:
        self.every, self.group, self.groups = every, group, groups
        self._slot: dict[int, int] = {}

    def slot(self, unit: int, mark: int) -> int:
        return (mark + unit % self.every) // self.every

    def restored(self, unit: int, mark: int | None) -> None:
        """The unit now stands at this mark (None: at the beginning); its slot is taken."""
        self._slot.pop(unit, None)
        if mark is not None:
            self._slot[unit] = self.slot(unit, mark)

    def due(self, unit: int, mark: int) -> bool:
        slot = self.slot(unit, mark)
        return slot % self.groups == self.group and slot != self._slot.get(unit, 0)

    def taken(self, unit: int, mark: int) -> None:
        self._slot[unit] = self.slot(unit, mark)


class CheckpointWriter:
    """One write at a time per unit. A failed send ends the process, as everywhere.

    laggards_silent: look at the log's last record first and keep silent behind a newer one (for hot standby, where a
    laggard's older checkpoint would hide the newer one from a backward scan).
    """

    def __init__(
        self, send: SendRecord, reader: CheckpointReader, chunk_bytes: int, laggards_silent: bool = False
    ) -> None:
        self._send, self._reader = send, reader
        self._chunk_bytes, self._laggards_silent = chunk_bytes, laggards_silent
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._written: dict[int, list[Manifest]] = {}
        self._swept: set[int] = set()
        self._freed = FreedMemory()
        self.written_s: float | None = None  # monotonic time of the newest whole one
        self.count = {"checkpoints_written": 0, "checkpoints_passed": 0, "checkpoint_bytes": 0}

    def busy(self, unit: int) -> bool:
        return unit in self._tasks and not self._tasks[unit].done()

    def new_owner(self, unit: int) -> None:
        """Ownership is new: what was written by an earlier life or owner is no longer ours to count."""
        self._written.pop(unit, None)
        self._swept.discard(unit)

    def begin(self, unit: int, checkpoint: Checkpoint, outputs: Collection[asyncio.Future[object]]) -> None:
        """Start a write in the background. outputs: unacknowledged sends of everything up to this state."""
        self._tasks[unit] = asyncio.create_task(self._write(unit, checkpoint, list(outputs)))

    async def drained(self) -> None:
        """Wait until no write is under way."""
        await asyncio.gather(*self._tasks.values())

    async def _write(self, unit: int, checkpoint: Checkpoint, outputs: list[asyncio.Future[object]]) -> None:
        try:
            manifest, records = checkpoints.encode(checkpoint, self._chunk_bytes)
            await self.acknowledged(outputs)
            if self._laggards_silent and await self._passed(unit, checkpoint.progress):
                self.count["checkpoints_passed"] += 1
                return
            await self._append(unit, [(key, None) for key in await self._superseded(unit)])
            await self._append(unit, records[:-1])
            await self._append(unit, records[-1:])
            self._written.setdefault(unit, []).append(manifest)
            self.count["checkpoints_written"] += 1
            self.written_s = time.monotonic()
            self.count["checkpoint_bytes"] += manifest.size_bytes
            del checkpoint, records
            if self._freed.is_due():
                await asyncio.to_thread(self._freed.give_back)
        except asyncio.CancelledError:
            raise
        except Exception as exception:
            die(f"checkpoint of unit {unit}", exception)

    async def acknowledged(self, outputs: list[asyncio.Future[object]]) -> None:
        """Rule R2: the broker has acknowledged every output up to the state that is going to be written."""
        if outputs:
            await asyncio.gather(*outputs)

    async def _append(self, unit: int, records: list[Record]) -> None:
        """Returns when all of them are acknowledged."""
        await asyncio.gather(*[await self._send(unit, key, value) for key, value in records])

    async def _passed(self, unit: int, progress: int) -> bool:
        try:
            return await asyncio.wait_for(self._reader.reached(unit), 5) > progress
        except (KafkaError, OSError, TimeoutError):
            return False  # only the time of a restore is at stake

    async def _superseded(self, unit: int) -> list[bytes]:
        """Keys to remove: ours older than the newest KEEP; once per ownership also what earlier owners left."""
        written = self._written.setdefault(unit, [])
        keys: dict[bytes, None] = {}
        while len(written) > checkpoints.KEEP:
            keys.update(dict.fromkeys(written.pop(0).keys()))
        if len(written) == checkpoints.KEEP and unit not in self._swept:
            try:
                keys.update(dict.fromkeys(await self._reader.stale(unit, written[0].progress)))
                self._swept.add(unit)
                note("checkpoints_swept", unit=unit, keys=len(keys))
            except (KafkaError, OSError) as exception:  # the next checkpoint tries again
                note("sweep_failed", unit=unit, exception=repr(exception))
        return list(keys)
