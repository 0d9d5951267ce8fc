"""Follow a channel over the WebSocket: reconnects, and fills every gap through public/replay."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from streams.gateway.rpc import REPLAY_TOO_OLD

MESSAGE_BYTES_MAX = 64 << 20
PATIENCE_S = 30.0
_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class GatewayUnreachable(Exception):
    """No gateway answers at the address; the message says what to do."""


class GatewayRefusal(Exception):
    """The gateway answered a request with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: int = error["code"]
        self.data: dict[str, Any] = error.get("data", {})


class Connection:
    """One WebSocket: requests with their answers, and the notifications that came meanwhile, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._waiting: deque[dict[str, Any]] = deque()
        self._numbers = itertools.count(1)

    async def request(self, method: str, **params: Any) -> Any:
        """The result. Raises GatewayRefusal, ConnectionClosed."""
        number = next(self._numbers)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        await self._socket.send(orjson.dumps(request), text=True)
        while True:
            message = orjson.loads(await self._socket.recv())
            if "method" in message:
                self._waiting.append(message["params"])
            elif message.get("id") == number:
                if "error" in message:
                    raise GatewayRefusal(message["error"])
                return message["result"]

    async def notification(self) -> dict[str, Any]:
        """The params of the next event."""
        while not self._waiting:
            message = orjson.loads(await self._socket.recv())
            if "method" in message:
                return message["params"]
        return self._waiting.popleft()


class Follower:
    """Every event of a channel once and in order per partition, from now on or from the oldest kept.

    notice(text) gets what a person should know: lost connections, gaps that cannot be filled any more.
    """

    def __init__(
        self,
        url: str,
        channel: str,
        from_oldest: bool = False,
        patience_s: float = PATIENCE_S,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.url, self.channel, self.patience_s, self.notice = url, channel, patience_s, notice
        self.epoch: str | None = None
        self._from_oldest = from_oldest
        self._last: dict[int, int] = {}

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Params of the notifications. Ends only by an exception: GatewayUnreachable after patience_s without a gateway
        (at once if there never was one), GatewayRefusal."""
        while True:
            try:
                async with await self._connected() as socket:
                    async for params in self._follow(Connection(socket)):
                        yield params
            except ConnectionClosed as closed:
                reason = closed.rcvd.reason if closed.rcvd else ""
                self.notice(f"connection lost ({reason or 'no farewell'}), reconnecting")

    async def _connected(self) -> ClientConnection:
        limit = time.monotonic() + self.patience_s
        for wait_s in itertools.chain(_RETRY_S, itertools.repeat(_RETRY_S[-1])):
            try:
                return await connect(self.url, compression=None, max_size=MESSAGE_BYTES_MAX)
            except InvalidURI as error:
                raise GatewayUnreachable(f"{self.url} is no WebSocket address such as ws://127.0.0.1:8765") from error
            except (OSError, InvalidHandshake, TimeoutError, EOFError) as error:
                if self.epoch is None or time.monotonic() + wait_s > limit:
                    raise GatewayUnreachable(
                        f"no gateway answers at {self.url}: start `dpme demo` or a replay, or give its --url"
                    ) from error
                await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    async def _follow(self, connection: Connection) -> AsyncGenerator[dict[str, Any], None]:
        answer = await connection.request("public/subscribe", channels=[self.channel])
        self._begin(answer["epoch"])
        for partition, bounds in answer["snapshot"][self.channel].items():
            if not self._from_oldest:
                self._last.setdefault(int(partition), bounds["last_seq"])
            self._last.setdefault(int(partition), bounds["oldest_seq"] - 1)
            async for params in self._missed(connection, int(partition), bounds["last_seq"]):
                yield params
        while True:
            live = await connection.notification()
            if live["seq"] <= self._last.setdefault(live["partition"], live["prev_seq"]):
                continue
            async for params in self._missed(connection, live["partition"], live["prev_seq"]):
                yield params
            self._last[live["partition"]] = live["seq"]
            yield live

    def _begin(self, epoch: str) -> None:
        if self.epoch is not None and epoch != self.epoch:
            self.notice(f"the gateway now serves run {epoch}: starting anew")
            self._last.clear()
        self.epoch = epoch

    async def _missed(self, connection: Connection, partition: int, up_to: int) -> AsyncGenerator[dict[str, Any], None]:
        """Events after the last seen one, up to and with `up_to`."""
        while self._last[partition] < up_to:
            wanted = self._last[partition] + 1
            try:
                page = await connection.request(
                    "public/replay", channel=self.channel, partition=partition, from_seq=wanted
                )
            except GatewayRefusal as refusal:
                if refusal.code != REPLAY_TOO_OLD:
                    raise
                self._last[partition] = refusal.data["oldest_seq"] - 1
                self.notice(
                    f"events {wanted} to {self._last[partition]} of partition {partition} are no longer kept by the "
                    "gateway: `dpme query` has them"
                )
                continue
            if not page["events"]:
                return
            for params in page["events"]:
                self._last[partition] = params["seq"]
                yield params
