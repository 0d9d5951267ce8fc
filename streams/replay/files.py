"""Recorded files: found, opened and read, with errors that say what to do."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"
NANO = Decimal(10**9)


class ReplayError(ValueError):
    """A source cannot be replayed. The message says which file, what is wrong and what to do."""


def find_files(source: Path | None, sample_folder: Path, pattern: str, wanted: str) -> list[Path]:
    """The files to read, sorted by name: `source` itself if it is a file, else what matches `pattern` in or below it.

    None stands for the sample that ships with the project. ReplayError where nothing matches; `wanted` names the data.
    """
    folder = sample_folder if source is None else Path(source)
    if folder.is_file():
        return [folder]
    if not folder.exists():
        raise ReplayError(f"{folder} does not exist: give --source a file or folder with {wanted}, or leave it out")
    found = sorted(folder.rglob(pattern), key=lambda path: path.name)
    if not found:
        raise ReplayError(f"no file named {pattern} in {folder}: give --source a file or folder with {wanted}")
    return found


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a text file, gzip or plain. ReplayError where it cannot be read or is no text."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as lines:
            yield from lines
    except (OSError, EOFError, zlib.error) as error:
        raise ReplayError(f"{path} cannot be read ({error}): is it whole, and gzip if its name ends in .gz?") from error
    except UnicodeDecodeError as error:
        raise ReplayError(f"{path} is no UTF-8 text: a recorded .csv or .jsonl file is expected, or its .gz") from error


def read_rows(path: Path, columns: tuple[str, ...], wanted: str) -> Iterator[dict[str, str]]:
    """Rows of a CSV file as dicts; ReplayError where one of `columns` is missing or a row is short."""
    reader = csv.DictReader(read_lines(path))
    try:
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ReplayError(f"{path} has no column {', '.join(missing)}: {wanted} is expected")
        for row in reader:
            if any(row[name] is None for name in columns):
                raise ReplayError(f"{path} line {reader.line_num} is cut off: fetch the file again")
            yield row
    except csv.Error as error:
        raise ReplayError(f"{path} is no CSV file ({error}): {wanted} is expected") from error


def check_limit(limit: int | None) -> None:
    """ReplayError where a limit leaves no block to replay."""
    if limit is not None and limit < 1:
        raise ReplayError(f"a replay of {limit} blocks has nothing to show: ask for 1 or more, or for all")


def decimal(text: str, path: Path, line: int) -> Decimal:
    """The finite number in `text`, exact; ReplayError naming file and line otherwise."""
    try:
        value = Decimal(text)
    except (InvalidOperation, TypeError, ValueError):
        value = Decimal("nan")
    if not value.is_finite():
        raise ReplayError(f"{path} line {line}: {text!r} is no number")
    return value


def usd9(price: Decimal) -> int:
    """USD -> nano-USD, ties to even."""
    return int((price * NANO).to_integral_value())
