"""kill -9 of a process that writes a store, and of the store's server, again and again: it ends with every row once.

Run as a script this module is that process: python test_sink_kill.py write|inspect STORE
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas import decisions, topics
from schemas.codec import encode
from schemas.margin_batch import MONEY_COLUMNS, BatchHead, encode_batch
from tests.clickhouse_engine import Engine

BLOCKS, ACCOUNTS, PARTITIONS, KILLS, SERVER_KILLS = 100, 50, 2, 4, 3
NAMES = [[f"account-{partition}-{number}" for number in range(ACCOUNTS)] for partition in range(PARTITIONS)]


def records() -> dict[tuple[str, int], list[bytes]]:
    """The logs: every seventh record of a log is appended twice, as after a restart of its writer."""
    logs: dict[tuple[str, int], list[bytes]] = {}
    for partition in range(PARTITIONS):
        for block in range(1, BLOCKS + 1):
            made = {
                topics.MARGIN_BATCHES: batch(partition, block),
                topics.MARGIN_CALLS: call(partition, block),
                topics.BLOCKS_DONE: done(partition, block),
                topics.QUARANTINE: bad(partition, block),
            }
            for topic, raw in made.items():
                logs.setdefault((topic, partition), []).extend([raw] * (2 if block % 7 == 0 else 1))
    return logs


def batch(partition: int, block: int) -> bytes:
    columns = {name: np.full(ACCOUNTS, block, np.int64) for name in (*MONEY_COLUMNS, "keyframe_block")}
    columns |= {name: np.zeros(ACCOUNTS, np.int8) for name in ("binding", "stress_row", "state")}
    columns["wide"] = np.zeros(ACCOUNTS, bool)
    return encode_batch(BatchHead(partition, block, block, "0x00", block), NAMES[partition], columns)


def call(partition: int, block: int) -> bytes:
    margin = decisions.Margin(1, 2, 3, 4, 5, 6, 7, 8, "stress", "row")
    account = NAMES[partition][0]
    event = decisions.Call(block, f"{partition}-{block}", account, block, block, "healthy", "margin_call", margin)
    return encode(decisions.CallRecord(1, partition, block, block, (event,)))


def done(partition: int, block: int) -> bytes:
    counts = dict.fromkeys(("events", "first", "wide", "warnings", "calls", "parameter_version"), 0)
    digests = dict.fromkeys(("state_digest", "table_digest", "scenario_digest"), "")
    head = {"version": 1, "partition": partition, "seq": block, "block": block, "block_hash": "0x00", "time_ms": block}
    return encode(decisions.BlockDone(**head, accounts=ACCOUNTS, evaluated=True, states={}, **counts, **digests))


def bad(partition: int, block: int) -> bytes:
    return encode(decisions.Quarantined(1, "malformed", "", "", "account.fills", partition, block, 0, ""))


def opened(target: str) -> Any:
    from streams.sink.clickhouse_store import ClickHouseStore
    from streams.sink.store import ChdbStore, is_server

    return ClickHouseStore(target, writer=True) if is_server(target) else ChdbStore(target)


def write(target: str) -> None:
    """The sink's life: open, ask where the store stands, write on, say how far every flush came."""
    from streams.sink.sink import Sink

    sink = Sink(opened(target), "kill", flush_rows=500, flush_seconds=60)
    logs = records()
    positions = sink.positions(logs)
    print("open", min(positions.values()), flush=True)
    for offset in range(max(map(len, logs.values()))):
        for (topic, partition), log in logs.items():
            if positions[topic, partition] <= offset < len(log):
                sink.take(topic, partition, offset, log[offset])
    sink.flush()
    print("end", flush=True)


def inspect(target: str) -> None:
    from streams.sink.sink import Sink, doubled, missing

    store = opened(target)
    count = {}
    for table in ("margins", "margin_calls", "blocks_done", "quarantine"):
        count[table] = store.query(f"SELECT count() AS n FROM {store.database}.{table}")[0]["n"]
    digests = store.query(
        f"SELECT sum(cityHash64(account, block, nlv_usd6, log_partition)) AS d FROM {store.database}.margins"
    )
    positions = {f"{t}/{p}": at for (t, p), at in Sink(store, "kill").positions().items()}
    wrong = {"missing": missing(store), "doubled": doubled(store)}
    print(json.dumps({"count": count, "digests": digests, "positions": positions, **wrong}), flush=True)


def start(action: str, target: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, __file__, action, target], stdout=subprocess.PIPE, text=True, env=environment
    )


def run(action: str, target: str) -> dict:
    process = start(action, target)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1]) if action != "write" else {"said": output.split()}


def killed_life(target: str, chance: random.Random, kill: Callable[[], None] | None = None) -> int:
    """One life: killed, or its server, at a moment drawn by chance after it has begun. Returns where it began."""
    process = start("write", target)
    assert process.stdout is not None
    said = process.stdout.readline().split()
    if not said:  # its server was gone
        process.wait(60)
        return -1
    began = int(said[1])
    try:
        process.wait(chance.uniform(0.02, 0.5))  # not a synchronisation: the moment of the kill is what is drawn
    except subprocess.TimeoutExpired:
        kill() if kill else os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    process.stdout.close()
    return began


def test_kill_9_again_and_again_leaves_every_row_once(tmp_path: Path) -> None:
    chance = random.Random(3)
    begun = [killed_life(str(tmp_path / "killed"), chance) for _ in range(KILLS)]
    require_every_row_once(begun, str(tmp_path / "killed"), str(tmp_path / "calm"))


@pytest.mark.clickhouse
@pytest.mark.parametrize("victim", ["sink", "server"])
def test_kill_9_of_sink_or_server_leaves_every_row_once(victim: str, tmp_path: Path) -> None:
    """The engine for tests may abort by itself when its client dies; it is started again, as a supervisor would."""
    engine, chance = Engine(tmp_path), random.Random(5)
    begun: list[int] = []
    for _ in range(10 * SERVER_KILLS):
        engine.revive()
        begun.append(killed_life(engine.url("killed"), chance, engine.kill if victim == "server" else None))
        if sum(place >= 0 for place in begun) == SERVER_KILLS:
            break
    engine.revive()
    require_every_row_once([place for place in begun if place >= 0], engine.url("killed"), engine.url("calm"))
    engine.stop()


def require_every_row_once(begun: list[int], killed_target: str, calm_target: str) -> None:
    assert begun == sorted(begun)
    assert begun[-1] > 0, "no life wrote anything before its kill: the test has shown nothing"
    run("write", killed_target)
    run("write", calm_target)
    killed, calm = run("inspect", killed_target), run("inspect", calm_target)
    assert killed["count"] == {
        "margins": BLOCKS * ACCOUNTS * PARTITIONS,
        **dict.fromkeys(("margin_calls", "blocks_done", "quarantine"), BLOCKS * PARTITIONS),
    }
    assert set(killed["missing"].values()) == set(killed["doubled"].values()) == {0}
    assert killed == calm


if __name__ == "__main__":
    {"write": write, "inspect": inspect}[sys.argv[1]](sys.argv[2])
