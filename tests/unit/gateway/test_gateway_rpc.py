"""JSON-RPC: every method, every refusal, without a socket."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from gateway_samples import batch, calls

from schemas import topics
from streams.gateway.hub import Hub
from streams.gateway.margins import MarginReplica
from streams.gateway.rpc import Rpc


class Nobody:
    def offer(self, frame: bytes) -> None:
        raise AssertionError("nothing is published here")


@pytest.fixture
def rpc() -> Rpc:
    hub, margins = Hub("run-1", ring_events=10), MarginReplica()
    hub.publish(topics.MARGIN_CALLS, 0, calls(1, 1, 25))
    margins.take(0, batch(1, ["ann"], [77]))
    return Rpc(hub, margins)


def ask(rpc: Rpc, method: str, params: Any = None, **more: Any) -> Any:
    request = {"jsonrpc": "2.0", "id": 5, "method": method, **({} if params is None else {"params": params}), **more}
    raw = rpc.answer(Nobody(), orjson.dumps(request))
    assert raw is not None
    return orjson.loads(raw)


def test_hello(rpc: Rpc) -> None:
    answer = ask(rpc, "public/hello")
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", 5)
    assert answer["result"]["epoch"] == "run-1"
    assert answer["result"]["channels"] == ["liquidations", "margin.calls", "margin.warnings", "risk.blocks"]
    assert answer["result"]["margin_blocks"] == {"0": 10}
    assert "public/replay" in answer["result"]["methods"]


def test_subscribe_and_unsubscribe(rpc: Rpc) -> None:
    client = Nobody()

    def send(method: str, channels: list[str]) -> Any:
        request = {"id": "a", "method": method, "params": {"channels": channels}}
        return orjson.loads(rpc.answer(client, orjson.dumps(request)) or b"")["result"]

    found = send("public/subscribe", ["margin.calls", "liquidations"])
    assert found["snapshot"] == {"margin.calls": {"0": {"oldest_seq": 16, "last_seq": 25}}, "liquidations": {}}
    assert sorted(found["channels"]) == ["liquidations", "margin.calls"]
    assert send("public/unsubscribe", ["margin.calls"]) == {"channels": ["liquidations"], "epoch": "run-1"}


def test_replay(rpc: Rpc) -> None:
    wanted = {"channel": "margin.calls", "partition": 0, "from_seq": 20, "count": 2}
    result = ask(rpc, "public/replay", wanted)["result"]
    assert [(event["seq"], event["prev_seq"], event["data"]["seq"]) for event in result["events"]] == [
        (20, 19, 20),
        (21, 20, 21),
    ]
    assert {name: result[name] for name in ("channel", "partition", "epoch", "oldest_seq", "last_seq", "next_seq")} == {
        "channel": "margin.calls",
        "partition": 0,
        "epoch": "run-1",
        "oldest_seq": 16,
        "last_seq": 25,
        "next_seq": 22,
    }
    empty = ask(rpc, "public/replay", {"channel": "liquidations", "partition": 3, "from_seq": 1})["result"]
    assert (empty["events"], empty["last_seq"]) == ([], None)


def test_get_margin(rpc: Rpc) -> None:
    result = ask(rpc, "public/get_margin", {"account": "ann"})["result"]
    assert (result["nlv_usd6"], result["block"], result["state"]) == (77, 10, "margin_call")


@pytest.mark.parametrize(
    ("method", "params", "code", "field"),
    [
        ("public/nothing", {}, -32601, "method"),
        ("public/hello", {"x": 1}, -32602, "x"),
        ("public/hello", [], -32602, "params"),
        ("public/subscribe", {}, -32602, "channels"),
        ("public/subscribe", {"channels": []}, -32602, "channels"),
        ("public/subscribe", {"channels": [3]}, -32602, "channels[0]"),
        ("public/subscribe", {"channels": ["margin.call"]}, -32602, "channels"),
        ("public/replay", {"channel": "margin.calls", "partition": -1, "from_seq": 1}, -32602, "partition"),
        ("public/replay", {"channel": "margin.calls", "partition": 0}, -32602, "from_seq"),
        ("public/replay", {"channel": "margin.calls", "partition": 0, "from_seq": 0}, -32602, "from_seq"),
        ("public/replay", {"channel": "margin.calls", "partition": 0, "from_seq": 1, "count": 1001}, -32602, "count"),
        ("public/replay", {"channel": "margin.x", "partition": 0, "from_seq": 1}, -32602, "channel"),
        ("public/replay", {"channel": "margin.calls", "partition": 0, "from_seq": 15}, 14002, "from_seq"),
        ("public/get_margin", {"account": ""}, -32602, "account"),
        ("public/get_margin", {"account": 7}, -32602, "account"),
        ("public/get_margin", {"account": "nobody"}, 14001, "account"),
    ],
)
def test_refusals_name_the_field(rpc: Rpc, method: str, params: Any, code: int, field: str) -> None:
    answer = ask(rpc, method, params)
    assert (answer["id"], answer["error"]["code"], answer["error"]["data"]["field"]) == (5, code, field)
    assert answer["error"]["message"]


def test_a_replay_too_old_says_what_is_kept(rpc: Rpc) -> None:
    error = ask(rpc, "public/replay", {"channel": "margin.calls", "partition": 0, "from_seq": 1})["error"]
    assert error["data"] == {"field": "from_seq", "oldest_seq": 16, "last_seq": 25}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"7", -32600),
        (b"[]", -32600),
        (b'{"id":1}', -32600),
        (b'{"id":1,"method":5}', -32600),
        (b'{"id":{},"method":"public/hello"}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"public/hello"}', -32600),
    ],
)
def test_what_is_no_request(rpc: Rpc, message: bytes, code: int) -> None:
    answer = orjson.loads(rpc.answer(Nobody(), message) or b"")
    assert (answer["jsonrpc"], answer["error"]["code"]) == ("2.0", code)


def test_arrays_and_notifications(rpc: Rpc) -> None:
    hello = {"method": "public/hello"}
    answers = orjson.loads(rpc.answer(Nobody(), orjson.dumps([{**hello, "id": 1}, hello, {**hello, "id": 2}])) or b"")
    assert [answer["id"] for answer in answers] == [1, 2]
    assert rpc.answer(Nobody(), orjson.dumps(hello)) is None
    assert rpc.answer(Nobody(), orjson.dumps([hello])) is None
    assert rpc.answer(Nobody(), orjson.dumps({"method": "public/nothing"})) is None
