"""Records of the public topics -> rows of the store's tables. Pure.

A record of a topic becomes a `Decoded`: its sequence number (None in quarantine, which has none) and an Arrow table in
the columns of the SQL table of the same name (schema.sql).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec
import orjson
import pyarrow as pa

from schemas import topics
from schemas.decisions import (
    BlockDone,
    Call,
    CallRecord,
    Liquidation,
    LiquidationRecord,
    Margin,
    MarginWarning,
    Quarantined,
    Retraction,
    WarningRecord,
)
from schemas.margin_batch import MONEY_COLUMNS, decode_batch
from schemas.margin_batch import SCHEMA as BATCH_SCHEMA
from schemas.venue import VenueStressRecord
from streams.sink.errors import SinkFault

VERSION = 1
TABLES = {
    topics.MARGIN_BATCHES: "margins",
    topics.BLOCKS_DONE: "blocks_done",
    topics.MARGIN_CALLS: "margin_calls",
    topics.MARGIN_WARNINGS: "margin_warnings",
    topics.LIQUIDATIONS: "liquidations",
    topics.VENUE_STRESS: "venue_stress",
    topics.QUARANTINE: "quarantine",
}

_ORIGIN = [("log_partition", pa.uint16()), ("record_seq", pa.int64()), ("log_offset", pa.int64())]
_ACCOUNT = [("account", pa.string()), ("block", pa.int64()), ("time_ms", pa.int64()), *_ORIGIN]
_EVENT = [*_ACCOUNT, ("seq", pa.int64()), ("id", pa.string())]
_MARGIN = [*((name, pa.int64()) for name in MONEY_COLUMNS), ("binding", pa.string()), ("stress", pa.string())]
_TEXT, _WHOLE = pa.string(), pa.int64()
_BRANCH = [("epoch", pa.int64()), ("confirmations", pa.int64()), ("retracts", pa.string())]
NO_ROLLBACK = -1


def _fields(kind: pa.DataType, *names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, kind) for name in names]


def _cover_fields(count: int) -> list[tuple[str, pa.DataType]]:
    return [
        (f"cover_{count}_usd6", _WHOLE),
        (f"cover_{count}_scenario", _TEXT),
        (f"cover_{count}_accounts", _TEXT),
    ]


ARROW_SCHEMAS: dict[str, pa.Schema] = {
    "margins": pa.schema(
        [*_ACCOUNT, *((f.name, f.type) for f in BATCH_SCHEMA if f.name != "account"), ("epoch", _WHOLE)]
    ),
    "blocks_done": pa.schema(
        [
            *_fields(_WHOLE, "block"),
            *_fields(_TEXT, "block_hash"),
            *_fields(_WHOLE, "time_ms"),
            *_ORIGIN,
            *_fields(_WHOLE, "accounts", "events"),
            *_fields(pa.bool_(), "evaluated"),
            *_fields(_WHOLE, "first", "wide", "warnings", "calls"),
            *_fields(_TEXT, "states", "state_digest", "table_digest", "scenario_digest"),
            *_fields(_WHOLE, "parameter_version"),
            *_fields(_TEXT, "halted", "stages"),
            *_fields(_WHOLE, "bound", "epoch", "rollback_from"),
        ]
    ),
    "margin_calls": pa.schema(
        [
            *_EVENT,
            *_fields(_TEXT, "from_state", "to_state"),
            *_MARGIN,
            *_fields(_WHOLE, "cure_deposit_usd6", "cure_close_fraction_e6", "cash_usd6"),
            *_fields(_TEXT, "positions"),
            *_BRANCH,
        ]
    ),
    "margin_warnings": pa.schema(
        [*_EVENT, ("line", _TEXT), ("trigger", _TEXT), ("estimate_usd6", _WHOLE), *_MARGIN, ("greeks", _TEXT), *_BRANCH]
    ),
    "liquidations": pa.schema(
        [
            *_EVENT,
            *_fields(_TEXT, "state"),
            *_fields(_WHOLE, "shortfall_usd6"),
            *_MARGIN,
            *_fields(_WHOLE, "cash_usd6"),
            *_fields(_TEXT, "positions"),
            *_BRANCH,
        ]
    ),
    "venue_stress": pa.schema(
        [
            *_fields(_WHOLE, "block", "time_ms"),
            *_ORIGIN,
            *_fields(_WHOLE, "partitions", "accounts", "scenarios"),
            *_fields(_TEXT, "scenario_digest"),
            *_fields(_WHOLE, "parameter_version", "confidence_e6", "fund_usd6"),
            *_fields(pa.bool_(), "fund_given"),
            *_fields(_TEXT, "unpriced_accounts", "resources"),
            *_fields(_WHOLE, "resources_usd6", "uncovered_now_usd6", "uncovered_mean_usd6"),
            *_fields(_WHOLE, "fund_quantile_usd6", "fund_shortfall_usd6", "exhausted_probability_e6"),
            *(field for n in (1, 2) for field in _cover_fields(n)),
            *_fields(_TEXT, "rows"),
            *_fields(_WHOLE, "epoch"),
        ]
    ),
    "quarantine": pa.schema(
        [
            *_fields(_TEXT, "source_topic"),
            *_fields(pa.uint16(), "source_partition"),
            *_fields(_WHOLE, "source_offset", "source_index"),
            *_fields(_TEXT, "reason", "field", "detail", "bytes_base64"),
            *_fields(pa.uint16(), "log_partition"),
            *_fields(_WHOLE, "log_offset"),
        ]
    ),
}


class Place(NamedTuple):
    """Where a record lies in its log."""

    topic: str
    partition: int
    offset: int


class Decoded(NamedTuple):
    """A record as rows. `seq` is dense per topic and partition; None in quarantine."""

    seq: int | None
    rows: pa.Table


def decode(place: Place, raw: bytes) -> Decoded:
    """Bytes of a record of a public topic -> sequence number and rows.

    Raises SinkFault where the record is none of this version: the logs right of the sequencer are written by the engine
    only, so this is a fault and no bad input.
    """
    try:
        return _DECODERS[place.topic](place, raw)
    except (msgspec.DecodeError, pa.ArrowInvalid, KeyError, ValueError) as error:
        where = f"{place.topic}/{place.partition} offset {place.offset}"
        raise SinkFault(f"record {where} cannot be read: {error}") from error


def _decode_margins(place: Place, raw: bytes) -> Decoded:
    head, batch = decode_batch(raw)
    constant = {
        "block": head.block,
        "time_ms": head.time_ms,
        "log_partition": place.partition,
        "record_seq": head.seq,
        "log_offset": place.offset,
        "epoch": head.epoch,
    }
    schema = ARROW_SCHEMAS["margins"]
    columns = [
        pa.repeat(pa.scalar(constant[field.name], field.type), batch.num_rows)
        if field.name in constant
        else batch.column(field.name)
        for field in schema
    ]
    return Decoded(head.seq, pa.table(columns, schema=schema))


def _decode_block_done(place: Place, raw: bytes) -> Decoded:
    done = _read(raw, BlockDone)
    row = {**msgspec.structs.asdict(done), **_origin(place, done.seq), "states": _json(done.states)}
    row["epoch"] = done.epoch or 0
    row["rollback_from"] = NO_ROLLBACK if done.rollback_from is msgspec.UNSET else done.rollback_from
    row["stages"] = _json(done.stages)
    return _decoded("blocks_done", done.seq, [row])


def _decode_calls(place: Place, raw: bytes) -> Decoded:
    return _decode_events("margin_calls", place, _read(raw, CallRecord), _call)


def _call(event: Call) -> dict[str, Any]:
    return {
        "from_state": event.from_state,
        "to_state": event.to_state,
        "cure_deposit_usd6": event.cure.deposit_usd6 if event.cure else 0,
        "cure_close_fraction_e6": event.cure.close_fraction_e6 if event.cure else 0,
        "cash_usd6": event.cash_usd6,
        "positions": _json(event.positions),
    }


def _decode_warnings(place: Place, raw: bytes) -> Decoded:
    return _decode_events("margin_warnings", place, _read(raw, WarningRecord), _warning)


def _warning(event: MarginWarning) -> dict[str, Any]:
    return {
        "line": event.line,
        "trigger": event.trigger,
        "estimate_usd6": event.estimate_usd6,
        "greeks": _json(event.greeks),
    }


def _decode_liquidations(place: Place, raw: bytes) -> Decoded:
    return _decode_events("liquidations", place, _read(raw, LiquidationRecord), _liquidation)


def _liquidation(event: Liquidation) -> dict[str, Any]:
    return {
        "state": event.state,
        "shortfall_usd6": event.shortfall_usd6,
        "cash_usd6": event.cash_usd6,
        "positions": _json(event.positions),
    }


def _decode_venue(place: Place, raw: bytes) -> Decoded:
    """A row a view; the columns of both are those of the record."""
    record = _read(raw, VenueStressRecord)
    shared = {**msgspec.structs.asdict(record), **_origin(place, record.seq), "epoch": record.epoch or 0}
    shared["unpriced_accounts"] = _json(record.unpriced_accounts)
    rows = []
    for view in record.views:
        row = {**shared, **msgspec.structs.asdict(view), "rows": _json(view.rows)}
        for count, cover in ((1, view.cover_1), (2, view.cover_2)):
            row[f"cover_{count}_usd6"], row[f"cover_{count}_scenario"] = cover.uncovered_usd6, cover.scenario
            row[f"cover_{count}_accounts"] = _json(cover.accounts)
        rows.append(row)
    return _decoded("venue_stress", record.seq, rows)


def _decode_quarantined(place: Place, raw: bytes) -> Decoded:
    items = orjson.loads(raw)
    found = [msgspec.convert(item, Quarantined) for item in (items if isinstance(items, list) else [items])]
    rows = [
        {
            "source_topic": one.topic,
            "source_partition": one.partition,
            "source_offset": one.offset,
            "source_index": one.index,
            "reason": one.reason,
            "field": one.field,
            "detail": one.detail,
            "bytes_base64": one.bytes_base64,
            "log_partition": place.partition,
            "log_offset": place.offset,
        }
        for one in found
    ]
    return _decoded("quarantine", None, rows)


_DECODERS: dict[str, Callable[[Place, bytes], Decoded]] = {
    topics.MARGIN_BATCHES: _decode_margins,
    topics.BLOCKS_DONE: _decode_block_done,
    topics.MARGIN_CALLS: _decode_calls,
    topics.MARGIN_WARNINGS: _decode_warnings,
    topics.LIQUIDATIONS: _decode_liquidations,
    topics.VENUE_STRESS: _decode_venue,
    topics.QUARANTINE: _decode_quarantined,
}

_Record = TypeVar("_Record")


def _read(raw: bytes, kind: type[_Record]) -> _Record:
    record = msgspec.json.decode(raw, type=kind)
    if record.version != VERSION:  # type: ignore[attr-defined]
        raise ValueError(f"version {record.version}; this sink reads version {VERSION}")  # type: ignore[attr-defined]
    return record


def _origin(place: Place, seq: int) -> dict[str, int]:
    return {"log_partition": place.partition, "record_seq": seq, "log_offset": place.offset}


def _decode_events(table: str, place: Place, record: Any, own: Callable[[Any], dict[str, Any]]) -> Decoded:
    """Rows of a record of events; `own` gives the columns that only they have. A retraction has none but its own."""
    rows = []
    for event in record.events:
        row = {**_named(event, "account", "block", "seq", "id", "epoch"), **_origin(place, record.seq)}
        if isinstance(event, Retraction):
            empty = {f.name: "" if f.type == _TEXT else 0 for f in ARROW_SCHEMAS[table]}
            rows.append(empty | row | {"retracts": event.retracts})
        else:
            margin: Margin = event.margin
            row |= {**_named(event, "time_ms", "confirmations"), **msgspec.structs.asdict(margin), "retracts": ""}
            rows.append(row | own(event))
    return _decoded(table, record.seq, rows)


def _named(event: Any, *names: str) -> dict[str, Any]:
    """Fields of an event; numbers that were left out are 0."""
    return {name: getattr(event, name) or 0 for name in names}


def _json(value: Any) -> str:
    return orjson.dumps(msgspec.to_builtins(value)).decode()


def _decoded(table: str, seq: int | None, rows: list[dict[str, Any]]) -> Decoded:
    return Decoded(seq, pa.Table.from_pylist(rows, schema=ARROW_SCHEMAS[table]))
