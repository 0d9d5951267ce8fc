"""From a barrier's append to the append of its last margin call, and what accounts cost in memory.

One risk worker with four partitions; a block at a steady pace: 250 fills a partition, prices that move, 12 accounts
whose state changes. Times are the broker's. The first block, in which the copied accounts take their own states, is
left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from tests.bench.rows import Row
from tests.bench.spine_log import Shape, SpineLog, small_shape
from tests.bench.spine_site import Said, load, quantile, running_broker, site

TEN = Shape(accounts=10_000, partitions=4, blocks=80, records_a_block=1, calls=12, moving=True, rich=False)
HUNDRED = replace(TEN, accounts=100_000, blocks=30)
FEW = replace(TEN, accounts=4_000, blocks=12)
PACE_S = {TEN.accounts: 0.25, HUNDRED.accounts: 1.0}
CALL_GOAL_MS, MEMORY_GOAL_MB, PER_ACCOUNTS = 50, 200, 100_000


class Paced(NamedTuple):
    """A run: ms from barrier to last call, and to blocks.done, of every block and partition; MiB; identity."""

    call_ms: list[float]
    done_ms: list[float]
    resident_mb: float
    calls: int
    digest: str


def rows(small: bool, broker: str = "kafka") -> Iterator[Row]:
    """Latencies with 10,000 and 100,000 accounts, then memory."""
    with running_broker(broker) as process:
        found = {}
        for shape in (TEN,) if small else (TEN, HUNDRED):
            chosen = small_shape(shape) if small else shape
            pace_s = 0.05 if small else PACE_S[shape.accounts]
            run = found[shape] = asyncio.run(_paced(process.address, SpineLog(chosen), pace_s))
            goal = f"< {CALL_GOAL_MS} ms" if shape is TEN else ""
            yield from _rows(run, chosen, goal, small)
        few = asyncio.run(
            _paced(process.address, SpineLog(small_shape(FEW) if small else FEW), 0.05 if small else 0.25)
        )
        yield _memory(found[TEN if small else HUNDRED], few, small)


async def _paced(address: str, log: SpineLog, pace_s: float) -> Paced:
    shape = log.shape
    async with site(address, log) as found:
        blocks = [list(log.blocks(p)) for p in range(shape.partitions)]
        due_s = time.monotonic()
        for place in range(shape.blocks):
            due_s += pace_s
            await asyncio.gather(*(found.append(p, of[place].events) for p, of in enumerate(blocks)))
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await asyncio.gather(*(found.append(p, [of[place].barrier]) for p, of in enumerate(blocks)))
        await found.wait_until_said(shape.blocks)
        began, done, calls = await found.barriers_ms(), await found.done(), await found.calls()
        resident_mb = found.usage().resident_mb
    last = [one for one in done if one.block == shape.blocks]
    digest = "+".join(one.value["state_digest"][:8] for one in sorted(last))
    counted = sum(len(one.value["events"]) for one in calls if one.block > 1)
    return Paced(_since(began, calls), _since(began, done), resident_mb, counted, digest)


def _since(began: dict[tuple[int, int], int], said: list[Said]) -> list[float]:
    """ms from the barrier to the last output of each block and partition, from block 2 on."""
    last: dict[tuple[int, int], int] = {}
    for one in said:
        if one.block > 1:
            key = one.partition, one.block
            last[key] = max(last.get(key, 0), one.time_ms)
    return [float(time_ms - began[key]) for key, time_ms in last.items()]


def _rows(run: Paced, shape: Shape, goal: str, small: bool) -> Iterator[Row]:
    size = f"{len(run.call_ms)} blocks x partitions, {run.calls} calls, S={shape.scenarios}; {load()}"
    name, p99 = f"barrier to last call, {shape.accounts:,} accounts", quantile(run.call_ms, 0.99)
    yield Row(name=f"{name}, p50", value=quantile(run.call_ms, 0.5), unit="ms", size=size, checksum=run.digest)
    yield Row(
        name=f"{name}, p99", value=p99, unit="ms", goal=goal, ok=(small or p99 < CALL_GOAL_MS) if goal else None,
        size=size, memory_mb=run.resident_mb, checksum=run.digest,
    )  # fmt: skip
    yield Row(
        name=f"barrier to blocks.done, {shape.accounts:,} accounts, p50", value=quantile(run.done_ms, 0.5), unit="ms",
        size=size, checksum=run.digest,
    )  # fmt: skip


def _memory(many: Paced, few: Paced, small: bool) -> Row:
    above = (many.resident_mb - few.resident_mb) * PER_ACCOUNTS / (HUNDRED.accounts - FEW.accounts)
    return Row(
        name="memory of 100,000 accounts", value=round(above, 1), unit="MB", goal=f"< {MEMORY_GOAL_MB} MB",
        ok=small or above < MEMORY_GOAL_MB, memory_mb=many.resident_mb,
        size=f"base {few.resident_mb} MB with {FEW.accounts:,} accounts; resident at the end, checkpoints under way",
        checksum=many.digest,
    )  # fmt: skip
