"""What collateral may count at: never more than its average price, and less as a stablecoin leaves its peg.

Both are integers of the recorded ticks in their order, counted left of the log as settlement windows are, kept in the
sequencer's checkpoint, and recorded (COLLATERAL_ROW) with every market: no worker computes them again.

**Average.** The index is piecewise constant; it is summed, price x milliseconds, into buckets of a thirtieth of the
governed window. The average is over the buckets that reach back that long: at least the window, at most a thirtieth
more; before it is full, over what is known. Rounded down.

**Peg.** A stablecoin is worth one USD, or it stands on a step. It goes down one step once its price has stood below the
next step's for `fall_after_ms`, and back one step once it has stood above the present one's by the hysteresis for
`recover_after_ms`: every step anew, so that a wick moves nothing and recovery takes its time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.layout import SPOT
from schemas.catalogue import Catalogue
from schemas.log_records import COLLATERAL_ROW
from schemas.quantities import ONE_E6, USD9_PER_USD6
from schemas.risk_parameters import Depeg, RiskParameters

BUCKETS = 30
NOT_SINCE = -1


class Average(NamedTuple):
    """Buckets (place in time, sum of nano-USD x ms, ms), the oldest first; Python integers."""

    width_ms: int
    buckets: tuple[tuple[int, int, int], ...] = ()

    def counting(self, price_usd9: int, from_ms: int, until_ms: int) -> Average:
        """With a price that stood over [from_ms, until_ms); buckets that are too old for that moment go."""
        first = until_ms // self.width_ms - BUCKETS
        found = {place: (sum_, known_ms) for place, sum_, known_ms in self.buckets if place >= first}
        at_ms = max(from_ms, first * self.width_ms)
        while at_ms < until_ms:
            place = at_ms // self.width_ms
            end_ms = min((place + 1) * self.width_ms, until_ms)
            sum_, known_ms = found.get(place, (0, 0))
            found[place] = (sum_ + price_usd9 * (end_ms - at_ms), known_ms + end_ms - at_ms)
            at_ms = end_ms
        return Average(self.width_ms, tuple((place, *found[place]) for place in sorted(found)))

    def price_usd9(self, otherwise_usd9: int) -> int:
        """The average, rounded down; `otherwise_usd9` where nothing was counted."""
        known_ms = sum(bucket[2] for bucket in self.buckets)
        return sum(bucket[1] for bucket in self.buckets) // known_ms if known_ms else otherwise_usd9


class Peg(NamedTuple):
    """Steps that a stablecoin is down, and since when its price calls for one more, or one less."""

    level: int = 0
    lower_since_ms: int = NOT_SINCE
    higher_since_ms: int = NOT_SINCE

    def at(self, price_usd9: int, time_ms: int, depeg: Depeg) -> Peg:
        """The peg at `time_ms`, its price having stood until then."""
        peg = self if self.level <= len(depeg.steps) else Peg(len(depeg.steps))
        while peg.lower_since_ms != NOT_SINCE and time_ms - peg.lower_since_ms >= depeg.fall_after_ms:
            peg = Peg(peg.level + 1)._marked(price_usd9, peg.lower_since_ms + depeg.fall_after_ms, depeg)
        while peg.higher_since_ms != NOT_SINCE and time_ms - peg.higher_since_ms >= depeg.recover_after_ms:
            peg = Peg(peg.level - 1)._marked(price_usd9, peg.higher_since_ms + depeg.recover_after_ms, depeg)
        return peg

    def seeing(self, price_usd9: int, time_ms: int, depeg: Depeg) -> Peg:
        """A new price, from `time_ms` on."""
        return self._marked(price_usd9, time_ms, depeg).at(price_usd9, time_ms, depeg)

    def _marked(self, price_usd9: int, time_ms: int, depeg: Depeg) -> Peg:
        steps = depeg.steps
        lower = self.level < len(steps) and price_usd9 < steps[self.level].below_usd6 * USD9_PER_USD6
        line_usd6 = steps[self.level - 1].below_usd6 + depeg.hysteresis_usd6 if self.level else 0
        higher = self.level > 0 and price_usd9 >= line_usd6 * USD9_PER_USD6
        return Peg(
            self.level,
            _since(self.lower_since_ms, time_ms) if lower else NOT_SINCE,
            _since(self.higher_since_ms, time_ms) if higher else NOT_SINCE,
        )


def _since(known_ms: int, time_ms: int) -> int:
    return time_ms if known_ms == NOT_SINCE else known_ms


class Guards:
    """Averages and pegs of the underlyings, by catalogue index."""

    def __init__(self) -> None:
        self.averages: dict[int, Average] = {}
        self.pegs: dict[int, Peg] = {}

    def copy(self) -> Guards:
        twin = Guards()
        twin.averages, twin.pegs = self.averages.copy(), self.pegs.copy()
        return twin

    def stood(self, underlying: int, price_usd9: int, stood_ms: tuple[int, int], p: RiskParameters) -> None:
        """The index of an underlying stood at `price_usd9` over this time."""
        if p.collateral_average_window_ms:
            known = self._average(underlying, p)
            self.averages[underlying] = known.counting(price_usd9, *stood_ms)

    def see(
        self, underlying: int, is_stable: bool, prices_usd9: tuple[int, int], time_ms: int, p: RiskParameters
    ) -> None:
        """The index goes from one price (0: none) to another at `time_ms`."""
        if not (p.depeg.steps and is_stable):
            return
        before_usd9, price_usd9 = prices_usd9
        known = self.pegs.get(underlying, Peg())
        self.pegs[underlying] = known.at(before_usd9, time_ms, p.depeg).seeing(price_usd9, time_ms, p.depeg)

    def rows(
        self, spot_usd9: dict[int, int], since_ms: dict[int, int], catalogue: Catalogue, time_ms: int, p: RiskParameters
    ) -> np.ndarray:
        """COLLATERAL_ROW[n] at `time_ms`, of every priced coin that anything guards. `since_ms`: of the spots."""
        if not (p.collateral_average_window_ms or p.depeg.steps):
            return np.zeros(0, COLLATERAL_ROW)
        columns, found = catalogue.columns(), []
        for u in np.unique(columns.underlying[columns.kind == SPOT]).tolist():
            is_pegged = bool(p.depeg.steps) and catalogue.underlyings[u].stable
            if u not in spot_usd9 or not (p.collateral_average_window_ms or is_pegged):
                continue
            price_usd9, cut_e6, halted = spot_usd9[u], 0, 0
            if p.collateral_average_window_ms:
                average = self._average(u, p).counting(price_usd9, since_ms[u], time_ms)
                price_usd9 = min(price_usd9, average.price_usd9(price_usd9))
            if is_pegged and (level := self.pegs.get(u, Peg()).at(spot_usd9[u], time_ms, p.depeg).level):
                step = p.depeg.steps[level - 1]
                cut_e6, halted = ONE_E6 - step.factor_share_e6, int(step.halted)
            found.append((u, halted, price_usd9, cut_e6))
        return np.array(found, COLLATERAL_ROW)

    def _average(self, underlying: int, p: RiskParameters) -> Average:
        """What is known by buckets of the present window; another window begins anew."""
        width_ms = -(-p.collateral_average_window_ms // BUCKETS)
        known = self.averages.get(underlying)
        return known if known is not None and known.width_ms == width_ms else Average(width_ms)

    # -- checkpoint

    def to_plain(self) -> list:
        averages = [
            (u, a.width_ms, [(place, str(sum_), known_ms) for place, sum_, known_ms in a.buckets])  # of any size
            for u, a in sorted(self.averages.items())
        ]
        return [averages, sorted((u, *peg) for u, peg in self.pegs.items())]

    @classmethod
    def from_plain(cls, plain: list) -> Guards:
        guards = cls()
        for u, width_ms, buckets in plain[0]:
            guards.averages[u] = Average(width_ms, tuple((place, int(s), known) for place, s, known in buckets))
        guards.pegs = {u: Peg(*peg) for u, *peg in plain[1]}
        return guards
