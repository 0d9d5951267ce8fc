"""The append log: what a kill leaves, what is refused, what an idempotent producer may do."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from aiokafka import errors
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from streams.runtime.development_broker.log import PartitionLog


def batch(*values: bytes, producer: int = -1, epoch: int = 0, sequence: int = 0, transactional: bool = False) -> bytes:
    """One record batch as aiokafka's producer sends it."""
    builder = DefaultRecordBatchBuilder(2, 0, transactional, producer, epoch, sequence, 1 << 20)
    for index, value in enumerate(values):
        builder.append(index, 1_000 + index, None, value, [])
    return bytes(builder.build())


def values(log: PartitionLog, offset: int = 0, max_bytes: int = 1 << 20) -> list[bytes]:
    data, found = log.read(offset, max_bytes), []
    while data:
        size = 12 + struct.unpack_from(">i", data, 8)[0]
        found += [record.value for record in DefaultRecordBatch(data[:size]) if record.offset >= offset]
        data = data[size:]
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0.log"


def test_offsets_and_reads_from_any_offset(path: Path) -> None:
    log = PartitionLog(path, {})
    assert [log.append(batch(b"a", b"b")), log.append(batch(b"c"))] == [0, 2]
    assert log.end_offset == 3
    assert [values(log, offset) for offset in range(4)] == [[b"a", b"b", b"c"], [b"b", b"c"], [b"c"], []]


def test_read_gives_whole_batches_up_to_the_limit_but_always_one(path: Path) -> None:
    log = PartitionLog(path, {})
    size = len(batch(b"x" * 100))
    for _ in range(5):
        log.append(batch(b"x" * 100))
    assert [len(values(log, 0, limit)) for limit in (1, size, 2 * size - 1, 2 * size, 99 * size)] == [1, 1, 1, 2, 5]


@pytest.mark.parametrize("cut", [1, 20, 61, 70])
def test_a_torn_batch_at_the_end_is_cut_off(path: Path, cut: int) -> None:
    log = PartitionLog(path, {})
    for value in (b"first", b"second", b"third"):
        log.append(batch(value))
    log.close()
    os.truncate(path, path.stat().st_size - cut)
    kept = 2 if cut < len(batch(b"third")) else 1
    again = PartitionLog(path, {})
    assert again.end_offset == kept
    assert again.append(batch(b"next")) == kept
    assert values(again) == [*[b"first", b"second"][:kept], b"next"]


def test_a_flipped_bit_is_found_at_start(path: Path) -> None:
    log = PartitionLog(path, {})
    log.append(batch(b"good"))
    end_of_good = path.stat().st_size
    log.append(batch(b"spoilt"))
    log.close()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert values(PartitionLog(path, {})) == [b"good"]
    assert path.stat().st_size == end_of_good


def refused(log: PartitionLog, data: bytes) -> type[Exception]:
    end = log.end_offset
    with pytest.raises(errors.BrokerResponseError) as caught:
        log.append(data)
    assert log.end_offset == end
    return caught.type


def test_bad_batches_are_refused_by_the_right_error(path: Path) -> None:
    log = PartitionLog(path, {"max.message.bytes": "300"})
    good = batch(b"good")
    assert refused(log, b"") is errors.CorruptRecordException
    assert refused(log, good[:-1]) is errors.CorruptRecordException
    assert refused(log, good + good) is errors.CorruptRecordException
    assert refused(log, good[:-1] + bytes([good[-1] ^ 1])) is errors.CorruptRecordException
    assert refused(log, good[:16] + b"\x01" + good[17:]) is errors.CorruptRecordException
    assert refused(log, batch(b"x" * 300)) is errors.MessageSizeTooLargeError
    assert refused(log, batch(b"x", producer=1, transactional=True)) is errors.InvalidRequestError
    assert log.append(good) == 0


@pytest.mark.parametrize("restart", [False, True])
def test_idempotent_producer(path: Path, restart: bool) -> None:
    """Repeats get their first offset, holes are refused; the same after a restart, from the log alone."""
    log = PartitionLog(path, {})
    sent = [batch(b"%d" % i, b"%d" % i, producer=7, sequence=2 * i) for i in range(7)]
    assert [log.append(data) for data in sent] == list(range(0, 14, 2))
    if restart:
        log.close()
        log = PartitionLog(path, {})
    assert [log.append(data) for data in sent[2:]] == list(range(4, 14, 2))
    assert refused(log, sent[0]) is errors.OutOfOrderSequenceNumber
    assert refused(log, batch(b"hole", producer=7, sequence=15)) is errors.OutOfOrderSequenceNumber
    assert log.append(batch(b"other", producer=8, sequence=0)) == 14
    assert log.append(batch(b"next", producer=7, sequence=14)) == 15
    assert refused(log, batch(b"new epoch", producer=7, epoch=1, sequence=0)) is errors.InvalidRequestError


def test_sequences_wrap(path: Path) -> None:
    log = PartitionLog(path, {})
    log.append(batch(b"a", b"b", producer=1, sequence=(1 << 31) - 1))
    assert log.append(batch(b"c", producer=1, sequence=1)) == 2
