"""Sink and gateway as Faust workers on a broker: killed with -9, they go on without loss or repeat.

Run as a script this module is such a worker: its arguments are sink|gateway BOOTSTRAP PREFIX FOLDER PORT
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from schemas import decisions
from schemas import topics as names
from schemas.codec import encode
from schemas.margin_batch import MONEY_COLUMNS, BatchHead, encode_batch
from streams.gateway.client import Follower, GatewayUnreachable
from streams.runtime.kafka_process import Broker, free_port
from streams.runtime.settings import RuntimeSettings
from streams.sink.errors import StoreError
from streams.sink.query_socket import QueryClient
from streams.sink.rows import TABLES

LIMIT_S = 60.0
PARTITIONS, BLOCKS, ACCOUNTS = 2, 40, 5
MARGIN = decisions.Margin(1, 2, 3, 4, 5, 6, 7, 8, "stress", "spot -20 %")


def run_worker_process(role: str, bootstrap: str, prefix: str, folder: str, port: str) -> int:
    from streams.agents.gateway import make_gateway
    from streams.agents.sink import make_sink
    from streams.runtime.worker import run_worker

    settings = RuntimeSettings(bootstrap=bootstrap, prefix=prefix, session_s=2.0)
    if role == "sink":
        return run_worker(make_sink(settings, name="sink-0", store=folder, epoch=prefix))
    return run_worker(make_gateway(settings, name="gateway-0", epoch=prefix, port=int(port)))


def records_of_block(partition: int, block: int) -> dict[str, bytes]:
    accounts = [f"account-{partition}-{number}" for number in range(ACCOUNTS)]
    columns = {name: np.full(ACCOUNTS, block, np.int64) for name in (*MONEY_COLUMNS, "keyframe_block")}
    columns |= {name: np.zeros(ACCOUNTS, np.int8) for name in ("binding", "stress_row", "state")}
    columns["wide"] = np.zeros(ACCOUNTS, bool)
    call = decisions.Call(block, f"c{partition}-{block}", accounts[0], block, block, "healthy", "margin_call", MARGIN)
    counts = dict.fromkeys(("events", "first", "wide", "warnings", "calls", "parameter_version"), 0)
    digests = dict.fromkeys(("state_digest", "table_digest", "scenario_digest"), "")
    done = decisions.BlockDone(
        1, partition, block, block, "0x", block, accounts=ACCOUNTS, evaluated=True, states={}, **counts, **digests
    )
    return {
        names.MARGIN_BATCHES: encode_batch(BatchHead(partition, block, block, "0x", block), accounts, columns),
        names.MARGIN_CALLS: encode(decisions.CallRecord(1, partition, block, block, (call,))),
        names.BLOCKS_DONE: encode(done),
    }


class Worker:
    """A worker process that can be killed and started again."""

    def __init__(self, role: str, broker: Broker, prefix: str, folder: Path, port: int) -> None:
        self.command = [sys.executable, __file__, role, broker.address, prefix, str(folder), str(port)]
        self.log = folder.parent / f"{role}.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stderr=log, stdout=log)

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


async def produce(broker: Broker, prefix: str, blocks: range, twice: Callable[[int], bool]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.address)
    await producer.start()
    for block in blocks:
        for partition in range(PARTITIONS):
            for topic, value in records_of_block(partition, block).items():
                for _ in range(2 if twice(block) else 1):
                    await producer.send(prefix + topic, value, partition=partition)
    await producer.stop()


async def stored(folder: Path, wanted: dict[str, int]) -> None:
    """Wait until the running sink says that it has everything below these offsets."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                with QueryClient(folder, attach_only=True) as client:
                    found = client.ask("stored")
                if all(found.get(log, 0) >= offset for log, offset in wanted.items()):
                    return
            except StoreError:  # it is just starting or dying
                pass
            await asyncio.sleep(0.05)


async def followed(url: str, count: int) -> list[tuple[int, int]]:
    """The first `count` calls of the gateway, once it is up."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await _calls(Follower(url, "margin.calls", from_oldest=True).events(), count)
            except GatewayUnreachable:
                await asyncio.sleep(0.05)


async def _calls(events: AsyncIterator[dict[str, Any]], count: int) -> list[tuple[int, int]]:
    found = []
    while len(found) < count:
        params = await anext(events)
        found.append((params["partition"], params["seq"]))
    return found


@pytest.fixture
async def prefix(topics: Any) -> str:
    for name in TABLES:
        await topics.make(name, PARTITIONS)
    return topics.prefix


async def test_killed_sink_and_gateway_go_on(broker: Broker, prefix: str, tmp_path: Path) -> None:
    folder, port = tmp_path / "store", free_port()
    written = (names.MARGIN_BATCHES, names.MARGIN_CALLS, names.BLOCKS_DONE)
    logs = [f"{topic}/{at}" for topic in written for at in range(PARTITIONS)]
    sink, gateway = (Worker(role, broker, prefix, folder, port) for role in ("sink", "gateway"))
    try:
        half = BLOCKS // 2
        await produce(broker, prefix, range(1, half + 1), twice=lambda block: False)
        await stored(folder, dict.fromkeys(logs, 1))
        sink.kill()
        assert len(await followed(f"ws://127.0.0.1:{port}", half * PARTITIONS)) == half * PARTITIONS
        gateway.kill()
        await produce(broker, prefix, range(half, BLOCKS + 1), twice=lambda block: block % 3 == 0)
        sink.start()
        gateway.start()
        ends = half + sum(2 if block % 3 == 0 else 1 for block in range(half, BLOCKS + 1))
        await stored(folder, dict.fromkeys(logs, ends))
        with QueryClient(folder, attach_only=True) as client:
            counted = "SELECT count() AS n, uniqExact(account, block) AS d FROM dpme.margins"
            rows = client.ask("sql", text=counted)["rows"]
            assert rows == [{"n": PARTITIONS * BLOCKS * ACCOUNTS, "d": PARTITIONS * BLOCKS * ACCOUNTS}]
            rows = client.ask("sql", text="SELECT count() AS n, uniqExact(id) AS d FROM dpme.margin_calls")["rows"]
            assert rows == [{"n": PARTITIONS * BLOCKS, "d": PARTITIONS * BLOCKS}]
            assert client.ask("latest", limit=1, partitions=PARTITIONS)["block"] == BLOCKS
        found = await followed(f"ws://127.0.0.1:{port}", PARTITIONS * BLOCKS)
        assert sorted(found) == [(at, seq) for at in range(PARTITIONS) for seq in range(1, BLOCKS + 1)]
        assert (sink.end(), gateway.end()) == (0, 0)
    finally:
        for worker in (sink, gateway):
            worker.process.kill()
            worker.process.wait()


if __name__ == "__main__":
    os._exit(run_worker_process(*sys.argv[1:]))  # as the supervisor's children do: Faust leaves threads behind
