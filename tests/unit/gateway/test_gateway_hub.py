"""Rings, subscriptions, replay and margins of the gateway, without a socket."""

from __future__ import annotations

import orjson
import pytest
from gateway_samples import batch, block_done, calls

from schemas import topics
from streams.gateway.hub import Hub, HubFault, TooOld
from streams.gateway.margins import MarginReplica


class Client:
    def __init__(self) -> None:
        self.frames: list[dict] = []

    def offer(self, frame: bytes) -> None:
        self.frames.append(orjson.loads(frame))


def test_a_notification_carries_epoch_seq_and_prev_seq() -> None:
    hub, client = Hub("run-1"), Client()
    hub.subscribe(client, ["margin.calls"])
    assert hub.publish(topics.MARGIN_CALLS, 2, calls(1, 1, 2, partition=2)) == 2
    assert [frame["method"] for frame in client.frames] == ["subscription", "subscription"]
    params = client.frames[1]["params"]
    data = params.pop("data")
    assert params == {"channel": "margin.calls", "partition": 2, "epoch": "run-1", "seq": 2, "prev_seq": 1}
    assert (data["type"], data["account"], data["from"], data["to"]) == (
        "margin_call",
        "account-2",
        "healthy",
        "margin_call",
    )


def test_only_subscribed_channels_arrive_and_unsubscribing_ends_it() -> None:
    hub, client = Hub("run-1"), Client()
    hub.subscribe(client, ["risk.blocks"])
    hub.publish(topics.MARGIN_CALLS, 0, calls(1, 1))
    hub.publish(topics.BLOCKS_DONE, 0, block_done(1))
    hub.unsubscribe(client)
    hub.publish(topics.BLOCKS_DONE, 0, block_done(2))
    assert [(frame["params"]["channel"], frame["params"]["seq"]) for frame in client.frames] == [("risk.blocks", 1)]
    assert hub.subscriptions(client) == []


def test_a_repeated_record_is_told_once_and_a_broken_log_is_a_fault() -> None:
    hub, client = Hub("run-1"), Client()
    hub.subscribe(client, ["margin.calls"])
    for record in (calls(1, 1, 3), calls(1, 1, 3), calls(2, 4)):
        hub.publish(topics.MARGIN_CALLS, 0, record)
    assert [frame["params"]["seq"] for frame in client.frames] == [1, 2, 3, 4]
    with pytest.raises(HubFault, match=r"loss in margin\.calls/0 at sequence 4"):
        hub.publish(topics.MARGIN_CALLS, 0, calls(4, 6))
    with pytest.raises(HubFault, match="conflict"):
        hub.publish(topics.MARGIN_CALLS, 0, calls(2, 5))
    with pytest.raises(HubFault, match="event 9 follows 4"):
        hub.publish(topics.MARGIN_CALLS, 0, calls(3, 9))


def test_a_gateway_may_begin_anywhere_in_a_log() -> None:
    hub = Hub("run-1")
    hub.publish(topics.MARGIN_CALLS, 1, calls(40, 95, 5, partition=1))
    assert hub.snapshot(["margin.calls"]) == {"margin.calls": {"1": {"oldest_seq": 95, "last_seq": 99}}}


def test_replay_pages_and_says_what_is_kept() -> None:
    hub = Hub("run-1", ring_events=10)
    hub.publish(topics.MARGIN_CALLS, 0, calls(1, 1, 25))
    assert hub.bounds("margin.calls", 0) == (16, 25)
    page = hub.replay("margin.calls", 0, 18, 5)
    assert [orjson.loads(params)["seq"] for params in page.params] == [18, 19, 20, 21, 22]
    assert page.next_seq == 23
    assert len(hub.replay("margin.calls", 0, 23, 5).params) == 3
    for beyond in (26, 27, 1000):
        assert hub.replay("margin.calls", 0, beyond) == ([], beyond, (16, 25))
    with pytest.raises(TooOld):
        hub.replay("margin.calls", 0, 15)
    assert hub.replay("margin.calls", 7, 1) == ([], 1, None)


def test_margins_are_the_newest_of_each_partition() -> None:
    replica = MarginReplica()
    replica.take(0, batch(2, ["ann", "bob"], [10, 20]))
    replica.take(1, batch(1, ["cy"], [30], partition=1))
    replica.take(0, batch(1, ["ann", "bob"], [-1, -1]))  # a repeat of an older record
    assert replica.blocks() == {"0": 20, "1": 10}
    found = replica.get("bob")
    assert found is not None
    assert (found["nlv_usd6"], found["state"], found["binding"]) == (20, "margin_call", "stress")
    assert (found["block"], found["block_hash"], found["time_ms"], found["partition"]) == (20, "0xab", 2000, 0)
    replica.take(0, batch(3, ["ann", "bob"], [11, 21]))
    replica.take(0, batch(4, ["abe", "ann", "bob"], [5, 12, 22]))
    assert [replica.get(name)["nlv_usd6"] for name in ("abe", "ann", "bob", "cy")] == [5, 12, 22, 30]  # type: ignore[index]
    assert replica.get("nobody") is None
