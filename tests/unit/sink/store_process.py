"""A real chDB store in a process of its own: other tests of the same run fork, and a process with chDB must not."""

from __future__ import annotations

import multiprocessing
import traceback
from multiprocessing.connection import Connection
from typing import Any


def serve(pipe: Connection) -> None:
    from streams.sink.store import ChdbStore

    store = None
    while (call := pipe.recv()) is not None:
        name, arguments = call
        try:
            if name == "open":
                store = ChdbStore(*arguments)
                pipe.send((True, None))
            else:
                answer = getattr(store, name)(*arguments)
                pipe.send((True, list(answer) if name == "stream" else answer))
        except Exception as error:
            traceback.print_exc()
            pipe.send((False, error))


class StoreProcess:
    """The Store protocol, answered by the process."""

    database = "dpme"

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other,), daemon=True)
        self.process.start()

    def call(self, name: str, *arguments: Any) -> Any:
        self.pipe.send((name, arguments))
        good, answer = self.pipe.recv()
        if not good:
            raise answer
        return answer

    def execute(self, sql: str) -> None:
        self.call("execute", sql)

    def insert(self, table: str, rows: Any) -> None:
        self.call("insert", table, rows)

    def query(self, sql: str, parameters: Any = None) -> Any:
        return self.call("query", sql, parameters)

    def stream(self, sql: str, parameters: Any = None) -> Any:
        return iter(self.call("stream", sql, parameters))
