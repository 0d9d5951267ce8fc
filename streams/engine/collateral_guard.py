"""What collateral may count at: never more than its average price, and less as a pegged coin leaves its peg.

Both are integers of the recorded ticks in their order, counted left of the log as settlement windows are, kept in the
sequencer's checkpoint, and recorded (COLLATERAL_ROW) with every market: no worker computes them again.

**Average.** The index is piecewise constant; it is summed, price x milliseconds, into buckets of a thirtieth of the
governed window. The average is over the buckets that reach back that long: at least the window, at most a thirtieth
more; before it is full, over what is known. Rounded down.

**Peg.** A pegged coin is worth its peg (a stablecoin one USD, others what `Depeg.pegs` name), or it stands on a step.
It goes down one step once its price in units of the peg has stood below the next step's for `fall_after_ms`, and back
one step once it has stood above the present one's by the hysteresis for `recover_after_ms`: every step anew, so that a
wick moves nothing and recovery takes its time. Where the peg has no price nothing moves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from msgspec import structs

from kernels.layout import SPOT
from schemas.catalogue import Catalogue
from schemas.log_records import COLLATERAL_ROW
from schemas.quantities import ONE_E6, ONE_E9, USD9_PER_USD6
from schemas.risk_parameters import Depeg, PegTo, RiskParameters

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
    """Steps that a coin is down, and since when its price calls for one more, or one less."""

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


class Pegging(NamedTuple):
    """What a coin is pegged to: `worth_e6` of the index of the underlying `to`; `to` None: one USD."""

    to: int | None
    worth_e6: int
    depeg: Depeg

    def price_e9(self, coin: int, spot_usd9: dict[int, int]) -> int:
        """Price of the coin in units of its peg, rounded down; 0 where either has none."""
        price_usd9 = spot_usd9.get(coin, 0)
        if self.to is None:
            return price_usd9
        unit = spot_usd9.get(self.to, 0) * self.worth_e6
        return price_usd9 * ONE_E6 * ONE_E9 // unit if unit else 0


def _pegging(coin: int, catalogue: Catalogue, depeg: Depeg) -> Pegging | None:
    """What a coin is pegged to; None: nothing, or to nothing that is listed, or no steps are governed for it."""
    listed = catalogue.underlyings[coin]
    named = next((peg for peg in depeg.pegs or () if peg.underlying == listed.symbol), None)
    if named is None:
        return Pegging(None, ONE_E6, depeg) if listed.stable and depeg.steps else None
    own, to = _steps_of(named, depeg), catalogue.underlying_index.get(named.to)
    return Pegging(to, named.worth_e6, own) if own.steps and to is not None else None


def _steps_of(named: PegTo, depeg: Depeg) -> Depeg:
    return structs.replace(depeg, steps=named.steps) if isinstance(named.steps, tuple) else depeg


def _peggings(underlying: int, catalogue: Catalogue, depeg: Depeg) -> list[tuple[int, Pegging]]:
    """The coins whose price in units of their peg changes with this index."""
    symbol, index = catalogue.underlyings[underlying].symbol, catalogue.underlying_index
    pegged = (peg.underlying for peg in depeg.pegs or () if peg.to == symbol)
    coins = [underlying, *(index[name] for name in pegged if name in index)]
    found = ((coin, _pegging(coin, catalogue, depeg)) for coin in coins)
    return [(coin, pegging) for coin, pegging in found if pegging is not None]


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
        self, underlying: int, price_usd9: int, spot_usd9: dict[int, int], time_ms: int, catalogue: Catalogue,
        p: RiskParameters,
    ) -> None:  # fmt: skip
        """The index goes to a price at `time_ms`; `spot_usd9`: of all underlyings, until then."""
        if not p.depeg.has_steps:
            return
        now_usd9 = spot_usd9 | {underlying: price_usd9}
        for coin, pegging in _peggings(underlying, catalogue, p.depeg):
            before, after = (pegging.price_e9(coin, prices) for prices in (spot_usd9, now_usd9))
            known = self.pegs.get(coin, Peg())
            if after:
                stood = known.at(before, time_ms, pegging.depeg) if before else known
                self.pegs[coin] = stood.seeing(after, time_ms, pegging.depeg)

    def _level(self, coin: int, pegging: Pegging, spot_usd9: dict[int, int], time_ms: int) -> int:
        known, price_e9 = self.pegs.get(coin, Peg()), pegging.price_e9(coin, spot_usd9)
        level = known.at(price_e9, time_ms, pegging.depeg).level if price_e9 else known.level
        return min(level, len(pegging.depeg.steps))

    def rows(
        self, spot_usd9: dict[int, int], since_ms: dict[int, int], catalogue: Catalogue, time_ms: int, p: RiskParameters
    ) -> np.ndarray:
        """COLLATERAL_ROW[n] at `time_ms`, of every priced coin that anything guards. `since_ms`: of the spots."""
        if not (p.collateral_average_window_ms or p.depeg.has_steps):
            return np.zeros(0, COLLATERAL_ROW)
        columns, found = catalogue.columns(), []
        for u in np.unique(columns.underlying[columns.kind == SPOT]).tolist():
            pegging = _pegging(u, catalogue, p.depeg)
            if u not in spot_usd9 or not (p.collateral_average_window_ms or pegging):
                continue
            price_usd9, cut_e6, halted = spot_usd9[u], 0, 0
            if p.collateral_average_window_ms:
                average = self._average(u, p).counting(price_usd9, since_ms[u], time_ms)
                price_usd9 = min(price_usd9, average.price_usd9(price_usd9))
            if pegging and (level := self._level(u, pegging, spot_usd9, time_ms)):
                step = pegging.depeg.steps[level - 1]
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
