"""Progress watchdog: a worker that stands still while its log grows ends, and is started again.

Consumers that stop without a word are known (faust-streaming issues 175, 523, 640). The limit must exceed the rebalance
timeout plus two sessions, and the longest restore, else every life is killed again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

from streams.runtime.exits import die
from streams.runtime.machine import LogPosition
from streams.runtime.notes import note

_ASK_LIMIT_S = 3.0


class StallDetector:
    """Pure bookkeeping of who has been standing still since when; time comes from the caller."""

    def __init__(self, limit_s: float, idle_limit_s: float | None) -> None:
        self.limit_s, self.idle_limit_s = limit_s, idle_limit_s
        self._last: dict[LogPosition, int] = {}
        self._since: dict[LogPosition, float] = {}
        self._idle_since: float | None = None

    def forget(self) -> None:
        """The broker is away: that is not our stall."""
        self._since.clear()
        self._idle_since = None

    def observe(self, now_s: float, positions: dict[LogPosition, int], behind: set[LogPosition]) -> str | None:
        """Why the process should end, or None. behind: assigned logs with a record at or after our position."""
        standing = {log for log in behind if positions[log] == self._last.get(log)}
        self._since = {log: self._since.get(log, now_s) for log in standing}
        self._last = dict(positions)
        self._idle_since = None if positions else (now_s if self._idle_since is None else self._idle_since)
        for log, since_s in sorted(self._since.items()):
            if now_s - since_s > self.limit_s:
                return f"{log[0]}/{log[1]} stands at {positions[log]} below the log's end"
        if (
            self.idle_limit_s is not None
            and self._idle_since is not None
            and now_s - self._idle_since > self.idle_limit_s
        ):
            return "no assignment"
        return None


class Watchdog(threading.Thread):
    """A thread, because it must not hang with the loop: it ends the process when `watch` has not come round."""

    def __init__(self, limit_s: float, idle_allowed: bool = False, period_s: float = 1.0) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.limit_s, self.period_s = limit_s, period_s
        self.detector = StallDetector(limit_s, None if idle_allowed else 2 * limit_s)
        self.beat_s = time.monotonic()
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self.period_s):
            if time.monotonic() - self.beat_s > self.limit_s:
                die(f"event loop silent for {self.limit_s} s")

    def stop(self) -> None:
        self._stopped.set()

    async def watch(
        self,
        positions: Callable[[], dict[LogPosition, int]],
        behind: Callable[[dict[LogPosition, int]], Awaitable[set[LogPosition]]],
    ) -> None:
        """positions(): our next offset (-1: not restored) in every assigned log. behind(positions) must ask the broker
        by a connection of its own: the high-water mark of a silent consumer stands still with it."""
        while True:
            await asyncio.sleep(self.period_s)
            self.beat_s = time.monotonic()
            at = positions()
            try:
                lagging = await asyncio.wait_for(behind(at), _ASK_LIMIT_S) if at else set()
            except Exception as exception:
                note("watchdog_blind", exception=repr(exception))
                self.detector.forget()
                continue
            reason = self.detector.observe(self.beat_s, at, lagging)
            if reason is not None:
                die(reason)
