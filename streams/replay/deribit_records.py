"""Recorded Deribit option chains: one CSV file a snapshot, prices in coin."""

from __future__ import annotations

import datetime
import itertools
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from streams.replay.files import ReplayError, decimal, read_rows

WANTED = "Deribit option chains (deribit_options_snapshot_*.csv or .csv.gz, one file a snapshot)"
COLUMNS = (
    "timestamp", "instrument_name", "option_type", "strike", "expiry_datetime", "bid_price", "ask_price", "mark_price",
    "futures_price", "delta", "open_interest", "currency", "index_price",
)  # fmt: skip
ZERO = Decimal(0)


class ChainRow(NamedTuple):
    """One option of one snapshot. Bid, ask and mark in coin; 0 where there is none."""

    instrument: str
    currency: str
    kind: str
    strike_usd: Decimal
    expiry_ms: int
    bid: Decimal
    ask: Decimal
    mark: Decimal
    future_usd: Decimal
    index_usd: Decimal
    delta: Decimal
    open_interest: Decimal


class Snapshot(NamedTuple):
    """All options at one time."""

    time_ms: int
    rows: list[ChainRow]


def read_snapshots(paths: list[Path], limit: int | None = None) -> list[Snapshot]:
    """Snapshots in time order; ReplayError where two have the same time or a file holds several."""
    snapshots = sorted((_read(path) for path in paths), key=lambda snapshot: snapshot.time_ms)
    for before, after in itertools.pairwise(snapshots):
        if before.time_ms == after.time_ms:
            raise ReplayError(f"two snapshots of the same time {after.time_ms}: keep each file once, as .csv or as .gz")
    return snapshots[:limit]


def _read(path: Path) -> Snapshot:
    stamps: set[str] = set()
    times: dict[str, int] = {}
    rows = []
    for line, row in enumerate(read_rows(path, COLUMNS, WANTED), start=2):
        stamps.add(row["timestamp"])
        expiry = row["expiry_datetime"]
        if expiry not in times:
            times[expiry] = _time_ms(expiry, path, line)
        rows.append(_typed(row, times[expiry], path, line))
    if len(stamps) != 1:
        raise ReplayError(f"{path} holds {len(stamps)} snapshots; one file a snapshot is expected")
    return Snapshot(_time_ms(stamps.pop(), path, 2), rows)


def _typed(row: dict[str, str], expiry_ms: int, path: Path, line: int) -> ChainRow:
    if row["option_type"] not in ("call", "put"):
        raise ReplayError(f"{path} line {line}: option_type {row['option_type']!r} is neither call nor put")

    def number(name: str) -> Decimal:
        return decimal(row[name] or "0", path, line)

    found = ChainRow(
        instrument=row["instrument_name"],
        currency=row["currency"],
        kind=row["option_type"],
        strike_usd=number("strike"),
        expiry_ms=expiry_ms,
        bid=number("bid_price"),
        ask=number("ask_price"),
        mark=number("mark_price"),
        future_usd=number("futures_price"),
        index_usd=number("index_price"),
        delta=number("delta"),
        open_interest=number("open_interest"),
    )
    if min(found.strike_usd, found.future_usd, found.index_usd) <= 0:
        raise ReplayError(f"{path} line {line}: strike, futures_price and index_price must be above zero")
    return found


def _time_ms(text: str, path: Path, line: int) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ReplayError(f"{path} line {line}: {text!r} is no time") from error
    if moment.tzinfo is None:
        raise ReplayError(f"{path} line {line}: time {text!r} has no offset from UTC")
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000
