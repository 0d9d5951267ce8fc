"""JSON-RPC 2.0 over the hub: bytes of a request -> bytes of a response. No socket, no clock.

Errors keep the connection. Besides the standard codes (-32700 not JSON, -32600 not a request, -32601 unknown method,
-32602 wrong parameters, always with `data.field`): 14001 unknown account, 14002 replay too old.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import orjson
from msgspec import Meta, Struct

from streams.gateway.hub import CHANNELS, REPLAY_EVENTS_MAX, Hub, Page, Subscriber, TooOld
from streams.gateway.margins import MarginReplica

PROTOCOL = 1
PARSE_ERROR, INVALID_REQUEST, UNKNOWN_METHOD, INVALID_PARAMS = -32700, -32600, -32601, -32602
UNKNOWN_ACCOUNT, REPLAY_TOO_OLD = 14001, 14002
BATCH_MAX = 100
_AT = re.compile(r"at `\$\.?([^`]*)`")
_NAMED = re.compile(r"field `([^`]*)`")


class RpcError(Exception):
    """What a request gets instead of a result."""

    def __init__(self, code: int, message: str, **data: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class Params(Struct, frozen=True, forbid_unknown_fields=True):
    """Of public/hello: none."""


class ChannelParams(Params, frozen=True):
    """Of public/subscribe and public/unsubscribe."""

    channels: Annotated[list[str], Meta(min_length=1, max_length=100)]


class ReplayParams(Params, frozen=True):
    """Of public/replay: events of a partition from `from_seq` on, at most `count`."""

    channel: str
    partition: Annotated[int, Meta(ge=0)]
    from_seq: Annotated[int, Meta(ge=1)]
    count: Annotated[int, Meta(ge=1, le=REPLAY_EVENTS_MAX)] = REPLAY_EVENTS_MAX


class MarginParams(Params, frozen=True):
    """Of public/get_margin."""

    account: Annotated[str, Meta(min_length=1, max_length=64)]


class Rpc:
    """Answers the requests of all clients of one gateway."""

    def __init__(self, hub: Hub, margins: MarginReplica) -> None:
        self.hub, self.margins = hub, margins
        self.methods: dict[str, tuple[type[Params], Callable[[Subscriber, Any], bytes]]] = {
            "public/hello": (Params, self._hello),
            "public/subscribe": (ChannelParams, self._subscribe),
            "public/unsubscribe": (ChannelParams, self._unsubscribe),
            "public/replay": (ReplayParams, self._replay),
            "public/get_margin": (MarginParams, self._get_margin),
        }

    def answer(self, client: Subscriber, message: bytes | str) -> bytes | None:
        """Response to one message (a request, or an array of them); None where there is nothing to answer."""
        try:
            request = orjson.loads(message)
        except orjson.JSONDecodeError as error:
            return _failure(None, RpcError(PARSE_ERROR, f"not JSON: {error}"))
        if not isinstance(request, list):
            return self._answer_one(client, request)
        if not 1 <= len(request) <= BATCH_MAX:
            return _failure(None, RpcError(INVALID_REQUEST, f"an array holds 1 to {BATCH_MAX} requests"))
        answers = [found for one in request if (found := self._answer_one(client, one)) is not None]
        return b"[" + b",".join(answers) + b"]" if answers else None

    def _answer_one(self, client: Subscriber, request: Any) -> bytes | None:
        """A request without `id` is a notification: done, but not answered."""
        number = request.get("id") if isinstance(request, dict) else None
        try:
            result = self._call(client, request)
        except RpcError as error:
            silent = error.code != INVALID_REQUEST and "id" not in request
            return None if silent else _failure(number if isinstance(number, int | str) else None, error)
        if "id" not in request:
            return None
        return b'{"jsonrpc":"2.0","id":' + orjson.dumps(number) + b',"result":' + result + b"}"

    def _call(self, client: Subscriber, request: Any) -> bytes:
        if not isinstance(request, dict):
            raise RpcError(INVALID_REQUEST, f"a request is a JSON object, not {type(request).__name__}")
        if request.get("jsonrpc", "2.0") != "2.0":
            raise RpcError(INVALID_REQUEST, 'jsonrpc must be "2.0"', field="jsonrpc")
        if not isinstance(request.get("id"), int | str | None):
            raise RpcError(INVALID_REQUEST, "id must be a number or a string", field="id")
        name = request.get("method")
        if not isinstance(name, str):
            raise RpcError(INVALID_REQUEST, "method is missing", field="method")
        if name not in self.methods:
            raise RpcError(UNKNOWN_METHOD, f"unknown method {name!r}", field="method", methods=sorted(self.methods))
        kind, method = self.methods[name]
        return method(client, _params(request.get("params", {}), kind))

    def _hello(self, client: Subscriber, params: Params) -> bytes:
        return orjson.dumps(
            {
                "name": "dpme",
                "protocol": PROTOCOL,
                "epoch": self.hub.epoch,
                "methods": sorted(self.methods),
                "channels": sorted(CHANNELS),
                "snapshot": self.hub.snapshot(),
                "margin_blocks": self.margins.blocks(),
            }
        )

    def _subscribe(self, client: Subscriber, params: ChannelParams) -> bytes:
        snapshot = self.hub.subscribe(client, _known(params.channels))
        channels = self.hub.subscriptions(client)
        return orjson.dumps({"channels": channels, "epoch": self.hub.epoch, "snapshot": snapshot})

    def _unsubscribe(self, client: Subscriber, params: ChannelParams) -> bytes:
        self.hub.unsubscribe(client, _known(params.channels))
        return orjson.dumps({"channels": self.hub.subscriptions(client), "epoch": self.hub.epoch})

    def _replay(self, client: Subscriber, params: ReplayParams) -> bytes:
        [channel] = _known([params.channel], "channel")
        try:
            page = self.hub.replay(channel, params.partition, params.from_seq, params.count)
        except TooOld:
            bounds = self.hub.bounds(channel, params.partition)
            message = f"event {params.from_seq} is no longer kept: the oldest is {bounds.oldest_seq}"
            raise RpcError(REPLAY_TOO_OLD, message, field="from_seq", **bounds._asdict()) from None
        return self._page(params, page)

    def _page(self, params: ReplayParams, page: Page) -> bytes:
        head = {"channel": params.channel, "partition": params.partition, "epoch": self.hub.epoch}
        bounds = page.bounds._asdict() if page.bounds else {"oldest_seq": None, "last_seq": None}
        told = orjson.dumps({**head, **bounds, "next_seq": page.next_seq})
        return told[:-1] + b',"events":[' + b",".join(page.params) + b"]}"

    def _get_margin(self, client: Subscriber, params: MarginParams) -> bytes:
        found = self.margins.get(params.account)
        if found is None:
            blocks = self.margins.blocks()
            raise RpcError(UNKNOWN_ACCOUNT, f"no margin of {params.account!r}", field="account", margin_blocks=blocks)
        return orjson.dumps(found)


def _params(plain: Any, kind: type[Params]) -> Any:
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        found = _AT.search(message)
        field = found[1] if found and found[1] else (_NAMED.search(message) or ["", "params"])[1]
        raise RpcError(INVALID_PARAMS, message, field=field) from None


def _known(channels: list[str], field: str = "channels") -> list[str]:
    for channel in channels:
        if channel not in CHANNELS:
            raise RpcError(INVALID_PARAMS, f"unknown channel {channel!r}", field=field, channels=sorted(CHANNELS))
    return channels


def _failure(number: int | str | None, error: RpcError) -> bytes:
    told = {"code": error.code, "message": error.message, **({"data": error.data} if error.data else {})}
    return orjson.dumps({"jsonrpc": "2.0", "id": number, "error": told})
