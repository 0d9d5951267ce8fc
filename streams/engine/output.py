"""What a transition hands to its shell: records to append, nothing else."""

from __future__ import annotations

from typing import NamedTuple


class Output(NamedTuple):
    """One record to append. `topic` is the short name; headers never take part in what a record means."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Fault(Exception):
    """The log contradicts itself, or an invariant is broken: never go on from here."""
