"""`dpme watch` and `dpme query` at the command line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_samples import block_done, calls
from typer.testing import CliRunner

from schemas import topics
from streams.cli import query
from streams.cli import watch as watching
from streams.gateway.hub import Hub
from streams.gateway.margins import MarginReplica
from streams.gateway.server import Gateway
from streams.sink.current_run import CurrentRun, read_current_run, write_current_run

RUN_WATCH = [sys.executable, "-c", "from streams.cli.watch import app; app()"]


class Served:
    """A gateway on a loop of its own thread."""

    def __init__(self) -> None:
        self.hub = Hub("run-1")
        self.gateway = Gateway(self.hub, MarginReplica(), port=0)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.gateway.start(), self.loop).result(10)

    def publish(self, topic: str, raw: bytes) -> None:
        self.loop.call_soon_threadsafe(self.hub.publish, topic, 0, raw)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.gateway.stop(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served()
    yield found
    found.stop()


def run_watch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN_WATCH, *arguments], capture_output=True, text=True, timeout=60)


def test_json_lines_and_count(served: Served, tmp_path: Path) -> None:
    served.publish(topics.MARGIN_CALLS, calls(1, 1, 5))
    write_current_run(tmp_path, CurrentRun(bootstrap="", prefix="", gateway=served.gateway.url))
    found = run_watch("margin.calls", "--data", str(tmp_path), "--replay", "--count", "3", "--json")
    assert found.returncode == 0, found.stderr
    events = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(event["seq"], event["prev_seq"], event["data"]["account"]) for event in events] == [
        (1, 0, "account-1"),
        (2, 1, "account-2"),
        (3, 2, "account-3"),
    ]


def test_lines_for_people(served: Served) -> None:
    served.publish(topics.MARGIN_CALLS, calls(1, 1))
    served.publish(topics.BLOCKS_DONE, block_done(1))
    told = run_watch("margin.calls", "--url", served.gateway.url, "--replay", "--count", "1").stdout
    assert re.search(r"0/1 +block 7 +account-1 healthy -> margin_call  NLV 0.00, IM 0.00, MM 0.00", told)
    told = run_watch("risk.blocks", "--url", served.gateway.url, "--replay", "--count", "1").stdout
    assert "0 accounts (), 0 warnings, 0 calls" in told


def test_ctrl_c_ends_it_without_a_traceback(served: Served) -> None:
    served.publish(topics.MARGIN_CALLS, calls(1, 1))
    process = subprocess.Popen(
        [*RUN_WATCH, "margin.calls", "--url", served.gateway.url, "--replay", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["seq"] == 1
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "", "")


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    found = CliRunner().invoke(watching.app, ["margin.call"])
    assert (found.exit_code, "take one of margin.warnings, margin.calls" in found.stderr) == (1, True)
    write_current_run(tmp_path, CurrentRun(bootstrap="", prefix="", gateway="ws://127.0.0.1:1"))
    found = CliRunner().invoke(watching.app, ["margin.calls", "--data", str(tmp_path)])
    assert (found.exit_code, "start `dpme demo`" in found.stderr) == (1, True)


@pytest.mark.parametrize("arguments", [["latest"], ["asof", "3"], ["account", "ann"], ["sql", "SELECT 1"]])
def test_a_query_without_a_store_says_what_to_do(tmp_path: Path, arguments: list[str]) -> None:
    found = CliRunner().invoke(query.app, [*arguments, "--data", str(tmp_path)])
    assert (found.exit_code, found.stdout) == (1, "")
    assert "there is no store in" in found.stderr
    assert "run `dpme demo`" in found.stderr


@pytest.mark.parametrize(
    ("amount_usd6", "text"),
    [(0, "0.00"), (1, "0.00"), (-4_999, "0.00"), (5_000, "0.01"), (-1_234_567_890_000, "-1,234,567.89")],
)
def test_usd(amount_usd6: int, text: str) -> None:
    assert query.usd(amount_usd6) == text


def test_the_description_of_a_run(tmp_path: Path) -> None:
    assert read_current_run(tmp_path) is None
    run = CurrentRun(bootstrap="b:1", prefix="p.", store="s", gateway="ws://x", partitions=4, kind="dev")
    write_current_run(tmp_path / "new", run)
    assert read_current_run(tmp_path / "new") == run
    (tmp_path / "current.json").write_text("{")
    assert read_current_run(tmp_path) is None
