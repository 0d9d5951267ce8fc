"""Supervisor of several workers: imports once, forks each life, starts the dead again.

The parent imports the roles' modules and calls their `warm()` (every serial kernel once: a fork then computes 8-24 ms
after a kill instead of 300-900 ms). It starts no thread and no event loop, and never runs a parallel kernel: a fork of
a process with running OpenMP threads is killed.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import random
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from streams.runtime.exits import DRAIN_SIGNAL, DRAINED, FAULT, MEMBERSHIP_LOST, OUTDATED
from streams.runtime.notes import note

_PR_SET_PDEATHSIG = 1
_ENDING = (signal.SIGTERM, signal.SIGINT, DRAIN_SIGNAL)
_WATCHED = (*_ENDING, signal.SIGCHLD)


_restarts = 0  # in a child: lives of its worker before this one


def restarts() -> int:
    """How often the supervisor has started this worker again; 0 without a supervisor."""
    return _restarts


@dataclass(frozen=True)
class WorkerSpec:
    """One supervised worker. target runs in the child and returns its exit code (None: 0).

    warm: modules imported by the parent before the first fork; their `warm()` is called if they have one.
    """

    name: str
    target: Callable[[], int | None]
    warm: tuple[str, ...] = ()


@dataclass
class BackOff:
    """How long to wait before the next life: not at all after a long one, 0.2 s doubling to 5 s after short ones."""

    session_s: float
    short_life_s: float = 5.0
    first_s: float = 0.2
    longest_s: float = 5.0
    draw: Callable[[float, float], float] = random.uniform
    _current_s: float = field(default=0.0, init=False)
    _deaths: int = field(default=0, init=False)

    def after(self, life_s: float, code: int) -> float:
        """Seconds to wait after a life of so many seconds that ended with this code (negative: by a signal)."""
        if code == MEMBERSHIP_LOST:  # whoever else has the name must have time to be gone
            return self.draw(1.0, 2.0) * self.session_s
        if code == 0:  # it was asked to stop: no accident
            return 0.0
        short = life_s < self.short_life_s
        self._deaths = self._deaths + 1 if short else 0
        if self._deaths <= 1:  # the first short life may be an accident
            self._current_s = 0.0
        else:
            self._current_s = min(self.longest_s, self._current_s * 2 or self.first_s)
        return self._current_s


class _Slot:
    """A worker and its present life."""

    def __init__(self, spec: WorkerSpec, back_off: BackOff) -> None:
        self.spec, self.back_off = spec, back_off
        self.pid = 0
        self.lives = 0
        self.born_s = 0.0
        self.due_s: float | None = 0.0  # when to start the next life; None: never again


class Supervisor:
    """Runs the workers until SIGTERM or SIGINT (stop), or DRAIN_SIGNAL (leave the groups for good).

    folder: NAME.pid has the pid of each living child, NAME.log what it writes to stdout and stderr.
    grace_s: between the signal to stop and SIGKILL. Must run in the main thread of a process without other threads.
    """

    def __init__(
        self, specs: Sequence[WorkerSpec], folder: str | Path, *, session_s: float = 6.0, grace_s: float = 12.0
    ) -> None:
        if len({spec.name for spec in specs}) != len(specs):
            raise ValueError("worker names must differ: a name is a membership")
        self.folder, self.grace_s = Path(folder), grace_s
        self._slots = [_Slot(spec, BackOff(session_s)) for spec in specs]
        self._stop_by_s: float | None = None

    def run(self) -> int:
        """Blocks until all workers have ended; 0, or 1 if one had to be killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._warm()
        awake, woken = socket.socketpair()
        awake.setblocking(False)
        woken.setblocking(False)
        before = {number: signal.signal(number, lambda *_: None) for number in _WATCHED}
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        try:
            return self._loop(awake)
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            awake.close()
            woken.close()

    def _loop(self, awake: socket.socket) -> int:
        killed = False
        while True:
            self._reap()
            self._start_due()
            if not any(slot.pid or slot.due_s is not None for slot in self._slots):
                return int(killed)
            if self._stop_by_s is not None and time.monotonic() > self._stop_by_s:
                killed = True
                self._signal_all(signal.SIGKILL)
                self._stop_by_s = time.monotonic() + 1
            if select.select([awake], [], [], self._patience_s())[0]:
                for number in awake.recv(4096):
                    if number in _ENDING:
                        self._end(number)

    def _warm(self) -> None:
        started = time.monotonic()
        for name in dict.fromkeys(name for slot in self._slots for name in slot.spec.warm):
            module = importlib.import_module(name)
            if hasattr(module, "warm"):
                module.warm()
        note(
            "supervisor", workers=[slot.spec.name for slot in self._slots], warm_s=round(time.monotonic() - started, 2)
        )

    def _end(self, number: int) -> None:
        """A second signal does not prolong the grace."""
        for slot in self._slots:
            slot.due_s = None
        self._signal_all(number)
        if self._stop_by_s is None:
            self._stop_by_s = time.monotonic() + self.grace_s

    def _signal_all(self, number: int) -> None:
        for slot in self._slots:
            if slot.pid:
                os.kill(slot.pid, number)  # our child, not yet waited for: the pid cannot belong to anyone else
                if number != signal.SIGKILL:
                    os.kill(slot.pid, signal.SIGCONT)  # a frozen child must hear it

    def _reap(self) -> None:
        for slot in self._slots:
            if not slot.pid:
                continue
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if pid == 0:
                continue
            code, life_s = os.waitstatus_to_exitcode(status), time.monotonic() - slot.born_s
            slot.pid = 0
            self._pid_file(slot).unlink(missing_ok=True)
            if self._stop_by_s is None and code not in (DRAINED, OUTDATED):
                slot.due_s = time.monotonic() + slot.back_off.after(life_s, code)
            note("ended", worker=slot.spec.name, code=code, life_s=round(life_s, 3))

    def _start_due(self) -> None:
        for slot in self._slots:
            if not slot.pid and slot.due_s is not None and slot.due_s <= time.monotonic():
                self._fork(slot)

    def _patience_s(self) -> float | None:
        times = [slot.due_s for slot in self._slots if not slot.pid and slot.due_s is not None]
        if self._stop_by_s is not None:
            times.append(self._stop_by_s)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _fork(self, slot: _Slot) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)  # a signal between fork and exec of _live must not be lost
        slot.born_s, slot.due_s = time.monotonic(), None
        slot.pid = os.fork()
        if slot.pid == 0:
            self._live(slot.spec, parent, slot.lives)
        slot.lives += 1
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        fresh = self._pid_file(slot).with_suffix(".pid.new")
        fresh.write_text(str(slot.pid))
        fresh.replace(self._pid_file(slot))

    def _pid_file(self, slot: _Slot) -> Path:
        return self.folder / f"{slot.spec.name}.pid"

    def _live(self, spec: WorkerSpec, parent: int, lives: int) -> NoReturn:
        """In the child; never returns into the supervisor's code."""
        global _restarts
        _restarts = lives
        code: int | None = FAULT
        try:
            _die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            for number in _WATCHED:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
            _redirect(self.folder / f"{spec.name}.log")
            code = spec.target()
        except SystemExit as exception:
            code = exception.code if isinstance(exception.code, int) else int(exception.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code or 0)


def _die_with_parent(parent: int) -> None:
    """Linux only; elsewhere orphans live on until the broker expels them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(FAULT)


def _redirect(path: Path) -> None:
    """stdout and stderr to the end of the file, stdin from nothing."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
