"""`<data>/current.json`: where to find the run that uses a data folder; written by it, read by query and watch."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from streams.sink.store import is_server

DEFAULT_DATA = ".dpme"


class CurrentRun(Struct, frozen=True, kw_only=True):
    """One run. `store`: folder or URL of its store, `gateway`: URL of its WebSocket; empty where it has none."""

    bootstrap: str
    prefix: str
    store: str = ""
    gateway: str = ""
    partitions: int = 0
    kind: str = ""


def read_current_run(data: Path | str) -> CurrentRun | None:
    """The run described in the data folder; None where there is none, or what is there cannot be read as one."""
    try:
        return msgspec.json.decode((Path(data) / "current.json").read_bytes(), type=CurrentRun)
    except (OSError, msgspec.DecodeError):
        return None


def write_current_run(data: Path | str, run: CurrentRun) -> None:
    """Replace the description at once (a reader sees the old or the new, never half)."""
    target = Path(data) / "current.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_suffix(f".{os.getpid()}.new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")
    os.replace(new, target)


def store_of(data: Path | str) -> str:
    """The store of a data folder, as its run says, else `<data>/store`; a ClickHouse server's URL is one itself."""
    if is_server(data):
        return str(data)
    run = read_current_run(data)
    return run.store if run is not None and run.store else str(Path(data) / "store")
