"""What a transition hands to its shell: records to append, nothing else."""

from __future__ import annotations

from typing import NamedTuple

from schemas.log_records import NewerEngine


class Output(NamedTuple):
    """One record to append. `topic` is the short name; headers never take part in what a record means."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Fault(Exception):
    """The log contradicts itself, or an invariant is broken: never go on from here."""


class OlderState(Fault):
    """A checkpoint of an older release, which is not read any more: the log has to be applied from its beginning."""


def check_dump_version(role: str, found: int, own: int) -> None:
    """Raises NewerEngine for a checkpoint of a newer engine, OlderState for one that is not read any more."""
    if found > own:
        raise NewerEngine(f"a checkpoint of {role} has version {found}, this engine reads {own}: upgrade it")
    if found < own:
        raise OlderState(f"{role} checkpoint of version {found}; this release reads {own}")
