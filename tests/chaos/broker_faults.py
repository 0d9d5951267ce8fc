"""Faults of the broker itself: only of one that belongs to the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.faults import fault

if TYPE_CHECKING:
    from tests.chaos.acts import Tormentor

BROKER = "broker"
OWN = "a broker of its own"


@fault("kill broker", "SIGKILL of the broker, and at once a new life on the same log and port", BROKER,
       needs=OWN, always=(BROKER,), takes_s=8.0)  # fmt: skip
async def kill_broker(on: Tormentor, role: str) -> None:
    """From the main thread: it is to die with us."""
    if on.broker is not None:
        with on.lasting("kill broker", BROKER):
            on.broker.kill()
            on.broker.start()
        on.signals["SIGKILL"] += 1
