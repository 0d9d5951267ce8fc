"""The shell's rules, over logs in memory. (Over brokers: tests/integration/test_runtime_*.)"""

import asyncio
import dataclasses
import json
import os
import threading

import pytest
from memory_log import PREFIX, Counter, CounterFactory, Fed, MemoryLogs

from streams.engine.output import OlderState
from streams.runtime import shell as shell_module
from streams.runtime.checkpoints import CheckpointReader
from streams.runtime.machine import from_the_beginning
from streams.runtime.settings import RuntimeSettings
from streams.runtime.shell import Shell, ShellFault
from tests.waiting import wait_until

SETTINGS = RuntimeSettings(prefix=PREFIX, checkpoint_every=5, checkpoint_chunk_bytes=16, inbox_records=4)
LIMIT_S = 10


class Died(Exception):
    pass


@pytest.fixture
def deaths(monkeypatch):
    """Instead of ending the process: the reasons. The unit's task ends with an exception."""
    found: list[tuple[str, BaseException | None]] = []

    def die(reason, exception=None, code=70):
        found.append((reason, exception))
        raise Died(reason)

    monkeypatch.setattr(shell_module, "die", die)
    return found


async def no_record_between(topic, partition, low, high):
    return None


def new_shell(logs: MemoryLogs, factory=None, kind=Shell, checkpoint_topic="checkpoints", **options) -> Shell:
    reader = CheckpointReader(logs, PREFIX + checkpoint_topic) if checkpoint_topic else None
    options = {"settings": SETTINGS, "name": "toy-0", "first_between": no_record_between, **options}
    return kind(
        factory=factory or CounterFactory(),
        producer=logs,
        checkpoint_topic=checkpoint_topic,
        checkpoint_loader=reader,
        checkpoint_janitor=reader,
        **options,
    )


async def feed(shell: Shell, numbers, start=0, partition=0, topic="numbers"):
    for offset, number in enumerate(numbers, start):
        await shell.feed(topic, partition, [Fed(offset, b"%d" % number)])


async def applied(shell: Shell, count: int):
    await wait_until(lambda: shell.count["applied"] == count)


async def waiters(lock: asyncio.Lock, count: int):
    """Until so many wait for the lock."""
    await wait_until(lambda: len(lock._waiters or ()) == count)


async def test_records_are_applied_in_order_and_their_outputs_carry_the_owner():
    logs = MemoryLogs()
    shell = new_shell(logs)
    assert await shell.restore([("numbers", 0)]) == {("numbers", 0): 0}
    await feed(shell, range(1, 9))
    await applied(shell, 8)
    assert logs.values("sums") == [b"1", b"3", b"6", b"10", b"15", b"21", b"28", b"36"]
    assert logs.values("early") == [b"6", b"10", b"28", b"36"]
    assert logs.logs[PREFIX + "sums", 0][0].headers == [("kind", b"sum"), ("owner", b"toy-0")]


async def test_lower_offsets_are_dropped():
    logs = MemoryLogs()
    shell = new_shell(logs)
    await shell.restore([("numbers", 0)])
    await feed(shell, [1, 2, 3])
    await feed(shell, [1, 2, 3, 4])
    await applied(shell, 4)
    assert shell.count["repeated"] == 3
    assert logs.values("sums") == [b"1", b"3", b"6", b"10"]


async def test_a_run_is_judged_record_by_record(deaths):
    logs = MemoryLogs()
    shell = new_shell(logs)
    await shell.restore([("numbers", 0)])
    await feed(shell, [1, 2])
    await shell.feed("numbers", 0, [Fed(offset, b"%d" % offset) for offset in (0, 1, 2, 2, 3, 7)])
    await wait_until(lambda: deaths)
    assert "wanted 4, got 7" in str(deaths[0][1])
    assert logs.values("sums") == [b"1", b"3", b"5", b"8"]
    assert shell.count["repeated"] == 3


@pytest.mark.parametrize("slice_s", [0.0, 10.0])
@pytest.mark.parametrize("number", [b"%d", b"00%d"])
async def test_a_run_says_what_single_records_say(monkeypatch, slice_s, number):
    """Short or in a thread, at once or slice by slice; the checkpoint is that of its mark."""
    monkeypatch.setattr(shell_module, "_SLICE_S", slice_s)
    logs = MemoryLogs()
    shell = new_shell(logs)
    await shell.restore([("numbers", 0)])
    await shell.feed("numbers", 0, [Fed(offset, number % (offset + 1)) for offset in range(8)])
    await applied(shell, 8)
    assert logs.values("sums") == [b"1", b"3", b"6", b"10", b"15", b"21", b"28", b"36"]
    assert logs.values("early") == [b"6", b"10", b"28", b"36"]
    await wait_until(lambda: shell.metrics()["checkpoints_written"] == 1)
    found = await CheckpointReader(logs, PREFIX + "checkpoints").newest(0)
    assert (found.mark, found.positions) == (5, {("numbers", 0): 5})


async def test_the_rest_of_a_run_is_not_applied_after_a_restore(monkeypatch):
    monkeypatch.setattr(shell_module, "_SLICE_S", 0.0)
    shell = new_shell(MemoryLogs())
    await shell.restore([("numbers", 0)])
    async with shell.units[0].lock:
        await feed(shell, [0])  # with it the unit's task waits for the lock first, the restore after it
        await waiters(shell.units[0].lock, 1)
        restoring = asyncio.create_task(shell.restore([("numbers", 0)]))
        await shell.feed("numbers", 0, [Fed(offset, b"1") for offset in (1, 2, 3)])
        await waiters(shell.units[0].lock, 2)
    assert await restoring == {("numbers", 0): 1}
    await wait_until(lambda: shell.units[0].inbox.empty())
    assert shell.position(("numbers", 0)) == 1


async def test_a_gap_in_an_internal_log_ends_the_process(deaths):
    shell = new_shell(MemoryLogs())
    await shell.restore([("numbers", 0)])
    await feed(shell, [1, 2])
    await shell.feed("numbers", 0, [Fed(3, b"9")])
    await wait_until(lambda: deaths)
    assert "wanted 2, got 3" in str(deaths[0][1])
    assert shell.position(("numbers", 0)) == 2


async def test_where_gaps_are_allowed_a_hole_is_accepted():
    asked = []

    async def first_between(*question):
        asked.append(question)

    logs = MemoryLogs()
    shell = new_shell(logs, gap_topics=["numbers"], first_between=first_between)
    await shell.restore([("numbers", 0)])
    await feed(shell, [1, 2])
    await feed(shell, [5], start=7)
    await applied(shell, 3)
    assert asked == [("numbers", 0, 2, 7)]
    assert shell.position(("numbers", 0)) == 8
    assert logs.values("sums")[-1] == b"8"


async def test_where_gaps_are_allowed_a_skipped_record_still_ends_the_process(deaths):
    async def first_between(topic, partition, low, high):
        return 4

    shell = new_shell(MemoryLogs(), gap_topics=["numbers"], first_between=first_between)
    await shell.restore([("numbers", 0)])
    await feed(shell, [5], start=7)
    await wait_until(lambda: deaths)
    assert "there is a record at 4" in str(deaths[0][1])


async def test_an_exception_of_the_machine_ends_the_process(deaths):
    shell = new_shell(MemoryLogs())
    await shell.restore([("numbers", 0)])
    await shell.feed("numbers", 0, [Fed(0, b"not a number")])
    await wait_until(lambda: deaths)
    assert deaths[0][0] == "unit 0, numbers/0 offset 0"
    assert isinstance(deaths[0][1], ValueError)


async def test_a_machine_that_does_not_move_its_position_ends_the_process(deaths):
    class Forgetful(Counter):
        def steps(self, *record):
            yield from super().steps(*record)
            self.at["numbers", 0] = 0

    class Factory(CounterFactory):
        def empty(self, unit):
            return Forgetful({})

    shell = new_shell(MemoryLogs(), Factory())
    await shell.restore([("numbers", 0)])
    await feed(shell, [1])
    await wait_until(lambda: deaths)
    assert isinstance(deaths[0][1], ShellFault)


async def test_a_failed_send_ends_the_process(deaths):
    logs = MemoryLogs()
    logs.held = {PREFIX + "sums"}
    shell = new_shell(logs)
    await shell.restore([("numbers", 0)])
    await feed(shell, [1])
    await applied(shell, 1)
    logs.release(OSError("not delivered"))
    await wait_until(lambda: deaths)
    assert deaths[0][0] == "output not acknowledged"


async def test_long_records_run_in_a_thread_and_early_outputs_leave_before_the_rest():
    import threading

    go_on, threads = threading.Event(), set()

    class Slow(Counter):
        def steps(self, *record):
            for outputs in super().steps(*record):
                threads.add(threading.current_thread().name)
                yield outputs
                assert go_on.wait(LIMIT_S)

    class Factory(CounterFactory):
        def empty(self, unit):
            return Slow({})

    logs = MemoryLogs()
    shell = new_shell(logs, Factory())
    await shell.restore([("numbers", 0)])
    await shell.feed("numbers", 0, [Fed(0, b"002")])
    await wait_until(lambda: logs.values("early"))
    assert logs.values("sums") == []
    assert shell.position(("numbers", 0)) == 0
    go_on.set()
    await applied(shell, 1)
    assert logs.values("sums") == [b"2"]
    assert all(name.startswith("kernel") for name in threads)


async def test_a_restore_waits_for_the_record_being_applied():
    import threading

    go_on, entered = threading.Event(), threading.Event()

    class Slow(Counter):
        def steps(self, *record):
            entered.set()
            assert go_on.wait(LIMIT_S)
            yield from super().steps(*record)

    class Factory(CounterFactory):
        def empty(self, unit):
            return Slow({})

    shell = new_shell(MemoryLogs(), Factory())
    await shell.restore([("numbers", 0)])
    await shell.feed("numbers", 0, [Fed(0, b"001")])
    await wait_until(entered.is_set)
    restoring = asyncio.create_task(shell.restore([("numbers", 0)]))
    await waiters(shell.units[0].lock, 1)
    assert not restoring.done()
    go_on.set()
    assert await restoring == {("numbers", 0): 1}


async def test_records_read_before_a_restore_are_not_applied_after_it(deaths):
    """Else the one that was waiting for room in the inbox would look like a gap."""
    shell = new_shell(MemoryLogs())
    await shell.restore([("numbers", 0)])
    async with shell.units[0].lock:  # nothing is applied meanwhile
        feeding = asyncio.create_task(feed(shell, range(SETTINGS.inbox_records + 2)))
        await wait_until(shell.units[0].inbox.full)
        restoring = asyncio.create_task(shell.restore([("numbers", 0)]))
        await waiters(shell.units[0].lock, 2)  # the unit's task is the other one
    at = (await restoring)["numbers", 0]
    await feeding
    await feed(shell, range(at, 20), start=at)
    await wait_until(lambda: deaths or shell.position(("numbers", 0)) == 20)
    assert not deaths
    assert shell.count["stale"] >= 1
    assert shell.units[0].machine.total == sum(range(20))


async def test_the_manifest_waits_for_the_acknowledgement_of_every_output():
    """R2."""
    logs = MemoryLogs()
    shell = new_shell(logs)
    reader = CheckpointReader(logs, PREFIX + "checkpoints")
    await shell.restore([("numbers", 0)])
    logs.held = {PREFIX + "sums"}
    await feed(shell, range(1, 7))
    await applied(shell, 6)
    await wait_until(lambda: shell._writer.busy(0))
    await asyncio.sleep(0)  # the write runs up to where it waits
    assert logs.values("checkpoints") == []
    logs.held = set()
    logs.release()
    await wait_until(lambda: shell.metrics()["checkpoints_written"] == 1)
    found = await reader.newest(0)
    assert found is not None
    assert found.mark == 5
    assert found.positions == {("numbers", 0): 5}


async def test_a_new_life_goes_on_from_the_checkpoint_and_sends_the_same_bytes():
    numbers = list(range(1, 24))
    logs, calm = MemoryLogs(), MemoryLogs()
    for shell in (new_shell(logs), new_shell(calm)):
        await shell.restore([("numbers", 0)])
        await feed(shell, numbers)
        await applied(shell, len(numbers))
        await shell.stop()
    heir = new_shell(logs)
    at = (await heir.restore([("numbers", 0)]))["numbers", 0]
    assert 5 <= at < len(numbers)
    await feed(heir, numbers[at:], start=at)
    await applied(heir, len(numbers) - at)
    assert logs.values("sums") == calm.values("sums") + calm.values("sums")[at:]


async def test_memory_is_kept_through_a_rebalance_unless_a_checkpoint_is_ahead():
    logs = MemoryLogs()
    ahead, behind = new_shell(logs), new_shell(logs)
    for shell in (ahead, behind):
        await shell.restore([("numbers", 0)])
    for written, numbers in ((1, range(1, 7)), (2, range(7, 13))):
        await feed(ahead, numbers, start=numbers[0] - 1)
        await wait_until(lambda: ahead.metrics()["checkpoints_written"] == written)  # noqa: B023
    await applied(ahead, 12)
    assert await ahead.restore([("numbers", 0)]) == {("numbers", 0): 12}
    assert await behind.restore([("numbers", 0)]) == {("numbers", 0): 10}
    assert behind.units[0].machine.total == sum(range(1, 11))


async def test_units_that_moved_away_are_dropped():
    shell = new_shell(MemoryLogs())
    await shell.restore([("numbers", 0), ("numbers", 1)])
    await shell.restore([("numbers", 1)])
    await feed(shell, [1])
    assert shell.count["unowned"] == 1
    assert shell.position(("numbers", 0)) is None
    assert shell.metrics()["units"] == 1


async def test_one_unit_over_several_logs_restores_the_whole_vector():
    logs = MemoryLogs()
    assigned = [("numbers", 0), ("numbers", 1), ("ticks", 0)]
    factory = CounterFactory(single=True, topics=("numbers", "ticks"))
    shell = new_shell(logs, factory)
    assert set((await shell.restore(assigned)).values()) == {0}
    for topic, partition, count in (("numbers", 0, 3), ("ticks", 0, 1), ("numbers", 1, 2)):
        await feed(shell, range(count), partition=partition, topic=topic)
    await applied(shell, 6)
    await shell.stop()
    restored = await new_shell(logs, factory).restore(assigned)
    assert sum(restored.values()) == 5  # the checkpoint was due after the fifth record
    assert restored["numbers", 0] == 3


async def test_a_state_that_does_not_belong_to_its_positions_is_refused():
    class Lying(Counter):
        def dump(self):
            return Counter({("numbers", 0): 1}, self.total, self.count).dump()

    class Factory(CounterFactory):
        def empty(self, unit):
            return Lying({})

    logs = MemoryLogs()
    shell = new_shell(logs, Factory())
    await shell.restore([("numbers", 0)])
    await feed(shell, range(6))
    await applied(shell, 6)
    await shell.stop()
    with pytest.raises(ShellFault, match="do not belong together"):
        await new_shell(logs).restore([("numbers", 0)])


class NextRelease(CounterFactory):
    """Reads no state of the release before; dumps what it reads itself."""

    def load(self, unit, raw):
        if not raw.startswith(b"next "):
            raise OlderState("counter checkpoint of version 1; this release reads 2")
        return CounterFactory.load(self, unit, raw.removeprefix(b"next "))

    def empty(self, unit):
        made = super().empty(unit)
        made.dump = lambda: b"next " + Counter.dump(made)
        return made


async def old_release(logs: MemoryLogs, numbers: list[int]) -> None:
    shell = new_shell(logs)
    await shell.restore([("numbers", 0)])
    await feed(shell, numbers)
    await applied(shell, len(numbers))
    await shell.stop()


async def test_a_checkpoint_of_an_older_release_is_left_and_the_log_applied_from_its_beginning(capfd):
    numbers, logs = list(range(1, 24)), MemoryLogs()
    await old_release(logs, numbers)
    said_before = logs.values("sums")
    upgraded = new_shell(logs, NextRelease())
    assert await upgraded.restore([("numbers", 0)]) == {("numbers", 0): 0}
    said = json.loads(next(line for line in capfd.readouterr().err.splitlines() if "checkpoint_outdated" in line))
    assert said["unit"] == 0
    assert 5 <= said["progress"] <= 23
    assert "version 1; this release reads 2" in said["reason"]
    assert "from its beginning" in said["instead"]
    await feed(upgraded, numbers[:10])
    await applied(upgraded, 10)
    assert (await upgraded.restore([("numbers", 0)]))["numbers", 0] == 10  # a rebalance does not begin it again
    await feed(upgraded, [*numbers[10:], *range(24, 32)], start=10)
    await applied(upgraded, 31)
    await upgraded.stop()
    assert logs.values("sums")[len(said_before) :][: len(numbers)] == said_before
    again = new_shell(logs, NextRelease())
    assert (await again.restore([("numbers", 0)]))["numbers", 0] > said["progress"]  # from a checkpoint of its own


async def test_logs_that_begin_with_a_state_are_not_applied_from_their_beginning():
    settings = dataclasses.replace(SETTINGS, generation=1)
    logs = MemoryLogs()
    await old_release(logs, list(range(1, 24)))
    upgraded = new_shell(logs, NextRelease(), settings=settings)
    with pytest.raises(ShellFault, match=r"version 1; this release reads 2; .* go on with that release"):
        await upgraded.restore([("numbers", 0)])


async def test_a_role_without_checkpoints_starts_where_its_own_source_says():
    async def database(unit, wanted):
        return dict.fromkeys(wanted, 7)

    shell = new_shell(MemoryLogs(), checkpoint_topic=None, positions_source=database)
    assert await shell.restore([("numbers", 0)]) == {("numbers", 0): 7}
    await feed(shell, [1, 2], start=7)
    await applied(shell, 2)
    assert await shell.restore([("numbers", 0), ("numbers", 1)]) == {("numbers", 0): 9, ("numbers", 1): 7}


async def test_a_replica_starts_at_the_beginning():
    shell = new_shell(MemoryLogs(), checkpoint_topic=None, positions_source=from_the_beginning)
    assert await shell.restore([("numbers", 3)]) == {("numbers", 3): 0}


@pytest.mark.parametrize(("groups", "nice"), [(1, 0), (2, 10)])
async def test_beside_a_standby_threads_give_way_until_the_worker_has_caught_up(groups, nice):
    seen = []

    class Watched(Counter):
        def steps(self, *record):
            seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) - usual)
            yield from super().steps(*record)

    class Factory(CounterFactory):
        def empty(self, unit):
            return Watched({})

    usual = os.getpriority(os.PRIO_PROCESS, 0)
    shell = new_shell(MemoryLogs(), Factory(), settings=dataclasses.replace(SETTINGS, groups=groups))
    await shell.restore([("numbers", 0)])
    for place in range(2):
        await shell.feed("numbers", 0, [Fed(place, b"001")])
        await applied(shell, place + 1)
        shell.caught_up()
    assert seen == [nice, 0]


async def test_a_stop_waits_for_the_restore_under_way():
    asked, go_on = [], asyncio.Event()

    async def database(number, logs):
        asked.append(number)
        await go_on.wait()
        return dict.fromkeys(logs, 0)

    shell = new_shell(MemoryLogs(), checkpoint_topic=None, positions_source=database)
    restoring = asyncio.create_task(shell.restore([("numbers", 0), ("numbers", 1)]))
    await wait_until(lambda: len(asked) == 2)
    stopping = asyncio.create_task(shell.stop())
    await waiters(shell._restoring, 1)
    assert not stopping.done()
    go_on.set()
    assert await restoring == {("numbers", 0): 0, ("numbers", 1): 0}
    await stopping
    assert shell.units == {}
