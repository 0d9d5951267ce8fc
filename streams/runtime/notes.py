"""Notes: one line each on stderr, as a JSON object for log collectors and the chaos harness, or as text for people.

A process says once who it is (`introduce`); every later line carries it. No note takes a configuration or a secret.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any, Literal

_STDERR = 2
Format = Literal["json", "text"]


class _Speaker:
    """Who speaks in this process, and how."""

    format: Format = "json"
    who: dict[str, object] = {}  # noqa: RUF012 - one process, one speaker


def introduce(log_format: Format, **who: object) -> None:
    """From now on lines of this process have this format and carry these fields (worker, role)."""
    _Speaker.format, _Speaker.who = log_format, who


def note(event: str, **fields: object) -> None:
    """Write an event with the time, the process and who it is, as one line, in one write."""
    said = {"time_s": round(time.time(), 4), "pid": os.getpid(), **_Speaker.who, **fields}
    os.write(_STDERR, (line(event, said) + "\n").encode())


def line(event: str, said: dict[str, Any]) -> str:
    """`{"event": ..., "time_s": ..., ...}`, or `2026-01-31 12:00:00.000 risk-0 ready role=risk`."""
    if _Speaker.format == "json":
        return json.dumps({"event": event, **said}, default=str)
    rest = {name: value for name, value in said.items() if name not in ("time_s", "worker", "pid", "traceback")}
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(said["time_s"])) + f"{said['time_s'] % 1:.3f}"[1:]
    words = [moment, str(said.get("worker", f"pid {said['pid']}")), event, *(f"{k}={v}" for k, v in rest.items())]
    return " ".join(words) + ("\n" + str(said["traceback"]).rstrip() if said.get("traceback") else "")


class NoteHandler(logging.Handler):
    """Warnings of libraries as notes, so that a log has one format."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
            note("log", level=record.levelname, logger=record.name, message=record.getMessage(), traceback=trace)
        except Exception:
            self.handleError(record)
