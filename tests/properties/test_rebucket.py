"""Another number of partitions, changed anywhere in a world: what is said of each account is what was never moved."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from branching_worlds import Tree, add
from engine_worlds import Inputs, interleaved, random_world, scenario_set

from schemas.margin_batch import decode_batch
from schemas.risk_parameters import RiskParameters
from schemas.topics import BLOCKS_DONE, LIQUIDATIONS, MARGIN_BATCHES, MARGIN_CALLS, MARGIN_WARNINGS
from streams.engine.output import Fault
from streams.engine.risk import Risk
from streams.engine.sequence import Sequencer
from streams.simulate.in_process import Pipeline

Said = dict[tuple, Any]
PLACE = ("seq", "partition")


def run_with_change(inputs: Inputs, order: list, cut: int, before: int, after: int) -> tuple[Pipeline, Pipeline]:
    """The pipeline until the cut, and where it goes on."""
    first = Pipeline({s.digest: s for s in (scenario_set(), scenario_set(2))}, before)
    position: dict[tuple[str, int], int] = {}
    pipeline = first
    for place, log in enumerate(order):
        if place == cut:
            pipeline = first.with_partitions(after)
        at = position[log] = position.get(log, -1) + 1
        pipeline.push(*log, inputs.logs[log][at])
    return first, pipeline


def said(*pipelines: Pipeline) -> Said:
    """Everything that was said of accounts, by topic, block and account, without places."""
    found: Said = {}
    for pipeline in pipelines:
        for (topic, _), log in pipeline.logs.items():
            for raw in log:
                if topic == MARGIN_BATCHES:
                    head, table = decode_batch(raw)
                    for row in table.to_pylist():
                        found[topic, head.epoch, head.block, row.pop("account")] = row
                elif topic in (MARGIN_WARNINGS, MARGIN_CALLS, LIQUIDATIONS):
                    for event in orjson.loads(raw)["events"]:
                        assert (topic, event["id"]) not in found
                        found[topic, event["id"]] = {k: v for k, v in event.items() if k not in PLACE}
                elif topic == BLOCKS_DONE:
                    done = orjson.loads(raw)
                    total = found.setdefault((topic, done.get("epoch", 0), done["block"]), dict.fromkeys(SUMS, 0))
                    assert not done["halted"]
                    for name in SUMS:
                        total[name] += done[name]
    return found


BOUND_ONLY = {
    "initial_margin_usd6", "maintenance_margin_usd6", "expected_shortfall_usd6", "stress_loss_usd6", "binding",
    "stress_row", "keyframe_block",
}  # fmt: skip
SUMS = ("accounts", "warnings", "calls")  # a funding counts as an event in every partition


@pytest.mark.parametrize("seed", range(8))
def test_what_is_said_of_each_account_is_what_was_never_moved(seed: int) -> None:
    chance = random.Random(seed)
    inputs = random_world(seed, blocks=7, declared=bool(seed % 3), whales=True)
    order = interleaved(inputs, chance) if seed % 3 else inputs.order
    before, after = chance.choice([(1, 3), (4, 2), (2, 5), (3, 1)])
    for cut in sorted(chance.sample(range(len(order)), 4)):
        moved = said(*run_with_change(inputs, order, cut, before, after))
        never = said(inputs.pipeline(after, order))
        assert moved.keys() == never.keys()
        assert {key: (moved[key], never[key]) for key in never if moved[key] != never[key]} == {}


@pytest.mark.parametrize("bounds", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_a_chain_that_reorganises_across_the_change_goes_back_to_the_same_state(seed: int, bounds: int) -> None:
    """bounds: margins that are no exact ones are remembered whole. Cuts stand before and amid the rollbacks.

    When a margin is renewed depends on the place of its row and on the partition's other accounts. So rows of the same
    keyframe are equal in everything, and others in all that is no bound.
    """
    parameters = RiskParameters(finality_depth_blocks=8, bound_accounts_min=bounds)
    tree, inputs, chance = Tree(seed, parameters=parameters), Inputs(), random.Random(seed)
    inputs.add_listings(tree.listed)
    marks = []
    for depth in (5, 2, 7, 0):
        for _ in range(depth + 3):
            add(inputs, *tree.grow())
        marks.append(len(inputs.order))
        if depth:
            tree.reorganise(depth)
    for mark in marks[:3]:
        cut = mark + chance.randrange(-3, 4)
        moved = said(*run_with_change(inputs, inputs.order, cut, 3, 2))
        never = said(inputs.pipeline(2))
        assert any(key[0] == BLOCKS_DONE and key[1] > 0 for key in never)
        assert {key: (moved.get(key), never[key]) for key in never if is_another(moved.get(key), never[key])} == {}
        assert moved.keys() == never.keys()


def is_another(found: dict | None, expected: dict) -> bool:
    """Whether two rows or events differ, beyond bounds of other keyframes."""
    if found is None or found.get("keyframe_block") == expected.get("keyframe_block"):
        return found != expected
    return any(found[name] != value for name, value in expected.items() if name not in BOUND_ONLY)


def test_there_and_back_is_the_same_state_for_accounts_money_and_memory() -> None:
    inputs = random_world(3, whales=True)
    first = inputs.pipeline(3)
    again = first.with_partitions(5).with_partitions(3).with_partitions(5)
    once = first.with_partitions(5)
    assert [r.dump() for r in again.risks] == [r.dump() for r in once.risks]
    assert again.enforcement.dump() == once.enforcement.dump()
    assert sum(r.book.residue_usd21 for r in once.risks) == sum(r.book.residue_usd21 for r in first.risks) != 0
    for risk in once.risks:
        assert Risk.load(risk.dump(), risk.cache).dump() == risk.dump()
    assert Sequencer.load(once.sequencer.dump(), b"x").dump() == once.sequencer.dump()


def test_machines_that_do_not_stand_together_are_refused() -> None:
    inputs = random_world(1)
    halted = inputs.pipeline(2)
    halted.risks[1].halted = "broken"
    with pytest.raises(Fault, match="partition 1 is halted: broken"):
        halted.with_partitions(3)
    behind = inputs.pipeline(2)
    behind.risks[1].number -= 1
    with pytest.raises(Fault, match="partition 1 stands elsewhere"):
        behind.with_partitions(3)
    ahead = inputs.pipeline(2)
    ahead.sequencer.number += 1
    with pytest.raises(Fault, match="the sequencer stands at decision"):
        ahead.with_partitions(3)
