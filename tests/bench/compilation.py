"""Compilation: from nothing, from the cache after a restart, and whether workers share that cache.

Processor time, user and system, of the whole process: on a machine that others use the clock on the wall measures them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.rows import Row

ROOT = Path(__file__).parents[2]
WORKLOAD = [str(ROOT / "tests" / "integration" / "bit_identity_world.py")]
SMALL_WORKLOAD = [
    "-c",
    """
import json, numpy
from kernels.sobol import RANDOM_WORDS, scrambled_points
print(json.dumps({"1": scrambled_points(64, numpy.zeros((3, RANDOM_WORDS), numpy.uint32)).tobytes().hex()}))
""",
]
COLD_GOAL_S, WARM_GOAL_S = 30.0, 5.0
NAMES = ("process with an empty cache", "process with a warm cache", "two more processes at once, same cache")


class Run(NamedTuple):
    """Seconds of the processors and on the wall, and what the processes said."""

    processor_s: float
    wall_s: float
    found: list[str]


def rows(small: bool) -> Iterator[Row]:
    """A process that draws scenarios, fits a model, prices, and margins 300 accounts: start to end, thrice on one cache
    folder. Small: one that draws a few points.
    """
    workload = SMALL_WORKLOAD if small else WORKLOAD
    with tempfile.TemporaryDirectory() as folder:
        runs = [_run(workload, folder, 1), _run(workload, folder, 1)]
        compiled = _files(folder)
        runs.append(_run(workload, folder, 2))
        assert _files(folder) == compiled, "a later worker compiled again"
    assert len({digest for run in runs for digest in run.found}) == 1, "the processes disagree"
    goals = (COLD_GOAL_S, WARM_GOAL_S, None)
    for name, run, goal in zip(NAMES, runs, goals, strict=True):
        yield Row(
            name=f"{name}, on the wall",
            value=round(run.wall_s, 2),
            unit="s",
            goal="what a newcomer waits, on this machine as it is now",
            size=f"{os.cpu_count()} processors",
            checksum=run.found[0][:16],
        )
        yield Row(
            name=name,
            value=round(run.processor_s, 2),
            unit="s of processor time",
            peer=NAMES[0],
            ratio=round(runs[0].processor_s / run.processor_s, 1),
            goal=f"<= {goal:g} s" if goal else "nothing compiled again",
            ok=None if small else goal is None or run.processor_s <= goal,
            size=f"{len(compiled)} cache files",
            checksum=run.found[0][:16],
        )


def _run(workload: list[str], folder: str, processes: int) -> Run:
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"NUMBA_CACHE_DIR": folder}
    started = [
        subprocess.Popen([sys.executable, *workload], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    found = [process.communicate()[0].strip() for process in started]
    assert all(process.returncode == 0 for process in started)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(processor_s, time.perf_counter() - began, [text.split('"')[3] for text in found])


def _files(folder: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*.nbc")}
