"""The store on a ClickHouse server, over its native protocol (clickhouse-driver). The same four calls as chDB's.

Exactly once. The sink's rule is that a table holds a whole prefix of its log, so that a new life can ask the table
where it stands. On a server that has one gap more than in a process: a killed sink's INSERT may still be running there,
and would appear after the new life has asked. So a writer fences. It claims the store by a row in `writers`; every
INSERT checks on the server, when it starts, that the newest claim is its own; and a new writer, after its claim, ends
the INSERTs of earlier writers and waits until none is running. An INSERT that starts after the claim refuses itself,
one that started before is over before the standings are asked. The same fence stops a frozen sink that thaws, and a
second sink. (insert_deduplication_token does not do it: a new life cuts its blocks of rows at other offsets.)
"""

from __future__ import annotations

import itertools
import math
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
from clickhouse_driver import Client
from clickhouse_driver.errors import Error as DriverError
from clickhouse_driver.errors import ErrorCodes, ServerException
from clickhouse_driver.protocol import ServerPacketTypes

from streams.runtime.security import Secret
from streams.sink.errors import QueryRefused, StoreBusy, StoreEmpty, StoreError
from streams.sink.store import QUESTION_WORDS, schema_statements, short

SCHEMES = {"clickhouse": 9000, "clickhouses": 9440}  # plain and TLS, with their default ports
CONNECT_LIMIT_S = 10
ANSWER_LIMIT_S = 120
FENCE_LIMIT_S = 30.0
FENCE_POLL_S = 0.05
STREAM_ROWS = 65_536
_QUERY_ID, _UNFENCED_QUERY_ID = "dpme-sink", "dpme-results"  # a claim ends INSERTs of the first kind only
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# One INSERT becomes one block, hence one part; see streams.sink.store.
ONE_BLOCK = {
    "max_threads": 1,
    "max_insert_threads": 1,
    "min_insert_block_size_rows": 1_000_000_000,
    "min_insert_block_size_bytes": 0,
    "async_insert": 0,
    # A frozen sink's INSERT waits on the server for rows, deaf to KILL QUERY: it is given up after so many seconds.
    "receive_timeout": 5,
    "poll_interval": 1,
}
_COLUMN_TYPES = {
    pa.string(): "String", pa.bool_(): "Bool", pa.int8(): "Int8", pa.int16(): "Int16", pa.int64(): "Int64",
    pa.uint16(): "UInt16", pa.uint32(): "UInt32", pa.float64(): "Float64",
}  # fmt: skip
_ARROW_TYPES = {name: kind for kind, name in _COLUMN_TYPES.items()} | {
    "UInt8": pa.uint8(), "Int32": pa.int32(), "UInt64": pa.uint64(), "Float32": pa.float32(),
}  # fmt: skip
_WRAPPING = re.compile(r"^(?:LowCardinality|Nullable)\((.*)\)$")


class Address(NamedTuple):
    """clickhouse://user@host:port/database, taken apart. clickhouses:// is the same with TLS."""

    host: str
    port: int
    user: str
    database: str
    secure: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"


def parse_address(url: str) -> Address:
    """Raises StoreError for anything else than clickhouse[s]://[user@]host[:port][/database]."""
    parts = urlsplit(url)
    if parts.password is not None:
        raise StoreError("the store's password does not belong into its URL: set DPME_STORE_PASSWORD")
    database = parts.path.lstrip("/") or "dpme"
    try:
        port = parts.port or SCHEMES[parts.scheme]
    except (KeyError, ValueError) as error:
        raise StoreError(f"{url}: not clickhouse://user@host:port/database") from error
    if not parts.hostname or parts.query or parts.fragment or not _NAME.fullmatch(database):
        raise StoreError(f"{url}: not clickhouse://user@host:port/database")
    return Address(parts.hostname, port, parts.username or "default", database, parts.scheme == "clickhouses")


class _Client(Client):  # type: ignore[misc]
    """The driver expects nothing but columns before the data of an INSERT; the fence's SELECT reports its progress."""

    def receive_sample_block(self) -> Any:
        receive = self.connection.receive_packet
        self.connection.receive_packet = lambda: _first_of_interest(receive)
        try:
            return super().receive_sample_block()
        finally:
            del self.connection.receive_packet


_REPORTS = (ServerPacketTypes.PROGRESS, ServerPacketTypes.PROFILE_EVENTS, ServerPacketTypes.PROFILE_INFO)


def _first_of_interest(receive: Any) -> Any:
    while (packet := receive()).type in _REPORTS:
        pass
    return packet


class ClickHouseStore:
    """A Store in a database of a ClickHouse server. Calls may come from any thread; they run one at a time.

    writer: create the tables, claim the store and end the INSERTs of earlier writers. Without it the store is for
    reading, and insert() refuses. A writer that is not `fenced` claims nothing and leaves the sink be: for tables that
    the sink does not write. Raises StoreError.
    """

    def __init__(self, url: str, password: Secret | None = None, writer: bool = False, fenced: bool = True) -> None:
        self.address = parse_address(url)
        self.database = self.address.database
        self._calls = threading.RLock()
        self._token, self._number, self._writer = secrets.token_hex(8), 0, writer
        self._inserts = itertools.count()
        self._client = _Client(
            self.address.host,
            self.address.port,
            user=self.address.user,
            password=password.reveal() if password else "",
            secure=self.address.secure,
            connect_timeout=CONNECT_LIMIT_S,
            send_receive_timeout=ANSWER_LIMIT_S,
            settings={"server_side_params": True, "insert_block_size": 1 << 40},
        )
        if writer:
            for statement in schema_statements(self.database):
                self.execute(statement)
            if fenced:
                self._claim()
        elif not self.query(f"EXISTS DATABASE {self.database}")[0]["result"]:
            raise StoreEmpty(f"there is no database {self.database} on {self.address}: start a sink first")

    # -- the four calls -----------------------------------------------------------------------------------------

    def execute(self, sql: str) -> None:
        self._run(sql)

    def insert(self, table: str, rows: pa.Table) -> None:
        if rows.num_rows == 0:
            return
        if not self._writer:
            raise StoreError(f"{self.address} is open for reading only")
        columns = ", ".join(rows.column_names)
        structure = ", ".join(f"{field.name} {_COLUMN_TYPES[field.type]}" for field in rows.schema)
        lost = f"(SELECT max((number, token)) FROM {self.database}.writers) != ({self._number}, '{self._token}')"
        fence = f"WHERE throwIf({lost}, 'another sink has claimed it') = 0 " if self._number else ""
        statement = (
            f"INSERT INTO {self.database}.{table} ({columns}) SELECT {columns} FROM input('{structure}') "
            f"{fence}FORMAT Native"
        )
        values = [column.to_pylist() for column in rows.columns]
        self._run(statement, values, columnar=True, settings=ONE_BLOCK, query_id=self._query_id())

    def query(self, sql: str, parameters: Mapping[str, str | int] | None = None) -> list[dict[str, Any]]:
        rows, columns = self._run(sql, parameters, with_column_types=True, settings={"readonly": 2})
        names = [name for name, _ in columns]
        return [dict(zip(names, map(_plain, row))) for row in rows]

    def stream(self, sql: str, parameters: Mapping[str, str | int] | None = None) -> Iterator[pa.RecordBatch]:
        with self._calls, self._translating():
            rows = self._client.execute_iter(
                sql, dict(parameters or {}), with_column_types=True, settings={"readonly": 2}
            )
            schema = pa.schema([(name, _arrow_type(kind)) for name, kind in next(rows)])
            while chunk := list(itertools.islice(rows, STREAM_ROWS)):
                arrays = [pa.array(column, field.type) for column, field in zip(zip(*chunk), schema)]
                yield pa.record_batch(arrays, schema=schema)

    def close(self) -> None:
        with self._calls:
            self._client.disconnect()

    # -- the fence ----------------------------------------------------------------------------------------------

    def _query_id(self) -> str:
        head = _QUERY_ID if self._number else _UNFENCED_QUERY_ID
        return f"{head}-{self.database}-{self._token}-{next(self._inserts)}"

    def _claim(self) -> None:
        """After this no INSERT of an earlier writer is running, and none will begin."""
        [newest] = self.query(f"SELECT max(number) AS number FROM {self.database}.writers")
        self._number = newest["number"] + 1
        self._run(f"INSERT INTO {self.database}.writers (number, token) VALUES", [(self._number, self._token)])
        earlier = f"startsWith(query_id, '{_QUERY_ID}-{self.database}-') AND query_kind = 'Insert'"
        limit = time.monotonic() + FENCE_LIMIT_S
        while self.query(f"SELECT 1 FROM system.processes WHERE {earlier}"):
            self.execute(f"KILL QUERY WHERE {earlier} ASYNC")
            if time.monotonic() > limit:
                raise StoreBusy(f"an earlier sink's INSERT does not end on {self.address}: see system.processes there")
            time.sleep(FENCE_POLL_S)

    # -- errors -------------------------------------------------------------------------------------------------

    def _run(self, sql: str, values: Any = None, **options: Any) -> Any:
        with self._calls, self._translating():
            return self._client.execute(sql, values, **options)

    def _translating(self) -> _Translating:
        return _Translating(self.address)


class _Translating:
    """Errors of driver and server as StoreErrors; the driver connects anew at the next call."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ServerException):
            raise _of_server(error, self.address) from error
        if isinstance(error, DriverError | OSError | EOFError):
            advice = "is it running there, and is the native port right?"
            raise StoreError(f"no ClickHouse answers at {self.address.host}:{self.address.port}: {advice}") from error


_CODE_NAMES = {code: name for name, code in vars(ErrorCodes).items() if isinstance(code, int)}


def _of_server(error: ServerException, address: Address) -> StoreError:
    said = short(Exception(error.message.removeprefix("DB::Exception: ")))
    name = _CODE_NAMES.get(error.code, f"code {error.code}")
    if name == "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO":
        return StoreBusy(f"another sink has claimed {address}: one sink a store")
    if name == "UNKNOWN_DATABASE":
        return StoreEmpty(f"{address} has no store yet: start a sink first")
    if QUESTION_WORDS.search(name) or name == "READONLY":
        return QueryRefused(f"{said} ({name})")
    return StoreError(f"ClickHouse at {address} failed: {said} ({name})")


# -- values -----------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """As ClickHouse writes it in JSON, which is what chDB answers with."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return str(value) if isinstance(value, date) else value


def _arrow_type(kind: str) -> pa.DataType:
    while wrapped := _WRAPPING.match(kind):
        kind = wrapped.group(1)
    return _ARROW_TYPES.get(kind, pa.string())
