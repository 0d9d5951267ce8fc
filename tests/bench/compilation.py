"""Compilation: from nothing, from the cache after a restart, and whether workers share that cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.rows import Row

WORKLOAD = Path(__file__).parents[1] / "integration" / "bit_identity_world.py"
COLD_GOAL_S, WARM_GOAL_S = 30.0, 5.0
NAMES = ("process with an empty cache", "process with a warm cache", "two more processes at once, same cache")


def rows(small: bool) -> Iterator[Row]:
    """A process that draws scenarios, prices, and margins 300 accounts: start to end, thrice on one cache folder.

    `small` changes nothing in the work: what is measured is compilation, and it has one size.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = [_run(folder, 1), _run(folder, 1)]
        compiled = _files(folder)
        runs.append(_run(folder, 2))
        assert _files(folder) == compiled, "a later worker compiled again"
    assert len({digest for _, found in runs for digest in found}) == 1, "the processes disagree"
    goals = (COLD_GOAL_S, WARM_GOAL_S, None)
    for name, (seconds, found), goal in zip(NAMES, runs, goals, strict=True):
        yield Row(
            name=name,
            value=round(seconds, 2),
            unit="s",
            peer=NAMES[0],
            ratio=round(runs[0][0] / seconds, 1),
            goal=f"<= {goal:g} s" if goal else "nothing compiled again",
            ok=None if small else goal is None or seconds <= goal,
            size=f"{len(compiled)} cache files",
            checksum=found[0][:16],
        )


def _run(folder: str, processes: int) -> tuple[float, list[str]]:
    """-> (seconds until all have ended, their output)."""
    began = time.perf_counter()
    environment = os.environ | {"NUMBA_CACHE_DIR": folder}
    started = [
        subprocess.Popen([sys.executable, WORKLOAD], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    found = [process.communicate()[0].strip() for process in started]
    assert all(process.returncode == 0 for process in started)
    return time.perf_counter() - began, [text.split('"')[3] for text in found]


def _files(folder: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*.nbc")}
