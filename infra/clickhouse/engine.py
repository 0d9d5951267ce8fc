#!/usr/bin/env python3
"""A real ClickHouse engine on loopback without Docker or root: native protocol and HTTP, for tests and for looking.

    python infra/clickhouse/engine.py fetch                      # once, by npm: 178 MB, unpacked 567 MB
    python infra/clickhouse/engine.py run FOLDER TCP_PORT HTTP_PORT

The engine is the shared library of the npm package named below (ClickHouse 26.7), which can be told to listen. It has
no authentication, it may abort when a client dies in the middle of an INSERT, and it has no place in production: there
use ClickHouse's own server or image. It ends when its standard input does, so that no engine outlives whoever started
it. Ready when http://127.0.0.1:HTTP_PORT/ping answers.

Standard library only. The library lies under DPME_CLICKHOUSE_ENGINE, or ~/.cache/dpme/clickhouse.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

# Exactly this version: the tag `latest` of the package is older and knows no --listen_host.
PACKAGE = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1"
HOST = "127.0.0.1"


class EngineError(Exception):
    """The engine cannot be had or started; the message says what to do."""


def library() -> Path:
    """Where the shared library lies, or will."""
    folder = os.environ.get("DPME_CLICKHOUSE_ENGINE") or Path.home() / ".cache" / "dpme" / "clickhouse"
    return Path(folder) / "26.7.3" / "libchdb.so"


def fetch() -> Path:
    """The library, fetched by npm if it is missing, whole or not at all. Raises EngineError."""
    wanted = library()
    if wanted.exists():
        return wanted
    if shutil.which("npm") is None:
        raise EngineError("npm is missing: apt install --no-install-recommends npm")
    wanted.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wanted.parent.parent) as folder:
        packing = subprocess.run(
            ["npm", "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        archives = list(Path(folder).glob("*.tgz"))
        if packing.returncode or not archives:
            raise EngineError(f"npm pack {PACKAGE} failed: {packing.stderr.strip()[-400:]}")
        fresh = Path(folder) / "fresh"
        fresh.mkdir()
        with tarfile.open(archives[0]) as archive, open(fresh / "libchdb.so", "wb") as target:
            source = archive.extractfile("package/libchdb.so")
            if source is None:
                raise EngineError(f"{PACKAGE} has no libchdb.so")
            shutil.copyfileobj(source, target)
        with contextlib.suppress(OSError):  # another process may have been faster
            fresh.rename(wanted.parent)
    return wanted


def run(folder: Path, tcp_port: int, http_port: int) -> None:
    """Serve until standard input ends. Raises EngineError if it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    control = folder / "control"
    if not control.exists():
        os.mkfifo(control)
    threading.Thread(target=_end_with_stdin, args=(control,), daemon=True).start()
    # The last statement reads the pipe, and so lasts as long as nobody writes and closes it.
    serving = (
        "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "
        f"SELECT count() FROM file('{control.resolve()}', 'LineAsString', 'line String') FORMAT Null"
    )
    arguments = [
        "clickhouse", f"--path={folder.resolve()}", f"--listen_host={HOST}", f"--tcp_port={tcp_port}",
        f"--http_port={http_port}", "--log-level=fatal", f"--query={serving}",
    ]  # fmt: skip
    engine = ctypes.CDLL(str(fetch()))
    engine.chdb_query_cmdline.restype = ctypes.c_void_p
    engine.chdb_query_cmdline.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    engine.chdb_result_error.restype = ctypes.c_char_p
    engine.chdb_result_error.argtypes = [ctypes.c_void_p]
    argv = (ctypes.c_char_p * (len(arguments) + 1))(*(text.encode() for text in arguments), None)
    error = engine.chdb_result_error(engine.chdb_query_cmdline(len(arguments), argv))
    if error:
        raise EngineError(error.decode(errors="replace"))


def _end_with_stdin(control: Path) -> None:
    """A grace for the engine to close its files; it does not always end by itself."""
    with open(control, "w"):
        sys.stdin.buffer.read()
    threading.Timer(1.0, os._exit, (0,)).start()


def main() -> int:
    match sys.argv[1:]:
        case ["fetch"]:
            print(fetch())
        case ["run", folder, tcp_port, http_port]:
            run(Path(folder), int(tcp_port), int(http_port))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EngineError as failure:
        sys.exit(f"engine: {failure}")
