"""The append log of one partition: record batches (Kafka format v2) in one file, exactly as they are served."""

import asyncio
import os
import struct
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from aiokafka import errors
from aiokafka.record.default_records import DefaultRecordBatch as Batch
from aiokafka.record.util import calc_crc32c

HEAD_BYTES, AFTER_LENGTH, MAGIC_AT, CRC_AT, ATTRIBUTES_AT, MAX_TIME_AT, COUNT_AT = 61, 12, 16, 17, 21, 35, 57
LOG_APPEND_TIME = 0x08
SEQUENCES = 1 << 31  # sequence numbers wrap to 0 here


def size_of(head: bytes) -> int:
    """Bytes of the batch that starts so."""
    return AFTER_LENGTH + int.from_bytes(head[8:AFTER_LENGTH], signed=True)


def last_sequence(batch: Batch) -> int:
    return (batch.base_sequence + batch.last_offset_delta) % SEQUENCES


def whole_batches(file: int) -> Iterator[tuple[Batch, int]]:
    """Each batch and its size, up to the first that is torn, corrupt or out of order."""
    position, next_offset = 0, 0
    while len(head := os.pread(file, HEAD_BYTES, position)) == HEAD_BYTES and (size := size_of(head)) >= HEAD_BYTES:
        data = os.pread(file, size, position)
        if len(data) != size or data[MAGIC_AT] != 2:
            return
        batch = Batch(data)
        if not batch.validate_crc() or batch.base_offset != next_offset:
            return
        yield batch, size
        position, next_offset = position + size, batch.next_offset


class Producer:
    """What a partition knows of an idempotent producer: its epoch and its last five batches, as Apache Kafka keeps."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.recent: deque[tuple[int, int, int]] = deque(maxlen=5)  # first sequence, last sequence, base offset

    def original_offset(self, batch: Batch) -> int | None:
        """The offset that this batch already has, None if it is the next in sequence; else raises."""
        if batch.producer_epoch < self.epoch:
            raise errors.InvalidProducerEpoch(f"epoch {batch.producer_epoch} after {self.epoch}")
        expected = 0
        if batch.producer_epoch == self.epoch:
            for first, last, offset in self.recent:
                if (first, last) == (batch.base_sequence, last_sequence(batch)):
                    return offset
            expected = (self.recent[-1][1] + 1) % SEQUENCES
        if batch.base_sequence != expected:
            raise errors.OutOfOrderSequenceNumber(f"sequence {batch.base_sequence}, expected {expected}")
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
        for batch, size in whole_batches(self.file):
            self._index(batch, size)
        os.ftruncate(self.file, self.starts[-1])  # a torn batch was never acknowledged

    @property
    def end_offset(self) -> int:
        """The offset that the next record gets."""
        return self.lasts[-1] + 1 if self.lasts else 0

    def _index(self, batch: Batch, size: int) -> None:
        offset, known = self.end_offset, self.producers.get(batch.producer_id)
        self.starts.append(self.starts[-1] + size)
        self.lasts.append(offset + batch.last_offset_delta)
        if batch.producer_id >= 0:
            if known is None or known.epoch != batch.producer_epoch:
                known = self.producers[batch.producer_id] = Producer(batch.producer_epoch)
            known.recent.append((batch.base_sequence, last_sequence(batch), offset))

    def append(self, data: bytes) -> tuple[int, int]:
        """Base offset and log append time (ms; -1: the producer's time stands) of one batch. Raises aiokafka errors.

        It returns when the page cache has the bytes: they survive a kill of this process, not a loss of power.
        """
        batch = self._checked(data)
        if producer := self.producers.get(batch.producer_id):
            offset = producer.original_offset(batch)
            if offset is not None:
                return offset, -1
        offset, stored, now_ms = self.end_offset, bytearray(data), -1
        struct.pack_into(">q", stored, 0, offset)
        if self.stamped:
            now_ms = time.time_ns() // 1_000_000
            struct.pack_into(">h", stored, ATTRIBUTES_AT, batch.attributes | LOG_APPEND_TIME)
            struct.pack_into(">q", stored, MAX_TIME_AT, now_ms)
            struct.pack_into(">I", stored, CRC_AT, calc_crc32c(memoryview(stored)[ATTRIBUTES_AT:]))
        try:
            if os.write(self.file, stored) != len(stored):
                raise OSError("short write")
        except OSError as error:
            os.ftruncate(self.file, self.starts[-1])
            raise errors.KafkaStorageError(f"cannot write to the log: {error}") from error
        self._index(batch, len(stored))
        self.wake()
        return offset, now_ms

    def _checked(self, data: bytes) -> Batch:
        if len(data) > self.max_bytes:
            raise errors.MessageSizeTooLargeError(f"{len(data)} bytes, max.message.bytes is {self.max_bytes}")
        if len(data) < HEAD_BYTES or size_of(data) != len(data):
            raise errors.CorruptRecordException("not one whole batch")
        if data[MAGIC_AT] != 2:
            raise errors.UnsupportedForMessageFormatError(f"message format {data[MAGIC_AT]}, only 2 is known")
        batch = Batch(data)
        if not batch.validate_crc() or int.from_bytes(data[COUNT_AT:HEAD_BYTES]) != batch.last_offset_delta + 1:
            raise errors.CorruptRecordException("the checksum or count of a batch is wrong")
        if batch.is_transactional or batch.is_control_batch:
            raise errors.InvalidRequestError("transactions are not supported: use Apache Kafka")
        return batch

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
