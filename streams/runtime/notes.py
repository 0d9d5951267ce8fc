"""Notes: one JSON object a line on stderr, for people, log collectors and the chaos harness alike."""

from __future__ import annotations

import json
import os
import time

_STDERR = 2


def note(event: str, **fields: object) -> None:
    """Write `{"event": ..., "time_s": ..., "pid": ..., **fields}` as one line, in one write."""
    line = json.dumps({"event": event, "time_s": round(time.time(), 4), "pid": os.getpid(), **fields}, default=str)
    os.write(_STDERR, (line + "\n").encode())
