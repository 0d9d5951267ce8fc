"""What workers wrote about themselves: the JSON lines of their logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def notes(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a log."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.startswith('{"event"')]


def last_pid(path: Path, event: str) -> int | None:
    """Process that wrote the last note of a kind."""
    return next((one["pid"] for one in reversed(notes(path)) if one["event"] == event), None)


def tracebacks(path: Path) -> list[str]:
    """The exceptions that ended a life and were printed, not noted."""
    said, inside = [], False
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        if inside and line and not line.startswith(" "):
            said.append(line)
            inside = False
        inside = inside or line.startswith("Traceback (most recent call last)")
    return said
