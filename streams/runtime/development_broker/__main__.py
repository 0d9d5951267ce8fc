"""python -m streams.runtime.development_broker --data DIR [--port 9092]"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import logging
import os
import signal
import sqlite3
import sys
from pathlib import Path

import uvloop

from .broker import HOST, Broker

WHAT = "DPME development broker (single node, loopback only, not for production)"


class CannotStart(Exception):
    """A reason for the person at the terminal, with what to do."""


def lock(folder: Path) -> int:
    """Holds the folder for this process; the file must stay open."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CannotStart(f"cannot write to {folder} ({error.strerror}): give another folder by --data") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CannotStart(f"{folder} is used by another broker: stop it, or give another folder by --data") from error
    return file


async def run(folder: Path, port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    try:
        broker = Broker(folder)
        server = await broker.serve(port)
    except (OSError, OverflowError) as error:
        raise CannotStart(f"cannot listen on port {port} ({error}): give another one by --port (0: any free one)") from error
    (folder / "broker.json.new").write_text(json.dumps({"pid": os.getpid(), "port": broker.port}))
    (folder / "broker.json.new").replace(folder / "broker.json")
    print(f"{WHAT} listening on {HOST}:{broker.port}, log in {folder}", flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    expiry = asyncio.create_task(broker.expire_sessions())
    await stopped.wait()
    expiry.cancel()
    server.close()
    (folder / "broker.json").unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m streams.runtime.development_broker", description=WHAT)
    parser.add_argument("--data", type=Path, required=True, help="folder of the log")
    parser.add_argument("--port", type=int, default=9092, help="0: any free one (default: 9092)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s development broker: %(message)s")
    try:
        held = lock(arguments.data)
        uvloop.run(run(arguments.data, arguments.port))
        os.close(held)
    except (CannotStart, sqlite3.Error) as error:
        print(f"development broker: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
