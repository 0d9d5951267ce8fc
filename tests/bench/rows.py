"""What a benchmark says: one row a figure, with its peer, its goal and a checksum of what was computed."""

from __future__ import annotations

import hashlib
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

Work = Callable[[], Any]
Clock = Callable[[], float]
MEBIBYTE = 1 << 20


class Row(Struct, frozen=True, kw_only=True):
    """One figure. `ratio` is how many times better than the peer (above 1: we win), measured in turns with it.

    `ok` is whether the goal was reached, None where there is no goal or the row was not run (`value` is None then,
    `goal` says why). `checksum` is of the result, so that equal figures of different machines can be compared.
    """

    name: str
    value: float | None
    unit: str
    peer: str = ""
    ratio: float | None = None
    goal: str = ""
    ok: bool | None = None
    size: str = ""
    memory_mb: float | None = None
    checksum: str = ""


class Timings(NamedTuple):
    """Medians of works run in turns: seconds of each, and seconds of each over those of the first, pair by pair."""

    seconds: list[float]
    ratios: list[float]


def side_by_side(
    *works: Work, repeats: int = 5, warm_up: int = 1, clock: Clock = time.perf_counter, even: bool = False
) -> Timings:
    """Run the works in turns (A B C A B C ...), so that a machine whose speed drifts is fair to all of them.

    `clock`: `time.process_time` for works of one core, which others on the machine then disturb less. `even`: turns of
    equal length, a quick work many times in its own; else it is timed with what a slow one left in the caches.
    """
    for work in works:
        for _ in range(warm_up):
            work()
    counts = [1] * len(works)
    if even:
        once = [_seconds(work, 1, clock) for work in works]
        counts = [max(1, round(max(once) / max(seconds, 1e-9))) for seconds in once]
    rounds = [[_seconds(*one, clock=clock) for one in zip(works, counts, strict=True)] for _ in range(repeats)]
    seconds = [statistics.median(column) for column in zip(*rounds, strict=True)]
    ratios = [statistics.median(taken[i] / taken[0] for taken in rounds) for i in range(len(works))]
    return Timings(seconds, ratios)


def _seconds(work: Work, count: int, clock: Clock) -> float:
    began = clock()
    for _ in range(count):
        work()
    return (clock() - began) / count


def checksum(*arrays: np.ndarray) -> str:
    """Identity of results: BLAKE2b over the bytes of the arrays."""
    h = hashlib.blake2b(digest_size=8)
    for array in arrays:
        h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def table(rows: list[Row]) -> Iterator[str]:
    """The rows as aligned text."""
    heads = ("name", "value", "unit", "peer", "ratio", "goal", "ok", "size", "memory_mb", "checksum")
    cells = [[_text(getattr(row, head)) for head in heads] for row in rows]
    widths = [max(len(line[i]) for line in [list(heads), *cells]) for i in range(len(heads))]
    for line in [list(heads), *cells]:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def as_json(rows: list[Row]) -> str:
    """One JSON object: {"rows": [...]}."""
    return msgspec.json.encode({"rows": rows}).decode()
