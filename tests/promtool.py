"""Prometheus's own checker in tests: infra/prometheus/promtool finds it or fetches it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "infra" / "prometheus" / "promtool"
CANNOT_BE_HAD = 69


def promtool(*arguments: str, given: str = "") -> str:
    """What it complains of; "" if nothing. Where it cannot be had the test is skipped, in CI it fails."""
    done = subprocess.run([str(PROGRAM), *arguments], input=given, capture_output=True, text=True, timeout=300)
    if done.returncode == CANNOT_BE_HAD:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(done.stderr.strip())
    said = f"{done.stdout}\n{done.stderr}".strip()
    if arguments[:2] == ("check", "metrics"):  # it complains on stderr and may still end with 0
        return done.stderr.strip() or ("" if done.returncode == 0 else said)
    return "" if done.returncode == 0 else said
