"""The store behind four calls, execute, insert, query and stream; and its embedded kind: chDB, one process a folder.

chDB (ClickHouse in the process) is imported when a store is opened, never before: a process that has loaded it must not
be forked (start children with `spawn`). One `insert` is one block of rows and becomes one part, which appears whole or
not at all, whatever kills the process.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import orjson
import pyarrow as pa

from streams.sink.errors import QueryRefused, StoreBusy, StoreEmpty, StoreError

SCHEMA_VERSION = 2
DATABASE = "dpme"
# One INSERT of a table becomes one block, hence one part: nothing may split it, nothing may run beside it.
_ONE_BLOCK = "max_threads=1, max_insert_threads=1, min_insert_block_size_rows=1000000000, min_insert_block_size_bytes=0"
# chDB 26.9 does not report a write that fails in the middle of a part: it must not come to that.
FREE_BYTES_MIN = 64 << 20
LOCK_POLL_S = 0.05
_DISK_WORDS = re.compile(r"NOT_ENOUGH_SPACE|CANNOT_WRITE|No space left|Read-only file")
QUESTION_WORDS = re.compile(
    r"UNKNOWN_|SYNTAX_ERROR|TYPE_MISMATCH|ILLEGAL_|NUMBER_OF_ARGUMENTS|NOT_AN_AGGREGATE|CANNOT_PARSE|BAD_ARGUMENTS"
)


class Store(Protocol):
    """What the sink and the queries need of a database; `database` is its name, which stands before every table's."""

    database: str

    def execute(self, sql: str) -> None:
        """Run a statement that returns nothing."""
        ...

    def insert(self, table: str, rows: pa.Table) -> None:
        """Append rows, by column name, to a table: all or none."""
        ...

    def query(self, sql: str, parameters: Mapping[str, str | int] | None = None) -> list[dict[str, Any]]:
        """Rows of a SELECT; `{name:Type}` in it takes its value from `parameters`."""
        ...

    def stream(self, sql: str, parameters: Mapping[str, str | int] | None = None) -> Iterator[pa.RecordBatch]:
        """The same as Arrow record batches, without holding the whole answer."""
        ...


def is_server(target: Path | str) -> bool:
    """Whether a store is named by the URL of a ClickHouse server; a folder otherwise."""
    return str(target).startswith(("clickhouse://", "clickhouses://"))


def schema_statements(database: str = DATABASE) -> list[str]:
    """The statements of schema.sql for a database of this name, in order, without comments."""
    text = resources.files("streams.sink").joinpath("schema.sql").read_text(encoding="utf-8")
    lines = [line.split("--", 1)[0].rstrip() for line in text.splitlines()]
    statements = [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]
    return [re.sub(rf"(EXISTS ){DATABASE}\b", rf"\g<1>{database}", statement, count=1) for statement in statements]


class ChdbStore:
    """A Store in `folder`. Calls may come from any thread; they run one at a time. Ended by close(), or by a kill.

    insert() refuses to write where less than `free_bytes_min` would be left of the disk. `wait_s`: how long another
    process may keep it (a `dpme query` that came while the sink was restarting).
    """

    database = DATABASE

    def __init__(
        self, folder: Path | str, create: bool = True, free_bytes_min: int = FREE_BYTES_MIN, wait_s: float = 0.0
    ) -> None:
        self.folder, self.free_bytes_min = Path(folder), free_bytes_min
        self._calls = threading.RLock()
        self._lock_file = _lock(self.folder, create, wait_s)
        try:
            self._session = _open_session(self.folder / "chdb")
            for statement in schema_statements():
                self.execute(statement)
        except BaseException:
            os.close(self._lock_file)
            raise

    def execute(self, sql: str) -> None:
        self._run(sql, "Null")

    def insert(self, table: str, rows: pa.Table) -> None:
        if rows.num_rows == 0:
            return
        self._require_space(rows.nbytes)
        columns = ", ".join(rows.column_names)
        block = rows.combine_chunks()
        self._insert_block(f"INSERT INTO {DATABASE}.{table} ({columns}) SELECT {columns}", block)

    def _require_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free - needed < self.free_bytes_min:
            raise StoreError(
                f"the disk of {self.folder} is full: {free >> 20} MiB are free, {self.free_bytes_min >> 20} must "
                "remain. Free space and start again: nothing is lost, the sink reads on from the logs"
            )

    def _insert_block(self, head: str, dpme_block: pa.Table) -> None:
        """chDB's table function Python() finds the Arrow table by the name of a variable in a frame of its callers."""
        self._run(f"{head} FROM Python(dpme_block) SETTINGS {_ONE_BLOCK}", "Null")

    def query(self, sql: str, parameters: Mapping[str, str | int] | None = None) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self._run(sql, "JSONEachRow", parameters).bytes().splitlines()]

    def stream(self, sql: str, parameters: Mapping[str, str | int] | None = None) -> Iterator[pa.RecordBatch]:
        with self._calls:
            try:
                answer = self._session.send_query(sql, "Arrow", params=_bound(parameters))
                yield from answer.record_batch()
            except Exception as error:
                raise _translated(error, self.folder) from error

    def _run(self, sql: str, output_format: str, parameters: Mapping[str, str | int] | None = None) -> Any:
        with self._calls:
            try:
                return self._session.query(sql, output_format, params=_bound(parameters))
            except Exception as error:  # chDB raises RuntimeError and its own ChdbError
                raise _translated(error, self.folder) from error

    def close(self) -> None:
        """Close the database and let others open it."""
        with self._calls:
            self._session.close()
            os.close(self._lock_file)


def _lock(folder: Path, create: bool, wait_s: float) -> int:
    """Hold `folder`/lock for the life of the process: the kernel lets go of it after a kill -9 too."""
    if not create and not (folder / "chdb").is_dir():
        raise StoreEmpty(f"there is no store in {folder}: run `dpme demo` or a replay first, or give its --data")
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
        raise StoreError(f"the data folder {folder} {reason}: give another with --data") from error
    limit = time.monotonic() + wait_s
    while not _locked(handle):
        if time.monotonic() < limit:
            time.sleep(LOCK_POLL_S)
            continue
        owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise StoreBusy(
            f"the store {folder} is open in process {owner}: ask it with `dpme query`, or stop it (one process a store)"
        )
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _open_session(folder: Path) -> Any:
    try:
        from chdb.session import Session
    except ImportError as error:
        raise StoreError(f"chDB is not installed ({error}): run `make setup`") from error
    try:
        folder.mkdir(exist_ok=True)
        return Session(str(folder))
    except Exception as error:
        raise StoreError(
            f"chDB cannot open {folder}: {short(error)}. Check that it is writable and the disk is not full; "
            "a damaged store can be removed: the sink writes it again from the logs"
        ) from error


def _bound(parameters: Mapping[str, str | int] | None) -> dict[str, Any] | None:
    """Values as ClickHouse wants them: text escaped as in its tab-separated format."""
    if not parameters:
        return None
    escape = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})
    return {name: value.translate(escape) if isinstance(value, str) else value for name, value in parameters.items()}


def _translated(error: Exception, folder: Path) -> StoreError:
    text = str(error)
    if _DISK_WORDS.search(text):
        return StoreError(f"{folder} cannot be written, is the disk full? Free space, start again: {short(error)}")
    if QUESTION_WORDS.search(text):
        return QueryRefused(short(error))
    return StoreError(f"the store {folder} failed: {short(error)}")


def short(error: Exception) -> str:
    """The first sentence of ClickHouse's message, without stack trace."""
    first = str(error).split("Stack trace", 1)[0].strip().splitlines()
    return (first[0] if first else type(error).__name__)[:400]
