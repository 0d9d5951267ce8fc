"""One digest of scenarios, P&L table and margins for every processor numba can compile for, and 1, 2 and 3 threads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

WORLD = Path(__file__).with_name("bit_identity_world.py")
REQUIRED = ("host", "x86-64-v3")
TARGETS = (*REQUIRED, "haswell", "skylake-avx512", "znver4")
AT_A_TIME = 2


def digests_of(target: str, cache: Path) -> dict[str, str] | None:
    """Digests by number of threads of a process compiled for the target; None if this machine cannot execute it."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache / target)}
    if target != "host":
        environment["NUMBA_CPU_NAME"] = target
    done = subprocess.run([sys.executable, WORLD], env=environment, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGILL and target not in REQUIRED:
        return None
    assert done.returncode == 0, f"{target}: {done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_every_target_and_number_of_threads_gives_the_same_bits(tmp_path: Path) -> None:
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        found = dict(zip(TARGETS, pool.map(lambda target: digests_of(target, tmp_path), TARGETS), strict=True))
    for target in TARGETS:
        print(f"{target}: {'not run: this machine cannot execute it' if found[target] is None else found[target]['1']}")
    run = {target: by_threads for target, by_threads in found.items() if by_threads is not None}
    assert len({digest for by_threads in run.values() for digest in by_threads.values()}) == 1, run
