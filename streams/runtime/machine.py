"""What the runtime asks of a role's logic: a machine is pure state, moved by records, that yields outputs.

The state of a machine is a function of the prefixes of the logs it reads, and so is every output. That is what makes
restarts harmless: a machine restored from a checkpoint and fed the rest of the logs emits the same bytes again, and
readers drop what they have seen (`streams.runtime.once`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from streams.engine.output import Output

LogPosition = tuple[str, int]  # (topic without prefix, partition)
Headers = tuple[tuple[str, bytes], ...]
__all__ = ["Headers", "LogPosition", "Machine", "MachineFactory", "Output", "PositionsSource", "from_the_beginning"]


class Machine(Protocol):
    """State of one unit. The shell never calls two of these methods at once for the same machine."""

    def positions(self) -> dict[LogPosition, int]:
        """Next offset wanted of every log read so far; a log that is missing starts at 0."""
        ...

    def start(self) -> list[Output]:
        """What to send when this machine begins, empty or loaded, before its first record (a sequencer's fence)."""
        ...

    def steps(
        self, topic: str, partition: int, offset: int, value: bytes | None, headers: Headers
    ) -> Iterator[list[Output]]:
        """Apply exactly one record. Each yielded list may be sent before the next step is computed.

        The state is valid again only once the iterator is exhausted; then positions() must say offset + 1 for this
        log. In logs with gaps allowed the offset may be higher than the one wanted: nothing lies between. Any
        exception is a fault and ends the process; bad input must be handled as data.
        """
        ...

    def is_long(self, topic: str, value: bytes | None) -> bool:
        """True: run the steps of this record in a worker thread (kernels that release the GIL)."""
        ...

    def checkpoint_mark(self) -> int | None:
        """After a record: a non-decreasing number (the block) if the present state is fit for a checkpoint, else None.

        The shell decides which marks are used (`checkpoint_every`, turns of hot-standby groups, staggering of units).
        """
        ...

    def dump(self) -> bytes:
        """The whole state, positions included, undone by `MachineFactory.load`. Same state, same bytes."""
        ...


class MachineFactory(Protocol):
    """Makes the machines of a role. A unit moves as a whole: a partition of account.log, or 0 for a single owner."""

    def empty(self, unit: int) -> Machine: ...

    def load(self, unit: int, raw: bytes) -> Machine:
        """Called in threads, for several units at once."""
        ...

    def unit_of(self, topic: str, partition: int) -> int: ...


PositionsSource = Callable[[int, frozenset[LogPosition]], "dict[LogPosition, int] | Awaitable[dict[LogPosition, int]]"]


def from_the_beginning(unit: int, logs: frozenset[LogPosition]) -> dict[LogPosition, int]:
    """A PositionsSource for read replicas without checkpoints: everything, from the first record on."""
    return dict.fromkeys(logs, 0)
