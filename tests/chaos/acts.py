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

from streams.runtime.kafka_process import Broker
from tests.chaos.verdict import Act

BROKER = "broker"  # by a script only, and only one of our own

BEGIN = (("kill", "risk"), ("kill", "sequencer"), ("freeze", "risk"), ("kill", "enforcement"), ("stop", "risk"),
         ("kill twice", "risk"), ("freeze", "sequencer"), ("kill twice", "sequencer"), ("freeze long", "risk"),
         ("kill all", "risk"), ("stop", "sequencer"), ("freeze", "enforcement"), ("kill", "sink"))  # fmt: skip
ACT_KINDS = ("kill", "kill twice", "kill all", "freeze", "freeze long", "stop")
KINDS = (("kill", 6), ("kill twice", 1), ("freeze", 3), ("stop", 2))
ROLES = (("risk", 6), ("sequencer", 3), ("enforcement", 2), ("sink", 1))
FREEZE_S, PAUSE_S, AGAIN_S = (0.5, 3.0), (1.2, 3.2), (0.05, 0.6)


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
        name = self.chance.choice(self.names[role])
        pid = self._pid(name)
        if pid is None or pid in self.frozen:
            return
        victims = self.names[role] if kind == "kill all" else [name]
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

    async def _thaw(self, pid: int, span_s: float) -> None:
        await asyncio.sleep(span_s)
        _send(pid, signal.SIGCONT)
        self.frozen.discard(pid)

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
