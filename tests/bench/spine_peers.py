"""What others make of the same fills: `python -m tests.bench.spine_peers NAME ADDRESS TOPIC COUNT`, one JSON line.

raw: a plain aiokafka consumer that reads account.log and looks at the headers of its records, nothing else.
faust: an agent that takes one JSON message a fill; quix: a Quix Streams application that does the same. Both book cash,
lots and entry costs in dictionaries in memory, by the same function: no table, no changelog, no margin.
Seconds are from the first record (raw: from the first request) to the last, in the process itself; so are CPU seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas import log_records as records
from schemas.quantities import notional_usd6

ROOT = Path(__file__).parents[2]
LOT_EXPONENT = -3
PEER_LIMIT_S = 120.0


class FillBook:
    """Lots, entry costs and fees by account, one fill after the other."""

    def __init__(self, count: int) -> None:
        self.count, self.taken = count, 0
        self.lots: dict[tuple[str, int], int] = {}
        self.entry_usd6: dict[tuple[str, int], int] = {}
        self.cash_usd6: dict[str, int] = {}
        self.began = self.ended = self.cpu_began = self.cpu_ended = 0.0

    def take(self, fill: dict[str, Any]) -> bool:
        """Book a fill; True with the last one."""
        if not self.taken:
            self.began, self.cpu_began = time.perf_counter(), time.process_time()
        account, key = fill["account"], (fill["account"], fill["instrument"])
        self.lots[key] = self.lots.get(key, 0) + fill["lots"]
        paid = notional_usd6(fill["lots"], fill["price_usd9"], LOT_EXPONENT)
        self.entry_usd6[key] = self.entry_usd6.get(key, 0) + paid
        self.cash_usd6[account] = self.cash_usd6.get(account, 0) - fill["fee_usd6"]
        self.taken += 1
        if self.taken == self.count:
            self.ended, self.cpu_ended = time.perf_counter(), time.process_time()
        return self.taken == self.count

    def report(self) -> dict[str, Any]:
        book = sorted([*key, lots, self.entry_usd6[key]] for key, lots in self.lots.items())
        digest = hashlib.blake2b(orjson.dumps(book), digest_size=8).hexdigest()
        return {
            "seconds": self.ended - self.began, "cpu_s": self.cpu_ended - self.cpu_began, "fills": self.taken,
            "records": self.taken, "checksum": digest,
        }  # fmt: skip


def fills_of(values: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Fills of records of account.log, one by one."""
    for value in values:
        header = records.read_header(value)
        if header.kind != records.EVENTS:
            continue
        events = records.read_events(value, header)
        for kind, _, account, instrument, _, lots, price_usd9, cash_usd6 in events.rows.tolist():
            if kind == records.FILL:
                yield {
                    "account": events.names[account], "instrument": instrument, "lots": lots, "price_usd9": price_usd9,
                    "fee_usd6": -cash_usd6,
                }  # fmt: skip


def expected(fills: list[dict[str, Any]]) -> str:
    """The checksum that every peer must reach."""
    book = FillBook(len(fills))
    for fill in fills:
        book.take(fill)
    return str(book.report()["checksum"])


def run_peer(name: str, address: str, topic: str, count: int) -> dict[str, Any]:
    """Run a peer in a process of its own. Raises RuntimeError with what it said last."""
    command = [sys.executable, "-m", "tests.bench.spine_peers", name, address, topic, str(count)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PEER_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no end after {PEER_LIMIT_S:g} s") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return dict(json.loads(lines[-1]))


async def raw(address: str, topic: str, count: int) -> dict[str, Any]:
    """Read `count` records of partition 0 and add up the entries of their headers."""
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    taken = fills = 0
    began = time.perf_counter()
    while taken < count:
        for batch in (await consumer.getmany(timeout_ms=1_000)).values():
            for record in batch:
                header = records.read_header(record.value)
                fills += header.entries if header.kind == records.EVENTS else 0
                taken += 1
    seconds = time.perf_counter() - began
    await consumer.stop()
    return {"seconds": seconds, "records": taken, "fills": fills, "checksum": ""}


def faust_agent(address: str, topic: str, count: int) -> dict[str, Any]:
    """A Faust worker on uvloop with one agent, one message a fill."""
    import faust
    import uvloop

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    app = faust.App(
        "bench-faust-" + topic, broker=f"kafka://{address}", web_enabled=False, topic_disable_leader=True,
        topic_allow_declare=False, loop=loop, datadir=tempfile.mkdtemp(),
    )  # fmt: skip
    book, over = FillBook(count), asyncio.Event()

    @app.agent(app.topic(topic, value_type=bytes, value_serializer="raw"))
    async def take(stream: Any) -> None:
        async for value in stream:
            if book.take(orjson.loads(value)):
                over.set()

    async def run() -> None:
        starting = asyncio.create_task(app.start())
        await over.wait()
        starting.cancel()

    loop.run_until_complete(run())
    return book.report()


def quix(address: str, topic: str, count: int) -> dict[str, Any]:
    """A Quix Streams application, its own JSON deserialiser, one message a fill."""
    from quixstreams import Application

    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            broker_address=address, consumer_group="bench-quix", auto_offset_reset="earliest", state_dir=folder,
            auto_create_topics=False, loglevel="ERROR",
        )  # fmt: skip
        book = FillBook(count)

        def take(fill: dict[str, Any]) -> None:
            if book.take(fill):
                app.stop()

        app.dataframe(app.topic(topic, value_deserializer="json")).update(take)
        app.run()
    return book.report()


def main() -> None:
    name, address, topic, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    if name == "raw":
        found = asyncio.run(raw(address, topic, count))
    else:
        found = {"faust": faust_agent, "quix": quix}[name](address, topic, count)
    print(json.dumps(found), flush=True)
    os._exit(0)  # neither framework ends at once when it is told to


if __name__ == "__main__":
    main()
