"""The gateway over real WebSockets on loopback: channels, replay, slow clients, reconnects, the README's subscriber."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from schemas import decisions, topics
from schemas.codec import encode
from streams.gateway import server
from streams.gateway.client import Connection, Follower, GatewayRefusal, GatewayUnreachable
from streams.gateway.hub import Hub
from streams.gateway.margins import MarginReplica
from streams.gateway.server import SLOW_CONSUMER, Gateway, GatewayError
from tests.waiting import wait_until

LIMIT_S = 20.0
SUBSCRIBER = Path(server.__file__).with_name("example_subscriber.py")
MARGIN = decisions.Margin(1, 2, 3, 4, 5, 6, 7, 8, "stress", "spot -20 %")


class Log:
    """A margin.calls log of one partition, kept so that a new gateway can read it again."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.events = 0

    def append(self, count: int = 1) -> bytes:
        numbers = range(self.events + 1, self.events + count + 1)
        events = tuple(
            decisions.Call(seq, f"c{seq}", f"account-{seq}", 7, 7000, "healthy", "margin_call", MARGIN)
            for seq in numbers
        )
        self.events += count
        self.records.append(encode(decisions.CallRecord(1, 0, len(self.records) + 1, 7, events)))
        return self.records[-1]


@contextlib.asynccontextmanager
async def serving(hub: Hub, port: int = 0, **limits: int) -> AsyncIterator[Gateway]:
    gateway = Gateway(hub, MarginReplica(), port=port, **limits)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


async def take(events: AsyncIterator[dict], count: int) -> list[int]:
    return [(await asyncio.wait_for(anext(events), LIMIT_S))["seq"] for _ in range(count)]


async def test_subscribe_replay_and_errors_on_one_connection() -> None:
    hub, log = Hub("run-1"), Log()
    hub.publish(topics.MARGIN_CALLS, 0, log.append(3))
    async with serving(hub) as gateway, connect(gateway.url) as websocket:
        connection = Connection(websocket)
        await websocket.send("not json")
        assert json.loads(await websocket.recv())["error"]["code"] == -32700
        with pytest.raises(GatewayRefusal, match="unknown channel"):
            await connection.request("public/subscribe", channels=["nothing"])
        answer = await connection.request("public/subscribe", channels=["margin.calls"])
        assert answer["snapshot"]["margin.calls"]["0"] == {"oldest_seq": 1, "last_seq": 3}
        hub.publish(topics.MARGIN_CALLS, 0, log.append(2))
        page = await connection.request("public/replay", channel="margin.calls", partition=0, from_seq=2)
        assert [event["seq"] for event in page["events"]] == [2, 3, 4, 5]
        assert [(await connection.notification())["seq"] for _ in range(2)] == [4, 5]


async def test_a_slow_client_is_closed_by_name_and_others_go_on() -> None:
    hub, log = Hub("run-1"), Log()
    async with serving(hub, queue_frames=50) as gateway:
        async with connect(gateway.url) as slow:
            await Connection(slow).request("public/subscribe", channels=["margin.calls"])
            hub.publish(topics.MARGIN_CALLS, 0, log.append(51))  # at once: the writer cannot run in between
            with pytest.raises(ConnectionClosedError) as closed:
                async for _ in slow:
                    pass
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason.split(":")[0]) == (SLOW_CONSUMER, "slow consumer")
        async with connect(gateway.url) as other:
            assert (await Connection(other).request("public/hello"))["epoch"] == "run-1"


async def test_a_slow_follower_comes_back_and_misses_nothing() -> None:
    hub, log, notices = Hub("run-1"), Log(), []
    async with serving(hub, queue_frames=50) as gateway:
        events = Follower(gateway.url, "margin.calls", from_oldest=True, notice=notices.append).events()
        hub.publish(topics.MARGIN_CALLS, 0, log.append(1))
        assert await take(events, 1) == [1]
        hub.publish(topics.MARGIN_CALLS, 0, log.append(2500))
        assert await take(events, 2500) == list(range(2, 2502))
        assert any("slow consumer" in notice for notice in notices)


async def test_a_follower_fills_the_gap_over_a_restart_of_the_gateway() -> None:
    log, notices = Log(), []
    hub = Hub("run-1")
    async with serving(hub) as gateway:
        port = int(gateway.url.rsplit(":", 1)[1])
        events = Follower(gateway.url, "margin.calls", from_oldest=True, notice=notices.append).events()
        hub.publish(topics.MARGIN_CALLS, 0, log.append(4))
        assert await take(events, 4) == [1, 2, 3, 4]
    log.append(3)  # while there is no gateway
    again = Hub("run-1")
    for record in log.records:
        again.publish(topics.MARGIN_CALLS, 0, record)
    async with serving(again, port):
        assert await take(events, 3) == [5, 6, 7]
        again.publish(topics.MARGIN_CALLS, 0, log.append(1))
        assert await take(events, 1) == [8]
    assert any("reconnecting" in notice for notice in notices)


async def test_a_gap_that_cannot_be_filled_is_told() -> None:
    hub, log, notices = Hub("run-1"), Log(), []
    async with serving(hub) as gateway:
        port = int(gateway.url.rsplit(":", 1)[1])
        events = Follower(gateway.url, "margin.calls", from_oldest=True, notice=notices.append).events()
        hub.publish(topics.MARGIN_CALLS, 0, log.append(2))
        assert await take(events, 2) == [1, 2]
    again = Hub("run-1", ring_events=5)
    again.publish(topics.MARGIN_CALLS, 0, log.records[0])
    again.publish(topics.MARGIN_CALLS, 0, log.append(10))
    async with serving(again, port):
        assert await take(events, 5) == [8, 9, 10, 11, 12]
    assert any("events 3 to 7 of partition 0 are no longer kept" in notice for notice in notices)


async def test_another_run_on_the_port_starts_anew() -> None:
    hub, log, notices = Hub("run-1"), Log(), []
    async with serving(hub) as gateway:
        port = int(gateway.url.rsplit(":", 1)[1])
        events = Follower(gateway.url, "margin.calls", from_oldest=True, notice=notices.append).events()
        hub.publish(topics.MARGIN_CALLS, 0, log.append(9))
        assert await take(events, 9) == list(range(1, 10))
    other, other_log = Hub("run-2"), Log()
    other.publish(topics.MARGIN_CALLS, 0, other_log.append(2))
    async with serving(other, port):
        assert await take(events, 2) == [1, 2]
    assert any("now serves run run-2" in notice for notice in notices)


async def test_ports_and_addresses_that_cannot_be_used() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(GatewayError, match=rf"port {port} on 127.0.0.1 is in use.*--gateway-port"):
            await Gateway(Hub("run-1"), MarginReplica(), port=port).start()
    with pytest.raises(GatewayUnreachable, match="start `dpme demo`"):
        await anext(Follower(f"ws://127.0.0.1:{port}", "margin.calls").events())
    with pytest.raises(GatewayUnreachable, match="no WebSocket address"):
        await anext(Follower("http:/nonsense", "margin.calls").events())


async def test_places_are_bounded() -> None:
    async with serving(Hub("run-1"), clients_max=1) as gateway, connect(gateway.url) as first:
        await Connection(first).request("public/hello")
        async with connect(gateway.url) as second:
            with pytest.raises(ConnectionClosedError, match="places are taken"):
                await second.recv()


async def test_the_subscriber_of_the_readme() -> None:
    hub, log = Hub("run-1"), Log()
    async with serving(hub) as gateway:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(SUBSCRIBER), gateway.url, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            await wait_until(lambda: hub.subscribers("margin.calls"), LIMIT_S)
            async with asyncio.timeout(LIMIT_S):
                hub.publish(topics.MARGIN_CALLS, 0, log.append(2))
                assert await process.stdout.readline() == b"1 account-1 healthy -> margin_call\n"
                assert await process.stdout.readline() == b"2 account-2 healthy -> margin_call\n"
        finally:
            process.kill()
            await process.wait()
