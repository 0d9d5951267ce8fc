"""The append log of one partition: record batches (Kafka format v2) in one file, exactly as they are served."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c

from .wire import ErrorCode, Refusal

LAYOUT = struct.Struct(">qiibIhiqqqhii")
AFTER_LENGTH, CRC_FROM = 12, 21
LOG_APPEND_TIME, TRANSACTIONAL_OR_CONTROL, COMPRESSED = 0x08, 0x30, 0x07
SEQUENCES = 1 << 31  # sequence numbers wrap to 0 here


class Header(NamedTuple):
    """The fixed head of a record batch (61 bytes, big endian)."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int


class Producer:
    """What a partition knows of an idempotent producer: its epoch and its last five batches, as Apache Kafka keeps."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.recent: deque[tuple[int, int, int]] = deque(maxlen=5)  # first sequence, last sequence, base offset

    def original_offset(self, head: Header) -> int | None:
        """The offset this batch already has, None if it is the next one in sequence; else a Refusal."""
        if head.producer_epoch < self.epoch:
            raise Refusal(ErrorCode.INVALID_PRODUCER_EPOCH, f"epoch {head.producer_epoch} after {self.epoch}")
        if head.producer_epoch > self.epoch:
            expected = 0
        else:
            last = (head.base_sequence + head.count - 1) % SEQUENCES
            for first_known, last_known, offset in self.recent:
                if (first_known, last_known) == (head.base_sequence, last):
                    return offset
            expected = (self.recent[-1][1] + 1) % SEQUENCES
        if head.base_sequence != expected:
            raise Refusal(ErrorCode.OUT_OF_ORDER_SEQUENCE, f"sequence {head.base_sequence}, expected {expected}")
        return None


def whole_batches(file: int) -> Iterator[tuple[Header, int, bytes]]:
    """Header, position and bytes of each batch up to the first that is torn, corrupt or out of order."""
    position, next_offset = 0, 0
    while len(start := os.pread(file, LAYOUT.size, position)) == LAYOUT.size:
        head = Header(*LAYOUT.unpack(start))
        if head.magic != 2 or head.length < LAYOUT.size - AFTER_LENGTH or head.base_offset < next_offset:
            return
        batch = os.pread(file, AFTER_LENGTH + head.length, position)
        if len(batch) != AFTER_LENGTH + head.length or calc_crc32c(memoryview(batch)[CRC_FROM:]) != head.crc:
            return
        yield head, position, batch
        position += len(batch)
        next_offset = head.base_offset + head.last_offset_delta + 1


def compact(path: Path) -> None:
    """Drops batches of which every record has a newer one of its key, if that frees half of the file.

    Whole batches only, so no offset changes; tombstones stay, and so does each producer's last batch (its sequence).
    """
    file = os.open(path, os.O_RDONLY)
    newest: dict[bytes | None, int] = {}
    last_of: dict[int, int] = {}
    total = 0
    for head, _, batch in whole_batches(file):
        total, last_of[head.producer_id] = total + len(batch), head.base_offset
        if not head.attributes & COMPRESSED:
            newest.update((record.key, record.offset) for record in DefaultRecordBatch(batch))
    replacement = path.with_suffix(".compacting")
    with open(replacement, "wb") as out:
        for head, _, batch in whole_batches(file):
            keep = head.attributes & COMPRESSED or last_of[head.producer_id] == head.base_offset
            if keep or any(r.key is None or newest[r.key] == r.offset for r in DefaultRecordBatch(batch)):
                out.write(batch)
        kept = out.tell()
    os.close(file)
    if kept * 2 < total:
        replacement.replace(path)
    else:
        replacement.unlink()


class PartitionLog:
    """An append-only file of batches; in memory only where each batch starts, its last offset and its newest time."""

    def __init__(self, path: Path, configs: dict[str, str]) -> None:
        self.stamp = configs.get("message.timestamp.type") == "LogAppendTime"
        self.max_bytes = int(configs.get("max.message.bytes", 1048588))
        self.waiting: set[asyncio.Event] = set()
        self.producers: dict[int, Producer] = {}
        self.starts, self.lasts, self.times = array("q", [0]), array("q"), array("q")
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        for head, _, batch in whole_batches(self.file):
            self._index(head, head.base_offset, len(batch))
        self.torn_bytes = os.fstat(self.file).st_size - self.starts[-1]
        os.ftruncate(self.file, self.starts[-1])

    @property
    def end_offset(self) -> int:
        """The offset the next record gets."""
        return self.lasts[-1] + 1 if self.lasts else 0

    def _index(self, head: Header, base_offset: int, size: int) -> None:
        self.starts.append(self.starts[-1] + size)
        self.lasts.append(base_offset + head.last_offset_delta)
        self.times.append(head.max_timestamp)
        if head.producer_id >= 0:
            producer = self.producers.get(head.producer_id)
            if producer is None or producer.epoch != head.producer_epoch:
                producer = self.producers[head.producer_id] = Producer(head.producer_epoch)
            last = (head.base_sequence + head.count - 1) % SEQUENCES
            producer.recent.append((head.base_sequence, last, base_offset))

    def append(self, batch: bytes) -> tuple[int, int]:
        """Base offset and log append time (ms, -1 if the producer's time stands) of one batch; Refusal otherwise.

        Returns after the write reached the page cache: it survives a kill of this process, not a loss of power.
        """
        head = self._checked(batch)
        if head.producer_id >= 0 and (producer := self.producers.get(head.producer_id)):
            offset = producer.original_offset(head)
            if offset is not None:
                return offset, -1
        base_offset, now_ms = self.end_offset, -1
        stored = bytearray(batch)
        struct.pack_into(">qii", stored, 0, base_offset, head.length, 0)
        if self.stamp:
            now_ms = time.time_ns() // 1_000_000
            struct.pack_into(">hiqq", stored, CRC_FROM, head.attributes | LOG_APPEND_TIME, head.last_offset_delta,
                             head.first_timestamp, now_ms)
            struct.pack_into(">I", stored, CRC_FROM - 4, calc_crc32c(memoryview(stored)[CRC_FROM:]))
            head = head._replace(max_timestamp=now_ms)
        self._write(stored)
        self._index(head, base_offset, len(stored))
        self.wake()
        return base_offset, now_ms

    def _checked(self, batch: bytes) -> Header:
        if len(batch) < LAYOUT.size:
            raise Refusal(ErrorCode.CORRUPT_MESSAGE, f"a batch of {len(batch)} bytes")
        head = Header(*LAYOUT.unpack_from(batch))
        if head.magic != 2:
            raise Refusal(ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, f"message format {head.magic}, only 2 is known")
        if len(batch) > self.max_bytes:
            raise Refusal(ErrorCode.MESSAGE_TOO_LARGE, f"{len(batch)} bytes, max.message.bytes is {self.max_bytes}")
        if head.attributes & TRANSACTIONAL_OR_CONTROL:
            raise Refusal(ErrorCode.INVALID_REQUEST, "transactional or control batch")
        whole = AFTER_LENGTH + head.length == len(batch) and head.count == head.last_offset_delta + 1 > 0
        if not whole or calc_crc32c(memoryview(batch)[CRC_FROM:]) != head.crc:
            raise Refusal(ErrorCode.CORRUPT_MESSAGE, "length, count or checksum of a batch is wrong")
        return head

    def _write(self, stored: bytearray) -> None:
        try:
            if os.write(self.file, stored) != len(stored):
                raise OSError("short write: is the disk full?")
        except OSError as error:
            os.ftruncate(self.file, self.starts[-1])
            raise Refusal(ErrorCode.KAFKA_STORAGE_ERROR, str(error)) from error

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Whole batches from the one that holds `offset` on: at least one if there is any, else up to `max_bytes`."""
        first = bisect_left(self.lasts, offset)
        if first == len(self.lasts):
            return b""
        beyond = max(bisect_right(self.starts, self.starts[first] + max_bytes) - 1, first + 1)
        return os.pread(self.file, self.starts[beyond] - self.starts[first], self.starts[first])

    def offset_at(self, time_ms: int) -> tuple[int, int]:
        """(time, offset) of the first record not older than `time_ms`; (-1, -1) if there is none."""
        for index, newest_ms in enumerate(self.times):
            if newest_ms >= time_ms:
                for record in DefaultRecordBatch(self.read(self.lasts[index], 0)):
                    if record.timestamp >= time_ms:
                        return record.timestamp, record.offset
        return -1, -1

    def wake(self) -> None:
        for event in self.waiting:
            event.set()

    def close(self) -> None:
        self.wake()
        os.close(self.file)
