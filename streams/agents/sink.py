"""The sink's agent: public logs -> store. One process a store; the store itself is the checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from streams.pipeline.config import PipelineConfig
from streams.runtime.exits import die
from streams.runtime.machine import Headers, LogPosition, Machine, Output
from streams.runtime.notes import note
from streams.runtime.security import Secret
from streams.runtime.settings import RuntimeSettings
from streams.runtime.worker import RoleApp, Runtime, make_app, run_worker
from streams.sink.clickhouse_store import ClickHouseStore
from streams.sink.errors import SinkFault, StoreError
from streams.sink.query_socket import QueryServer
from streams.sink.rows import TABLES
from streams.sink.sink import Sink
from streams.sink.store import ChdbStore, is_server

LOCK_WAIT_S = 20.0


class OpenStore:
    """Store and sink of this process, and for chDB a query socket: the one unit of the role. Opened after any fork.

    target: a folder (chDB), or the URL of a ClickHouse server, which answers questions itself.
    """

    def __init__(self, target: Path | str, epoch: str, password: Secret | None = None) -> None:
        self.target, self.epoch, self.password = target, epoch, password
        self.server: QueryServer | None = None

    def open(self) -> None:
        self.store = self._opened()
        self.sink = Sink(self.store, self.epoch)
        if isinstance(self.store, ChdbStore):
            self.server = QueryServer(self.target, self.store, self.sink)
        self.sink.start(lambda error: die("sink flush", error))

    def _opened(self) -> ChdbStore | ClickHouseStore:
        if is_server(self.target):
            return ClickHouseStore(str(self.target), self.password, writer=True)
        return ChdbStore(self.target, wait_s=LOCK_WAIT_S)

    def close(self) -> None:
        self.sink.stop()
        if self.server is not None:
            self.server.close()
        self.store.close()

    def empty(self, unit: int) -> Machine:
        return SinkMachine(self.sink)

    def load(self, unit: int, raw: bytes) -> Machine:
        raise SinkFault("the sink has no checkpoints but its store")

    def unit_of(self, topic: str, partition: int) -> int:
        return 0

    def positions(self, unit: int, logs: frozenset[LogPosition]) -> dict[LogPosition, int]:
        return self.sink.positions(logs)


class SinkMachine:
    """The shell's view of the sink. Every record runs in a worker thread: a flush takes as long as the disk does."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def positions(self) -> dict[LogPosition, int]:
        return self._sink.positions()

    def steps(
        self, topic: str, partition: int, offset: int, value: bytes | None, headers: Headers
    ) -> Iterator[list[Output]]:
        if value is None:
            raise SinkFault(f"{topic}/{partition} offset {offset} has no value")
        self._sink.take(topic, partition, offset, value)
        yield from ()

    def start(self) -> list[Output]:
        return []

    def is_long(self, topic: str, value: bytes | None) -> bool:
        return True

    def checkpoint_mark(self) -> int | None:
        return None

    def dump(self) -> bytes:
        raise SinkFault("the sink has no checkpoints but its store")


class SinkRuntime(Runtime):
    """Opens the store before the group is joined, closes it last."""

    async def start(self, app: RoleApp) -> None:
        open_store: Any = self.factory
        try:
            await asyncio.get_running_loop().run_in_executor(None, open_store.open)
        except StoreError as error:
            die(str(error))
        note("store_open", store=str(open_store.target))
        await super().start(app)

    async def stop(self) -> None:
        open_store: Any = self.factory
        await super().stop()
        await asyncio.get_running_loop().run_in_executor(None, partial(open_store.close))


def make_sink(
    settings: RuntimeSettings, *, name: str, store: Path | str, epoch: str, password: Secret | None = None
) -> RoleApp:
    """The Faust app of the sink. `epoch` names the run whose logs these are; the store refuses any other."""
    open_store = OpenStore(store, epoch, password)
    return make_app(
        "sink",
        list(TABLES),
        open_store,
        settings,
        name=name,
        positions_source=open_store.positions,
        runtime_class=SinkRuntime,
    )


def run(config: PipelineConfig, name: str) -> int:
    """Run the sink of a pipeline until it is told to stop."""
    password = config.secret("store_password")
    return run_worker(
        make_sink(config.settings(), name=name, store=config.store, epoch=config.run_name, password=password)
    )
