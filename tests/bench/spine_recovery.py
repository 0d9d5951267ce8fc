"""kill -9 of a risk worker under a steady pace of blocks: how late the latest block is, from barrier to blocks.done.

With hot standby a second group of workers says the same; without, the supervisor forks the worker's next life, which
keeps its static membership, loads the newest checkpoint and reads the log from there. The worker killed has all four
partitions. Kills are further apart than the 5 s within which the supervisor makes lives wait that end at once. What is
said in the end is compared with a run in which nobody was killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from tests.bench.rows import Row
from tests.bench.spine_log import Shape, SpineLog, small_shape
from tests.bench.spine_site import load, quantile, running_broker, site

FEW = Shape(accounts=1_000, partitions=4, blocks=260, records_a_block=1, fills_a_record=20, calls=12, rich=False)
MANY = replace(FEW, accounts=100_000, blocks=45)
FEW_PACE_S, MANY_PACE_S, SESSION_S = 0.1, 1.0, 6.0
LATE_MS = 250  # a block later than this is missed
STANDBY_GOAL, FEW_GOAL_MS, MANY_GOAL_MS = 0, 500, 1_500
VICTIM = "risk-0"


class Kills(NamedTuple):
    """ms from each barrier to the first blocks.done of its block and partition, kills, and what was said in the end."""

    delay_ms: list[float]
    kills: int
    digest: str

    @property
    def missed(self) -> int:
        return sum(delay > LATE_MS for delay in self.delay_ms)

    @property
    def latest_ms(self) -> float:
        return max(self.delay_ms)


def rows(small: bool, broker: str = "kafka") -> Iterator[Row]:
    """Hot standby; static membership with few accounts and with very many."""
    few = small_shape(FEW) if small else FEW
    kills = 1 if small else 3
    with running_broker(broker) as process:
        calm = asyncio.run(_killed(process.address, few, FEW_PACE_S, 1, 0))
        standby = asyncio.run(_killed(process.address, few, FEW_PACE_S, 2, kills))
        yield Row(
            name=f"blocks later than {LATE_MS} ms after kill -9, hot standby", value=standby.missed, unit="blocks",
            goal=f"{STANDBY_GOAL}", ok=standby.digest == calm.digest and (small or standby.missed == STANDBY_GOAL),
            peer=f"nobody killed: {calm.missed}", size=_size(standby, few), checksum=standby.digest,
        )  # fmt: skip
        static = asyncio.run(_killed(process.address, few, FEW_PACE_S, 1, kills))
        yield _row("latest block after kill -9, static membership", static, calm, few, FEW_GOAL_MS, small)
        if small:
            return  # very many accounts are as few as the few
        calm_many = asyncio.run(_killed(process.address, MANY, MANY_PACE_S, 1, 0))
        large = asyncio.run(_killed(process.address, MANY, MANY_PACE_S, 1, kills))
        name = f"latest block after kill -9, static membership, {MANY.accounts:,} accounts"
        yield _row(name, large, calm_many, MANY, MANY_GOAL_MS, small)


async def _killed(address: str, shape: Shape, pace_s: float, groups: int, kills: int) -> Kills:
    log = SpineLog(shape)
    at = {shape.blocks * (n + 1) // (kills + 1) for n in range(kills)}
    async with site(address, log, groups=groups, session_s=SESSION_S) as found:
        await found.wait_until_everybody_said(groups)  # the standby is there as well
        blocks = [list(log.blocks(p)) for p in range(shape.partitions)]
        due_s = time.monotonic()
        for place in range(shape.blocks):
            due_s += pace_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            records = [[*of[place].events, of[place].barrier] for of in blocks]
            await asyncio.gather(*(found.append(p, these) for p, these in enumerate(records)))
            if place in at:
                os.kill(found.pids()[VICTIM], signal.SIGKILL)
        await found.wait_until_said(shape.blocks)
        began, done = await found.barriers_ms(), await found.done()
    last = sorted(one for one in done if one.block == shape.blocks)
    delays = [float(one.time_ms - began[one.partition, one.block]) for one in done if one.block > 1]
    return Kills(delays, kills, "+".join(one.value["state_digest"][:8] for one in last))


def _size(run: Kills, shape: Shape) -> str:
    usual, blocks = quantile(run.delay_ms, 0.5), len(run.delay_ms)
    return (
        f"{run.kills} kills, {shape.accounts} accounts, {blocks} blocks x partitions; "
        f"latest {run.latest_ms:g} ms, usual {usual:g} ms; {load()}"
    )


def _row(name: str, run: Kills, calm: Kills, shape: Shape, goal_ms: int, small: bool) -> Row:
    return Row(
        name=name, value=run.latest_ms, unit="ms", peer=f"nobody killed: {calm.latest_ms:g} ms", goal=f"< {goal_ms} ms",
        ok=run.digest == calm.digest and (small or run.latest_ms < goal_ms), size=_size(run, shape),
        checksum=run.digest,
    )  # fmt: skip
