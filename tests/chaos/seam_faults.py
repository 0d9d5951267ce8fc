"""Faults inside a worker, by the seams of `tests.chaos.seams`, and of who is a member of the group."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from schemas import log_records
from streams.runtime.exits import DRAIN_SIGNAL
from tests.chaos import seams
from tests.chaos.faults import WORKERS, fault
from tests.chaos.notes import last_pid
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.chaos.acts import Tormentor

SEAMS, ONE_GROUP = "workers with seams", "one group of workers with seams"
WRITERS = ("risk", "sequencer", "enforcement")
CLOCK_S, WRONG_S = (3_600.0, 864_000.0), 4.0  # by how much the clock is wrong, either way, and for how long
MEMBERS = "members"
STORM_S, VISIT_S = 7.0, (0.4, 1.2)
CAUGHT_UP_LIMIT_S = 40.0


@fault("lost acknowledgement", "appended, but the answer is lost: the client sends it again", *WRITERS,
       needs=SEAMS, always=WRITERS, weight=1)  # fmt: skip
async def lost_acknowledgement(on: Tormentor, role: str) -> None:
    _touch(on, "lost acknowledgement", role, seams.LOST)


@fault("failed acknowledgement", "appended, but the worker is told of an error: it ends itself, outputs come again",
       *WRITERS, needs=SEAMS, always=WRITERS, weight=1)  # fmt: skip
async def failed_acknowledgement(on: Tormentor, role: str) -> None:
    _touch(on, "failed acknowledgement", role, seams.FAILED)


def _touch(on: Tormentor, name: str, role: str, seam: str) -> None:
    if (who := on.pick(role)) is not None:
        on.begun(name, who)
        (on.folder / f"{who}.{seam}").touch()


@fault("clock jump", "the wall clock of a worker is wrong by hours or days, either way, for a while", *WORKERS,
       needs=SEAMS, always=WORKERS, weight=1)  # fmt: skip
async def clock_jump(on: Tormentor, role: str) -> None:
    if (who := on.pick(role)) is not None:
        on.begun("clock jump", who)
        path = on.folder / f"{who}.{seams.CLOCK}"
        path.write_text(str(on.chance.choice((-1, 1)) * on.chance.uniform(*CLOCK_S)))
        on.later(_remove_later(path))


async def _remove_later(path: Path) -> None:
    await asyncio.sleep(WRONG_S)
    path.unlink(missing_ok=True)


# -- membership


@fault("rebalance storm", "dynamic members join and leave the risk group, again and again", "risk",
       needs=ONE_GROUP, always=("risk",), takes_s=10.0)  # fmt: skip
async def rebalance_storm(on: Tormentor, role: str) -> None:
    clock = asyncio.get_running_loop().time
    with on.lasting("rebalance storm", MEMBERS):
        ends_s = clock() + STORM_S
        while clock() < ends_s:
            name = on.chance.choice(seams.GUESTS)
            if _invitation(on, name).exists():
                _send_away(on, name)
            else:
                _invitation(on, name).touch()
            await asyncio.sleep(on.chance.uniform(*VISIT_S))
        for name in seams.GUESTS:
            _send_away(on, name)


@fault("add worker", "a worker more in the risk group, a dynamic member", "risk", needs=ONE_GROUP, always=("risk",))
async def add_worker(on: Tormentor, role: str) -> None:
    on.begun("add worker", MEMBERS)
    _invitation(on, seams.GUESTS[0]).touch()


@fault("remove worker", "a risk worker leaves for good (SIGRTMIN); the others take its partitions over", "risk",
       needs=ONE_GROUP, always=("risk",))  # fmt: skip
async def remove_worker(on: Tormentor, role: str) -> None:
    names = on.names["risk"]
    if len(names) > 1 and (pid := on.pid(names[-1])) is not None and pid not in on.frozen:
        on.begun("remove worker", names[-1])
        on.signal(names.pop(), signal.Signals(DRAIN_SIGNAL))


def _invitation(on: Tormentor, name: str) -> Path:
    return on.folder / f"{name}.{seams.INVITED}"


def _send_away(on: Tormentor, name: str) -> None:
    if _invitation(on, name).exists():
        _invitation(on, name).unlink()
        on.signal(name, signal.SIGTERM)


# -- versions


@fault("upgrade", "rolling upgrade to an engine of the next record version: all workers but one, the sequencer last; "
       "the one left applies nothing newer", "risk", needs=ONE_GROUP, always=("risk",), takes_s=25.0)  # fmt: skip
async def upgrade(on: Tormentor, role: str) -> None:
    if on.outdated or len(on.names["risk"]) < 2:
        return
    newer = log_records.VERSION + 1
    log_records.VERSION = newer  # who watches is upgraded before all others
    left = on.names["risk"].pop()
    with on.lasting("upgrade", MEMBERS):
        for name in seams.GUESTS:
            (on.folder / f"{name}.{seams.ENGINE}").write_text(str(newer))
            on.signal(name, signal.SIGTERM)
        for name in [*on.names["risk"], *on.names["enforcement"], *on.names["sequencer"]]:
            await _restart_as(on, name, newer)
        on.outdated.append(left)
        await asyncio.sleep(on.config.session_s)


async def _restart_as(on: Tormentor, name: str, version: int) -> None:
    (on.folder / f"{name}.{seams.ENGINE}").write_text(str(version))
    before = on.pid(name)
    on.signal(name, signal.SIGTERM)
    log = on.folder / f"{name}.log"
    await wait_until(lambda: last_pid(log, "caught_up") not in (before, None), CAUGHT_UP_LIMIT_S, poll_s=0.1)
