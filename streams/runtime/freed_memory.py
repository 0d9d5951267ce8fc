"""What was freed goes back to the system: glibc keeps it in the pools of the threads that asked for it.

A worker with many accounts allocates and frees arrays of megabytes at every barrier and checkpoint, in several threads.
Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

POOLS = 2
EVERY_S = 2.0
_M_ARENA_MAX = -8  # malloc.h


class FreedMemory:
    """Gives back, at most every EVERY_S seconds."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._trim: Any = getattr(library, "malloc_trim", None)
        self._given_s = time.monotonic()

    def give_back(self) -> None:
        """May take milliseconds, without Python's lock."""
        if self.is_due():
            self._given_s = time.monotonic()
            self._trim(0)

    def is_due(self) -> bool:
        """Is it long enough ago, and is there a way to do it?"""
        return self._trim is not None and time.monotonic() - self._given_s >= EVERY_S


def share_pools() -> None:
    """At most POOLS of them from now on; to be called before there are threads."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_ARENA_MAX, POOLS)
