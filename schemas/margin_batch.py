"""`margin.batches`: every account's margin of one partition and block, as one Arrow IPC stream.

`keyframe_block` is the block whose exact expected shortfall, stress loss, IM and MM a row has. If it is not the batch's
block, the row is `bound`: those four, `binding` and `stress_row` are a certified upper bound (the stress row: the last
exact one), NLV, equity, short-option minimum, add-ons and state are exact, and the state is healthy.

Schema metadata carry `dpme.version`, `partition`, `seq`, `block`, `block_hash`, `time_ms` (decimal text), and `epoch`
once the chain has reorganised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from schemas.decisions import BINDING_TERMS, STATES

VERSION = 1
MONEY_COLUMNS = (
    "nlv_usd6",
    "equity_usd6",
    "initial_margin_usd6",
    "maintenance_margin_usd6",
    "expected_shortfall_usd6",
    "stress_loss_usd6",
    "short_option_minimum_usd6",
    "add_ons_usd6",
)
SCHEMA = pa.schema(
    [("account", pa.string())]
    + [(name, pa.int64()) for name in MONEY_COLUMNS]
    + [("binding", pa.int8()), ("stress_row", pa.int16()), ("state", pa.int8()), ("wide", pa.bool_())]
    + [("keyframe_block", pa.int64())]
)


class BatchHead(NamedTuple):
    """Which block and partition a batch is of."""

    partition: int
    seq: int
    block: int
    block_hash: str
    time_ms: int
    epoch: int = 0


def encode_batch(head: BatchHead, accounts: list[str], columns: Mapping[str, np.ndarray]) -> bytes:
    """Accounts[n] and columns[n] (by SCHEMA's names) -> Arrow IPC stream bytes; equal input gives equal bytes."""
    metadata = {"dpme.version": str(VERSION), **{name: str(value) for name, value in head._asdict().items()}}
    if not head.epoch:
        del metadata["epoch"]
    schema = SCHEMA.with_metadata(metadata)
    arrays = [pa.array(accounts, pa.string())]
    arrays += [pa.array(columns[f.name], f.type) for f in schema if f.name != "account"]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return sink.getvalue().to_pybytes()


def decode_batch(raw: bytes) -> tuple[BatchHead, pa.Table]:
    """Arrow IPC stream bytes -> head and table."""
    table = pa.ipc.open_stream(raw).read_all()
    found = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    numbers = {name: int(found[name]) for name in ("partition", "seq", "block", "time_ms")}
    if "keyframe_block" not in table.column_names:  # written before bounds were kept: every margin is exact
        table = table.append_column("keyframe_block", pa.array([numbers["block"]] * table.num_rows, pa.int64()))
    return BatchHead(block_hash=found["block_hash"], epoch=int(found.get("epoch", 0)), **numbers), table


def state_name(code: int) -> str:
    return STATES[code]


def binding_name(code: int) -> str:
    return BINDING_TERMS[code]
