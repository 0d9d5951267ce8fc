"""Questions to a store that a sink has open: a Unix socket in its folder, length-prefixed JSON, reading only.

chDB allows one process a folder. While a sink runs it answers on `<store>/query.sock` (mode 0600: its user only); a
QueryClient asks there, and opens the folder itself where nobody answers. A frame is a 4-byte big-endian length and
JSON: {"method": ..., "params": {...}} -> {"result": ...} or {"error": {"kind": ..., "message": ...}}.
"""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from streams.runtime.security import Secret
from streams.sink import queries
from streams.sink.clickhouse_store import ClickHouseStore
from streams.sink.errors import QueryRefused, StoreBusy, StoreEmpty, StoreError
from streams.sink.sink import Sink, standings
from streams.sink.store import LOCK_POLL_S, ChdbStore, Store, is_server

SOCKET_NAME = "query.sock"
FRAME_MAX = 64 << 20
START_LIMIT_S = 5.0
_LENGTH = struct.Struct(">I")
_KINDS = {kind.__name__: kind for kind in (StoreError, StoreBusy, StoreEmpty, QueryRefused)}
_QUESTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "latest": queries.latest,
    "asof": queries.asof,
    "account": queries.account,
    "venue": queries.venue,
    "sql": queries.sql,
}


def answer(store: Store, sink: Sink | None, method: str, params: dict[str, Any]) -> Any:
    """One question to an open store. `stored` says up to which offsets of its logs the store is complete."""
    if method == "stored":
        if sink is not None:
            return _plain(sink.stored())
        return _plain({log: standing.next_offset for log, standing in standings(store).items()})
    question = _QUESTIONS.get(method)
    if question is None:
        raise QueryRefused(f"unknown question {method!r}: ask one of {', '.join([*_QUESTIONS, 'stored'])}")
    try:
        return question(store, **params)
    except TypeError as error:
        raise QueryRefused(f"question {method}: {error}") from error


def _plain(positions: dict[tuple[str, int], int]) -> dict[str, int]:
    return {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(positions.items())}


class QueryServer:
    """Answers in threads of its own until close(). A socket left behind by a kill is replaced."""

    def __init__(self, folder: Path | str, store: Store, sink: Sink | None = None) -> None:
        path = Path(folder) / SOCKET_NAME
        path.unlink(missing_ok=True)  # we hold the lock of the store, so whoever made it is dead
        with _short_path(path) as address:
            self._server = _Server(address, _Handler)
        os.chmod(path, 0o600)
        self._server.ask = lambda method, params: answer(store, sink, method, params)
        self._path = path
        self._thread = threading.Thread(target=self._server.serve_forever, name="store-queries", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    ask: Callable[[str, dict[str, Any]], Any]


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while (frame := _receive(self.request)) is not None:
                _send(self.request, self._answer(frame))

    def _answer(self, frame: bytes) -> dict[str, Any]:
        try:
            question = orjson.loads(frame)
            return {"result": self.server.ask(question["method"], question.get("params") or {})}
        except StoreError as error:
            return {"error": {"kind": type(error).__name__, "message": str(error)}}
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            return {"error": {"kind": "QueryRefused", "message": f"not a question: {error}"}}


class QueryClient:
    """Asks a store: a ClickHouse server itself; for a folder the process that has it open, or else the folder.

    attach_only: never open the folder here; StoreBusy then means that nobody answers (yet). The server's password
    comes from DPME_STORE_PASSWORD.
    """

    def __init__(self, target: Path | str, attach_only: bool = False) -> None:
        self.folder = Path(target)
        self._store: ChdbStore | ClickHouseStore | None = None
        self._socket: socket.socket | None = None
        if is_server(target):
            self._store = ClickHouseStore(str(target), Secret(os.environ.get("DPME_STORE_PASSWORD", "")))
            return
        self._socket = self._connected()
        if self._socket is not None:
            return
        if attach_only:
            raise StoreBusy(f"no process answers for the store {self.folder}")
        self._open_or_connect()

    def _open_or_connect(self) -> None:
        """A sink that is just starting has the lock already and not yet the socket: try both for a while."""
        limit = time.monotonic() + START_LIMIT_S
        while self._socket is None and self._store is None:
            try:
                self._store = ChdbStore(self.folder, create=False)
            except StoreBusy:
                self._socket = self._connected()
                if self._socket is None and time.monotonic() > limit:
                    raise
                time.sleep(0 if self._socket else LOCK_POLL_S)

    def _connected(self) -> socket.socket | None:
        found = socket.socket(socket.AF_UNIX)
        try:
            with _short_path(self.folder / SOCKET_NAME) as address:
                found.connect(address)
        except OSError:
            found.close()
            return None
        return found

    def ask(self, method: str, **params: Any) -> Any:
        """The answer of one question. Raises StoreError or one of its kinds."""
        if self._socket is None:
            assert self._store is not None
            return answer(self._store, None, method, params)
        try:
            _send(self._socket, {"method": method, "params": params})
            frame = _receive(self._socket)
        except OSError as error:
            raise StoreError(f"the process that has {self.folder} open went away: ask again ({error})") from error
        if frame is None:
            raise StoreError(f"the process that has {self.folder} open went away: ask again")
        reply = orjson.loads(frame)
        if "error" in reply:
            raise _KINDS.get(reply["error"]["kind"], StoreError)(reply["error"]["message"])
        return reply["result"]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> QueryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A name of `path` that fits into the 108 bytes of a Unix socket address, however deep its folder lies."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    body = orjson.dumps(message)
    connection.sendall(_LENGTH.pack(len(body)) + body)


def _receive(connection: socket.socket) -> bytes | None:
    """One frame, or None where the other side has closed."""
    head = _exactly(connection, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > FRAME_MAX:
        raise ConnectionError(f"a frame of {length} bytes is beyond {FRAME_MAX}")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
