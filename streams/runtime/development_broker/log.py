"""The append log of one partition: record batches (Kafka format v2) in one file, exactly as they are served."""

import asyncio
import contextlib
import os
import struct
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from weakref import WeakSet

from aiokafka import errors
from aiokafka.record.default_records import DefaultRecordBatch as Batch

HEAD_BYTES, LENGTH_AT, AFTER_LENGTH, MAGIC_AT = 61, 8, 12, 16
SEQUENCES = 1 << 31  # sequence numbers wrap to 0 here


def whole_batch(data: bytes) -> Batch:
    """The batch that these bytes are. Raises CorruptRecordException unless it is one, whole, with a right checksum."""
    length = int.from_bytes(data[LENGTH_AT:AFTER_LENGTH])
    whole = len(data) >= HEAD_BYTES and AFTER_LENGTH + length == len(data) and data[MAGIC_AT] == 2
    if not whole or not Batch(data).validate_crc():
        raise errors.CorruptRecordException("not one whole batch of format 2 with a right checksum")
    return Batch(data)


class PartitionLog:
    """An append-only file of batches; in memory only where each of them starts, and where the next one will."""

    def __init__(self, path: Path, configs: Mapping[str, str]) -> None:
        self.max_bytes = int(configs.get("max.message.bytes", 1048588))
        self.waiting: WeakSet[asyncio.Event] = WeakSet()  # of fetches, set when records arrive
        # of each idempotent producer the last five batches, as Apache Kafka keeps: first sequence, records - 1, offset
        self.recent: dict[int, deque[tuple[int, int, int]]] = {}
        self.offsets, self.starts = array("q", [0]), array("q", [0])
        self.end_offset = 0  # that the next record gets
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._recover()

    def _recover(self) -> None:
        """Finds the batches. The first that is torn, corrupt or out of order, never acknowledged, is cut off."""
        end = os.fstat(self.file).st_size
        with contextlib.suppress(errors.CorruptRecordException):
            while (start := self.starts[-1]) < end:
                length = int.from_bytes(os.pread(self.file, AFTER_LENGTH, start)[LENGTH_AT:])
                batch = whole_batch(os.pread(self.file, min(AFTER_LENGTH + length, end - start), start))
                if batch.base_offset != self.end_offset:
                    break
                self._index(batch, AFTER_LENGTH + length)
        os.ftruncate(self.file, self.starts[-1])

    def _index(self, batch: Batch, size: int) -> None:
        if batch.producer_id >= 0:
            recent = self.recent.setdefault(batch.producer_id, deque(maxlen=5))
            recent.append((batch.base_sequence, batch.last_offset_delta, self.end_offset))
        self.end_offset += batch.last_offset_delta + 1
        self.offsets.append(self.end_offset)
        self.starts.append(self.starts[-1] + size)

    def _repeated(self, batch: Batch) -> int | None:
        """The offset of a batch that its idempotent producer repeats, None for a new one. Raises if one is missing."""
        recent = self.recent.get(batch.producer_id, ())
        for first, delta, offset in recent:
            if (first, delta) == (batch.base_sequence, batch.last_offset_delta):
                return offset
        if recent and batch.base_sequence != (recent[-1][0] + recent[-1][1] + 1) % SEQUENCES:
            raise errors.OutOfOrderSequenceNumber(f"sequence {batch.base_sequence}, a batch before it is missing")
        return None

    def append(self, data: bytes) -> int:
        """The offset of one batch; it survives a kill from here on, not a loss of power. Raises aiokafka's errors."""
        if len(data) > self.max_bytes:
            raise errors.MessageSizeTooLargeError(f"{len(data)} bytes, max.message.bytes is {self.max_bytes}")
        batch = whole_batch(data)
        if batch.is_transactional or batch.is_control_batch or batch.producer_epoch > 0:
            raise errors.InvalidRequestError("transactions and producer epochs are not supported: use Apache Kafka")
        if (known := self._repeated(batch)) is not None:
            return known
        offset, stored = self.end_offset, struct.pack(">q", self.end_offset) + data[LENGTH_AT:]
        if os.pwrite(self.file, stored, self.starts[-1]) != len(stored):  # the next write begins at the same place
            raise errors.KafkaStorageError("the disk took only a part of a batch")
        self._index(batch, len(stored))
        for event in self.waiting:
            event.set()
        return offset

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Whole batches from the one that holds `offset` on: one if there is any, more up to `max_bytes`."""
        if offset >= self.end_offset:
            return b""
        first = bisect_right(self.offsets, offset) - 1
        beyond = max(bisect_right(self.starts, self.starts[first] + max_bytes) - 1, first + 1)
        return os.pread(self.file, self.starts[beyond] - self.starts[first], self.starts[first])

    def close(self) -> None:
        os.close(self.file)
