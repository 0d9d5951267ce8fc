"""The rule by which readers of outputs drop repeats, and see losses and conflicts.

Outputs carry a sequence number that is dense per (topic, partition): 1, 2, 3, ... Several writers may append the same
numbers (a restarted owner, a hot standby). Each of them starts at or below what is already in the log, because a
checkpoint follows the acknowledgements of its outputs, and an idempotent producer leaves no hole in its own stream.
Therefore a number that skips is a loss, and a repeat with other bytes is a conflict: both are faults of a writer.
"""

from __future__ import annotations

from typing import Literal

Verdict = Literal["new", "repeat", "loss", "conflict"]


class Once:
    """The rule for one (topic, partition); O(1) per record.

    last: sequence number of the last value taken (0: none yet), e.g. from the reader's database.
    window: how many of the newest values are remembered to compare repeats with; older repeats count as equal.
    """

    def __init__(self, last: int = 0, window: int = 4096) -> None:
        self.last = last
        self.window = window
        self._recent: dict[int, int] = {}

    def take(self, sequence: int, value: bytes) -> Verdict:
        """Judge one record. Only "new" advances; on "loss" and "conflict" a reader must stop and say so."""
        if sequence > self.last + 1:
            return "loss"
        mark = hash(value)
        if sequence <= self.last:
            return "repeat" if self._recent.get(sequence, mark) == mark else "conflict"
        self.last = sequence
        self._recent[sequence] = mark
        self._recent.pop(sequence - self.window, None)
        return "new"
