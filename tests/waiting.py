"""Waiting for what a test looks for: as short as it takes, and a failure, not a hang, where it never comes."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

LIMIT_S, POLL_S = 120.0, 0.01


async def wait_until(condition: Callable[[], Any], limit_s: float = LIMIT_S, poll_s: float = POLL_S) -> Any:
    """The first true answer of a function or coroutine function. Raises TimeoutError."""
    async with asyncio.timeout(limit_s):
        while True:
            answer = condition()
            found = await answer if inspect.isawaitable(answer) else answer
            if found:
                return found
            await asyncio.sleep(poll_s)


def block_until(condition: Callable[[], Any], limit_s: float = LIMIT_S, poll_s: float = POLL_S) -> Any:
    """The same without an event loop."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {limit_s:g} s in vain")
        time.sleep(poll_s)
    return found
