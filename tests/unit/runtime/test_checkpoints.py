"""Checkpoints: what is whole, which one is taken, what is removed."""

import pytest
from memory_log import MemoryLogs

from streams.runtime import checkpoint_writer, checkpoints
from streams.runtime.checkpoint_writer import CheckpointSchedule, CheckpointWriter
from streams.runtime.checkpoints import Checkpoint, CheckpointReader, encode, newest_whole
from tests.waiting import wait_until

TOPIC = "checkpoints"


def checkpoint(progress: int, size: int = 100) -> Checkpoint:
    return Checkpoint(progress // 10, {("a", 0): progress - 3, ("b", 1): 3}, bytes([progress % 251]) * size)


def seen(*written: Checkpoint, chunk_bytes: int = 40) -> dict[bytes, bytes | None]:
    return {key: value for one in written for key, value in encode(one, chunk_bytes)[1]}


@pytest.mark.parametrize("size", [0, 1, 39, 40, 41, 1000])
@pytest.mark.parametrize("chunk_bytes", [1, 40, 10_000])
def test_what_was_written_is_read(size, chunk_bytes):
    assert newest_whole(seen(checkpoint(50, size), chunk_bytes=chunk_bytes)) == (checkpoint(50, size), [])


def test_the_same_checkpoint_has_the_same_records_and_another_one_has_other_keys():
    assert encode(checkpoint(50), 40) == encode(checkpoint(50), 40)
    other = checkpoint(50)._replace(state=b"other bytes at the same positions")
    assert not seen(checkpoint(50)).keys() & seen(other).keys()


def damages():
    records = encode(checkpoint(60), 40)[1]
    for number, (key, value) in enumerate(records):
        kind = "manifest" if number == len(records) - 1 else f"chunk {number}"
        yield pytest.param(key, None, id=f"{kind} removed")
        yield pytest.param(key, value[:-1] + b"?", id=f"{kind} altered")


@pytest.mark.parametrize(("key", "value"), damages())
def test_a_damaged_checkpoint_is_passed_over_for_the_older_one(key, value):
    records = {**seen(checkpoint(50), checkpoint(60)), key: value}
    found, rejected = newest_whole(records)
    assert found == checkpoint(50)
    if not (key.endswith(b"/m") and value is None):  # without a manifest it was never there
        assert [progress for progress, _ in rejected] == [60]


def test_nothing_whole():
    assert newest_whole({}) == (None, [])
    records = seen(checkpoint(60))
    records[next(iter(records))] = b""
    found, rejected = newest_whole(records)
    assert found is None
    assert rejected == [(60, "the digest differs")]


def test_a_manifest_of_another_format_is_rejected():
    records = {b"60/x/m": b'{"format": 99}', b"61/x/m": b"not json", b"62/x/m": b'{"format": 1, "surplus": 1}'}
    found, rejected = newest_whole(seen(checkpoint(50)) | records)
    assert found == checkpoint(50)
    assert sorted(progress for progress, _ in rejected) == [60, 61, 62]


class World:
    """A writer over logs in memory."""

    def __init__(self, chunk_bytes: int = 40, laggards_silent: bool = False) -> None:
        self.logs = MemoryLogs()
        self.reader = CheckpointReader(self.logs, TOPIC)
        self.chunk_bytes, self.laggards_silent = chunk_bytes, laggards_silent
        self.writer = self.new_writer()

    def new_writer(self) -> CheckpointWriter:
        return CheckpointWriter(self.send, self.reader, self.chunk_bytes, self.laggards_silent)

    async def send(self, unit, key, value):
        return await self.logs.send(TOPIC, value, key=key, partition=unit)

    async def write(self, *written: Checkpoint, writer: CheckpointWriter | None = None) -> None:
        for one in written:
            (writer or self.writer).begin(0, one, [])
            await (writer or self.writer).drained()

    def live(self) -> dict[bytes, bytes | None]:
        newest = {record.key: record.value for record in self.logs.logs[TOPIC, 0]}
        return {key: value for key, value in newest.items() if value is not None}

    def live_progress(self) -> list[int]:
        return sorted(checkpoints.progress_of_key(key) for key in self.live() if key.endswith(b"/m"))


@pytest.mark.parametrize("window", [1, 2, 3, 16])
async def test_the_backward_scan_finds_the_newest_before_and_after_compaction(window):
    world = World()
    assert await world.reader.newest(0, window) is None
    for progress in range(10, 200, 10):
        await world.write(checkpoint(progress))
        assert await world.reader.newest(0, window) == checkpoint(progress)
        if progress % 30 == 0:
            world.logs.compact(TOPIC, 0)
            assert await world.reader.newest(0, window) == checkpoint(progress)


async def test_several_units_are_read_at_once_and_each_has_its_own():
    world = World()
    for unit, progress in ((0, 50), (2, 70)):
        world.writer.begin(unit, checkpoint(progress), [])
    await world.writer.drained()
    assert await world.reader.newest_of([0, 1, 2]) == {0: checkpoint(50), 1: None, 2: checkpoint(70)}


class Spans(MemoryLogs):
    """Remembers what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_offsets: list[tuple[int, int]] = []

    async def read(self, topic, partition, low, high):
        self.read_offsets.append((low, high))
        return await super().read(topic, partition, low, high)


@pytest.mark.parametrize(
    ("lost", "found", "spans"),
    [
        ([], 60, [(48, 50), (25, 48)]),  # the manifest, then the chunks that were missing
        ([27], 50, [(48, 50), (25, 48), (24, 25), (16, 24), (0, 16)]),
        ([3, 27], None, [(48, 50), (25, 48), (24, 25), (16, 24), (0, 16)]),
    ],
)
async def test_of_a_large_checkpoint_nothing_is_read_that_lies_before_it(lost, found, spans):
    logs = Spans()
    for one in (checkpoint(50, 900), checkpoint(60, 900)):  # 24 chunks and a manifest each
        for key, value in encode(one, 40)[1]:
            await logs.send(TOPIC, value, key=key, partition=0)
    logs.logs[TOPIC, 0] = [record for record in logs.logs[TOPIC, 0] if record.offset not in lost]
    assert await CheckpointReader(logs, TOPIC).newest(0) == (checkpoint(found, 900) if found else None)
    assert logs.read_offsets == spans


async def test_a_writer_keeps_two_besides_the_one_just_written():
    world = World()
    await world.write(*(checkpoint(progress) for progress in range(10, 100, 10)))
    assert world.live_progress() == [70, 80, 90]
    assert set(world.live()) == set(seen(checkpoint(70), checkpoint(80), checkpoint(90)))


async def test_a_new_owner_sweeps_what_earlier_owners_left_and_writes_that_were_cut_short():
    world = World()
    await world.write(checkpoint(10), checkpoint(20))
    await world.logs.send(TOPIC, b"a chunk without manifest", key=b"25/cut/0", partition=0)
    heir = world.new_writer()
    await world.write(checkpoint(30), checkpoint(40), writer=heir)
    assert world.live_progress() == [10, 20, 30, 40]
    await world.write(checkpoint(50), writer=heir)
    assert set(world.live()) == set(seen(checkpoint(30), checkpoint(40), checkpoint(50)))


async def test_a_laggard_does_not_hide_a_newer_checkpoint():
    world = World(laggards_silent=True)
    await world.write(checkpoint(100))
    laggard = world.new_writer()
    await world.write(checkpoint(40), writer=laggard)
    assert world.live_progress() == [100]
    assert laggard.count["checkpoints_passed"] == 1
    assert await world.reader.reached(0) == 100


async def test_a_laggard_never_removes_the_newest_whole_one():
    world = World()
    await world.write(checkpoint(100))
    await world.write(*(checkpoint(progress) for progress in range(10, 60, 10)), writer=world.new_writer())
    assert world.live_progress()[-1] == 100


async def test_the_manifest_is_the_last_record_and_waits_for_the_acknowledgement_of_the_chunks():
    world = World()
    world.logs.held = {TOPIC}
    world.writer.begin(0, checkpoint(50), [])
    chunks = len(encode(checkpoint(50), 40)[1]) - 1
    await wait_until(lambda: len(world.logs.logs[TOPIC, 0]) >= chunks)
    assert await world.reader.newest(0) is None
    world.logs.held = set()
    world.logs.release()
    await world.writer.drained()
    assert await world.reader.newest(0) == checkpoint(50)


async def test_a_failed_send_ends_the_process(monkeypatch):
    deaths = []
    monkeypatch.setattr(checkpoint_writer, "die", lambda reason, exception: deaths.append((reason, repr(exception))))
    world = World()

    async def refuse(unit, key, value):
        raise OSError("away")

    world.writer._send = refuse
    await world.write(checkpoint(50))
    assert deaths == [("checkpoint of unit 0", "OSError('away')")]


def test_schedule_takes_the_first_mark_of_each_slot():
    schedule = CheckpointSchedule(10)
    taken = []
    for mark in [*range(1, 25), 37, 38, 39, 40]:
        if schedule.due(0, mark):
            schedule.taken(0, mark)
            taken.append(mark)
    assert taken == [10, 20, 37, 40]


def test_schedule_staggers_units():
    first = {}
    for unit in range(8):
        schedule = CheckpointSchedule(10)
        first[unit] = next(mark for mark in range(1, 30) if schedule.due(unit, mark))
    assert len(set(first.values())) == 8


def test_groups_take_turns_and_leave_out_no_slot():
    schedules = [CheckpointSchedule(10, group, 2) for group in range(2)]
    due = {}
    for mark in range(1, 100):
        for group, schedule in enumerate(schedules):
            if schedule.due(0, mark):
                schedule.taken(0, mark)
                due[mark] = group
    assert due == {mark: (mark // 10) % 2 for mark in range(10, 100, 10)}


def test_schedule_after_a_restore_waits_for_the_next_slot():
    schedule = CheckpointSchedule(10)
    schedule.restored(0, 20)
    assert [mark for mark in range(20, 32) if schedule.due(0, mark)] == [30, 31]
