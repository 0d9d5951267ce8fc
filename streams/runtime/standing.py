"""Where a running worker stands, for probes and metrics: snapshots that any thread may ask for."""

from __future__ import annotations

import time
from collections.abc import Mapping

from streams.runtime.machine import LogPosition
from streams.runtime.shell import Shell
from streams.runtime.watchdog import Watchdog

ASKED_LIMIT_S = 10.0  # the watchdog asks every second; no answer for so long: the broker is away


class WorkerStanding:
    """Fed by the watchdog's round; says `not_ready` until the worker is assigned, restored and near the end."""

    def __init__(self, lag_limit: int) -> None:
        self.lag_limit = lag_limit
        self._shell: Shell | None = None
        self._watchdog: Watchdog | None = None
        self._positions: dict[LogPosition, int] = {}
        self._lags: dict[LogPosition, int] = {}
        self._asked_s = 0.0

    def follow(self, shell: Shell, watchdog: Watchdog) -> None:
        """The worker has connected."""
        self._shell, self._watchdog = shell, watchdog

    def asked(self, positions: Mapping[LogPosition, int], ends: Mapping[LogPosition, int]) -> None:
        """The broker has said where the logs end. positions: our next offset (-1: not restored) of each log."""
        self._positions = dict(positions)
        self._lags = {log: max(0, ends.get(log, 0) - max(0, position)) for log, position in positions.items()}
        self._asked_s = time.monotonic()

    def not_ready(self) -> str:
        """Why the worker is not ready; "" if it is."""
        if self._shell is None:
            return "not connected yet"
        if time.monotonic() - self._asked_s > ASKED_LIMIT_S:
            return "the broker does not say where the logs end"
        if not self._positions:
            return "no assignment"
        if restoring := [log for log, position in self._positions.items() if position < 0]:
            return f"restoring {_named(min(restoring))}"
        furthest = max(self._lags, key=lambda log: self._lags[log])
        if self._lags[furthest] > self.lag_limit:
            return f"{self._lags[furthest]} records behind in {_named(furthest)}, the limit is {self.lag_limit}"
        return ""

    def shell_counts(self) -> Mapping[str, int]:
        return self._shell.metrics() if self._shell is not None else {}

    def lags(self) -> Mapping[LogPosition, int]:
        return self._lags

    def checkpoint_age_s(self) -> float | None:
        written_s = self._shell.checkpoint_written_s() if self._shell is not None else None
        return None if written_s is None else time.monotonic() - written_s

    def loop_silence_s(self) -> float:
        return time.monotonic() - self._watchdog.beat_s if self._watchdog is not None else 0.0


def _named(log: LogPosition) -> str:
    return f"{log[0]}/{log[1]}"
