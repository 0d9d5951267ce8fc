"""The whole pipeline over chains that reorganise: what is left, once retracted events are dropped, is what a chain that
never did so would have said."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from branching_worlds import Tree, add
from engine_worlds import Inputs

from schemas.margin_batch import decode_batch
from schemas.risk_parameters import RiskParameters
from schemas.topics import BLOCKS_DONE, LIQUIDATIONS, MARGIN_BATCHES, MARGIN_CALLS, MARGIN_WARNINGS
from streams.simulate.in_process import Pipeline

OF_THIS_RUN = ("seq", "id", "epoch", "confirmations", "time_ms")


def events_left(run: Pipeline, topic: str) -> list[dict[str, Any]]:
    """Events that were not retracted, without what tells one run from another, by block and account."""
    found = [e for value in run.values(topic) for e in orjson.loads(value)["events"]]
    ids = [e["id"] for e in found]
    assert len(set(ids)) == len(ids)
    retracted = [e["retracts"] for e in found if e["type"] == "retraction"]
    assert len(set(retracted)) == len(retracted)
    assert set(retracted) <= set(ids)
    left = [e for e in found if e["type"] != "retraction" and e["id"] not in retracted]
    plain = [{name: value for name, value in e.items() if name not in OF_THIS_RUN} for e in left]
    return sorted(plain, key=lambda e: (e["block"], e["account"], orjson.dumps(e)))


def margins_left(run: Pipeline) -> dict[tuple[int, str], dict[str, Any]]:
    """The last margins of each block and account."""
    found = {}
    for value in run.values(MARGIN_BATCHES):
        head, table = decode_batch(value)
        block = {(head.block, row["account"]): row for row in table.to_pylist()}
        found = {key: row for key, row in found.items() if key[0] != head.block or key[1] in _own(run, head.partition)}
        found |= block
    return found


def _own(run: Pipeline, partition: int) -> set[str]:
    """Accounts of the other partitions: theirs stay."""
    return {a for p, risk in enumerate(run.risks) if p != partition for a in risk.book.accounts}


def reorganised(seed: int, liquidation_depth: int) -> tuple[Pipeline, Tree]:
    tree = Tree(seed, parameters=RiskParameters(liquidation_depth_blocks=liquidation_depth))
    inputs = Inputs()
    inputs.add_listings(tree.listed)
    while len(tree.chain) < 12:
        add(inputs, *tree.grow())
        if 2 < len(tree.chain) < 12 and tree.rng.random() < 0.35:
            tree.reorganise(tree.rng.randint(1, min(8, len(tree.chain) - 1)))
    return inputs.pipeline(3), tree


@pytest.mark.parametrize("liquidation_depth", [0, 2])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_is_what_a_straight_chain_says(seed: int, liquidation_depth: int) -> None:
    run, tree = reorganised(seed, liquidation_depth)
    straight = tree.straight().pipeline(3)
    for topic in (MARGIN_CALLS, MARGIN_WARNINGS, LIQUIDATIONS):
        assert events_left(run, topic) == events_left(straight, topic)
    assert margins_left(run) == margins_left(straight)
    assert [r.state_digest() for r in run.risks] == [r.state_digest() for r in straight.risks]
    assert [r.halted for r in run.risks] == [""] * 3


@pytest.mark.parametrize("seed", range(4))
def test_sequences_stay_dense_and_marks_count_retractions(seed: int) -> None:
    run, _ = reorganised(seed, 1)
    for (topic, _), log in run.logs.items():
        if topic not in (MARGIN_CALLS, MARGIN_WARNINGS, LIQUIDATIONS):
            continue
        found = [orjson.loads(value) for value in log]
        assert [record["seq"] for record in found] == list(range(1, len(found) + 1))
        events = [e for record in found for e in record["events"]]
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    marks = [d for d in map(orjson.loads, run.values(BLOCKS_DONE)) if "rollback_from" in d]
    assert marks
    for topic, name in ((MARGIN_CALLS, "calls"), (MARGIN_WARNINGS, "warnings")):
        events = [e for value in run.values(topic) for e in orjson.loads(value)["events"]]
        assert sum(mark[name] for mark in marks) == sum(e["type"] == "retraction" for e in events)
