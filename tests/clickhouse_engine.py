"""A ClickHouse engine for tests: infra/clickhouse/engine.py as a process that ends with us."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import urllib.request
from pathlib import Path

from streams.runtime.kafka_process import free_port
from tests.waiting import block_until

PROGRAM = Path(__file__).parents[1] / "infra" / "clickhouse" / "engine.py"
START_LIMIT_S = 60.0


class Engine:
    """On free ports, kept over restarts, over `folder`; `url(database)` names a store in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tcp_port, self.http_port = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        subprocess.run([sys.executable, str(PROGRAM), "fetch"], check=True, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        ports = (self.tcp_port, self.http_port)
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "engine.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), "run", str(self.folder / "data"), *map(str, ports)],
                stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        with contextlib.suppress(TimeoutError):
            block_until(lambda: _answers(self.http_port) or self.process.poll() is not None, START_LIMIT_S)
        if not _answers(self.http_port):
            raise RuntimeError(f"the engine did not start: {(self.folder / 'engine.log').read_text()[-800:]}")

    def url(self, database: str) -> str:
        return f"clickhouse://127.0.0.1:{self.tcp_port}/{database}"

    def revive(self) -> None:
        """Start it unless it answers."""
        if self.process is None or not _answers(self.http_port):
            if self.process is not None:
                self.kill()
            self.start()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1) as answer:
        return bool(answer.read().strip() == b"Ok.")
    return False
