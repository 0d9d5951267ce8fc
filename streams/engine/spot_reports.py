"""What governed reporters say of index prices, and the one price it makes: exact integers, a function of the ticks.

Each reporter's newest price is kept by underlying. Whenever one speaks, the price is the median by weight of those that
were told since `report_age_max_ms`, if they are a quorum: enough reporters, with more than half of all governed weight.
Where the weight divides evenly every value between the two middle prices is a median: that nearest to the last price is
taken, so that of two reporters the one that lies can at most make the other's move wait.

Unlike a fit this needs no record to be repeated: whoever absorbs the ticks in the order of the log has the same price.
What is recorded with the market is whether the quorum was lost (`held` of the underlying's row) and who counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import orjson

from schemas.log_records import CONSENSUS_ROW, spot_place
from schemas.quantities import ONE_E6
from schemas.risk_parameters import SpotReporters

OUTLIER_E6 = 10_000  # relative to the price agreed on


class ToldSpot(NamedTuple):
    """A price, and the id of the tick that told it: of two of one time the later id is the newer."""

    time_ms: int
    event_id: str
    price_usd9: int


class Heard(NamedTuple):
    """What counts of one reporter now; `place` in the governed list."""

    place: int
    reporter: str
    weight: int
    told: ToldSpot


class SpotReports:
    """The newest price of every reporter by underlying; an older one that comes late says nothing."""

    def __init__(self) -> None:
        self.told: dict[tuple[int, str], ToldSpot] = {}

    def copy(self) -> SpotReports:
        twin = SpotReports()
        twin.told = self.told.copy()
        return twin

    def tell(self, underlying: int, reporter: str, told: ToldSpot) -> None:
        known = self.told.get((underlying, reporter))
        if known is None or known[:2] <= told[:2]:
            self.told[underlying, reporter] = told

    def heard(self, underlying: int, time_ms: int, governed: SpotReporters) -> list[Heard]:
        """Who has spoken since `report_age_max_ms`, in the governed order."""
        since = time_ms - governed.report_age_max_ms
        found = []
        for place, reporter in enumerate(governed.reporters):
            told = self.told.get((underlying, reporter.source))
            if told is not None and told.time_ms >= since:
                found.append(Heard(place, reporter.source, reporter.weight, told))
        return found

    def price_usd9(self, underlying: int, time_ms: int, last_usd9: int, governed: SpotReporters) -> int:
        """The price of those heard at `time_ms`; 0 without a quorum of them. `last_usd9`: the price before, 0: none."""
        heard = self.heard(underlying, time_ms, governed)
        return median_usd9(heard, last_usd9) if is_quorum(heard, governed) else 0

    def is_degraded(self, underlying: int, time_ms: int, governed: SpotReporters) -> bool:
        return not is_quorum(self.heard(underlying, time_ms, governed), governed)

    def row(self, underlying: int, time_ms: int, price_usd9: int, governed: SpotReporters) -> np.void:
        """CONSENSUS_ROW: who counted for the price in force, and who is far from it."""
        heard, row = self.heard(underlying, time_ms, governed), np.zeros(1, CONSENSUS_ROW)[0]
        far = [one for one in heard if abs(one.told.price_usd9 - price_usd9) * ONE_E6 > OUTLIER_E6 * price_usd9]
        row["expiry"], row["refused"] = spot_place(underlying), int(not is_quorum(heard, governed))
        row["counted"], row["outliers"] = _bits([] if row["refused"] else heard), _bits(far)
        plain = [[one.reporter, one.weight, list(one.told)] for one in heard]
        row["digest"] = np.frombuffer(hashlib.blake2b(orjson.dumps(plain), digest_size=16).digest(), np.uint8)
        return row

    # -- checkpoint

    def to_plain(self) -> list:
        """Plain value, equal for equal states."""
        return sorted((*key, *told) for key, told in self.told.items())

    @classmethod
    def from_plain(cls, plain: list) -> SpotReports:
        reports = cls()
        reports.told = {(underlying, reporter): ToldSpot(*told) for underlying, reporter, *told in plain}
        return reports


def is_quorum(heard: Sequence[Heard], governed: SpotReporters) -> bool:
    """Are these enough reporters, with more than half of all governed weight?"""
    whole = sum(reporter.weight for reporter in governed.reporters)
    return len(heard) >= governed.quorum and 2 * sum(one.weight for one in heard) > whole


def median_usd9(heard: Sequence[Heard], last_usd9: int) -> int:
    """The median by weight; of several the one nearest to `last_usd9` (0: none, then the lowest)."""
    told = sorted((one.told.price_usd9, one.weight) for one in heard)
    whole, below, low = sum(weight for _, weight in told), 0, 0
    for price_usd9, weight in told:
        below += weight
        if low:
            return min(max(last_usd9, low), price_usd9)
        if 2 * below > whole:
            return price_usd9
        if 2 * below == whole:
            low = price_usd9
    raise ValueError("a median of nothing")


def _bits(heard: Sequence[Heard]) -> int:
    return sum(1 << one.place for one in heard)
