"""What is of the ClickHouse store alone: its address, its fence, and what it says when the server is not there."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pytest
import samples
from typer.testing import CliRunner

from schemas import topics
from streams.cli import query
from streams.runtime.kafka_process import free_port
from streams.runtime.security import Secret
from streams.sink import clickhouse_store as clickhouse_module
from streams.sink import queries
from streams.sink.clickhouse_store import Address, ClickHouseStore, parse_address
from streams.sink.errors import QueryRefused, StoreBusy, StoreEmpty, StoreError
from streams.sink.sink import Sink, doubled, missing, standings

DONE = topics.BLOCKS_DONE


def test_an_address_is_a_url_without_a_password() -> None:
    assert parse_address("clickhouse://h") == Address("h", 9000, "default", "dpme", False)
    assert parse_address("clickhouses://u@h:1/d_2") == Address("h", 1, "u", "d_2", True)
    for url in ("http://h", "clickhouse://", "clickhouse://h/a-b", "clickhouse://h/d?x=1", "clickhouse://h:99999/d"):
        with pytest.raises(StoreError, match=r"not clickhouse://user@host:port/database"):
            parse_address(url)
    with pytest.raises(StoreError, match="DPME_STORE_PASSWORD") as raised:
        parse_address("clickhouse://u:geheim@h/d")
    assert "geheim" not in str(raised.value)


def test_a_server_that_is_not_there_is_said() -> None:
    port = free_port()
    with pytest.raises(StoreError, match=rf"no ClickHouse answers at 127.0.0.1:{port}: is it running"):
        ClickHouseStore(f"clickhouse://127.0.0.1:{port}/dpme", Secret("geheim"))


@pytest.mark.clickhouse
def test_a_database_of_another_name_and_of_none(engine) -> None:
    with pytest.raises(StoreEmpty, match="no database elsewhere"):
        ClickHouseStore(engine.url("elsewhere"))
    writer = ClickHouseStore(engine.url("elsewhere"), writer=True)
    sink = Sink(writer, "run-1", flush_seconds=60)
    sink.take(topics.MARGIN_BATCHES, 0, 0, samples.margin_batch(1, 1, ["ann"], [7]))
    sink.take(DONE, 0, 0, samples.block_done(1, 1, 1))
    sink.flush()
    reader = ClickHouseStore(engine.url("elsewhere"))
    assert queries.latest(reader)["accounts"] == 1
    with pytest.raises(StoreError, match="reading only"):
        reader.insert("identity", pa.table({"epoch": ["x"]}))
    with pytest.raises(QueryRefused):
        reader.query("DROP TABLE elsewhere.margins")
    told = CliRunner().invoke(query.app, ["latest", "--json", "--data", engine.url("elsewhere")])
    assert json.loads(told.stdout.splitlines()[-1]) == queries.latest(reader)
    writer.execute("DROP DATABASE elsewhere SYNC")


@pytest.mark.clickhouse
def test_an_insert_under_way_is_over_before_the_next_writer_asks(engine, clickhouse_store, monkeypatch) -> None:
    """A frozen sink's INSERT has begun on the server and waits for its rows when the next sink opens the store."""
    monkeypatch.setitem(clickhouse_module.ONE_BLOCK, "receive_timeout", 1)
    sink = Sink(clickhouse_store, "run-1", flush_seconds=60)
    sink.take(DONE, 0, 0, samples.block_done(1, 1, 2))
    sink.flush()
    sink.take(DONE, 0, 1, samples.block_done(2, 2, 2))
    client = clickhouse_store._client
    sent, whole = [], client.send_data

    def interrupted(*arguments, **options):
        """Everything is prepared, nothing sent: another sink claims the store first."""
        other = ClickHouseStore(engine.url("dpme"), writer=True)
        sent.append((other, standings(other)[DONE, 0]))
        return whole(*arguments, **options)

    client.send_data = interrupted
    with pytest.raises(StoreError):
        sink.flush()
    [(other, standing)] = sent
    assert standing == (1, 1)
    second = Sink(other, "run-1", flush_seconds=60)
    second.take(DONE, 0, 1, samples.block_done(2, 2, 2))
    second.flush()
    assert other.query("SELECT count() AS n FROM dpme.blocks_done") == [{"n": 2}]
    assert set(missing(other).values()) == set(doubled(other).values()) == {0}


@pytest.mark.clickhouse
def test_a_sink_that_was_frozen_writes_nothing_after_another_has_claimed_the_store(engine, clickhouse_store) -> None:
    frozen = Sink(clickhouse_store, "run-1", flush_seconds=60)
    other = ClickHouseStore(engine.url("dpme"), writer=True)
    frozen.take(DONE, 0, 0, samples.block_done(1, 1, 2))
    with pytest.raises(StoreBusy, match="another sink has claimed"):
        frozen.flush()
    assert other.query("SELECT count() AS n FROM dpme.blocks_done") == [{"n": 0}]


@pytest.mark.clickhouse
def test_answers_are_those_of_json(clickhouse_store) -> None:
    [row] = clickhouse_store.query(
        "SELECT 1.5 AS f, 0 / 0 AS nan, [1, 2] AS list, toDate('2026-01-31') AS day, true AS yes, NULL AS none, "
        "toDecimal64(1.25, 2) AS d, map('a', 1) AS m"
    )
    expected = {"f": 1.5, "nan": None, "list": [1, 2], "day": "2026-01-31", "yes": True, "none": None, "d": 1.25}
    assert row == expected | {"m": {"a": 1}}
    [batch] = clickhouse_store.stream("SELECT number AS n, toString(number) AS s, number % 2 = 0 AS e FROM numbers(3)")
    assert batch.to_pydict() == {"n": [0, 1, 2], "s": ["0", "1", "2"], "e": [1, 0, 1]}
    assert list(clickhouse_store.stream("SELECT 1 AS n WHERE 0")) == []
    assert re.fullmatch(r"[0-9.]+", clickhouse_store.query("SELECT version() AS v")[0]["v"])
