"""`dpme demo` on the development broker says what the pure engine says, whatever the number of workers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from schemas.margin_batch import decode_batch
from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, INSTRUMENTS, ORACLE_TICKS, PUBLIC_OUTPUTS
from streams.replay.seeding import encode_all
from streams.simulate.demo_world import demo_world
from streams.simulate.in_process import Pipeline

SEED, BLOCKS, ACCOUNTS, SCENARIOS, PARTITIONS = 7, 12, 60, 256, 4
FIELDS = (
    "blocks", "accounts", "fills", "warnings", "margin_calls", "liquidations", "state_digest", "output_digest",
    "barrier_to_last_call_ms_p50", "barrier_to_last_call_ms_p99", "block_ms_p50", "risk_worker_rss_mb",
)  # fmt: skip

pytestmark = pytest.mark.slow


def dpme(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streams.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def demo(data: Path, workers: int) -> dict:
    sizes = {"--blocks": BLOCKS, "--seed": SEED, "--accounts": ACCOUNTS, "--scenarios": SCENARIOS}
    options = [str(part) for pair in sizes.items() for part in pair]
    found = dpme("demo", *options, "--json", "--data", str(data), "--risk-workers", str(workers))
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("\n") == 1
    return json.loads(found.stdout)


def pure_outputs() -> Pipeline:
    world = demo_world(SEED, BLOCKS, ACCOUNTS, SCENARIOS)
    pipeline = Pipeline({world.scenario_set.digest: world.scenario_set}, PARTITIONS)
    pipeline.push(INSTRUMENTS, 0, encode_all(world.listings))
    for inputs in world.blocks:
        pipeline.push(ORACLE_TICKS, 0, encode_all(inputs.ticks))
        pipeline.push(ACCOUNT_FILLS, 0, encode_all(inputs.events))
        pipeline.push(CHAIN_BLOCKS, 0, encode_all([inputs.block]))
    return pipeline


def digest_of(pipeline: Pipeline) -> str:
    """As the issue defines it: output values by topic, partition and sequence."""
    whole = hashlib.blake2b(digest_size=16)
    for (topic, partition), log in sorted(pipeline.logs.items()):
        if topic in PUBLIC_OUTPUTS:
            part = hashlib.blake2b(b"".join(log), digest_size=16)
            whole.update(f"{topic}/{partition}:".encode() + part.digest())
    return whole.hexdigest()


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    data = tmp_path_factory.mktemp("demo")
    return demo(data, 1), data


def test_demo_says_what_the_pure_engine_says(one_worker: tuple[dict, Path]) -> None:
    figures, _ = one_worker
    assert [name for name in FIELDS if name not in figures] == []
    assert (figures["blocks"], figures["accounts"]) == (BLOCKS, ACCOUNTS)
    assert min(figures[name] for name in ("fills", "warnings", "margin_calls", "liquidations")) > 0
    assert figures["output_digest"] == digest_of(pure_outputs())


def test_three_workers_give_the_same_digests(one_worker: tuple[dict, Path], tmp_path: Path) -> None:
    figures, _ = one_worker
    again = demo(tmp_path, 3)
    for name in ("state_digest", "output_digest", "fills", "warnings", "margin_calls", "liquidations"):
        assert again[name] == figures[name]


def test_trace_and_query_find_the_run_that_has_ended(one_worker: tuple[dict, Path]) -> None:
    _, data = one_worker
    liquidated = orjson.loads(pure_outputs().values("liquidations")[0])["events"][0]
    found = dpme("trace", liquidated["account"], "--json", "--data", str(data))
    assert found.returncode == 0, found.stderr
    steps = json.loads(found.stdout.splitlines()[-1])["steps"]
    assert next(s["event"] for s in steps if s["step"] == "liquidation") == liquidated
    assert len([s for s in steps if s["step"] == "margin"]) == BLOCKS
    missing = dpme("trace", "nobody", "--data", str(data))
    assert missing.returncode == 1
    assert "no account 'nobody'; some that exist: " in missing.stderr
    asked = dpme("query", "latest", "--json", "--data", str(data))
    assert json.loads(asked.stdout)["block"] == BLOCKS - 1


def test_the_pipeline_says_of_the_fund_what_a_recomputation_says(one_worker: tuple[dict, Path]) -> None:
    """At the block of the first scenario set: partitions' parts added up, and every account valued at once."""
    _, data = one_worker
    said, recomputed = (
        json.loads(dpme("stress", *option, "--json", "--data", str(data)).stdout.splitlines()[-1])
        for option in (("--from-store",), ("--block", "0"))
    )
    assert said["block"] == 0
    assert {name: said[name] for name in recomputed} == recomputed


def test_margins_are_shown_explained_and_supposed_after_the_run(one_worker: tuple[dict, Path], tmp_path: Path) -> None:
    """From the newest checkpoint (last block), and from the log's beginning (an early block)."""
    _, data = one_worker
    told: dict[int, dict] = {}
    for raw in pure_outputs().values("margin.batches"):
        head, table = decode_batch(raw)
        told.setdefault(head.block, {}).update({row["account"]: row for row in table.to_pylist()})
    account = next(iter(told[BLOCKS - 1]))
    shown = dpme("margin", "show", account, "--json", "--data", str(data))
    assert shown.returncode == 0, shown.stderr
    view = json.loads(shown.stdout.splitlines()[-1])
    assert view["block"] == BLOCKS - 1
    for name in ("nlv_usd6", "initial_margin_usd6", "maintenance_margin_usd6"):
        assert view["margin"][name] == told[BLOCKS - 1][account][name]
    explained = dpme("margin", "explain", account, "--block", "5", "--json", "--data", str(data))
    rows = json.loads(explained.stdout.splitlines()[-1])["contributions"]
    assert sum(row["maintenance_usd6"] for row in rows) == told[5][account]["maintenance_margin_usd6"]
    portfolio = tmp_path / "portfolio.json"
    portfolio.write_text('{"cash_usd": "100000", "positions": [{"instrument": "BTC-PERP", "lots": 5}]}')
    supposed = dpme(
        "margin", "what-if", "--portfolio", str(portfolio), "-t", "BTC-PERP:-5", "--json", "--data", str(data)
    )
    view = json.loads(supposed.stdout.splitlines()[-1])
    assert view["before"]["margin"]["maintenance_margin_usd6"] > 0
    assert view["after"]["margin"]["maintenance_margin_usd6"] == 0
    missing = dpme("margin", "explain", "nobody", "--data", str(data))
    assert missing.returncode == 1
    assert "no account 'nobody'; some that exist: " in missing.stderr
