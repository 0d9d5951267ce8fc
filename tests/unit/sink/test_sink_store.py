"""The sink and the queries over a real chDB store, and the same over a real ClickHouse engine."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading

import pyarrow as pa
import pytest
import samples
from typer.testing import CliRunner

from schemas import topics
from streams.cli import query
from streams.sink import queries
from streams.sink.errors import QueryRefused, SinkFault, StoreBusy, StoreEmpty, StoreError
from streams.sink.query_socket import QueryClient, QueryServer
from streams.sink.rows import ARROW_SCHEMAS
from streams.sink.sink import Sink, doubled, missing, standings
from streams.sink.store import ChdbStore

USD = 1_000_000


def filled(store) -> Sink:
    """Two partitions; p0 has blocks 1 to 3, p1 has blocks 1 and 2."""
    sink = Sink(store, "run-1", flush_seconds=60)
    for block in (1, 2, 3):
        nlv = [(90 + block) * USD, 200 * USD]
        sink.take(topics.MARGIN_BATCHES, 0, block - 1, samples.margin_batch(block, block, ["ann", "bob"], nlv))
        sink.take(topics.BLOCKS_DONE, 0, block - 1, samples.block_done(block, block, 2))
    for block in (1, 2):
        sink.take(topics.MARGIN_BATCHES, 1, block - 1, samples.margin_batch(block, block, ["o'neil"], [70 * USD], 1))
        sink.take(topics.BLOCKS_DONE, 1, block - 1, samples.block_done(block, block, 1, 1))
    sink.take(topics.MARGIN_CALLS, 0, 0, samples.call_record(1, 2, 1, ["ann", "bob"]))
    sink.take(topics.MARGIN_WARNINGS, 0, 0, samples.warning_record(1, 2, 1, "ann"))
    sink.take(topics.LIQUIDATIONS, 0, 0, samples.liquidation_record(1, 2, 1, "o'neil"))
    sink.take(topics.QUARANTINE, 0, 0, samples.quarantined(17))
    sink.flush()
    return sink


def test_the_columns_of_arrow_and_of_the_schema_agree(store) -> None:
    for table, schema in ARROW_SCHEMAS.items():
        columns = store.query(f"SELECT name FROM system.columns WHERE database = 'dpme' AND table = '{table}'")
        assert {row["name"] for row in columns} == set(schema.names)


def test_every_topic_reaches_its_table(store) -> None:
    filled(store)
    [call, uncured] = store.query("SELECT * FROM dpme.margin_calls ORDER BY seq")
    assert call["account"] == "ann"
    assert (call["from_state"], call["to_state"], call["cure_deposit_usd6"]) == ("healthy", "margin_call", 10_000_000)
    assert call["positions"].startswith('[{"instrument":"BTC-PERP","lots":-5')
    assert uncured["cure_deposit_usd6"] == 0
    [warning] = store.query("SELECT greeks, trigger, line FROM dpme.margin_warnings")
    assert warning["greeks"] == '[{"underlying":"BTC","delta_usd6":1,"gamma_usd6":2,"vega_usd6":3,"theta_usd6":-4}]'
    [flag] = store.query("SELECT shortfall_usd6, state FROM dpme.liquidations")
    assert flag == {"shortfall_usd6": 4, "state": "flagged"}
    [bad] = store.query("SELECT source_topic, source_partition, source_offset, bytes_base64 FROM dpme.quarantine")
    assert bad == {"source_topic": "account.fills", "source_partition": 2, "source_offset": 17, "bytes_base64": "AAE="}
    assert store.query("SELECT count() AS n FROM dpme.margins") == [{"n": 8}]
    assert set(missing(store).values()) == set(doubled(store).values()) == {0}


def test_a_second_sink_goes_on_where_the_store_stands(store) -> None:
    filled(store)
    sink = Sink(store, "run-1", flush_seconds=60)
    assert sink.positions([(topics.MARGIN_CALLS, 3)]) == {
        (topics.MARGIN_BATCHES, 0): 3,
        (topics.MARGIN_BATCHES, 1): 2,
        (topics.BLOCKS_DONE, 0): 3,
        (topics.BLOCKS_DONE, 1): 2,
        (topics.MARGIN_CALLS, 0): 1,
        (topics.MARGIN_WARNINGS, 0): 1,
        (topics.LIQUIDATIONS, 0): 1,
        (topics.QUARANTINE, 0): 1,
        (topics.MARGIN_CALLS, 3): 0,
    }
    again = samples.margin_batch(3, 3, ["ann", "bob"], [93 * USD, 200 * USD])
    sink.take(topics.MARGIN_BATCHES, 0, 2, again)  # below the position
    sink.take(topics.MARGIN_BATCHES, 0, 3, again)  # appended again by a restarted risk worker
    sink.take(topics.MARGIN_BATCHES, 0, 4, samples.margin_batch(4, 4, ["ann", "bob"], [0, 0]))
    sink.flush()
    counted = "SELECT block, count() AS n FROM dpme.margins WHERE log_partition = 0 GROUP BY block ORDER BY block"
    assert store.query(counted) == [{"block": block, "n": 2} for block in (1, 2, 3, 4)]
    assert standings(store)[topics.MARGIN_BATCHES, 0] == (5, 4)
    assert sink.stored()[topics.MARGIN_BATCHES, 0] == 5


def test_quarantine_is_known_by_the_origin_of_the_input(store) -> None:
    filled(store)
    sink = Sink(store, "run-1", flush_seconds=60)
    for offset, origin in enumerate([(17, 0), (18, 0), (18, 1), (18, 0)]):
        sink.take(topics.QUARANTINE, 0, offset + 1, samples.quarantined(*origin))
    sink.flush()
    rows = store.query("SELECT source_offset, source_index FROM dpme.quarantine ORDER BY source_offset, source_index")
    assert [tuple(row.values()) for row in rows] == [(17, 0), (18, 0), (18, 1)]


def test_a_hole_a_conflict_and_an_unreadable_record_stop_the_sink(store) -> None:
    sink = filled(store)
    with pytest.raises(SinkFault, match=r"jumps from sequence 3 to 5"):
        sink.take(topics.BLOCKS_DONE, 0, 3, samples.block_done(5, 5, 2))
    with pytest.raises(SinkFault, match=r"repeats sequence 3 with other bytes"):
        sink.take(topics.BLOCKS_DONE, 0, 3, samples.block_done(3, 3, 77))
    with pytest.raises(SinkFault, match=r"margin.calls/0 offset 1 cannot be read"):
        sink.take(topics.MARGIN_CALLS, 0, 1, b"\xff")
    with pytest.raises(SinkFault, match=r"version 2"):
        sink.take(topics.MARGIN_CALLS, 0, 1, samples.call_record(2, 3, 3, []).replace(b'"version":1', b'"version":2'))
    assert sink.flush() == 0


def test_a_record_becomes_one_part_whatever_its_size(store) -> None:
    sink = Sink(store, "run-1", flush_rows=1000, flush_seconds=60)
    count = 150_000
    raw = samples.margin_batch(1, 1, [f"account-{k}" for k in range(count)], [k * USD for k in range(count)])
    sink.take(topics.MARGIN_BATCHES, 0, 0, raw)  # beyond flush_rows: written at once
    parts = store.query("SELECT rows FROM system.parts WHERE database = 'dpme' AND table = 'margins' AND active")
    assert parts == [{"rows": count}]


def test_time_flushes_and_a_fault_there_is_reported(store) -> None:
    sink = Sink(store, "run-1", flush_seconds=0.01)
    faults: list[BaseException] = []
    reported = threading.Event()
    sink.start(lambda error: (faults.append(error), reported.set()))
    sink.take(topics.QUARANTINE, 0, 0, samples.quarantined(1))
    pause = threading.Event()
    assert any(sink.stored() or pause.wait(0.02) for _ in range(1000))
    store.execute("DROP TABLE dpme.quarantine")
    sink.take(topics.QUARANTINE, 0, 1, samples.quarantined(2))
    assert reported.wait(20)
    assert isinstance(faults[0], StoreError)


def test_a_store_belongs_to_one_run_and_one_layout(store) -> None:
    filled(store)
    with pytest.raises(StoreError, match="holds run 'run-1', this run is 'run-2'"):
        Sink(store, "run-2")


def test_latest_waits_for_every_partition_and_sorts_by_distance(store) -> None:
    filled(store)
    found = queries.latest(store, 2)
    assert (found["block"], found["accounts"], found["block_hash"]) == (2, 3, samples.HASH)
    assert found["states"] == {"liquidatable": 1, "margin_call": 1, "healthy": 1}
    assert [(row["account"], row["headroom_usd6"], row["state"]) for row in found["margins"]] == [
        ("o'neil", -30 * USD, "liquidatable"),
        ("ann", -8 * USD, "margin_call"),
    ]
    assert found["margins"][0]["binding"] == "stress"


def test_a_block_whose_margins_are_not_stored_yet_is_not_latest(store) -> None:
    sink = filled(store)
    sink.take(topics.BLOCKS_DONE, 1, 2, samples.block_done(3, 3, 1, 1))
    sink.flush()
    assert queries.latest(store)["block"] == 2
    sink.take(topics.MARGIN_BATCHES, 1, 2, samples.margin_batch(3, 3, ["o'neil"], [70 * USD], 1))
    sink.flush()
    assert queries.latest(store)["block"] == 3


def test_as_of_a_block_and_beyond(store) -> None:
    filled(store)
    assert [row["nlv_usd6"] for row in queries.asof(store, 1)["margins"]] == [70 * USD, 91 * USD, 200 * USD]
    with pytest.raises(QueryRefused, match="block 3 is not in the store: it has blocks 1 to 2"):
        queries.asof(store, 3)
    with pytest.raises(StoreEmpty, match="2 of 4 partitions"):
        queries.latest(store, partitions=4)


def test_a_skipped_block_shows_the_margins_before_it(store) -> None:
    sink = filled(store)
    sink.take(topics.BLOCKS_DONE, 0, 3, samples.block_done(4, 4, 2, evaluated=False))
    for seq, evaluated in ((3, False), (4, False)):
        sink.take(topics.BLOCKS_DONE, 1, seq - 1, samples.block_done(seq, seq, 1, 1, evaluated))
    sink.flush()
    found = queries.latest(store)
    assert found["block"] == 4
    assert {row["account"]: row["block"] for row in found["margins"]} == {"ann": 3, "bob": 3, "o'neil": 2}


def test_a_halted_partition_holds_the_newest_block_back(store) -> None:
    sink = filled(store)
    sink.take(topics.BLOCKS_DONE, 1, 2, samples.block_done(3, 3, 0, 1, evaluated=False, halted="count mismatch"))
    sink.flush()
    found = queries.latest(store)
    assert found["block"] == 2
    assert found["halted"] == [{"partition": 1, "block": 3, "reason": "count mismatch"}]


def test_account_tells_margins_and_events(store) -> None:
    filled(store)
    found = queries.account(store, "ann")
    assert [row["block"] for row in found["margins"]] == [3, 2, 1]
    assert [row["id"] for row in found["margin_calls"]] == ["call-1"]
    assert [row["id"] for row in found["margin_warnings"]] == ["w-1"]
    assert found["liquidations"] == []
    assert queries.account(store, "o'neil")["liquidations"][0]["id"] == "l-1"
    with pytest.raises(QueryRefused, match="no margin in the store"):
        queries.account(store, "x' OR 1=1 --\\\t")


def test_an_empty_store_says_what_to_do(store) -> None:
    for question in (queries.latest, lambda s: queries.asof(s, 1), lambda s: queries.account(s, "ann")):
        with pytest.raises(StoreEmpty, match="dpme demo"):
            question(store)


@pytest.mark.parametrize(
    "text",
    [
        "DROP TABLE dpme.margins",
        "SELECT 1; DROP TABLE dpme.margins",
        "SELECT 1) UNION ALL (SELECT 2",
        "WITH 1 AS x INSERT INTO dpme.identity SELECT 'e', x",
        "EXPLAIN SELECT 1; DROP TABLE dpme.margins",
        "SELECT nothing FROM dpme.margins",
        "SELECT 1 INTO OUTFILE 'x'",
    ],
)
def test_sql_reads_and_does_nothing_else(store, text: str) -> None:
    filled(store)
    with pytest.raises(QueryRefused):
        queries.sql(store, text)
    assert store.query("SELECT count() AS n FROM dpme.margins") == [{"n": 8}]
    assert store.query("SELECT count() AS n FROM dpme.identity") == [{"n": 1}]


def test_sql_and_stream_answer(store) -> None:
    filled(store)
    assert queries.sql(store, "SELECT max(block) AS top FROM dpme.margins;")["rows"] == [{"top": 3}]
    assert len(queries.sql(store, "SELECT block FROM dpme.margins", limit=3)["rows"]) == 3
    assert queries.sql(store, "EXISTS TABLE dpme.margins")["rows"] == [{"result": 1}]
    with pytest.raises(QueryRefused, match="limit 0"):
        queries.latest(store, 0)
    batches = list(store.stream("SELECT account FROM dpme.margins WHERE block = {block:Int64}", {"block": 1}))
    assert pa.Table.from_batches(batches).column("account").to_pylist() == ["ann", "bob", "o'neil"]


def test_the_socket_answers_like_the_store(store, tmp_path) -> None:
    deep = tmp_path.joinpath(*itertools.repeat("a-long-folder-name", 8))
    deep.mkdir(parents=True)
    sink = filled(store)
    (deep / "query.sock").touch()  # left behind by a kill
    server = QueryServer(deep, store, sink)
    try:
        with QueryClient(deep) as client:
            assert client.ask("latest", limit=1) == queries.latest(store, 1)
            assert client.ask("stored")["margin.batches/0"] == 3
            with pytest.raises(QueryRefused, match="unknown question"):
                client.ask("drop")
            with pytest.raises(QueryRefused, match="unexpected keyword"):
                client.ask("latest", nonsense=1)
            with pytest.raises(QueryRefused, match="blocks 1 to 2"):
                client.ask("asof", block=9)
    finally:
        server.close()


def test_the_command_asks_whoever_has_the_store_open(store, tmp_path) -> None:
    (tmp_path / "store").mkdir(exist_ok=True)
    server = QueryServer(tmp_path / "store", store, filled(store))
    try:
        ask = CliRunner()
        found = json.loads(ask.invoke(query.app, ["latest", "--json", "--data", str(tmp_path)]).stdout.splitlines()[-1])
        assert found == queries.latest(store)
        table = ask.invoke(query.app, ["asof", "1", "--data", str(tmp_path)]).stdout
        assert "Block 1: 3 accounts (1 healthy, 1 liquidatable, 1 margin call)" in table
        assert "-30.00" in table
        table = ask.invoke(query.app, ["account", "ann", "--data", str(tmp_path)]).stdout
        assert "Margin calls: 1" in table
        assert "Liquidations: none" in table
        refused = ask.invoke(query.app, ["asof", "9", "--data", str(tmp_path)])
        assert (refused.exit_code, "blocks 1 to 2" in refused.stderr) == (1, True)
    finally:
        server.close()


def test_the_command_opens_a_store_that_nobody_has_open(store_process, tmp_path) -> None:
    store_process.call("open", tmp_path / "store")
    filled(store_process)
    expected = queries.latest(store_process)
    store_process.call("close")
    command = [sys.executable, "-c", "from streams.cli.query import app; app()", "latest", "--json", "--data"]
    told = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(told.stdout.splitlines()[-1]) == expected


def test_a_store_is_open_once(chdb_store, tmp_path) -> None:
    with pytest.raises(StoreBusy, match=rf"open in process {chdb_store.process.pid}"):
        ChdbStore(tmp_path / "store")
    with pytest.raises(StoreBusy, match="no process answers"):
        QueryClient(tmp_path / "store", attach_only=True)


def test_a_full_disk_is_said_before_anything_is_written(store_process, tmp_path) -> None:
    store_process.call("open", tmp_path / "store", True, 1 << 62)
    try:
        with pytest.raises(StoreError, match=r"is full: \d+ MiB are free.*start again"):
            Sink(store_process, "run-1")
        assert store_process.query("SELECT count() AS n FROM dpme.identity") == [{"n": 0}]
    finally:
        store_process.call("close")


def test_a_store_that_lost_a_part_is_refused(store_process, tmp_path) -> None:
    store_process.call("open", tmp_path / "store")
    sink = Sink(store_process, "run-1", flush_seconds=60)
    for seq in (1, 2, 3):
        sink.take(topics.BLOCKS_DONE, 0, seq - 1, samples.block_done(seq, seq, 0))
        sink.flush()
    store_process.call("close")
    parts = [path for path in (tmp_path / "store").rglob("all_2_2_0/data.bin") if path.stat().st_size]
    assert len(parts) == 1
    parts[0].write_bytes(parts[0].read_bytes()[:20])
    store_process.call("open", tmp_path / "store")
    try:
        with pytest.raises(StoreError, match=r"lost records \(blocks_done: 1\).*remove the store"):
            Sink(store_process, "run-1")
    finally:
        store_process.call("close")


def test_folders_that_cannot_be_used(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreEmpty, match="run `dpme demo`"):
        QueryClient(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"cannot be written .*--data"):
        ChdbStore(tmp_path / "file" / "store")
