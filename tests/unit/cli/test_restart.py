"""`dpme restart`: what is not there, or does not come back, is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streams.pipeline.config import PipelineConfig
from streams.pipeline.rolling_restart import RestartError, rolling_restart

SAYS_IT_RUNS = "print(flush=True); import signal; signal.pause()"


def installation(folder: Path) -> PipelineConfig:
    return PipelineConfig(bootstrap="127.0.0.1:1", prefix="t.", folder=str(folder))


def test_nothing_is_touched_if_a_worker_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(RestartError, match=r"enforcement does not run in .*: start the workers by `dpme run all`"):
        list(rolling_restart(installation(tmp_path)))


def test_a_worker_that_does_not_come_back_is_named(tmp_path: Path) -> None:
    workers = []
    for name in ("enforcement", "risk-0"):
        started = subprocess.Popen([sys.executable, "-c", SAYS_IT_RUNS], stdout=subprocess.PIPE)
        assert started.stdout is not None
        started.stdout.readline()
        (tmp_path / f"{name}.pid").write_text(str(started.pid))
        note = f"2026-01-31 12:00:00.000 {name} caught_up role=x life={started.pid}\n"
        (tmp_path / f"{name}.log").write_text(note)
        workers.append(started)
    with pytest.raises(RestartError, match=r"enforcement has not caught up within 0\.2 s of its restart: see"):
        list(rolling_restart(installation(tmp_path), limit_s=0.2))
    assert workers[0].wait(10) != 0
    assert workers[1].poll() is None, "the next worker must not be touched"
    workers[1].kill()
    workers[1].wait(10)
