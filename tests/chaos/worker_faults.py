"""Faults that signals do to workers."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from streams.pipeline.config import read_config
from streams.pipeline.rolling_restart import rolling_restart
from tests.chaos.faults import WORKERS, fault

if TYPE_CHECKING:
    from tests.chaos.acts import Tormentor

FREEZE_S, AGAIN_S = (0.5, 3.0), (0.05, 0.6)


@fault("kill", "SIGKILL; the supervisor starts the next life at once", *WORKERS, always=WORKERS, weight=6)
async def kill(on: Tormentor, role: str) -> None:
    if (name := on.pick(role)) is not None:
        on.begun("kill", name)
        on.signal(name, signal.SIGKILL)


@fault("kill twice", "and again while the next life starts", *WORKERS, always=("risk", "sequencer"), weight=1)
async def kill_twice(on: Tormentor, role: str) -> None:
    if (name := on.pick(role)) is not None:
        on.begun("kill twice", name)
        on.signal(name, signal.SIGKILL)
        await asyncio.sleep(on.chance.uniform(*AGAIN_S))
        on.signal(name, signal.SIGKILL)


@fault("kill all", "SIGKILL of every worker of the role at once", *WORKERS, always=("risk",))
async def kill_all(on: Tormentor, role: str) -> None:
    if on.pick(role) is not None:
        for name in on.names_to_disturb(role):
            on.begun("kill all", name)
            on.signal(name, signal.SIGKILL)


@fault("stop", "SIGTERM: finishes what is under way, then begins a new life", *WORKERS,
       always=("risk", "sequencer"), weight=2)  # fmt: skip
async def stop(on: Tormentor, role: str) -> None:
    if (name := on.pick(role)) is not None:
        on.begun("stop", name)
        on.signal(name, signal.SIGTERM)


@fault("freeze", "SIGSTOP for 0.5-3 s", *WORKERS, always=("risk", "sequencer", "enforcement"), weight=3)
async def freeze(on: Tormentor, role: str) -> None:
    if (name := on.pick(role)) is not None:
        on.begun("freeze", name)
        on.freeze(name, on.chance.uniform(*FREEZE_S))


@fault("freeze long", "SIGSTOP for longer than the session: it wakes up as one whose partitions others have",
       *WORKERS, always=("risk",))  # fmt: skip
async def freeze_long(on: Tormentor, role: str) -> None:
    if (name := on.pick(role)) is not None:
        on.begun("freeze long", name)
        on.freeze(name, on.config.session_s + 1.5)


@fault("rolling restart", "`dpme restart`: every risk and enforcement worker, one after the other", "risk",
       takes_s=10.0)  # fmt: skip
async def restart_all(on: Tormentor, role: str) -> None:
    config = read_config(on.folder / "config.json")
    with on.lasting("rolling restart", role):
        restarted = await asyncio.to_thread(lambda: dict(rolling_restart(config)))
    on.signals["SIGTERM"] += len(restarted)
