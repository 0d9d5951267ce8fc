"""python -m streams.runtime.development_broker --data DIR [--port 9092]"""

import argparse
import asyncio
import fcntl
import logging
import signal
from pathlib import Path

import uvloop

from .broker import HOST, Broker

WHAT = "DPME development broker (single node, loopback only, not for production)"
ADVICE = "give another folder by --data, or another port by --port (0: any free one)"


async def run(folder: Path, port: int) -> None:
    """Serves until it is killed, by any signal: all that matters is on disk before it is acknowledged."""
    broker = Broker(folder)
    server = await asyncio.start_server(broker.connection, HOST, port, limit=1 << 20)
    broker.port = server.sockets[0].getsockname()[1]
    print(f"{WHAT} listening on {HOST}:{broker.port}, log in {folder}", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        await asyncio.sleep(0.1)
        for group in broker.state.groups.values():
            group.advance()


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
    except (OSError, OverflowError, ValueError) as error:
        why = "the folder is used by another broker: stop it, or" if isinstance(error, BlockingIOError) else f"{error}:"
        parser.exit(2, f"development broker, {arguments.data}: {why} {ADVICE}\n")


main()
