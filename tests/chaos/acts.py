"""What is done to the workers: kill -9, kill -9 again at once, freeze and thaw, stop; all by chance from a seed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from streams.pipeline.config import read_config
from streams.pipeline.rolling_restart import rolling_restart
from streams.runtime.kafka_process import Broker
from tests.chaos.notes import last_pid
from tests.chaos.verdict import Act

BROKER = "broker"  # by a script only, and only one of our own

BEGIN = (("kill", "risk"), ("kill", "sequencer"), ("freeze", "risk"), ("kill", "enforcement"), ("stop", "risk"),
         ("kill twice", "risk"), ("freeze", "sequencer"), ("kill twice", "sequencer"), ("freeze long", "risk"),
         ("kill all", "risk"), ("stop", "sequencer"), ("freeze", "enforcement"), ("kill", "sink"))  # fmt: skip
ROLLING = "rolling restart"  # of all risk and enforcement workers, by a script only
ACT_KINDS = ("kill", "kill twice", "kill all", "freeze", "freeze long", "stop", ROLLING)
KINDS = (("kill", 6), ("kill twice", 1), ("freeze", 3), ("stop", 2))
ROLES = (("risk", 6), ("sequencer", 3), ("enforcement", 2), ("sink", 1))
FREEZE_S, PAUSE_S, AGAIN_S = (0.5, 3.0), (1.2, 3.2), (0.05, 0.6)
SETTLED_S = 2.0  # a thawed worker has read what it missed


class Tormentor:
    """Acts on the workers whose pid files are in `folder`, until cancelled; then everyone is thawed."""

    def __init__(
        self, folder: Path, names: list[str], seed: int, session_s: float, broker: Broker | None = None
    ) -> None:
        self.folder, self.session_s, self.broker = folder, session_s, broker
        self.chance = random.Random(seed)
        self.names: dict[str, list[str]] = {}
        for name in names:
            self.names.setdefault(name.split("-")[0], []).append(name)
        self.groups = _groups(names)
        self.treated = 0  # the one group that is disturbed, until it is whole again
        self.thawed_s = 0.0
        self.acts: list[Act] = []
        self.signals: Counter[str] = Counter()
        self.frozen: set[int] = set()
        self._thaws: set[asyncio.Task[None]] = set()

    async def run(self, script: list[tuple[str, str]] | None = None) -> None:
        """The whole list once in an order by chance, then anything; `script` instead: only that, in its order."""
        begin = [act for act in BEGIN if act[1] in self.names]
        self.chance.shuffle(begin)
        todo = list(script) if script is not None else begin
        try:
            while todo or script is None:
                await asyncio.sleep(self.chance.uniform(*PAUSE_S))
                kind, role = todo.pop(0) if todo else self._draw()
                await self._act(kind, role)
        finally:
            for task in self._thaws:
                task.cancel()
            for pid in self.frozen:
                _send(pid, signal.SIGCONT)

    def _draw(self) -> tuple[str, str]:
        roles = [(role, weight) for role, weight in ROLES if role in self.names]
        kind = self.chance.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0]
        return kind, self.chance.choices([r for r, _ in roles], [w for _, w in roles])[0]

    async def _act(self, kind: str, role: str) -> None:
        if role == BROKER:
            self._kill_broker()
            return
        if kind == ROLLING:
            await self._restart_all()
            return
        mine = self._names_to_disturb(role)
        name = self.chance.choice(mine)
        pid = self._pid(name)
        if pid is None or pid in self.frozen:
            return
        victims = mine if kind == "kill all" else [name]
        self.acts += [Act(time.time(), kind, each) for each in victims if self._pid(each) not in self.frozen]
        if kind == "kill all":
            for each in victims:
                self._signal(self._pid(each), signal.SIGKILL)
        elif kind.startswith("kill"):
            self._signal(pid, signal.SIGKILL)
            if kind == "kill twice":
                await asyncio.sleep(self.chance.uniform(*AGAIN_S))
                self._signal(self._pid(name), signal.SIGKILL)
        elif kind == "stop":
            self._signal(pid, signal.SIGTERM)
        else:
            span_s = self.session_s + 1.5 if kind == "freeze long" else self.chance.uniform(*FREEZE_S)
            self.frozen.add(pid)
            self._signal(pid, signal.SIGSTOP)
            thaw = asyncio.create_task(self._thaw(pid, span_s))
            self._thaws.add(thaw)
            thaw.add_done_callback(self._thaws.discard)

    def _kill_broker(self) -> None:
        """SIGKILL, and at once a new life on the same data and port, from the main thread: it is to die with us."""
        if self.broker is not None:
            self.acts.append(Act(time.time(), "kill", BROKER))
            self.broker.kill()
            self.broker.start()
            self.signals["SIGKILL"] += 1

    async def _restart_all(self) -> None:
        """The command of that name, on the workers of this run."""
        config = read_config(self.folder / "config.json")
        self.acts.append(Act(time.time(), ROLLING, "risk"))
        restarted = await asyncio.to_thread(lambda: dict(rolling_restart(config)))
        self.signals["SIGTERM"] += len(restarted)

    async def _thaw(self, pid: int, span_s: float) -> None:
        await asyncio.sleep(span_s)
        _send(pid, signal.SIGCONT)
        self.frozen.discard(pid)
        self.thawed_s = time.monotonic()

    def _names_to_disturb(self, role: str) -> list[str]:
        """With hot standby: those of one group, and of another one only when this one is whole again."""
        if len(self.groups) == 1 or not set(self.names[role]) <= set().union(*self.groups):
            return self.names[role]
        if self._is_whole(self.groups[self.treated]):
            self.treated = self.chance.randrange(len(self.groups))
        return [name for name in self.names[role] if name in self.groups[self.treated]]

    def _is_whole(self, group: list[str]) -> bool:
        pids = [self._pid(name) for name in group]
        settled = time.monotonic() - self.thawed_s > SETTLED_S and not self.frozen.intersection(filter(None, pids))
        caught_up = [last_pid(self.folder / f"{name}.log", "caught_up") for name in group]
        return settled and None not in pids and pids == caught_up

    def _signal(self, pid: int | None, number: signal.Signals) -> None:
        if pid is not None and (pid not in self.frozen or number == signal.SIGSTOP):
            _send(pid, number)
            self.signals[number.name] += 1

    def _pid(self, name: str) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / f"{name}.pid").read_text())
        return None


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if pid > 0:
            os.kill(pid, number)


def _groups(names: list[str]) -> list[list[str]]:
    """Hot-standby groups of risk and enforcement workers: one, or as many as the names tell."""
    grouped = [name for name in names if name.split("-")[0] in ("risk", "enforcement")]
    stems = sorted({_standby(name) for name in grouped})
    return [[name for name in grouped if _standby(name) == stem] for stem in stems]


def _standby(name: str) -> str:
    """ "" for the first group, else the part of the name that tells which."""
    return next((part for part in name.split("-") if part.startswith("standby")), "")
