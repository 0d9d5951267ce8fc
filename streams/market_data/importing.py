"""Recorded files into documented ones: found, read, checked, written; a report of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from streams.market_data import recorded
from streams.market_data.bar_checks import RawBars, clean_bars, interval_of
from streams.market_data.columns import MarketDataError, header, read_table, undo_local_time, write_csv
from streams.market_data.fills import read_fills, read_fills_table
from streams.market_data.findings import Finding, Findings, utc
from streams.market_data.recorded import BARS, FILLS, QUOTES, TRADES
from streams.market_data.row_checks import Columns, clean_funding, clean_quotes, clean_trades

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".jsonl", ".jsonl.gz")
GRID_INTERVALS_MS = (4 * 3_600_000, 8 * 3_600_000)
BAR_COLUMNS = ("open", "high", "low", "close", "volume")


class Imported(Struct, frozen=True):
    """One series of one source. ``output`` is empty where nothing was to be written."""

    source: str
    kind: str
    name: str
    rows_read: int
    rows_kept: int
    first: str
    last: str
    interval_ms: int
    findings: tuple[Finding, ...]
    output: str = ""


class Series(Struct, frozen=True):
    """A checked series: what there is to say, and its columns."""

    report: Imported
    columns: dict[str, Any]


def sources_in(source: Path) -> list[Path]:
    """The file itself, or every file below a folder, by name; MarketDataError where there is none."""
    if source.is_file():
        return [source]
    if not source.exists():
        raise MarketDataError(f"{source} does not exist: give a recorded file or a folder of them")
    found = sorted(path for path in source.rglob("*") if path.is_file())
    if not found:
        raise MarketDataError(f"{source} holds no files: give a recorded file or a folder of them")
    return found


def read_source(path: Path, asset: str | None = None, keep_wicks: bool = False) -> Iterator[Series]:
    """Every series of one file, checked. MarketDataError where it is no market data."""
    if not path.name.endswith(SUFFIXES):
        raise MarketDataError(f"a {path.suffix or 'nameless'} file is no table: {', '.join(SUFFIXES)} are read")
    if ".jsonl" in path.suffixes:
        yield _fills(path, read_fills)
        return
    kind = recorded.kind_of(header(path))
    if kind == BARS:
        yield from _bars(path, asset, keep_wicks)
    elif kind == FILLS:
        yield _fills(path, read_fills_table)
    else:
        yield _rows(path, kind, asset)


def import_source(path: Path, out: Path, asset: str | None = None, keep_wicks: bool = False) -> list[Imported]:
    """Read, check and write one file; the reports name what was written. MarketDataError as in ``read_source``."""
    reports = []
    for series in read_source(path, asset, keep_wicks):
        target = out / series.report.kind / f"{series.report.name}.csv"
        write_csv(target, series.columns)
        reports.append(_with_output(series.report, target))
    return reports


def raw_bars(series: Series) -> RawBars:
    """The bars of a series as the checks and the panel take them."""
    return RawBars(series.columns["time_ms"], np.column_stack([series.columns[name] for name in BAR_COLUMNS]))


def _bars(path: Path, asset: str | None, keep_wicks: bool) -> Iterator[Series]:
    findings = Findings()
    for label, raw in recorded.read_bar_series(read_table(path), findings).items():
        own = Findings()
        own.found.extend(findings.found)
        if interval_of(raw.time_ms) in GRID_INTERVALS_MS:
            raw = RawBars(undo_local_time(raw.time_ms, interval_of(raw.time_ms), own), raw.ohlcv)
        bars = clean_bars(raw, own, keep_wicks)
        if not len(bars.time_ms):
            raise MarketDataError(f"{path.name} has no bar with prices above zero")
        interval_ms = interval_of(bars.time_ms)
        columns = {"time_ms": bars.time_ms, **dict(zip(BAR_COLUMNS, bars.ohlcv.T))}
        name = f"{asset}_{label}" if asset and label else asset or label or _stem(path)
        yield Series(_report(path, BARS, name, len(raw.time_ms), columns, interval_ms, own), columns)


def _rows(path: Path, kind: str, asset: str | None) -> Series:
    findings = Findings()
    table = read_table(path)
    interval_ms = 0
    if kind == QUOTES:
        columns = clean_quotes(recorded.read_quotes(table, findings), findings)
    elif kind == TRADES:
        columns = clean_trades(recorded.read_trades(table, findings), findings)
    else:
        interval_ms, columns = _funding(recorded.read_funding(table, findings), findings)
    if not len(columns["time_ms"]):
        raise MarketDataError(f"{path.name} has no row that passes its checks")
    return Series(_report(path, kind, asset or _stem(path), table.num_rows, columns, interval_ms, findings), columns)


def _funding(columns: Columns, findings: Findings) -> tuple[int, Columns]:
    interval_ms = interval_of((columns["time_ms"] + 30_000) // 60_000 * 60_000)
    if interval_ms in GRID_INTERVALS_MS:
        columns["time_ms"] = undo_local_time(columns["time_ms"], interval_ms, findings)
    return interval_ms, clean_funding(columns, interval_ms, findings)


def _fills(path: Path, read: Callable[[Path, Findings], Columns]) -> Series:
    findings = Findings()
    columns = read(path, findings)
    return Series(_report(path, FILLS, _stem(path), len(columns["time_ms"]), columns, 0, findings), columns)


def _report(
    path: Path, kind: str, name: str, rows_read: int, columns: dict[str, Any], interval_ms: int, findings: Findings
) -> Imported:
    times = columns["time_ms"]
    return Imported(
        source=str(path),
        kind=kind,
        name=name,
        rows_read=rows_read,
        rows_kept=len(times),
        first=utc(times[0]),
        last=utc(times[-1]),
        interval_ms=interval_ms,
        findings=tuple(findings.found),
    )


def _with_output(report: Imported, target: Path) -> Imported:
    return Imported(
        report.source, report.kind, report.name, report.rows_read, report.rows_kept, report.first, report.last,
        report.interval_ms, report.findings, str(target),
    )  # fmt: skip


def _stem(path: Path) -> str:
    name = path.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name
