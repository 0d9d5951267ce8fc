"""The chaos command on a running broker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from streams.runtime.kafka_process import Broker

ROOT = Path(__file__).parents[2]
LIMIT_S = 480  # of a run on a machine that is busy with other things


def chaos(broker: Broker, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and the JSON object of the last line."""
    command = [sys.executable, "-m", "tests.chaos", "--broker", broker.address, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])
