"""Checkpoints on a compacted topic: one log partition per unit, several records per checkpoint.

A checkpoint is its chunks, then a manifest with their count and digest. Keys are `<progress>/<digest>/<chunk number>`
and `<progress>/<digest>/m`. Progress is the sum of the next offsets, so it grows with every record applied. A key is
never reused for other bytes (the digest is in it): a late owner who writes the same checkpoint again does no harm. A
checkpoint without manifest, with a chunk missing, or with another digest is as if it had never been written.

Removal: a writer tombstones only what is older than two whole checkpoints of its own, so the newest whole one is never
removed, however far anyone lags. What earlier owners left behind is swept once per ownership. One write goes in the
order tombstones, chunks, manifest; so the last record of the log tells how far the writers are.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import orjson

from streams.runtime.log_reader import LogReader, Span
from streams.runtime.machine import LogPosition
from streams.runtime.notes import note

KEEP = 2  # whole checkpoints of its own that a writer leaves in the log
FORMAT = 1
FIRST_WINDOW = 2  # offsets: of a small checkpoint all, of a large one the manifest
_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 32

Value = bytes | memoryview | None  # a part of a state is not copied; None: a tombstone
Record = tuple[bytes, Value]  # under its key


class Checkpoint(NamedTuple):
    """What a restore starts from: the state and the next offset of every log it is a function of."""

    mark: int
    positions: dict[LogPosition, int]
    state: bytes

    @property
    def progress(self) -> int:
        return sum(self.positions.values())


class Manifest(NamedTuple):
    chunks: int
    mark: int
    progress: int
    size_bytes: int
    digest: str

    def key(self, part: str) -> bytes:
        return f"{self.progress}/{self.digest[:16]}/{part}".encode()

    def keys(self) -> list[bytes]:
        """Every key of the checkpoint, the manifest's first: without it the rest counts for nothing."""
        return [self.key("m"), *(self.key(str(number)) for number in range(self.chunks))]


class LiveRecord(Protocol):
    """The part of a consumer's record that matters here."""

    key: bytes
    value: bytes | None


def progress_of_key(key: bytes) -> int:
    return int(key.split(b"/", 1)[0])


def encode(checkpoint: Checkpoint, chunk_bytes: int) -> tuple[Manifest, list[Record]]:
    """The manifest, and the records in the order they must be written (the manifest is the last one).

    Chunks but the first are views of the state: nothing of its size is allocated."""
    logs = [[topic, partition, offset] for (topic, partition), offset in sorted(checkpoint.positions.items())]
    positions = orjson.dumps(logs)
    head, state = _LENGTH.pack(len(positions)) + positions, memoryview(checkpoint.state)
    digest = hashlib.blake2b(head, digest_size=_DIGEST_BYTES)
    digest.update(state)
    first = max(0, chunk_bytes - len(head))
    pieces: list[bytes | memoryview] = [head + state[:first]]
    pieces += [state[start : start + chunk_bytes] for start in range(first, len(state), chunk_bytes)]
    manifest = Manifest(len(pieces), checkpoint.mark, checkpoint.progress, len(head) + len(state), digest.hexdigest())
    records: list[Record] = [(manifest.key(str(number)), piece) for number, piece in enumerate(pieces)]
    records.append((manifest.key("m"), orjson.dumps({"format": FORMAT, **manifest._asdict()})))
    return manifest, records


def decode_manifest(value: bytes) -> Manifest:
    """Raises ValueError for a manifest of another format or shape."""
    fields = orjson.loads(value)
    if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
        raise ValueError("manifest of an unknown format")
    try:
        return Manifest(**fields)
    except TypeError as exception:
        raise ValueError(str(exception)) from exception


def missing_chunks(manifest: Manifest, seen: dict[bytes, bytes | None]) -> list[int]:
    return [number for number in range(manifest.chunks) if seen.get(manifest.key(str(number))) is None]


def decode(manifest: Manifest, seen: dict[bytes, bytes | None]) -> Checkpoint:
    """Raises ValueError with the reason if a chunk is missing or the bytes are not those of the manifest."""
    pieces = [seen.get(manifest.key(str(number))) for number in range(manifest.chunks)]
    if missing := missing_chunks(manifest, seen):
        raise ValueError(f"chunks {missing[:5]} of {manifest.chunks} are missing")
    raw = b"".join(piece for piece in pieces if piece is not None)
    if hashlib.blake2b(raw, digest_size=_DIGEST_BYTES).hexdigest() != manifest.digest:
        raise ValueError("the digest differs")
    (length,) = _LENGTH.unpack_from(raw)
    logs = orjson.loads(raw[_LENGTH.size : _LENGTH.size + length])
    positions = {(topic, partition): offset for topic, partition, offset in logs}
    return Checkpoint(manifest.mark, positions, raw[_LENGTH.size + length :])


def manifests_of(seen: dict[bytes, bytes | None]) -> tuple[list[Manifest], list[tuple[int, str]]]:
    """The manifests among these records, newest first, and why others were rejected: (progress, reason)."""
    manifests: list[Manifest] = []
    rejected: list[tuple[int, str]] = []
    for key, value in seen.items():
        if key.endswith(b"/m") and value is not None:
            try:
                manifests.append(decode_manifest(value))
            except ValueError as exception:
                rejected.append((progress_of_key(key), str(exception)))
    return sorted(manifests, key=lambda one: one.progress, reverse=True), rejected


def newest_whole(seen: dict[bytes, bytes | None]) -> tuple[Checkpoint | None, list[tuple[int, str]]]:
    """The newest whole checkpoint among these records, and why newer ones were rejected: (progress, reason)."""
    manifests, rejected = manifests_of(seen)
    for manifest in manifests:
        try:
            found = decode(manifest, seen)
        except ValueError as exception:
            rejected.append((manifest.progress, str(exception)))
            continue
        return found, [one for one in rejected if one[0] > manifest.progress]
    return None, rejected


class Search:
    """For the newest whole checkpoint of a log, backwards: first a window of offsets, then as many as the newest
    manifest misses chunks, then windows that grow fourfold. `low`: everything from there to the end was read.
    """

    def __init__(self, begin: int, end: int, window: int) -> None:
        self.begin, self.low = begin, end
        self.seen: dict[bytes, bytes | None] = {}
        self.found: Checkpoint | None = None
        self.rejected: list[tuple[int, str]] = []
        self._width = self._window = window  # offsets of the next span; of the last one that was no chunks' number
        self._missing = 0  # chunks, when this was looked at last

    def next_span(self) -> Span:
        """Offsets to read next, those before what is seen."""
        return max(self.begin, self.low - self._width), self.low

    def look(self, older: Iterable[LiveRecord]) -> bool:
        """Take the records of the span in; whether the search is over. Per key the later one wins, as in compaction."""
        self.low = self.next_span()[0]
        self.seen = {record.key: record.value for record in older} | self.seen
        missing = self._chunks_missing()
        if 0 < missing != self._missing and self.low > self.begin:
            self._missing = self._width = missing
            return False
        self._width = self._window = 4 * self._window
        self.found, self.rejected = newest_whole(self.seen)
        return self.found is not None or self.low == self.begin

    def _chunks_missing(self) -> int:
        manifests, _ = manifests_of(self.seen)
        return len(missing_chunks(manifests[0], self.seen)) if manifests else 0


class CheckpointReader:
    """Finds checkpoints in the log; topic is the full name."""

    def __init__(self, reader: LogReader, topic: str) -> None:
        self._reader = reader
        self._topic = topic

    async def newest(self, unit: int, window: int = FIRST_WINDOW) -> Checkpoint | None:
        """The newest whole checkpoint of a unit, None where there is none."""
        return (await self.newest_of([unit], window))[unit]

    async def newest_of(self, units: Iterable[int], window: int = FIRST_WINDOW) -> dict[int, Checkpoint | None]:
        """The same of several units, read side by side: all of them are in memory at once."""
        bounds = await self._reader.bounds_of([(self._topic, unit) for unit in units])
        searches = {log: Search(*span, window) for log, span in bounds.items()}
        going = dict(searches)
        while going:
            read = await self._reader.read_spans({log: search.next_span() for log, search in going.items()})
            over = await asyncio.gather(*(asyncio.to_thread(going[log].look, records) for log, records in read.items()))
            going = {log: going[log] for log, is_over in zip(read, over, strict=True) if not is_over}
        for (_, unit), search in searches.items():
            for progress, reason in search.rejected:
                note("checkpoint_rejected", unit=unit, progress=progress, reason=reason)
        return {unit: search.found for (_, unit), search in searches.items()}

    async def reached(self, unit: int) -> int:
        """Progress of the log's last record, -1 if unknown. Only keeps laggards silent: it may be wrong."""
        begin, end = await self._reader.bounds(self._topic, unit)
        records = await self._reader.read(self._topic, unit, max(begin, end - 1), end)
        return progress_of_key(records[-1].key) if records and records[-1].value is not None else -1

    async def stale(self, unit: int, before_progress: int) -> list[bytes]:
        """Live keys of older checkpoints: earlier owners' last ones, and writes that were cut short."""
        begin, end = await self._reader.bounds(self._topic, unit)
        records = await self._reader.read(self._topic, unit, begin, end)
        live = {record.key: record.value is not None for record in records}
        return [key for key, alive in live.items() if alive and progress_of_key(key) < before_progress]
