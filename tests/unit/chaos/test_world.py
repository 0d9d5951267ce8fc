"""The chaos world is a function of its arguments, and its chain goes back as deep as finality."""

from __future__ import annotations

from itertools import pairwise

from schemas.events import Funding, Transfer
from tests.chaos.expected import calm_outputs
from tests.chaos.world import FINALITY_BLOCKS, chaos_world


def test_the_chain_goes_back_down_to_finality_and_every_block_has_its_parent() -> None:
    blocks = [inputs.block for inputs in chaos_world(7, 300, events=600, reorganises=True).blocks]
    parents = {block.hash: block.number for block in blocks}
    assert all(parents[block.parent_hash] == block.number - 1 for block in blocks[1:])
    depths = [before.number - after.number + 1 for before, after in pairwise(blocks)]
    assert max(depths) > FINALITY_BLOCKS // 2
    assert sum(depth > 0 for depth in depths) >= 300 // 25 - 2
    highest = 0
    for block in blocks:
        highest = max(highest, block.number)
        assert block.number > highest - FINALITY_BLOCKS


def test_ticks_come_once_and_transfers_and_funding_come_at_all() -> None:
    blocks = list(chaos_world(7, 100, events=2_000, reorganises=True).blocks)
    ids = [tick.id for inputs in blocks for tick in inputs.ticks]
    assert len(ids) == len(set(ids))
    events = [event for inputs in blocks for event in inputs.events]
    assert any(isinstance(event, Transfer) for event in events)
    assert any(isinstance(event, Funding) for event in events)


def test_the_same_seed_is_the_same_world() -> None:
    made = [chaos_world(3, 12, accounts=12, events=120, scenarios=64, reorganises=True) for _ in range(2)]
    first, second = (calm_outputs(world, list(world.blocks), 2) for world in made)
    assert first == second
