"""What a check found: a name from one list, how often, where, and what was done about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from msgspec import Struct

NOT_A_NUMBER: Final = "not a number"
PRICE_NOT_POSITIVE: Final = "price not positive"
OUT_OF_ORDER: Final = "out of order"
DUPLICATE: Final = "duplicate"
CONFLICTING_DUPLICATE: Final = "conflicting duplicate"
INCONSISTENT_BAR: Final = "inconsistent bar"
GAP: Final = "gap"
SPLICE: Final = "splice"
FALSE_WICK: Final = "false wick"
CONSTANT_PRICE: Final = "constant price"
SHORT_HISTORY: Final = "short history"
TIME_WITH_OFFSET: Final = "time with offset"
LOCAL_TIME: Final = "local time"
MARK_NOT_POSITIVE: Final = "mark not positive"
CROSSED_QUOTE: Final = "crossed quote"
BOUNDARY_VOLATILITY: Final = "boundary volatility"
TOO_FEW_STRIKES: Final = "too few strikes"
INDEX_VARIES: Final = "index varies in snapshot"
BROKEN_POSITION: Final = "broken position"
EXAMPLES_MAX = 3


class Finding(Struct, frozen=True, omit_defaults=True):
    """One kind of flaw in one file. ``examples``: up to three places or values, as text."""

    name: str
    count: int
    action: str
    examples: tuple[str, ...] = ()


class Findings:
    """Collects findings; a count of zero leaves no trace."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def add(self, name: str, count: int, action: str, examples: Iterable[str] = ()) -> None:
        if count:
            self.found.append(Finding(name, int(count), action, tuple(examples)[:EXAMPLES_MAX]))

    def add_times(self, name: str, times_ms: np.ndarray, action: str) -> None:
        """One finding for the bars or rows at these times, which are its examples."""
        self.add(name, len(times_ms), action, [utc(time) for time in times_ms[:EXAMPLES_MAX]])


def utc(time_ms: int | np.integer) -> str:
    """Milliseconds since 1970 as ISO text, UTC."""
    return f"{np.datetime64(int(time_ms), 'ms').astype('datetime64[s]')}Z"
