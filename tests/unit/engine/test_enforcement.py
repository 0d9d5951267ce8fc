"""Enforcement: one output whatever order partitions arrive in, halted partitions, checkpoints, faults."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from schemas.topics import BLOCKS_DONE, LIQUIDATIONS, MARGIN_CALLS
from streams.engine.enforcement import Enforcement
from streams.engine.output import Fault

Log = dict[tuple[str, int], list[bytes]]
PARTITIONS = 3


def call(block: int, account: str, to: str, shortfall: int) -> dict[str, Any]:
    margin = {"nlv_usd6": 5, "initial_margin_usd6": 5 + shortfall}
    return {"account": account, "block": block, "to": to, "margin": margin, "positions": [], "cash_usd6": 1}


class Logs:
    """margin.calls and blocks.done of every partition, as the risk machines write them."""

    def __init__(self) -> None:
        self.logs: Log = {(t, p): [] for t in (MARGIN_CALLS, BLOCKS_DONE) for p in range(PARTITIONS)}
        self.epoch: dict[int, int] = {}
        self.depth = 0

    def _add(self, topic: str, partition: int, **fields: Any) -> None:
        log = self.logs[topic, partition]
        log.append(orjson.dumps({"seq": len(log) + 1, "partition": partition, **fields}))

    def block(self, number: int, partition: int, calls: list[dict], halted: str = "") -> None:
        of_epoch = {"epoch": self.epoch[partition]} if partition in self.epoch else {}
        for n in range(0, len(calls), 2):  # at most two events a record: a block may have several
            events = [call | of_epoch for call in calls[n : n + 2]]
            self._add(MARGIN_CALLS, partition, block=number, events=events, **of_epoch)
        done = {"calls": len(calls), "halted": halted, "time_ms": number * 1_000, **of_epoch}
        self._add(BLOCKS_DONE, partition, block=number, **done, liquidation_depth_blocks=self.depth)

    def rollback(self, to_block: int, partition: int, retracted: list[str]) -> None:
        """Back to a block; `retracted` are ids of calls."""
        self.epoch[partition] = epoch = self.epoch.get(partition, 0) + 1
        if retracted:
            events = [{"type": "retraction", "account": "?", "retracts": name} for name in retracted]
            self._add(MARGIN_CALLS, partition, block=to_block, events=events, epoch=epoch)
        mark = {"calls": len(retracted), "halted": "", "time_ms": 0, "rollback_from": to_block + 1}
        self._add(BLOCKS_DONE, partition, block=to_block, epoch=epoch, **mark)

    def run(self, rng: random.Random, restarts: bool = False) -> list[dict]:
        """Liquidation records, the logs read in a random order (order kept within each)."""
        machine, out = Enforcement(PARTITIONS, checkpoint_every=1), []
        left = {log: list(enumerate(values)) for log, values in self.logs.items() if values}
        while left:
            log = rng.choice(sorted(left))
            offset, value = left[log].pop(0)
            out += [o for step in machine.steps(*log, offset, value) for o in step]
            if not left[log]:
                del left[log]
            if restarts:
                dumped = machine.dump()
                machine = Enforcement.load(dumped)
                assert machine.dump() == dumped
        assert {o.topic for o in out} <= {LIQUIDATIONS}
        return [orjson.loads(o.value or b"") for o in out]


def sample() -> Logs:
    logs = Logs()
    logs.block(7, 0, [call(7, "a", "liquidatable", 10), call(7, "b", "margin_call", 99), call(7, "c", "insolvent", 1)])
    logs.block(7, 1, [call(7, "d", "liquidatable", 30), call(7, "e", "liquidatable", 30)])
    logs.block(7, 2, [])
    for partition in range(PARTITIONS):
        logs.block(8, partition, [call(8, "a", "healthy", -4)] if partition == 0 else [])
    logs.block(9, 0, [call(9, "a", "insolvent", 40)])
    logs.block(9, 1, [])
    logs.block(9, 2, [call(9, "z", "liquidatable", 41)])
    return logs


def told(records: list[dict]) -> list[tuple[int, str, int, int]]:
    return [(r["block"], e["account"], e["shortfall_usd6"], e["seq"]) for r in records for e in r["events"]]


@pytest.mark.parametrize("seed", range(25))
def test_output_is_independent_of_arrival_and_of_restarts(seed: int) -> None:
    """By severity, then shortfall, then account; calls and releases are no liquidations; sequences are dense."""
    records = sample().run(random.Random(seed), restarts=seed % 2 == 0)
    assert told(records) == [
        (7, "c", 1, 1), (7, "d", 30, 2), (7, "e", 30, 3), (7, "a", 10, 4), (9, "a", 40, 5), (9, "z", 41, 6),
    ]  # fmt: skip
    assert [r["seq"] for r in records] == [1, 2]
    assert records[0]["events"][0]["time_ms"] == 7_000


@pytest.mark.parametrize("seed", range(25))
def test_halted_partition_holds_nobody_back(seed: int) -> None:
    """What it said before it halted, in the block in which it halted, counts in every order of arrival."""
    logs = Logs()
    logs.block(1, 0, [])
    logs.block(1, 1, [])
    logs.block(1, 2, [call(1, "x", "liquidatable", 5)])
    logs.block(2, 2, [call(2, "y", "liquidatable", 6)], halted="broken")
    for number in (2, 3):
        logs.block(number, 0, [call(number, "a", "liquidatable", 1)])
        logs.block(number, 1, [])
    records = logs.run(random.Random(seed), restarts=seed % 2 == 0)
    assert told(records) == [(1, "x", 5, 1), (2, "y", 6, 2), (2, "a", 1, 3), (3, "a", 1, 4)]


def test_waits_for_the_slowest_partition_and_for_announced_calls() -> None:
    logs, machine = sample(), Enforcement(PARTITIONS)
    held = logs.logs.pop((MARGIN_CALLS, 1))
    found = []
    for log, values in logs.logs.items():
        for offset, value in enumerate(values):
            found += [o for step in machine.steps(*log, offset, value) for o in step]
    assert found == []
    found = [o for step in machine.steps(MARGIN_CALLS, 1, 0, held[0]) for o in step]
    assert [orjson.loads(o.value or b"")["block"] for o in found] == [7, 9]


def test_repeats_are_dropped_and_a_lost_record_is_a_fault() -> None:
    logs, machine = sample(), Enforcement(PARTITIONS)
    records = logs.logs[BLOCKS_DONE, 0]
    for offset, value in enumerate([records[0], records[0], records[1]]):
        assert [o for step in machine.steps(BLOCKS_DONE, 0, offset, value) for o in step] == []
    assert machine.positions()[BLOCKS_DONE, 0] == 3
    other = Enforcement(PARTITIONS)
    list(other.steps(BLOCKS_DONE, 0, 0, records[0]))
    with pytest.raises(Fault, match="jumps from record 1 to 3"):
        list(other.steps(BLOCKS_DONE, 0, 1, records[2]))


def reorganised(depth: int) -> Logs:
    """Block 2 flags x, is retracted, and comes again with another flag; y of block 1 stands."""
    logs = Logs()
    logs.depth = depth
    for partition in range(PARTITIONS):
        is_first = partition == 0
        logs.block(1, partition, [call(1, "y", "liquidatable", 3)] if is_first else [])
        logs.block(2, partition, [call(2, "x", "insolvent", 9)] if is_first else [])
        logs.rollback(1, partition, ["2/x/insolvent"] if is_first else [])
        logs.block(2, partition, [call(2, "z", "liquidatable", 4)] if is_first else [])
        logs.block(3, partition, [])
    return logs


def plain(records: list[dict]) -> list[tuple]:
    return [
        (e["type"], e["block"], e.get("retracts", e["id"]), e.get("confirmations", 0), e.get("epoch", 0))
        for r in records
        for e in r["events"]
    ]


@pytest.mark.parametrize("seed", range(15))
def test_liquidations_at_head_are_retracted_by_id(seed: int) -> None:
    records = reorganised(0).run(random.Random(seed), restarts=seed % 2 == 0)
    assert plain(records) == [
        ("liquidation", 1, "1/y/flagged", 0, 0),
        ("liquidation", 2, "2/x/flagged", 0, 0),
        ("retraction", 2, "2/x/flagged", 0, 1),
        ("liquidation", 2, "2/z/flagged/1", 0, 1),
    ]
    assert [e["seq"] for r in records for e in r["events"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(15))
def test_flags_wait_for_confirmations_and_retracted_ones_are_dropped(seed: int) -> None:
    records = reorganised(1).run(random.Random(seed), restarts=seed % 2 == 0)
    assert plain(records) == [("liquidation", 1, "1/y/flagged", 1, 0), ("liquidation", 2, "2/z/flagged/1", 1, 1)]
