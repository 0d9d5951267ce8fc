"""The whole pure pipeline over seeded worlds: what must hold at the end of any of them."""

from __future__ import annotations

from collections import defaultdict

import msgspec
import orjson
import pytest
from engine_worlds import random_world

from schemas import decisions
from schemas import log_records as records
from schemas.margin_batch import STATES, decode_batch
from schemas.topics import (
    ACCOUNT_LOG,
    BLOCKS_DONE,
    LIQUIDATIONS,
    MARGIN_BATCHES,
    MARGIN_CALLS,
    MARGIN_WARNINGS,
    QUARANTINE,
)
from streams.simulate.in_process import Pipeline
from streams.simulate.warm_up import warm

SEEDS = range(8)
RECORD_TYPES = {
    MARGIN_WARNINGS: decisions.WarningRecord,
    MARGIN_CALLS: decisions.CallRecord,
    LIQUIDATIONS: decisions.LiquidationRecord,
    BLOCKS_DONE: decisions.BlockDone,
    QUARANTINE: decisions.Quarantined,
}


@pytest.fixture(scope="module", params=SEEDS)
def run(request: pytest.FixtureRequest) -> Pipeline:
    return random_world(request.param, whales=True).pipeline(3)


def test_every_output_is_a_message_of_its_schema(run: Pipeline) -> None:
    for topic, kind in RECORD_TYPES.items():
        for value in run.values(topic):
            assert orjson.dumps(msgspec.to_builtins(msgspec.json.decode(value, type=kind))) == value


def test_sequences_are_dense_and_ids_unique(run: Pipeline) -> None:
    for (topic, _), log in run.logs.items():
        if topic not in RECORD_TYPES or topic == QUARANTINE:
            continue
        found = [orjson.loads(value) for value in log]
        assert [record["seq"] for record in found] == list(range(1, len(found) + 1))
        events = [e for record in found for e in record["events"]] if topic != BLOCKS_DONE else []
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
        assert len({e["id"] for e in events}) == len(events)


def test_calls_are_the_changes_of_state_and_nothing_else(run: Pipeline) -> None:
    """Following the calls of an account gives its state in every batch; every event follows the one before."""
    state: dict[str, str] = defaultdict(lambda: "healthy")
    calls: dict[int, list[dict]] = defaultdict(list)
    for value in run.values(MARGIN_CALLS):
        for call in orjson.loads(value)["events"]:
            calls[call["block"]].append(call)
    batches: dict[int, dict[str, int]] = defaultdict(dict)
    for value in run.values(MARGIN_BATCHES):
        head, table = decode_batch(value)
        batches[head.block].update({row["account"]: row["state"] for row in table.to_pylist()})
    assert sum(map(len, calls.values())) > 0
    for block in sorted(batches):
        for call in calls[block]:
            assert call["from"] == state[call["account"]] != call["to"]
            state[call["account"]] = call["to"]
        assert {a: STATES[code] for a, code in batches[block].items()} == {a: state[a] for a in batches[block]}


def test_liquidations_are_the_flags(run: Pipeline) -> None:
    flags = [
        (c["block"], c["account"])
        for value in run.values(MARGIN_CALLS)
        for c in orjson.loads(value)["events"]
        if c["to"] in ("liquidatable", "insolvent")
    ]
    found = [(e["block"], e["account"]) for v in run.values(LIQUIDATIONS) for e in orjson.loads(v)["events"]]
    assert sorted(found) == sorted(flags)


def test_every_partition_does_every_block_with_the_same_tables(run: Pipeline) -> None:
    done = [orjson.loads(value) for value in run.values(BLOCKS_DONE)]
    blocks: dict[int, list[dict]] = defaultdict(list)
    for d in done:
        assert d["halted"] == ""
        blocks[d["block"]].append(d)
    assert sorted(blocks) == list(range(6))
    for same in blocks.values():
        assert len(same) == 3
        assert len({(d["table_digest"], d["block_hash"], d["scenario_digest"]) for d in same}) == 1


def test_barriers_count_what_is_in_the_log(run: Pipeline) -> None:
    for partition in range(3):
        came = 0
        for raw in run.logs[ACCOUNT_LOG, partition]:
            header = records.read_header(raw)
            if header.kind == records.EVENTS:
                came += header.entries
            elif header.kind == records.BARRIER:
                assert records.read_barrier(raw, header).counts[partition] == came
                came = 0


def test_equal_inputs_give_equal_bytes(run: Pipeline, request: pytest.FixtureRequest) -> None:
    twin = random_world(request.node.callspec.params["run"], whales=True).pipeline(3)
    assert twin.logs == run.logs


def test_warm_up_runs_every_stage() -> None:
    warm()
