"""The newest margin of every account, in memory: a replica that follows margin.batches."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa

from schemas.margin_batch import BatchHead, binding_name, decode_batch, state_name


class _Partition(NamedTuple):
    head: BatchHead
    table: pa.Table
    rows: dict[str, int]


class MarginReplica:
    """Keeps the newest batch of each partition as it came; a row is read only when somebody asks for it."""

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}

    def take(self, partition: int, raw: bytes) -> None:
        """One record of margin.batches. An older one than is held changes nothing."""
        head, table = decode_batch(raw)
        held = self._partitions.get(partition)
        if held is not None and head.seq <= held.head.seq:
            return
        same_accounts = held is not None and held.table.column("account").equals(table.column("account"))
        rows = held.rows if held is not None and same_accounts else _rows(table)
        self._partitions[partition] = _Partition(head, table, rows)

    def get(self, account: str) -> dict[str, Any] | None:
        """The margin of an account as of the block it names; None if no partition has the account."""
        for number, held in self._partitions.items():
            row = held.rows.get(account)
            if row is not None:
                found = held.table.slice(row, 1).to_pylist()[0]
                found["binding"], found["state"] = binding_name(found["binding"]), state_name(found["state"])
                of_block = {name: getattr(held.head, name) for name in ("block", "block_hash", "time_ms")}
                return {"partition": number, **found, **of_block}
        return None

    def blocks(self) -> dict[str, int]:
        """Partition -> block of its newest margins."""
        return {str(number): held.head.block for number, held in sorted(self._partitions.items())}


def _rows(table: pa.Table) -> dict[str, int]:
    return {name: row for row, name in enumerate(table.column("account").to_pylist())}
