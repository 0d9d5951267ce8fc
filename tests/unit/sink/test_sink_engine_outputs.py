"""What the engine really writes, from a shipped world, through sink, queries, hub and the lines of `dpme watch`."""

from __future__ import annotations

import io

import orjson
import pytest
from engine_worlds import random_world
from rich.console import Console

from schemas.risk_parameters import VenueStress
from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, INSTRUMENTS, MARGIN_BATCHES, ORACLE_TICKS, VENUE_STRESS
from streams.cli.stress_tables import show_stress
from streams.cli.watch import line
from streams.gateway.hub import CHANNELS, TOPICS, Hub
from streams.gateway.margins import MarginReplica
from streams.replay.chainlink import chainlink_world
from streams.replay.seeding import encode_all
from streams.simulate.in_process import Pipeline
from streams.sink import queries
from streams.sink.errors import StoreEmpty
from streams.sink.rows import TABLES
from streams.sink.sink import Sink, doubled, missing

BLOCKS, SEED, SCENARIOS = 40, 7, 64


def engine_logs() -> dict[tuple[str, int], list[bytes]]:
    world = chainlink_world(None, SEED, SCENARIOS, BLOCKS)
    pipeline = Pipeline({world.scenario_set.digest: world.scenario_set}, partitions=2)
    pipeline.push(INSTRUMENTS, 0, encode_all(world.listings))
    pipeline.push(ORACLE_TICKS, 0, b"not JSON")
    for inputs in world.blocks:
        by_topic = {ORACLE_TICKS: inputs.ticks, ACCOUNT_FILLS: inputs.events, CHAIN_BLOCKS: [inputs.block]}
        for topic, events in by_topic.items():
            if events:
                pipeline.push(topic, 0, encode_all(events))
    return {log: values for log, values in pipeline.logs.items() if log[0] in TABLES}


class Client:
    def __init__(self) -> None:
        self.told: list[dict] = []

    def offer(self, frame: bytes) -> None:
        self.told.append(orjson.loads(frame)["params"])


def test_outputs_of_the_engine_are_stored_and_told(store) -> None:
    sink, hub, margins, client = Sink(store, "run-1", flush_seconds=60), Hub("run-1"), MarginReplica(), Client()
    hub.subscribe(client, CHANNELS)
    for (topic, partition), values in engine_logs().items():
        for offset, raw in enumerate(values):
            sink.take(topic, partition, offset, raw)
            if topic in TOPICS:
                hub.publish(topic, partition, raw)
            elif topic == MARGIN_BATCHES:
                margins.take(partition, raw)
    sink.flush()
    assert set(missing(store).values()) == set(doubled(store).values()) == {0}
    assert {params["channel"] for params in client.told} == set(CHANNELS)
    assert all(str(params["data"]["block"]) in line(params).plain for params in client.told)
    [count] = store.query("SELECT count() AS n FROM dpme.margin_calls")
    assert count["n"] == sum(params["channel"] == "margin.calls" for params in client.told) > 0
    assert store.query("SELECT reason FROM dpme.quarantine") == [{"reason": "malformed"}]
    for row in queries.latest(store, 5)["margins"]:
        held = margins.get(row["account"])
        assert held is not None
        shared = row.keys() & held.keys()
        assert {name: row[name] for name in shared} == {name: held[name] for name in shared}


def test_the_venue_under_stress_is_stored_and_asked_for(store) -> None:
    pipeline = random_world(4, venue=VenueStress()).pipeline(2)
    sink = Sink(store, "run-1", flush_seconds=60)
    with pytest.raises(StoreEmpty, match="venue_stress"):
        queries.venue(store)
    for (topic, partition), values in pipeline.logs.items():
        for offset, raw in enumerate(values if topic in TABLES else []):
            sink.take(topic, partition, offset, raw)
    sink.flush()
    assert set(missing(store).values()) == set(doubled(store).values()) == {0}
    first, last = (orjson.loads(raw) for raw in pipeline.values(VENUE_STRESS))
    for record, block in ((last, None), (first, first["block"]), (first, last["block"] - 1), (last, last["block"])):
        found = queries.venue(store, block)
        assert {name: record[name] for name in found} == found
    console = Console(file=io.StringIO(), width=140)
    show_stress(console, queries.venue(store))
    assert "cover 2" in console.file.getvalue()  # type: ignore[attr-defined]
    assert store.query("SELECT count() AS n FROM dpme.venue_stress") == [{"n": 4}]
