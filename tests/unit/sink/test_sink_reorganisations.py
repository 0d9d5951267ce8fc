"""The store of a chain that reorganised shows the chain as it is: dead branches stay in the tables, marked."""

from __future__ import annotations

import orjson
from branching_worlds import branching_world
from test_sink_engine_outputs import Client

from schemas.topics import BLOCKS_DONE, MARGIN_CALLS
from streams.cli.watch import line
from streams.gateway.hub import CHANNELS, TOPICS, Hub
from streams.sink import queries
from streams.sink.rows import TABLES
from streams.sink.sink import Sink, doubled, missing


def calls_left(run, account: str) -> list[str]:
    found = [e for value in run.values(MARGIN_CALLS) for e in orjson.loads(value)["events"]]
    gone = {e.get("retracts") for e in found} | {e["id"] for e in found if e["type"] == "retraction"}
    return sorted(e["id"] for e in found if e["account"] == account and e["id"] not in gone)


def test_queries_show_the_chain_as_it_is_and_everything_is_stored(store) -> None:
    inputs, tree = branching_world(3)
    run, straight = inputs.pipeline(2), tree.straight().pipeline(2)
    sink, hub, client = Sink(store, "run-1", flush_seconds=60), Hub("run-1"), Client()
    hub.subscribe(client, CHANNELS)
    for (topic, partition), values in run.logs.items():
        for offset, raw in enumerate(values):
            if topic in TABLES:
                sink.take(topic, partition, offset, raw)
            if topic in TOPICS:
                hub.publish(topic, partition, raw)
    sink.flush()
    assert set(missing(store).values()) == set(doubled(store).values()) == {0}
    marks = [params for params in client.told if "rollback_from" in params["data"]]
    retractions = [params for params in client.told if params["data"]["type"] == "retraction"]
    assert all("ROLLED BACK" in line(params).plain for params in marks)
    assert all("retracted" in line(params).plain for params in retractions)
    assert marks
    assert retractions
    states: dict[str, int] = {}
    for value in straight.values(BLOCKS_DONE):
        done = orjson.loads(value)
        if done["block"] == 7:
            states = {s: n + states.get(s, 0) for s, n in done["states"].items()}
    shown = queries.asof(store, 7)
    assert shown["states"] == {state: count for state, count in states.items() if count}
    for name in straight.risks[0].book.accounts:
        found = queries.account(store, name, 100)
        assert [row["block"] for row in found["margins"]] == sorted({r["block"] for r in found["margins"]})[::-1]
        assert sorted(call["id"] for call in found["margin_calls"]) == calls_left(run, name)
