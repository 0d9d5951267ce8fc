"""Restart the workers of an installation one after the other: each only when the one before has caught up.

With hot standby (`groups` above 1) the other groups write every block meanwhile; with one group the partitions of each
worker stand still for the moment that its next life takes.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from streams.pipeline.config import PipelineConfig
from streams.pipeline.workers import group_members

POLL_S = 0.1
CAUGHT_UP = re.compile(rb"\bcaught_up\b.*\blife\W{1,3}(\d+)\W")  # the note, as JSON or as text


class RestartError(Exception):
    """A worker is not there, or did not come back; the message says which, and where to look."""


def rolling_restart(config: PipelineConfig, limit_s: float = 120.0) -> Iterator[tuple[str, float]]:
    """Restart enforcement and risk workers, group after group; yields (name, seconds until it had caught up)."""
    folder = Path(config.folder)
    names = [one.name for group in range(config.groups) for one in group_members(config, group)]
    for name in names:  # before anything is touched
        _pid(folder, name)
    for name in names:
        yield name, _restart(folder, name, limit_s)


def _restart(folder: Path, name: str, limit_s: float) -> float:
    log, before = folder / f"{name}.log", _pid(folder, name)
    read_from, began_s = log.stat().st_size, time.monotonic()
    os.kill(before, signal.SIGTERM)
    while not _has_caught_up(log, read_from, before):
        if time.monotonic() - began_s > limit_s:
            raise RestartError(f"{name} has not caught up within {limit_s:g} s of its restart: see {log}")
        time.sleep(POLL_S)
    return time.monotonic() - began_s


def _pid(folder: Path, name: str) -> int:
    try:
        pid = int((folder / f"{name}.pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError) as error:
        raise RestartError(f"{name} does not run in {folder}: start the workers by `dpme run all`") from error
    return pid


def _has_caught_up(log: Path, read_from: int, before: int) -> bool:
    """A life after `before` has said so in the part of the log written since."""
    with open(log, "rb") as file:
        file.seek(read_from)
        return any(int(pid) != before for pid in CAUGHT_UP.findall(file.read()))
