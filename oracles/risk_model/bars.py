"""Bars of one asset: the form in which price history comes to the risk model.

A CSV file has the header ``time_ms,open,high,low,close,volume``; times are bar starts, UTC, milliseconds, ascending.
Missing bars are simply not there: nothing here fills a gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

HEADER = "time_ms,open,high,low,close,volume"


@dataclass(frozen=True, eq=False)
class Bars:
    """History of one asset; ``time_ms`` int64[n] is each bar's start, prices and volume are float64[n].

    ``interval_ms`` is the length of a bar; the close of bar i is known at ``time_ms[i] + interval_ms``.
    """

    asset: str
    interval_ms: int
    time_ms: Int64Array
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    @property
    def size(self) -> int:
        """Number of bars."""
        return int(self.time_ms.size)

    def between(self, start: int, stop: int) -> Bars:
        """Bars ``start`` to ``stop`` (exclusive), as views."""
        part = slice(start, stop)
        columns = (self.open, self.high, self.low, self.close, self.volume)
        return Bars(self.asset, self.interval_ms, self.time_ms[part], *(column[part] for column in columns))


def read_bars(path: Path, asset: str) -> Bars:
    """Read a CSV file of bars; the interval is the commonest distance of neighbours.

    Raises:
        ValueError: another header, a row that is no row of numbers, fewer than two rows, times that do not ascend,
            a price that is not a positive number or lies outside high and low; the message names file and row.
    """
    with path.open(encoding="utf-8") as lines:
        header = lines.readline().strip()
        if header != HEADER:
            raise ValueError(f"{path.name}: header {header!r}, expected {HEADER!r}")
        return _parse(lines, path.name, asset)


def _parse(lines: Iterable[str], name: str, asset: str) -> Bars:
    try:
        rows = np.loadtxt(lines, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if rows.shape[0] < 2 or rows.shape[1] != 6:
        raise ValueError(f"{name}: {rows.shape[0]} rows of {rows.shape[-1]} columns, at least 2 rows of 6 are needed")
    time_ms = rows[:, 0].astype(np.int64)
    steps = np.diff(time_ms)
    if (steps <= 0).any():
        raise ValueError(f"{name}: time_ms does not ascend at row {_first(steps <= 0) + 1}")
    bad = _bad_rows(rows[:, 1:])
    if bad.any():
        raise ValueError(f"{name}: prices that are no positive numbers, or outside their range, at row {_first(bad)}")
    distances, counts = np.unique(steps, return_counts=True)
    columns = (np.ascontiguousarray(column) for column in rows[:, 1:].T)
    return Bars(asset, int(distances[np.argmax(counts)]), time_ms, *columns)


def _first(rows: npt.NDArray[np.bool_]) -> int:
    """Number of the first true row, from 1."""
    return int(np.argmax(rows)) + 1


def _bad_rows(columns: FloatArray) -> npt.NDArray[np.bool_]:
    """Of rows open, high, low, close, volume: which the model cannot take."""
    opened, high, low, close, volume = columns.T
    with np.errstate(invalid="ignore"):
        within = (low > 0.0) & (low <= np.minimum(opened, close)) & (high >= np.maximum(opened, close))
        return ~(within & np.isfinite(columns).all(axis=1) & (volume >= 0.0))


def write_bars(bars: Bars, path: Path) -> None:
    """Write the CSV file that ``read_bars`` reads back to the same numbers."""
    with path.open("w", encoding="utf-8") as out:
        out.write(HEADER + "\n")
        columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
        for time_ms, *values in zip(bars.time_ms, *columns, strict=True):
            out.write(f"{time_ms}," + ",".join(repr(float(value)) for value in values) + "\n")
