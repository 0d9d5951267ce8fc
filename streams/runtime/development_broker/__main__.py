"""python -m streams.runtime.development_broker --data DIR [--port 9092]"""

import argparse
import asyncio
import fcntl
import json
import logging
import os
import signal
import sqlite3
from pathlib import Path

import uvloop

from .broker import HOST, Broker

WHAT = "DPME development broker (single node, loopback only, not for production)"
ADVICE = "give another folder by --data, or another port by --port (0: any free one)"


async def run(folder: Path, port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    broker, stopped = Broker(folder), asyncio.Event()
    server = await asyncio.start_server(broker.connection, HOST, port, limit=1 << 20)
    broker.port = server.sockets[0].getsockname()[1]
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    (folder / "broker.json.new").write_text(json.dumps({"pid": os.getpid(), "port": broker.port}))
    (folder / "broker.json.new").replace(folder / "broker.json")
    print(f"{WHAT} listening on {HOST}:{broker.port}, log in {folder}", flush=True)
    while not stopped.is_set():
        await asyncio.sleep(0.1)
        broker.expire_sessions()
    (folder / "broker.json").unlink()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m streams.runtime.development_broker", description=WHAT)
    parser.add_argument("--data", type=Path, required=True, help="folder of the log")
    parser.add_argument("--port", type=int, default=9092, help="0: any free one (default: 9092)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s development broker: %(message)s")
    try:
        arguments.data.mkdir(parents=True, exist_ok=True)
        with open(arguments.data / "lock", "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            uvloop.run(run(arguments.data, arguments.port))
    except BlockingIOError:
        parser.exit(2, f"development broker: {arguments.data} is used by another broker: stop it, or {ADVICE}\n")
    except (OSError, OverflowError, sqlite3.Error) as error:
        parser.exit(2, f"development broker: {error}: {ADVICE}\n")


if __name__ == "__main__":
    main()
