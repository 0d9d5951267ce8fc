"""Recorded tables as columns: CSV (plain or gzip) or Parquet; numbers and times out of their text.

MarketDataError   a file cannot be read as what it should be; the message says which, why and what to do
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from streams.market_data.findings import LOCAL_TIME, NOT_A_NUMBER, TIME_WITH_OFFSET, Findings

MISSING = ("", "nan", "NaN", "None", "null", "NULL")
SECOND_LIMIT, MILLISECOND_LIMIT = 10**11, 10**14


class MarketDataError(ValueError):
    """A file is no market data of the kind that is wanted."""


def read_table(path: Path) -> pa.Table:
    """All columns of a file; those of a CSV file as text. MarketDataError where it cannot be read."""
    try:
        if path.suffix == ".parquet":
            return pa.parquet.read_table(path)
        with pa.input_stream(path, compression="gzip" if path.suffix == ".gz" else None) as stream:
            options = pa.csv.ConvertOptions(column_types=dict.fromkeys(header(path), pa.string()))
            return pa.csv.read_csv(stream, convert_options=options)
    except (OSError, pa.ArrowInvalid) as error:
        raise MarketDataError(f"{path} cannot be read as a table: {_first_line(error)}") from error


def header(path: Path) -> list[str]:
    """Column names of a file, without reading its rows. MarketDataError where there are none."""
    try:
        if path.suffix == ".parquet":
            return list(pa.parquet.read_schema(path).names)
        with pa.input_stream(path, compression="gzip" if path.suffix == ".gz" else None) as stream:
            first = stream.read(65_536).split(b"\n", 1)[0].decode("utf-8").strip()
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise MarketDataError(f"{path} cannot be read: {_first_line(error)}") from error
    return first.split(",")


def numbers(column: pa.ChunkedArray, name: str, findings: Findings) -> np.ndarray:
    """f64[n]; what is missing is NaN, and what is there but no number is NaN and a finding."""
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    texts = column.to_pylist()
    values, wrong = np.full(len(texts), np.nan), []
    for place, text in enumerate(texts):
        if text in MISSING or text is None:
            continue
        try:
            values[place] = float(text)
        except ValueError:
            wrong.append(f"row {place + 1} {name} {text!r}")
    infinite = np.isinf(values)
    values[infinite] = np.nan
    findings.add(NOT_A_NUMBER, len(wrong) + int(infinite.sum()), "read as missing", wrong or [f"{name} is infinite"])
    return values


def texts(column: pa.ChunkedArray) -> np.ndarray:
    """str objects [n]; missing ones are empty."""
    return np.array([text or "" for text in column.cast(pa.string()).to_pylist()], dtype=object)


def times_ms(column: pa.ChunkedArray, name: str, findings: Findings) -> np.ndarray:
    """i64[n] milliseconds since 1970 UTC from integers (s, ms or us by size, unless the name says ms), times, ISO.

    Text with an offset from UTC is converted, and that is a finding; text without one is UTC. MarketDataError where a
    value is no time: a row whose time is not known cannot be put right by dropping it.
    """
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64()).to_numpy()
    if pa.types.is_integer(column.type):
        return _scaled(column.to_numpy(), name)
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    if encoded.null_count:
        raise MarketDataError(f"column {name} has {encoded.null_count} rows without a time")
    parsed = [_parsed(text, name) for text in encoded.dictionary.to_pylist()]
    indices = encoded.indices.to_numpy()
    offsets = np.array([offset for _, offset in parsed], np.int64)[indices]
    shifted = offsets != 0
    findings.add(
        TIME_WITH_OFFSET, int(shifted.sum()), "converted to UTC",
        [f"{name} is at UTC{offset / 60:+g} h" for offset in np.unique(offsets[shifted])],
    )  # fmt: skip
    return np.array([time for time, _ in parsed], np.int64)[indices]


def undo_local_time(time_ms: np.ndarray, interval_ms: int, findings: Findings) -> np.ndarray:
    """Times of a series that venues stamp on multiples of its interval (funding, 8 h bars), moved back onto them.

    Only where all rows are off by the same whole number of hours, or by two that differ by one (daylight saving): local
    time, written without its offset.
    """
    late_s = (time_ms + 1_000) % interval_ms // 1_000
    hours = np.unique(late_s // 3_600)
    if not hours.any() or hours[-1] - hours[0] > 1 or (late_s % 3_600 > 60).any():
        return time_ms
    off = " or ".join(str(hour) for hour in hours)
    findings.add(
        LOCAL_TIME, int((late_s >= 3_600).sum()), f"moved back onto multiples of {interval_ms // 3_600_000} h UTC",
        [f"rows lie {off} h after a multiple"],
    )  # fmt: skip
    return time_ms - late_s // 3_600 * 3_600_000


def _scaled(values: np.ndarray, name: str) -> np.ndarray:
    if name.endswith("_ms"):
        return values.astype(np.int64)
    largest = int(np.abs(values).max(initial=0))
    if largest < SECOND_LIMIT:
        return values.astype(np.int64) * 1_000
    return values.astype(np.int64) // (1 if largest < MILLISECOND_LIMIT else 1_000)


def _parsed(text: str, name: str) -> tuple[int, int]:
    """(milliseconds UTC, offset from UTC in minutes)."""
    if text.lstrip("-").isdigit():
        return int(_scaled(np.array([int(text)]), name)[0]), 0
    try:
        moment = datetime.datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError as error:
        raise MarketDataError(f"column {name}: {text!r} is no time") from error
    offset = moment.utcoffset()
    moment = moment.replace(tzinfo=moment.tzinfo or datetime.UTC)
    whole = int(moment.replace(microsecond=0).timestamp()) * 1_000 + moment.microsecond // 1_000
    return whole, 0 if offset is None else int(offset.total_seconds()) // 60


def write_csv(path: Path, columns: dict[str, Any]) -> None:
    """Columns of equal length as CSV without quotes; floats in their shortest form, NaN as nothing."""
    arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        out.write(",".join(columns).encode() + b"\n")  # pyarrow would quote the names
        pa.csv.write_csv(pa.table(arrays), out, pa.csv.WriteOptions(include_header=False, quoting_style="none"))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
