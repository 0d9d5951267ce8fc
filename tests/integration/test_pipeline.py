"""The whole pipeline on a broker against the pure engine: to the byte, whatever comes in, whatever is killed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas import refusals
from schemas.topics import (
    ACCOUNT_FILLS,
    BLOCKS_DONE,
    CHAIN_BLOCKS,
    CHECKPOINTS,
    CHECKPOINTS_ENFORCEMENT,
    CHECKPOINTS_SEQUENCER,
    INSTRUMENTS,
    MARGIN_CALLS,
    ORACLE_TICKS,
    QUARANTINE,
)
from streams.pipeline.feed import Feeder
from streams.pipeline.observe import Observer
from streams.pipeline.run import RunOptions, prepare, run_world, workers
from streams.runtime.checkpoints import CheckpointReader, encode
from streams.runtime.kafka_process import Broker
from streams.runtime.log_reader import LogReader
from streams.runtime.producer import new_producer
from streams.runtime.settings import RuntimeSettings
from tests.chaos import arena, verdict
from tests.chaos.expected import Values, calm_outputs
from tests.chaos.feeding import BadProducer
from tests.chaos.report import store_differs
from tests.chaos.world import NO_PARENT, START_MS, chaos_world

BLOCKS, EVENTS, PARTITIONS = 40, 400, 4


def output_digest(outputs: Values) -> str:
    """As README defines it: values by topic, partition and sequence, without headers."""
    whole = hashlib.blake2b(digest_size=16)
    for (topic, partition), values in sorted(outputs.items()):
        part = hashlib.blake2b(b"".join(values), digest_size=16)
        whole.update(f"{topic}/{partition}:".encode() + part.digest())
    return whole.hexdigest()


def state_digest(outputs: Values) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for partition in range(PARTITIONS):
        done = json.loads(outputs[BLOCKS_DONE, partition][-1])
        whole.update(f"{partition}:{done['state_digest']}".encode())
    return whole.hexdigest()


def world() -> Any:
    return chaos_world(seed=5, blocks=BLOCKS, events=EVENTS)


def test_digests_are_those_of_the_pure_engine_with_one_worker_and_three_and_again(
    broker: Broker, tmp_path: Path
) -> None:
    pure = calm_outputs(world(), list(world().blocks), PARTITIONS)
    for risk_workers in (1, 3, 3):
        options = RunOptions(broker.address, tmp_path, risk_workers, PARTITIONS, sink=False, gateway=False)
        seen: Counter[str] = Counter()
        figures = run_world(world(), options, lambda kind, _, seen=seen: seen.update([kind])).figures  # type: ignore[misc]
        assert (figures["output_digest"], figures["state_digest"]) == (output_digest(pure), state_digest(pure))
        assert figures["warnings"] == seen["margin_warning"] > 0
        assert figures["margin_calls"] + figures["flags"] + figures["releases"] == seen["margin_call"]
        assert min(figures["margin_calls"], figures["releases"]) > 0
        assert figures["liquidations"] == figures["flags"] == seen["liquidation"] > 0
        assert figures["blocks"] == BLOCKS


async def test_a_runs_figures_wait_for_what_is_appended_but_not_read(broker: Broker, tmp_path: Path) -> None:
    """A broker may hand out blocks.done before a batch that was appended ahead of it."""
    config = await prepare(
        world(), RunOptions(broker.address, tmp_path, 1, 1, sink=False, gateway=False), broker.address
    )
    observer, feeder = Observer(config.settings(), 1, lambda kind, event: None), Feeder(config.settings())
    await feeder.start()
    await feeder.send_raw(MARGIN_CALLS, 0, encoded(type="margin_calls", partition=0, seq=1, block=0, events=[]))
    await feeder.stop()
    with pytest.raises(TimeoutError):
        await observer.catch_up(0.1)  # nobody reads yet
    reading = asyncio.create_task(observer.run())
    await observer.catch_up(60)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert list(observer.hashes) == [(MARGIN_CALLS, 0)]


def encoded(**fields: Any) -> bytes:
    return json.dumps({"version": 1, **fields}).encode()


FILL: dict[str, Any] = {
    "type": "fill", "id": "bad", "block": 10**6, "time_ms": START_MS, "account": "x", "instrument": "BTC-PERP",
    "lots": 1, "price_usd9": 1,
}  # fmt: skip
SPOT: dict[str, Any] = {
    "type": "spot", "id": "bad", "source": "s", "time_ms": 2**42, "underlying": "BTC", "price_usd9": 1,
}  # fmt: skip
BLOCK: dict[str, Any] = {
    "type": "block", "number": 10**6, "hash": "0x" + "1" * 64, "parent_hash": NO_PARENT, "time_ms": 2**42,
    "event_count": 0,
}  # fmt: skip
BAD: list[tuple[str, str, bytes]] = [
    (refusals.MALFORMED, ACCOUNT_FILLS, b"\xff\xfe not JSON"),
    (refusals.MALFORMED, ORACLE_TICKS, b'{"price_usd9": NaN}'),
    (refusals.MALFORMED, INSTRUMENTS, b""),
    (refusals.MALFORMED, CHAIN_BLOCKS, b"[]"),
    (refusals.UNKNOWN_TYPE, ACCOUNT_FILLS, encoded(**FILL | {"type": "gift"})),
    (refusals.UNKNOWN_TYPE, CHAIN_BLOCKS, encoded(**FILL)),
    (refusals.UNKNOWN_VERSION, ORACLE_TICKS, encoded(**SPOT | {"version": 2})),
    (refusals.MISSING_FIELD, ACCOUNT_FILLS, encoded(**{k: v for k, v in FILL.items() if k != "lots"})),
    (refusals.UNKNOWN_FIELD, ACCOUNT_FILLS, encoded(**FILL, note="hello")),
    (refusals.WRONG_TYPE, ACCOUNT_FILLS, encoded(**FILL | {"lots": "many"})),
    (refusals.OUT_OF_RANGE, ACCOUNT_FILLS, encoded(**FILL | {"lots": 2**62})),
    (refusals.OUT_OF_RANGE, ORACLE_TICKS, encoded(**SPOT | {"price_usd9": -5})),
    (refusals.BLOCK_CLOSED, ACCOUNT_FILLS, encoded(**FILL | {"block": 0})),
    (refusals.BLOCK_CONFLICT, CHAIN_BLOCKS, encoded(**BLOCK | {"number": 0})),
    (refusals.BLOCK_UNKNOWN, CHAIN_BLOCKS, encoded(type="block_close", number=10**6, hash=BLOCK["hash"])),
    (refusals.LATE_TICK, ORACLE_TICKS, encoded(**SPOT | {"time_ms": START_MS - 3_000})),
    (
        refusals.IDENTITY_CONFLICT,
        ACCOUNT_FILLS,
        encoded(type="cash_move", id="cash-0", block=0, time_ms=START_MS, account="account-0", amount_usd6=1),
    ),
]


class WithBadInput(BadProducer):
    """In good order but for the bad records, which come once block 0 is closed."""

    async def run(self, *arguments: Any) -> None:
        self.sent: dict[bytes, tuple[str, str, int, bytes]] = {}
        for reason, topic, raw in BAD:
            at = await self.feeder.producer.send_and_wait(self.feeder.settings.topic(topic), raw, partition=0)
            key = f"{topic}/0/{at.offset}/0".encode()
            self.sent[key] = (reason, topic, at.offset, raw)
            self.garbage[key] = raw  # the run waits until all of them are in quarantine
        await super().run(*arguments)


async def test_bad_input_is_quarantined_with_its_bytes_and_all_else_goes_on(broker: Broker, tmp_path: Path) -> None:
    plan = arena.Plan(seed=1, interval_s=0.0, disturbed=False, risk_workers=1, producer=WithBadInput)
    outcome = await arena.run(world(), list(world().blocks), broker.address, tmp_path, plan)
    assert (outcome.failure, outcome.deaths) == ("", [])
    found = {record.key: json.loads(record.value) for record in outcome.recorded[QUARANTINE, 0]}
    for key, (reason, topic, offset, raw) in outcome.producer.sent.items():  # type: ignore[attr-defined]
        one = found.pop(key)
        assert (one["reason"], one["topic"], one["partition"], one["offset"]) == (reason, topic, 0, offset)
        assert base64.b64decode(one["bytes_base64"]) == raw
    declared = {refusals.WRONG_TYPE, refusals.UNKNOWN_INSTRUMENT, refusals.INSTRUMENT_EXPIRED}
    assert {one["reason"] for one in found.values()} == declared  # the world's own, counted by their blocks
    assert verdict.take(outcome.recorded).values == calm_outputs(world(), list(world().blocks), PARTITIONS)


async def test_a_killed_sink_leaves_every_row_once(broker: Broker, tmp_path: Path) -> None:
    plan = arena.Plan(seed=2, interval_s=0.15, risk_workers=1, sink=True, script=(("kill", "sink"),) * 3)
    outcome = await arena.run(world(), list(world().blocks), broker.address, tmp_path, plan)
    assert (outcome.failure, outcome.tormentor.signals["SIGKILL"]) == ("", 3)
    taken = verdict.take(outcome.recorded).values
    assert taken == await asyncio.to_thread(calm_outputs, world(), list(world().blocks), PARTITIONS)
    assert store_differs(outcome, taken) == {}
    assert outcome.store["rows"]["margins"] > 0 < outcome.store["rows"]["quarantine"]


async def test_checkpoints_of_an_older_release_cost_a_replay_and_change_no_output(
    broker: Broker, tmp_path: Path
) -> None:
    pure, made = calm_outputs(world(), list(world().blocks), PARTITIONS), world()
    options = RunOptions(broker.address, tmp_path, 1, PARTITIONS, sink=False, gateway=False)
    config = await prepare(made, options, broker.address)
    settings, inputs = config.settings(), iter(made.blocks)
    observer, feeder = Observer(settings, PARTITIONS, lambda *_: None), Feeder(settings)
    reading = asyncio.create_task(observer.run())
    await feeder.start()
    await feeder.send_listings(made)
    for count in (BLOCKS // 2, BLOCKS - BLOCKS // 2):
        with workers(config):
            for one in itertools.islice(inputs, count):
                await feeder.send_inputs(one)
                await feeder.announce(one)
                await observer.wait_for(partial(observer.is_done, one.block.number), 120)
            await observer.wait_for(observer.is_enforced, 120)
            await observer.catch_up(120)
        outdated = await with_checkpoints_of_an_older_release(settings)
    reading.cancel()
    await asyncio.gather(reading, feeder.stop(), return_exceptions=True)
    assert (observer.output_digest(), observer.state_digest(BLOCKS - 1)) == (output_digest(pure), state_digest(pure))
    assert outdated == PARTITIONS + 2
    notes = "".join(path.read_text() for path in Path(config.folder).glob("*.log"))
    assert notes.count('"event": "checkpoint_outdated"') == outdated


async def with_checkpoints_of_an_older_release(settings: RuntimeSettings) -> int:
    """Every unit's newest checkpoint becomes one that this release does not read; how many there were."""
    reader, producer, found = LogReader(settings), new_producer(settings), 0
    await asyncio.gather(reader.start(), producer.start())
    for name, units in ((CHECKPOINTS, PARTITIONS), (CHECKPOINTS_SEQUENCER, 1), (CHECKPOINTS_ENFORCEMENT, 1)):
        topic = settings.topic(name)
        checkpoints = CheckpointReader(reader, topic)
        for unit in range(units):
            newest = await checkpoints.newest(unit)
            assert newest is not None
            state = msgspec.msgpack.decode(newest.state)
            state["dump_version"] -= 1
            records = [(key, None) for key in await checkpoints.stale(unit, 1 << 62)]
            records += encode(newest._replace(state=msgspec.msgpack.encode(state)), 500_000)[1]
            for key, value in records:
                await producer.send_and_wait(topic, value, key=key, partition=unit)
            found += 1
    await asyncio.gather(reader.stop(), producer.stop())
    return found
