"""The hub: what subscribers see of the public logs. No socket, no clock, no Faust.

Each channel follows one topic. Every event keeps the sequence number that the engine gave it, dense per channel and
partition, so `seq` and `prev_seq` tell a reader of every gap, over any number of reconnects and gateways. The newest
events of each (channel, partition) stay in a ring for replay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple, Protocol

import orjson

from schemas import topics
from streams.runtime.once import Once

CHANNELS = {
    "margin.warnings": topics.MARGIN_WARNINGS,
    "margin.calls": topics.MARGIN_CALLS,
    "liquidations": topics.LIQUIDATIONS,
    "risk.blocks": topics.BLOCKS_DONE,
}
TOPICS = {topic: channel for channel, topic in CHANNELS.items()}
RING_EVENTS = 10_000
REPLAY_EVENTS_MAX = 1_000


class HubFault(Exception):
    """A public log is broken (a hole or a conflict): what would be sent on would be false."""


class TooOld(Exception):
    """The wanted events are no longer in the ring."""


class Bounds(NamedTuple):
    """What the ring of one (channel, partition) holds."""

    oldest_seq: int
    last_seq: int


class Page(NamedTuple):
    """Part of a replay: `params` are the JSON bytes of the notifications' params; go on at next_seq up to last_seq."""

    params: list[bytes]
    next_seq: int
    bounds: Bounds | None


class Subscriber(Protocol):
    """Who takes frames; must not block."""

    def offer(self, frame: bytes) -> None: ...


class Ring:
    """The newest events of one (channel, partition), dense in seq."""

    def __init__(self, capacity: int) -> None:
        self._params: deque[bytes] = deque(maxlen=capacity)
        self._last_seq = 0

    @property
    def bounds(self) -> Bounds:
        return Bounds(self._last_seq - len(self._params) + 1, self._last_seq)

    def append(self, seq: int, params: bytes) -> None:
        if self._params and seq != self._last_seq + 1:
            raise HubFault(f"event {seq} follows {self._last_seq}")
        self._last_seq = seq
        self._params.append(params)

    def read(self, from_seq: int, count: int) -> Page:
        """At most `count` events from `from_seq` on. Raises TooOld."""
        oldest, last = self.bounds
        if from_seq < oldest:
            raise TooOld
        begin, end = from_seq - oldest, min(from_seq + count, last + 1) - oldest
        found = list(islice(self._params, begin, max(begin, end)))
        return Page(found, from_seq + len(found), self.bounds)


class Hub:
    """Subscriptions and rings. All calls from one thread."""

    def __init__(self, epoch: str, ring_events: int = RING_EVENTS) -> None:
        self.epoch = epoch
        self._ring_events = ring_events
        self._rings: dict[str, dict[int, Ring]] = {channel: {} for channel in CHANNELS}
        self._subscribers: dict[str, set[Subscriber]] = {channel: set() for channel in CHANNELS}
        self._once: dict[tuple[str, int], Once] = {}

    def publish(self, topic: str, partition: int, raw: bytes) -> int:
        """One record of a topic of TOPICS: keep its events, offer them to the subscribers. Returns how many were new.

        Raises HubFault for a hole or a conflict in the log.
        """
        record = orjson.loads(raw)
        if not self._is_new(topic, partition, record["seq"], raw):
            return 0
        channel = TOPICS[topic]
        events = [record] if topic == topics.BLOCKS_DONE else record["events"]
        ring = self._rings[channel].setdefault(partition, Ring(self._ring_events))
        for event in events:
            params = self._params(channel, partition, event)
            ring.append(event["seq"], params)
            frame = b'{"jsonrpc":"2.0","method":"subscription","params":' + params + b"}"
            for subscriber in list(self._subscribers[channel]):
                subscriber.offer(frame)
        return len(events)

    def _is_new(self, topic: str, partition: int, seq: int, raw: bytes) -> bool:
        """A gateway may begin anywhere in a log: the first record is taken as it is."""
        verdict = self._once.setdefault((topic, partition), Once(seq - 1)).take(seq, raw)
        if verdict in ("loss", "conflict"):
            raise HubFault(f"{verdict} in {topic}/{partition} at sequence {seq}")
        return verdict == "new"

    def _params(self, channel: str, partition: int, event: dict[str, Any]) -> bytes:
        seq = event["seq"]
        head = {"channel": channel, "partition": partition, "epoch": self.epoch, "seq": seq, "prev_seq": seq - 1}
        return orjson.dumps({**head, "data": event})

    def subscribe(self, subscriber: Subscriber, channels: Iterable[str]) -> dict[str, dict[str, dict[str, int]]]:
        """Offer every later event of `channels`; the answer says what came before it."""
        wanted = list(channels)
        for channel in wanted:
            self._subscribers[channel].add(subscriber)
        return self.snapshot(wanted)

    def unsubscribe(self, subscriber: Subscriber, channels: Iterable[str] = tuple(CHANNELS)) -> None:
        for channel in channels:
            self._subscribers[channel].discard(subscriber)

    def subscriptions(self, subscriber: Subscriber) -> list[str]:
        return [channel for channel, found in self._subscribers.items() if subscriber in found]

    def subscribers(self, channel: str) -> int:
        """How many follow a channel."""
        return len(self._subscribers[channel])

    def snapshot(self, channels: Iterable[str] = tuple(CHANNELS)) -> dict[str, dict[str, dict[str, int]]]:
        """{channel: {partition: {oldest_seq, last_seq}}} of the partitions that have had an event."""
        return {
            channel: {str(at): ring.bounds._asdict() for at, ring in sorted(self._rings[channel].items())}
            for channel in channels
        }

    def replay(self, channel: str, partition: int, from_seq: int, count: int = REPLAY_EVENTS_MAX) -> Page:
        """Events from `from_seq` on. A partition without events gives an empty page. Raises TooOld."""
        ring = self._rings[channel].get(partition)
        return ring.read(from_seq, count) if ring is not None else Page([], from_seq, None)

    def bounds(self, channel: str, partition: int) -> Bounds:
        return self._rings[channel][partition].bounds
