"""The shell over a broker, without Faust: broken variants are caught; holes in input logs are told from losses."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import runtime_toy_machines as toy
from aiokafka import AIOKafkaProducer

from streams.runtime import shell as shell_module
from streams.runtime.checkpoint_writer import CheckpointWriter
from streams.runtime.checkpoints import CheckpointReader
from streams.runtime.log_reader import LogReader
from streams.runtime.machine import Headers
from streams.runtime.producer import new_producer
from streams.runtime.shell import Shell
from tests.waiting import wait_until

LIMIT_S = 30.0
NUMBERS = [(index * 37) % 101 for index in range(60)]
SUMS = list(itertools.accumulate(NUMBERS))


class Fed(NamedTuple):
    """A record as a shell is fed it."""

    offset: int
    value: bytes | None
    headers: Headers = ()


class HeldOutputs:
    """A producer whose outputs never leave, as if the process died with them; checkpoint records pass."""

    def __init__(self, producer: AIOKafkaProducer, held_topic: str) -> None:
        self.producer, self.held_topic = producer, held_topic

    async def send(self, topic: str, value: bytes | None = None, **where: Any) -> asyncio.Future[Any]:
        if topic == self.held_topic:
            return asyncio.get_running_loop().create_future()
        return await self.producer.send(topic, value, **where)


class World:
    """One partition of the adder's topics; each life is a new shell with connections of its own."""

    def __init__(self, topics: Any) -> None:
        self.topics, self.settings = topics, toy.settings_for(topics.address, topics.prefix)
        self.reader = LogReader(self.settings)
        self.open: list[Any] = [self.reader]

    async def start(self) -> None:
        for topic in ("numbers", "flags", "sums"):
            await self.topics.make(topic)
        await self.topics.make("adder.checkpoints", cleanup_policy="compact")
        await self.reader.start()

    async def stop(self) -> None:
        for one in self.open:
            await one.stop()

    async def life(self, kind: type[Shell] = Shell, hold: bool = False, gap_topics: tuple[str, ...] = ()) -> Shell:
        producer = new_producer(self.settings)
        await producer.start()
        self.open.append(producer)
        self.producer = producer
        checkpoints = CheckpointReader(self.reader, self.settings.topic("adder.checkpoints"))
        return kind(
            settings=self.settings,
            name="adder-0",
            factory=toy.AdderFactory(),
            producer=HeldOutputs(producer, self.settings.topic("sums")) if hold else producer,
            first_between=self.first_between,
            gap_topics=gap_topics,
            checkpoint_topic="adder.checkpoints",
            checkpoint_loader=checkpoints,
            checkpoint_janitor=checkpoints,
        )

    async def first_between(self, topic: str, partition: int, low: int, high: int) -> int | None:
        return await self.reader.first_between(self.settings.topic(topic), partition, low, high)

    async def values(self, topic: str) -> list[bytes]:
        full_name = self.settings.topic(topic)
        return [
            record.value for record in await self.reader.read(full_name, 0, *await self.reader.bounds(full_name, 0))
        ]

    async def taken(self) -> tuple[list[int], list[str]]:
        return toy.once(await self.values("sums"))


@pytest.fixture
async def world(topics: Any) -> AsyncIterator[World]:
    made = World(topics)
    await made.start()
    yield made
    await made.stop()


async def live(shell: Shell, numbers: list[int], kind: str = "plain") -> None:
    """Restore, then feed the log from there as a consumer would; `again` delivers every third record twice."""
    at = (await shell.restore([("numbers", 0)]))["numbers", 0]
    for offset in range(at, len(numbers)):
        for _ in range(2 if kind == "again" and offset % 3 == 0 else 1):
            await shell.feed("numbers", 0, [Fed(offset, b"%d" % numbers[offset])])


async def settled(shell: Shell, position: int = len(NUMBERS)) -> None:
    """All records up to there are applied and their outputs acknowledged."""
    await wait_until(lambda: shell.position(("numbers", 0)) == position and not shell.metrics()["unacknowledged"])


class EagerWriter(CheckpointWriter):
    """The mutant that does not wait for the acknowledgements (R2)."""

    async def acknowledged(self, outputs: list[asyncio.Future[object]]) -> None:
        return None


class EagerShell(Shell):
    def new_writer(self, janitor: CheckpointReader, chunk_bytes: int, laggards_silent: bool) -> CheckpointWriter:
        return EagerWriter(self._send_checkpoint, janitor, chunk_bytes, laggards_silent)


class GuardlessShell(Shell):
    """The mutant that applies whatever comes (R1)."""

    async def _judge(self, unit: shell_module.Unit, run: shell_module.Run) -> list[shell_module.Record]:
        return list(run.records)


async def killed_with_outputs_under_way(world: World, kind: type[Shell]) -> int:
    """A life whose outputs never leave, ended like by SIGKILL; how many checkpoints it has written."""
    shell = await world.life(kind, hold=True)
    await live(shell, NUMBERS[:50])
    await wait_until(lambda: shell.count["applied"] == 50)
    if kind is EagerShell:
        await wait_until(lambda: shell.metrics()["checkpoints_written"] > 0)
    return shell.metrics()["checkpoints_written"]


async def test_a_checkpoint_waits_for_the_outputs_so_that_a_kill_loses_none(world: World) -> None:
    assert await killed_with_outputs_under_way(world, Shell) == 0
    heir = await world.life()
    await live(heir, NUMBERS)
    await settled(heir)
    assert await world.taken() == (SUMS, [])


async def test_mutant_a_checkpoint_before_the_acknowledgements_loses_outputs_and_the_reader_sees_it(
    world: World,
) -> None:
    assert await killed_with_outputs_under_way(world, EagerShell) > 0
    heir = await world.life()
    await live(heir, NUMBERS)
    await settled(heir)
    taken, faults = await world.taken()
    assert taken != SUMS
    assert set(faults) == {"loss"}


async def test_repeated_deliveries_change_nothing(world: World) -> None:
    shell = await world.life()
    await live(shell, NUMBERS, "again")
    await settled(shell)
    assert await world.taken() == (SUMS, [])
    assert shell.count["repeated"] == len(NUMBERS) // 3


async def test_mutant_without_the_guard_repeated_deliveries_change_the_sums(world: World) -> None:
    shell = await world.life(GuardlessShell)
    await live(shell, NUMBERS, "again")
    await settled(shell)
    assert (await world.taken())[0] != SUMS


@pytest.mark.parametrize("damage", ["chunk altered", "chunk removed", "manifest removed"])
async def test_a_damaged_checkpoint_is_passed_over(
    world: World, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shell = await world.life()
    for end in (30, 50):
        await live(shell, NUMBERS[:end])
        await settled(shell, end)
        await wait_until(lambda: shell.metrics()["checkpoints_written"] == end // 20)  # noqa: B023
    topic = world.settings.topic("adder.checkpoints")
    records = await world.reader.read(topic, 0, *await world.reader.bounds(topic, 0))
    key = records[-1].key if damage.startswith("manifest") else records[-2].key
    value = b"?" if damage.endswith("altered") else None
    await world.producer.send_and_wait(topic, value, key=key, partition=0)
    heir = await world.life()
    assert await heir.restore([("numbers", 0)]) == {("numbers", 0): 20}
    assert ('"checkpoint_rejected"' in capfd.readouterr().err) == damage.startswith("chunk")
    await live(heir, NUMBERS)
    await settled(heir)
    assert await world.taken() == (SUMS, [])


async def transactions(world: World) -> list[tuple[int, bytes]]:
    """Commits 1, 2; aborts 100; commits 3: what a reader of committed records gets, with its offsets."""
    producer = AIOKafkaProducer(bootstrap_servers=world.topics.address, transactional_id=world.topics.prefix)
    await producer.start()
    topic = world.settings.topic("numbers")
    for numbers, commit in (((1, 2), True), ((100,), False), ((3,), True)):
        await producer.begin_transaction()
        for number in numbers:
            await producer.send_and_wait(topic, b"%d" % number, partition=0)
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    await producer.stop()
    low, high = await world.reader.bounds(topic, 0)
    return [(record.offset, record.value) for record in await world.reader.read(topic, 0, low, high)]


@pytest.mark.parametrize("broker", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_holes_that_transactions_leave_are_accepted_in_input_logs_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The development broker has no transactions."""
    records = await transactions(world)
    assert [value for _, value in records] == [b"1", b"2", b"3"]
    assert records[-1][0] > 2
    shell = await world.life(gap_topics=("numbers",))
    await shell.restore([("numbers", 0)])
    for offset, value in records:
        await shell.feed("numbers", 0, [Fed(offset, value)])
    await settled(shell, records[-1][0] + 1)
    assert (await world.taken())[0] == [1, 3, 6]
    end = (await world.reader.bounds(world.settings.topic("numbers"), 0))[1]
    assert end > records[-1][0] + 1  # a marker is the last thing in the log: the watchdog must not wait for it
    assert await asyncio.wait_for(world.first_between("numbers", 0, records[-1][0] + 1, end), LIMIT_S) is None
    strict = await world.life()
    deaths: list[str] = []
    monkeypatch.setattr(shell_module, "die", lambda reason, exception: deaths.append(str(exception)))
    await strict.restore([("numbers", 0)])
    for offset, value in records:
        await strict.feed("numbers", 0, [Fed(offset, value)])
    await wait_until(lambda: bool(deaths))
    assert deaths[0].startswith("gap in numbers/0: wanted 2")


async def test_a_record_that_was_skipped_is_told_from_a_hole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = await world.life(gap_topics=("numbers",))
    for number in NUMBERS[:5]:
        await world.producer.send_and_wait(world.settings.topic("numbers"), b"%d" % number, partition=0)
    deaths: list[str] = []
    monkeypatch.setattr(shell_module, "die", lambda reason, exception: deaths.append(str(exception)))
    await shell.restore([("numbers", 0)])
    await shell.feed("numbers", 0, [Fed(4, b"4")])
    await wait_until(lambda: bool(deaths))
    assert "there is a record at 0" in deaths[0]


async def test_the_producer_keeps_request_timeout_and_delivery_limit_apart(world: World) -> None:
    producer = new_producer(world.settings)
    assert producer._request_timeout_ms == world.settings.delivery_limit_s * 1e3
    assert producer._message_accumulator._batch_ttl == world.settings.delivery_limit_s
    assert producer.client._request_timeout_ms == world.settings.request_timeout_ms
    await producer.start()
    await producer.stop()
