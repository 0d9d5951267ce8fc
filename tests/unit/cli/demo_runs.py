"""A small demo world that went through the pure pipeline."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, INSTRUMENTS, ORACLE_TICKS
from streams.replay.seeding import encode_all
from streams.replay.world import BlockInputs, World
from streams.simulate.demo_world import demo_world
from streams.simulate.in_process import Pipeline

PARTITIONS = 2


class DemoRun(NamedTuple):
    world: World
    inputs: list[BlockInputs]
    pipeline: Pipeline


@lru_cache(maxsize=1)
def small_demo_run() -> DemoRun:
    """45 blocks of 60 accounts, computed once."""
    world = demo_world(7, 45, 60, 128)
    pipeline = Pipeline({world.scenario_set.digest: world.scenario_set}, PARTITIONS)
    pipeline.push(INSTRUMENTS, 0, encode_all(world.listings))
    inputs = []
    for block in world.blocks:
        inputs.append(block)
        pipeline.push(ORACLE_TICKS, 0, encode_all(block.ticks))
        pipeline.push(ACCOUNT_FILLS, 0, encode_all(block.events))
        pipeline.push(CHAIN_BLOCKS, 0, encode_all([block.block]))
    return DemoRun(world, inputs, pipeline)
