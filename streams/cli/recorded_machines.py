"""The risk machines of a recorded run as of a block, read from its broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from schemas.topics import ACCOUNT_LOG
from streams.cli.as_of import AsOf, machine_as_of
from streams.cli.recorded_run import RunReader

if TYPE_CHECKING:
    from oracles.scenario_set import ScenarioSet


async def partition_as_of(
    reader: RunReader,
    partition: int,
    sets: Mapping[str, ScenarioSet],
    block: int | None,
    on_block: Callable[[int], None] = lambda _: None,
) -> AsOf:
    """The machine of one partition right after a block (None: the newest); CommandError as `machine_as_of` says."""
    state, begin = await _start(reader, partition, block)
    log = await reader.log(ACCOUNT_LOG, partition, begin)
    return machine_as_of(log, partition, sets, block, state, on_block)


async def all_as_of(
    reader: RunReader, block: int | None, on_partition: Callable[[int], None] = lambda _: None
) -> list[AsOf]:
    """The machines of all partitions after one and the same block (None: the newest that all of them have)."""
    sets = await reader.scenario_sets()
    found = []
    for partition in range(reader.partitions):
        found.append(await partition_as_of(reader, partition, sets, block))
        on_partition(partition)
    common = min(machine.risk.block for machine in found)
    return [
        machine if machine.risk.block == common else await partition_as_of(reader, partition, sets, common)
        for partition, machine in enumerate(found)
    ]


async def _start(reader: RunReader, partition: int, block: int | None) -> tuple[bytes | None, int]:
    """(state, next offset) of the newest checkpoint, unless it is later than the block: then the beginning's."""
    newest = await reader.checkpoint(partition)
    if newest is None or (block is not None and newest.mark > block):
        return await reader.genesis(partition), 0
    return newest.state, newest.positions[ACCOUNT_LOG, partition]
