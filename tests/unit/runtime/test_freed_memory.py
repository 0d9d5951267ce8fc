"""Freed memory is given back, not too often, and nowhere where the library has no such call."""

from __future__ import annotations

import pytest

from streams.runtime import freed_memory
from streams.runtime.freed_memory import EVERY_S, FreedMemory


def test_it_is_given_back_at_most_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, trimmed = [100.0], list[int]()
    monkeypatch.setattr(freed_memory.time, "monotonic", lambda: now_s[0])
    freed = FreedMemory()
    monkeypatch.setattr(freed, "_trim", trimmed.append)
    for now_s[0] in (100.0, 100.0 + EVERY_S, 100.5 + EVERY_S, 100.0 + 2 * EVERY_S):
        freed.give_back()
    assert trimmed == [0, 0]


def test_without_the_call_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda _: object())
    freed_memory.share_pools()
    freed = FreedMemory()
    freed._given_s -= EVERY_S
    freed.give_back()
