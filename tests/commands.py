"""`dpme` as a process, as whoever installed it runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DPME = (sys.executable, "-m", "streams.cli.main")


def environment(**given: str) -> dict[str, str]:
    """This process's, with no DPME_ variable but the given ones."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DPME_")} | given


def dpme(*arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
    """A command to its end; `given`: variables of its environment."""
    command = [*DPME, *arguments]
    return subprocess.run(command, env=environment(**given), cwd=ROOT, capture_output=True, text=True, timeout=240)
