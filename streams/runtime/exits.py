"""How a worker ends. It is crash-only: state in memory never outlives a lost output or an unexplained exception.

Exit codes tell the supervisor what to do next: see `streams.runtime.supervisor`.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import NoReturn

from schemas.log_records import NewerEngine
from streams.runtime.notes import note

FAULT = 70  # an exception, a lost output, a gap in an internal log, a stall: restart at once
MEMBERSHIP_LOST = 71  # the broker no longer knows us under our static name: wait one to two sessions, then restart
DRAINED = 72  # left the group on request: do not restart
OUTDATED = 73  # a newer engine writes the log: do not restart this one, others take over when its session ends

# Stop for good: hand the partitions over at once. (SIGTERM keeps them for a session, for the next life of that name.)
DRAIN_SIGNAL: int = getattr(signal, "SIGRTMIN", signal.SIGUSR1)


def die(reason: str, exception: BaseException | None = None, code: int = FAULT) -> NoReturn:
    """Note why, with the traceback, and end the process at once: no handler, no farewell to the group."""
    if isinstance(exception, NewerEngine):
        code = OUTDATED
    trace = "".join(traceback.format_exception(exception)) if exception else ""
    note("die", reason=reason, code=code, exception=repr(exception) if exception else None, traceback=trace)
    sys.stderr.flush()
    os._exit(code)
