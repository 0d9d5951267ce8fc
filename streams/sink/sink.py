"""The sink: every record of the public logs once into the store, whatever is killed when.

The store is the checkpoint. A flush is one INSERT a table, and an INSERT appears whole or not at all, so a table always
holds exactly the rows of a prefix of each of its logs: up to its greatest `log_offset`. After a kill the sink asks each
table where it stands and reads on from there; there is no second place to fall out of step with. What is read again,
or was written twice into the log by a restarted or standby writer, is recognised by its dense sequence number, and in
quarantine by the origin of the input.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pyarrow as pa

from schemas import topics
from streams.runtime.once import Once
from streams.sink.errors import SinkFault, StoreError
from streams.sink.rows import TABLES, Place, decode
from streams.sink.store import SCHEMA_VERSION, Store

FLUSH_ROWS = 50_000
FLUSH_SECONDS = 0.5
_ORIGIN_KEYS = ("source_topic", "source_partition", "source_offset", "source_index")


class Standing(NamedTuple):
    """How far a table has one partition of its topic: next offset to read, last sequence number stored (0: none)."""

    next_offset: int
    seq: int


def claim_identity(store: Store, epoch: str) -> None:
    """Bind an empty store to the log named `epoch`; refuse a store of another log or of another layout."""
    found = store.query(f"SELECT epoch, schema_version FROM {store.database}.identity")
    if not found:
        rows = {"epoch": [epoch], "schema_version": pa.array([SCHEMA_VERSION], pa.uint32())}
        store.insert("identity", pa.table(rows))
        return
    if found[0]["schema_version"] != SCHEMA_VERSION:
        raise StoreError(
            f"the store has layout {found[0]['schema_version']}, this version writes {SCHEMA_VERSION}: "
            "empty it, or give another (--data, field store); it is filled from the logs"
        )
    if found[0]["epoch"] != epoch:
        raise StoreError(
            f"the store holds run {found[0]['epoch']!r}, this run is {epoch!r}: empty it, or give another "
            "(--data, field store)"
        )


def standings(store: Store) -> dict[tuple[str, int], Standing]:
    """(topic, partition) -> where its table stands; partitions without rows are missing (begin at 0)."""
    found: dict[tuple[str, int], Standing] = {}
    for topic, table in TABLES.items():
        seq = "0" if topic == topics.QUARANTINE else "max(record_seq)"
        for row in store.query(
            f"SELECT log_partition, max(log_offset) + 1 AS next_offset, {seq} AS seq "
            f"FROM {store.database}.{table} GROUP BY log_partition"
        ):
            found[topic, row["log_partition"]] = Standing(row["next_offset"], row["seq"])
    return found


def _require_whole(store: Store) -> None:
    """chDB drops a damaged part when it opens a table, and its rows with it; the tables say so by a hole."""
    wrong = {table: count for table, count in missing(store).items() if count}
    if wrong:
        said = ", ".join(f"{table}: {count}" for table, count in wrong.items())
        raise StoreError(
            f"the store has lost records ({said}), the disk was full or is damaged: remove the store and start "
            "again, the sink fills it from the logs"
        )


class Sink:
    """Takes records, holds them for at most `flush_seconds` or `flush_rows`, writes them. Thread-safe.

    The caller feeds each log in the order of its offsets, beginning at positions(); start() makes a thread that flushes
    by time, and on_fault gets what goes wrong there (it must end the process: the sink is then of no further use).
    """

    def __init__(
        self, store: Store, epoch: str, flush_rows: int = FLUSH_ROWS, flush_seconds: float = FLUSH_SECONDS
    ) -> None:
        claim_identity(store, epoch)
        _require_whole(store)
        self.epoch = epoch
        self._store = store
        self._flush_rows, self._flush_seconds = flush_rows, flush_seconds
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._once: dict[tuple[str, int], Once] = {}
        self._read: dict[tuple[str, int], int] = {}
        self._stored: dict[tuple[str, int], int] = {}
        for log, standing in standings(store).items():
            self._once[log] = Once(standing.seq)
            self._read[log] = self._stored[log] = standing.next_offset
        self._pending: dict[str, list[pa.Table]] = {topic: [] for topic in TABLES}
        self._pending_rows = 0

    def positions(self, logs: Iterable[tuple[str, int]] = ()) -> dict[tuple[str, int], int]:
        """Next offset wanted of each (topic, partition); `logs` not yet begun are at 0."""
        with self._lock:
            return {**dict.fromkeys(logs, 0), **self._read}

    def stored(self) -> dict[tuple[str, int], int]:
        """Everything of a log below this offset is in the store."""
        with self._lock:
            return dict(self._stored)

    def take(self, topic: str, partition: int, offset: int, raw: bytes) -> None:
        """Accept one record. Raises SinkFault (hole, conflict, unreadable record), and StoreError from a flush."""
        with self._lock:
            log = (topic, partition)
            if offset < self._read.get(log, 0):
                return
            decoded = decode(Place(topic, partition, offset), raw)
            if decoded.seq is None or self._is_new(log, offset, decoded.seq, raw):
                self._pending[topic].append(decoded.rows)
                self._pending_rows += decoded.rows.num_rows
            self._read[log] = offset + 1
            if self._pending_rows >= self._flush_rows:
                self.flush()

    def _is_new(self, log: tuple[str, int], offset: int, seq: int, raw: bytes) -> bool:
        verdict = self._once.setdefault(log, Once()).take(seq, raw)
        if verdict in ("loss", "conflict"):
            jump = f"jumps from sequence {self._once[log].last} to {seq}"
            what = jump if verdict == "loss" else f"repeats sequence {seq} with other bytes"
            raise SinkFault(f"{log[0]}/{log[1]} {what} at offset {offset}: a broken log, nothing after it is stored")
        return verdict == "new"

    def flush(self) -> int:
        """Write what is held: one INSERT a table. Returns the rows. After a StoreError the sink is of no use."""
        written = 0
        with self._lock:
            for topic, tables in self._pending.items():
                if tables:
                    self._write(topic, pa.concat_tables(tables))
                    written += sum(table.num_rows for table in tables)
                    self._pending[topic] = []
            self._pending_rows -= written
            self._stored.update(self._read)
        return written

    def _write(self, topic: str, rows: pa.Table) -> None:
        if topic == topics.QUARANTINE:
            rows = self._unknown(rows)
        self._store.insert(TABLES[topic], rows)

    def _unknown(self, rows: pa.Table) -> pa.Table:
        """Quarantined inputs that are not in the store: a restarted sequencer quarantines the same inputs again."""
        keys = list(zip(*(rows.column(name).to_pylist() for name in _ORIGIN_KEYS)))
        lowest, highest = min(rows.column("source_offset").to_pylist()), max(rows.column("source_offset").to_pylist())
        known = {
            tuple(row[name] for name in _ORIGIN_KEYS)
            for row in self._store.query(
                f"SELECT {', '.join(_ORIGIN_KEYS)} FROM {self._store.database}.quarantine "
                "WHERE source_offset BETWEEN {lowest:Int64} AND {highest:Int64}",
                {"lowest": lowest, "highest": highest},
            )
        }
        fresh = []
        for key in keys:
            fresh.append(key not in known)
            known.add(key)
        return rows.filter(pa.array(fresh, pa.bool_()))

    def start(self, on_fault: Callable[[BaseException], None]) -> None:
        """Flush by time in a thread of its own."""
        self._thread = threading.Thread(target=self._flush_by_time, args=(on_fault,), name="sink-flush", daemon=True)
        self._thread.start()

    def _flush_by_time(self, on_fault: Callable[[BaseException], None]) -> None:
        while not self._stopping.wait(self._flush_seconds):
            try:
                self.flush()
            except BaseException as error:
                on_fault(error)
                return

    def stop(self) -> None:
        """Stop the thread and write what is held."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()


def missing(store: Store) -> dict[str, int]:
    """Sequence numbers below the greatest that a table does not have, by table; blocks without their rows in margins.

    A record may be empty, so numbers of records count where each has rows (blocks_done, venue_stress), numbers of
    events elsewhere.
    """
    found = {}
    for table in ("margin_calls", "margin_warnings", "liquidations", "blocks_done", "venue_stress"):
        number = "record_seq" if table in ("blocks_done", "venue_stress") else "seq"
        [row] = store.query(
            f"SELECT toInt64(sum(top - held)) AS wrong FROM (SELECT toInt64(max({number})) AS top, "
            f"toInt64(uniqExact({number})) AS held FROM {store.database}.{table} GROUP BY log_partition)"
        )
        found[table] = int(row["wrong"] or 0)
    [row] = store.query(
        f"WITH held AS (SELECT DISTINCT log_partition, epoch, block FROM {store.database}.margins), "
        "newest AS (SELECT log_partition, max((epoch, block)) AS top FROM held GROUP BY log_partition) "
        f"SELECT count() AS wrong FROM {store.database}.blocks_done AS done INNER JOIN newest USING log_partition "
        "WHERE evaluated AND accounts > 0 AND (epoch, block) <= top "
        "AND (log_partition, epoch, block) NOT IN (SELECT * FROM held)"
    )
    found["margins"] = int(row["wrong"])
    return found


def doubled(store: Store) -> dict[str, int]:
    """Rows that are there more than once, by table."""
    keys = dict.fromkeys(("margin_calls", "margin_warnings", "liquidations"), "log_partition, seq")
    keys |= {"margins": "account, block, epoch", "blocks_done": "log_partition, record_seq"}
    keys |= {"venue_stress": "log_partition, record_seq, resources"}
    keys |= {"quarantine": ", ".join(_ORIGIN_KEYS)}
    found = {}
    for table, key in keys.items():
        [row] = store.query(
            "SELECT sum(times - 1) AS wrong FROM "
            f"(SELECT count() AS times FROM {store.database}.{table} GROUP BY {key}) "
            "SETTINGS optimize_aggregation_in_order = 1"
        )
        found[table] = int(row["wrong"] or 0)
    return found
