"""The append log of one partition: record batches (Kafka format v2) in one file, exactly as they are served."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import deque, namedtuple
from collections.abc import Iterator, Mapping
from pathlib import Path

from aiokafka import errors
from aiokafka.record.util import calc_crc32c

LAYOUT = struct.Struct(">qiibIhiqqqhii")  # the fixed head of a batch, 61 bytes
Header = namedtuple(
    "Header",
    "base_offset length leader_epoch magic crc attributes last_offset_delta first_timestamp max_timestamp producer_id "
    "producer_epoch base_sequence count",
)
AFTER_LENGTH, CRC_FROM = 12, 21  # `length` counts from the one, the checksum from the other
LOG_APPEND_TIME, TRANSACTIONAL_OR_CONTROL = 0x08, 0x30
SEQUENCES = 1 << 31  # sequence numbers wrap to 0 here


def checksum(batch: bytes | bytearray) -> int:
    return calc_crc32c(memoryview(batch)[CRC_FROM:])


def last_sequence(head: Header) -> int:
    return (head.base_sequence + head.count - 1) % SEQUENCES


def whole_batches(file: int) -> Iterator[tuple[Header, int]]:
    """Header and size of each batch up to the first that is torn, corrupt or out of order."""
    position, next_offset = 0, 0
    while len(start := os.pread(file, LAYOUT.size, position)) == LAYOUT.size:
        head = Header(*LAYOUT.unpack(start))
        size = AFTER_LENGTH + head.length
        if head.magic != 2 or size < LAYOUT.size or head.base_offset != next_offset:
            return
        batch = os.pread(file, size, position)
        if len(batch) != size or checksum(batch) != head.crc:
            return
        yield head, size
        position, next_offset = position + size, head.base_offset + head.last_offset_delta + 1


class Producer:
    """What a partition knows of an idempotent producer: its epoch and its last five batches, as Apache Kafka keeps."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.recent: deque[tuple[int, int, int]] = deque(maxlen=5)  # first sequence, last sequence, base offset

    def original_offset(self, head: Header) -> int | None:
        """The offset that this batch already has, None if it is the next in sequence; else raises."""
        if head.producer_epoch < self.epoch:
            raise errors.InvalidProducerEpoch(f"epoch {head.producer_epoch} after {self.epoch}")
        expected = 0
        if head.producer_epoch == self.epoch:
            for first, last, offset in self.recent:
                if (first, last) == (head.base_sequence, last_sequence(head)):
                    return offset
            expected = (self.recent[-1][1] + 1) % SEQUENCES
        if head.base_sequence != expected:
            raise errors.OutOfOrderSequenceNumber(f"sequence {head.base_sequence}, expected {expected}")
        return None


class PartitionLog:
    """An append-only file of batches; in memory only where each batch starts and its last offset."""

    def __init__(self, path: Path, configs: Mapping[str, str]) -> None:
        self.stamped = configs.get("message.timestamp.type") == "LogAppendTime"
        self.max_bytes = int(configs.get("max.message.bytes", 1048588))
        self.waiting: set[asyncio.Event] = set()
        self.producers: dict[int, Producer] = {}
        self.starts, self.lasts = array("q", [0]), array("q")
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        for head, size in whole_batches(self.file):
            self._index(head, size)
        os.ftruncate(self.file, self.starts[-1])  # a torn batch was never acknowledged

    @property
    def end_offset(self) -> int:
        """The offset that the next record gets."""
        return self.lasts[-1] + 1 if self.lasts else 0

    def _index(self, head: Header, size: int) -> None:
        offset = self.end_offset
        self.starts.append(self.starts[-1] + size)
        self.lasts.append(offset + head.last_offset_delta)
        if head.producer_id >= 0:
            producer = self.producers.get(head.producer_id)
            if producer is None or producer.epoch != head.producer_epoch:
                producer = self.producers[head.producer_id] = Producer(head.producer_epoch)
            producer.recent.append((head.base_sequence, last_sequence(head), offset))

    def append(self, batch: bytes) -> tuple[int, int]:
        """Base offset and log append time (ms; -1: the producer's time stands) of one batch. Raises aiokafka errors.

        It returns when the page cache has the bytes: they survive a kill of this process, not a loss of power.
        """
        head = self._checked(batch)
        if producer := self.producers.get(head.producer_id):
            offset = producer.original_offset(head)
            if offset is not None:
                return offset, -1
        offset, stored, now_ms = self.end_offset, bytearray(batch), -1
        struct.pack_into(">qii", stored, 0, offset, head.length, 0)
        if self.stamped:
            now_ms = time.time_ns() // 1_000_000
            struct.pack_into(">h", stored, CRC_FROM, head.attributes | LOG_APPEND_TIME)
            struct.pack_into(">q", stored, CRC_FROM + 14, now_ms)
            struct.pack_into(">I", stored, CRC_FROM - 4, checksum(stored))
        self._write(stored)
        self._index(head, len(stored))
        self.wake()
        return offset, now_ms

    def _checked(self, batch: bytes) -> Header:
        if len(batch) < LAYOUT.size:
            raise errors.CorruptRecordException(f"a batch of {len(batch)} bytes")
        head = Header(*LAYOUT.unpack_from(batch))
        if head.magic != 2:
            raise errors.UnsupportedForMessageFormatError(f"message format {head.magic}, only 2 is known")
        if len(batch) > self.max_bytes:
            raise errors.MessageSizeTooLargeError(f"{len(batch)} bytes, max.message.bytes is {self.max_bytes}")
        if head.attributes & TRANSACTIONAL_OR_CONTROL:
            raise errors.InvalidRequestError("transactions are not supported: use Apache Kafka")
        whole = AFTER_LENGTH + head.length == len(batch) and head.count == head.last_offset_delta + 1 > 0
        if not whole or checksum(batch) != head.crc:
            raise errors.CorruptRecordException("length, count or checksum of a batch is wrong")
        return head

    def _write(self, stored: bytearray) -> None:
        try:
            if os.write(self.file, stored) != len(stored):
                raise OSError("short write")
        except OSError as error:
            os.ftruncate(self.file, self.starts[-1])
            raise errors.KafkaStorageError(f"cannot write to the log: {error}") from error

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Whole batches from the one that holds `offset` on: one if there is any, more up to `max_bytes`."""
        first = bisect_left(self.lasts, offset)
        if first == len(self.lasts):
            return b""
        beyond = max(bisect_right(self.starts, self.starts[first] + max_bytes) - 1, first + 1)
        return os.pread(self.file, self.starts[beyond] - self.starts[first], self.starts[first])

    def wake(self) -> None:
        for event in self.waiting:
            event.set()

    def close(self) -> None:
        self.wake()
        os.close(self.file)
