"""The WebSocket server: one reader and one writer a client, a bounded queue between hub and writer.

Frames of events are never dropped. A client whose queue overflows is closed with code 4008 and a reason that says so;
it comes back and asks public/replay for what it missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import deque

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from streams.gateway.hub import Hub
from streams.gateway.margins import MarginReplica
from streams.gateway.rpc import Rpc

DEFAULT_PORT = 8765
SLOW_CONSUMER = 4008
TRY_AGAIN_LATER = 1013
QUEUE_FRAMES = 20_000
QUEUE_BYTES = 16 << 20
CLIENTS_MAX = 1_000
REQUEST_BYTES_MAX = 64 << 10
CLOSE_TIMEOUT_S = 5.0


class GatewayError(Exception):
    """The gateway cannot serve; the message says what to do."""


class Outbox:
    """Frames that wait for one client. Overflow is final: the queue is emptied and `overflowed` is set."""

    def __init__(self, frames_max: int = QUEUE_FRAMES, bytes_max: int = QUEUE_BYTES) -> None:
        self._frames: deque[bytes] = deque()
        self._frames_max, self._bytes_max = frames_max, bytes_max
        self._bytes = 0
        self._filled = asyncio.Event()
        self.overflowed = asyncio.Event()

    def offer(self, frame: bytes) -> None:
        if self.overflowed.is_set():
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        self._filled.set()
        if len(self._frames) > self._frames_max or self._bytes > self._bytes_max:
            self._frames.clear()
            self.overflowed.set()

    async def take(self) -> bytes:
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        return frame


class Gateway:
    """Serves a hub and a margin replica on ws://host:port. Port 0 takes any free one; `url` says which."""

    def __init__(
        self,
        hub: Hub,
        margins: MarginReplica,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        queue_frames: int = QUEUE_FRAMES,
        queue_bytes: int = QUEUE_BYTES,
        clients_max: int = CLIENTS_MAX,
    ) -> None:
        self.hub, self.rpc = hub, Rpc(hub, margins)
        self._host, self._port = host, port
        self._queue_frames, self._queue_bytes, self._clients_max = queue_frames, queue_bytes, clients_max
        self._clients = 0
        self._server: Server | None = None

    async def start(self) -> None:
        """Listen. Raises GatewayError where that is not possible."""
        try:
            self._server = await serve(
                self._serve_client,
                self._host,
                self._port,
                compression=None,
                max_size=REQUEST_BYTES_MAX,
                close_timeout=CLOSE_TIMEOUT_S,
                server_header="dpme",
            )
        except OSError as error:
            raise GatewayError(self._why(error)) from error

    def _why(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return (
                f"port {self._port} on {self._host} is in use: another gateway may be running "
                "(stop it), or choose another port with --gateway-port"
            )
        return f"cannot listen on {self._host}:{self._port}: {error.strerror or error}"

    @property
    def url(self) -> str:
        assert self._server is not None, "start() has not run"
        return f"ws://{self._host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Say goodbye (1001, going away) and close."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve_client(self, connection: ServerConnection) -> None:
        if self._clients >= self._clients_max:
            await connection.close(TRY_AGAIN_LATER, f"all {self._clients_max} places are taken")
            return
        self._clients += 1
        outbox = Outbox(self._queue_frames, self._queue_bytes)
        tasks = [
            asyncio.create_task(self._read(connection, outbox)),
            asyncio.create_task(self._write(connection, outbox)),
            asyncio.create_task(outbox.overflowed.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.hub.unsubscribe(outbox)
            self._clients -= 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if outbox.overflowed.is_set():
                await connection.close(SLOW_CONSUMER, "slow consumer: reconnect and use public/replay")

    async def _read(self, connection: ServerConnection, outbox: Outbox) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                reply = self.rpc.answer(outbox, message)
                if reply is not None:
                    outbox.offer(reply)

    async def _write(self, connection: ServerConnection, outbox: Outbox) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.send(await outbox.take(), text=True)
