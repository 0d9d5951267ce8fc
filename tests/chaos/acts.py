"""Who is disturbed when: the faults of a script, or each once and then more by chance from a seed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path

from streams.pipeline.config import PipelineConfig
from streams.runtime.kafka_process import Broker, KafkaCluster
from tests.chaos import broker_faults, log_faults, seam_faults, worker_faults  # noqa: F401 - the order of --acts list
from tests.chaos.faults import FAULTS, Fault, Script, span_s
from tests.chaos.log_faults import SMALL_DISK
from tests.chaos.notes import last_pid
from tests.chaos.seam_faults import ONE_GROUP, SEAMS
from tests.chaos.verdict import Act

ROLE_WEIGHTS = {"risk": 6, "sequencer": 3, "enforcement": 2, "sink": 1}
PAUSE_S = (1.2, 3.2)
LAST = ("remove worker", "upgrade")  # the run has fewer workers from there on
PROGRESS_LIMIT_S = 250.0  # less than the feeding waits for blocks
TRIES = 6  # of a fault whose worker does not run at the moment, or is frozen
SETTLED_S = 2.0  # a thawed worker has read what it missed


class Tormentor:
    """Acts on the workers with pid files in the configuration's folder, until cancelled; then everyone is thawed."""

    def __init__(
        self,
        config: PipelineConfig,
        names: list[str],
        seed: int,
        broker: Broker | KafkaCluster | None = None,
        seams: bool = False,
        small_disk: bool = False,
    ) -> None:
        self.config, self.folder = config, Path(config.folder)
        self.broker = None if isinstance(broker, KafkaCluster) else broker
        self.nodes = broker.nodes if isinstance(broker, KafkaCluster) else []
        self.chance = random.Random(seed)
        self.names: dict[str, list[str]] = {}
        for name in names:
            self.names.setdefault(name.split("-")[0], []).append(name)
        self.has = {"": True, broker_faults.OWN: self.broker is not None, SEAMS: seams, SMALL_DISK: small_disk}
        self.has[broker_faults.CLUSTER] = bool(self.nodes)
        self.has[ONE_GROUP] = seams and config.groups == 1
        self.blocks_done: Callable[[], int] = lambda: 0  # of the slowest partition, repeats not counted
        self.done, self.fed = 0, False
        self.halted: dict[int, bytes] = {}  # partition -> the record that halts it
        self.outdated: list[str] = []  # workers left behind by an upgrade
        self.groups = _groups(names)
        self.treated = 0  # the one group that is disturbed, until it is whole again
        self.thawed_s = 0.0
        self.acts: list[Act] = []
        self.todo: list[tuple[str, str]] = []  # what the run has not come to
        self.skipped: list[tuple[str, str]] = []  # what befell nobody
        self.signals: Counter[str] = Counter()
        self.frozen: set[int] = set()
        self._thaws: set[asyncio.Task[None]] = set()

    async def run(self, script: Script | None = None) -> None:
        """Every fault that this run can have once, in an order by chance, then anything; or only the script."""
        self.todo = list(script) if script is not None else self._beginning()
        try:
            while self.todo or script is None:
                await self._pause()
                await self._do(*(self.todo[0] if self.todo else self._draw()))
                self.todo = self.todo[1:]
        finally:
            for task in self._thaws:
                task.cancel()
            for pid in self.frozen:
                _send(pid, signal.SIGCONT)

    async def _do(self, name: str, role: str) -> None:
        """Again after a pause if nobody was there whom it could befall."""
        befallen, tries = len(self.acts), 1
        await FAULTS[name].do(self, role)
        while len(self.acts) == befallen and tries < TRIES:
            await self._pause()
            await FAULTS[name].do(self, role)
            tries += 1
        if len(self.acts) == befallen:
            self.skipped.append((name, role))

    def needs_s(self) -> float:
        """How long the faults take, about, that this run has not come to."""
        return span_s(self.todo) + sum(PAUSE_S) / 2 * len(self.todo)

    async def _pause(self) -> None:
        """By chance, and until every partition got on: nobody does who is killed again each time before it can."""
        await asyncio.sleep(self.chance.uniform(*PAUSE_S))
        limit_s, before = time.monotonic() + PROGRESS_LIMIT_S, self.done
        while not self.fed and self.blocks_done() == before and time.monotonic() < limit_s:
            await asyncio.sleep(0.1)
        self.done = self.blocks_done()

    def befalls(self, fault: Fault, role: str) -> bool:
        """Can it happen to this role in this run?"""
        return self.has[fault.needs] and (role in self.names or role not in ROLE_WEIGHTS)

    def impossible(self, script: Script) -> str:
        """Why this run cannot have such a script; "" if it can."""
        for name, role in script:
            if not self.befalls(FAULTS[name], role):
                return f"this run cannot have {name}:{role}: it needs {FAULTS[name].needs or 'such a worker'}"
        return ""

    def _beginning(self) -> list[tuple[str, str]]:
        begin = [(one.name, role) for one in FAULTS.values() for role in one.always if self.befalls(one, role)]
        self.chance.shuffle(begin)
        return sorted(begin, key=lambda act: act[0] in LAST)

    def _draw(self) -> tuple[str, str]:
        known = [(name, role, one.weight * ROLE_WEIGHTS[role]) for name, one in FAULTS.items() if one.weight
                 for role in one.roles if self.befalls(one, role)]  # fmt: skip
        name, role, _ = self.chance.choices(known, [weight for *_, weight in known])[0]
        return name, role

    # -- what faults are made of

    def begun(self, fault: str, who: str) -> None:
        """For the report: a fault befalls somebody now."""
        self.acts.append(Act(time.time(), fault, who))

    @contextlib.contextmanager
    def lasting(self, fault: str, who: str) -> Iterator[None]:
        """The same of one that goes on for as long as the block."""
        begun_s, place = time.monotonic(), len(self.acts)
        self.begun(fault, who)
        try:
            yield
        finally:
            self.acts[place] = replace(self.acts[place], lasted_s=time.monotonic() - begun_s)

    def pick(self, role: str) -> str | None:
        """A worker of the role, by chance; None if it does not run now, or is frozen."""
        name = self.chance.choice(self.names_to_disturb(role))
        pid = self.pid(name)
        return name if pid is not None and pid not in self.frozen else None

    def names_to_disturb(self, role: str) -> list[str]:
        """With hot standby: those of one group, and of another one only when this one is whole again."""
        if len(self.groups) == 1 or not set(self.names[role]) <= set().union(*self.groups):
            return self.names[role]
        if self._is_whole(self.groups[self.treated]):
            self.treated = self.chance.randrange(len(self.groups))
        return [name for name in self.names[role] if name in self.groups[self.treated]]

    def _is_whole(self, group: list[str]) -> bool:
        pids = [self.pid(name) for name in group]
        settled = time.monotonic() - self.thawed_s > SETTLED_S and not self.frozen.intersection(filter(None, pids))
        caught_up = [last_pid(self.folder / f"{name}.log", "caught_up") for name in group]
        return settled and None not in pids and pids == caught_up

    def signal(self, name: str, number: signal.Signals) -> None:
        """To the worker's present life, unless it is frozen."""
        pid = self.pid(name)
        if pid is not None and pid not in self.frozen:
            _send(pid, number)
            self.signals[number.name] += 1

    def freeze(self, name: str, span_s: float) -> None:
        """For so long, while other things go on."""
        if (pid := self.pid(name)) is not None:
            self.signal(name, signal.SIGSTOP)
            self.frozen.add(pid)
            self.later(self._thaw(pid, span_s))

    def later(self, doing: Coroutine[None, None, None]) -> None:
        """While other things go on; given up at the end of the run."""
        task = asyncio.create_task(doing)
        self._thaws.add(task)
        task.add_done_callback(self._thaws.discard)

    async def _thaw(self, pid: int, span_s: float) -> None:
        await asyncio.sleep(span_s)
        _send(pid, signal.SIGCONT)
        self.frozen.discard(pid)
        self.thawed_s = time.monotonic()

    def pid(self, name: str) -> int | None:
        """The worker's present life."""
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
