"""What must outlive a kill beside the records: topics, committed offsets, groups, producer ids."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .wire import ErrorCode, Refusal


class Journal:
    """JSON lines, each with its CRC-32 in front; read up to the first torn line, rewritten short at each start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = -1

    def entries(self) -> Iterator[dict[str, Any]]:
        """All whole entries, oldest first."""
        for line in self.path.read_bytes().split(b"\n") if self.path.exists() else []:
            checksum, _, text = line.partition(b" ")
            if checksum != b"%08x" % zlib.crc32(text):
                return
            yield json.loads(text)

    def rewrite(self, entries: Iterable[dict[str, Any]]) -> None:
        """Replaces the file at once and opens it for appending."""
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(b"".join(map(self._line, entries)))
        fresh.replace(self.path)
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND)

    def append(self, entry: dict[str, Any]) -> None:
        line, end = self._line(entry), os.fstat(self.file).st_size
        try:
            if os.write(self.file, line) != len(line):
                raise OSError("short write: is the disk full?")
        except OSError as error:
            os.ftruncate(self.file, end)
            raise Refusal(ErrorCode.KAFKA_STORAGE_ERROR, str(error)) from error

    @staticmethod
    def _line(entry: dict[str, Any]) -> bytes:
        text = json.dumps(entry, separators=(",", ":")).encode()
        return b"%08x %s\n" % (zlib.crc32(text), text)
