"""What governed reporters say of an expiry's forward and volatility, and what it makes together: left of the log.

Each reporter's last word is kept by expiry: a forward, an SVI slice, quotes. `agree` combines those that are not too
old: the forward is the weighted median of the reporters' own forwards (told, or by put-call parity from their quotes),
the slice the refitted weighted median of their total variances (told, or fitted to their quotes). Needed for either:
`surface_quorum` reporters with more than half of all governed weight. What comes of it is recorded as integers with a
digest of what was said; nothing right of the log asks how it came about.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import orjson

from oracles.forward import PARITY_SPREAD_MAX_BP, Side, parity_forward, weighted_quantile
from oracles.option_quotes import Quote, Terms
from oracles.surface_consensus import Report, combine
from oracles.surface_fit import FloorCurve, SliceE9, fit_smile
from schemas.catalogue import Catalogue
from schemas.log_records import CONSENSUS_ROW
from schemas.quantities import ONE_E9, USD9_PER_USD, divide_half_even
from schemas.risk_parameters import RiskParameters

OUTLIER_FORWARD = 0.01  # relative to the forward agreed on

Key = tuple[int, str]  # expiry, reporter


class ToldForward(NamedTuple):
    """Forward over index, and the rate."""

    time_ms: int
    carry_e9: int
    rate_e9: int


class ToldSlice(NamedTuple):
    """A slice, and the forward over index that it is of (0: not said)."""

    time_ms: int
    carry_e9: int
    slice_e9: SliceE9


class ToldQuote(NamedTuple):
    """Mark, bid and ask of an option (0: none), nano-USD."""

    time_ms: int
    mark_usd9: int
    bid_usd9: int
    ask_usd9: int


class Scene(NamedTuple):
    """What an expiry is combined against: the recorded forward (0: none) and rate, and the slice of the one before."""

    expiry: int
    time_ms: int
    spot_usd9: int
    forward_usd9: int
    rate_e9: int
    floor: FloorCurve


class Agreement(NamedTuple):
    """Forward and rate agreed on (0: none), the slice (None: none), and the row that says who made them."""

    forward_usd9: int
    rate_e9: int
    slice_e9: SliceE9 | None
    row: np.ndarray


class Said(NamedTuple):
    """What counts of one reporter now; `place` in the governed list."""

    place: int
    reporter: str
    weight: int
    forward: ToldForward | None
    slice: ToldSlice | None
    quotes: dict[int, ToldQuote]

    @property
    def speaks_of_volatility(self) -> bool:
        return self.slice is not None or bool(self.quotes)


class Reports:
    """The last word of every reporter; an older one that comes late says nothing."""

    def __init__(self) -> None:
        self.forwards: dict[Key, ToldForward] = {}
        self.slices: dict[Key, ToldSlice] = {}
        self.quotes: dict[Key, dict[int, ToldQuote]] = {}

    def copy(self) -> Reports:
        twin = Reports()
        twin.forwards, twin.slices = self.forwards.copy(), self.slices.copy()
        twin.quotes = {key: quotes.copy() for key, quotes in self.quotes.items()}
        return twin

    def tell_forward(self, key: Key, told: ToldForward) -> None:
        if key not in self.forwards or self.forwards[key].time_ms <= told.time_ms:
            self.forwards[key] = told

    def tell_slice(self, key: Key, told: ToldSlice) -> None:
        if key not in self.slices or self.slices[key].time_ms <= told.time_ms:
            self.slices[key] = told

    def tell_quote(self, key: Key, instrument: int, told: ToldQuote) -> None:
        quotes = self.quotes.setdefault(key, {})
        if instrument not in quotes or quotes[instrument].time_ms <= told.time_ms:
            quotes[instrument] = told

    def expiries(self) -> set[int]:
        """Of which anybody has said anything."""
        return {key[0] for kept in (self.forwards, self.slices, self.quotes) for key in kept}

    def drop(self, expiry: int) -> None:
        for kept in (self.forwards, self.slices, self.quotes):
            for key in [key for key in kept if key[0] == expiry]:
                del kept[key]

    def said(self, expiry: int, time_ms: int, p: RiskParameters) -> list[Said]:
        """Who has spoken since `surface_report_age_max_ms`, in the governed order."""
        since, found = time_ms - p.surface_report_age_max_ms, []
        for place, reporter in enumerate(p.surface_reporters):
            key = (expiry, reporter.source)
            forward, told = self.forwards.get(key), self.slices.get(key)
            forward = forward if forward is not None and forward.time_ms >= since else None
            told = told if told is not None and told.time_ms >= since else None
            quotes = {i: q for i, q in sorted(self.quotes.get(key, {}).items()) if q.time_ms >= since}
            if forward is not None or told is not None or quotes:
                found.append(Said(place, reporter.source, reporter.weight, forward, told, quotes))
        return found

    # -- checkpoint

    def to_plain(self) -> list:
        """Plain value, equal for equal states."""
        quotes = sorted((*key, sorted((i, *q) for i, q in told.items())) for key, told in self.quotes.items())
        return [
            sorted((*key, *told) for key, told in self.forwards.items()),
            sorted((*key, *told) for key, told in self.slices.items()),
            quotes,
        ]

    @classmethod
    def from_plain(cls, plain: list) -> Reports:
        reports = cls()
        reports.forwards = {(e, source): ToldForward(*told) for e, source, *told in plain[0]}
        reports.slices = {(e, source): ToldSlice(at, carry, tuple(v)) for e, source, at, carry, v in plain[1]}
        reports.quotes = {(e, source): {i: ToldQuote(*q) for i, *q in quotes} for e, source, quotes in plain[2]}
        return reports


def is_quorum(said: list[Said], p: RiskParameters) -> bool:
    """Are these enough reporters, with more than half of all governed weight?"""
    whole = sum(reporter.weight for reporter in p.surface_reporters)
    return len(said) >= p.surface_quorum and 2 * sum(one.weight for one in said) > whole


def agree(said: list[Said], scene: Scene, catalogue: Catalogue, p: RiskParameters) -> Agreement:
    """What the reporters say together."""
    own = {one.reporter: _own_forward_usd9(one, scene, catalogue) for one in said}
    forward_usd9 = _agreed_forward_usd9([one for one in said if own[one.reporter]], own, p)
    rate_e9 = _agreed_rate_e9(said, scene, p)
    read_at_usd9 = forward_usd9 or scene.forward_usd9
    reports = []
    for one in said:
        at_usd9 = own[one.reporter] or read_at_usd9
        slice_e9 = _slice_of(one, scene._replace(forward_usd9=at_usd9, rate_e9=rate_e9), catalogue)
        if slice_e9 is not None and at_usd9:
            reports.append(Report(one.reporter, at_usd9, slice_e9, one.weight))
    whole = sum(reporter.weight for reporter in p.surface_reporters)
    found = combine(reports, p.surface_quorum, whole, scene.floor, read_at_usd9)
    used = {r.reporter for r in reports} - set(found.left_out) if reports else {r for r in own if own[r]}
    far = {r for r, usd9 in own.items() if usd9 and abs(usd9 / max(read_at_usd9, 1) - 1) > OUTLIER_FORWARD}
    is_refused = found.slice_e9 is None and any(one.speaks_of_volatility for one in said)
    row = np.zeros(1, CONSENSUS_ROW)[0]
    row["expiry"], row["refused"] = scene.expiry, int(is_refused or not (forward_usd9 or reports))
    row["counted"] = sum(1 << one.place for one in said if one.reporter in used)
    row["outliers"] = sum(1 << one.place for one in said if one.reporter in far | set(found.outliers))
    row["digest"] = np.frombuffer(digest_of(said, catalogue), np.uint8)
    return Agreement(forward_usd9, rate_e9, found.slice_e9, row)


def digest_of(said: list[Said], catalogue: Catalogue) -> bytes:
    """16 bytes: BLAKE2b of the JSON of what counted, [reporter, weight, forward, slice, quotes by name] each."""
    plain = [
        [
            one.reporter, one.weight, list(one.forward or ()), list(one.slice or ()),
            [[catalogue.instruments[i].symbol, *quote] for i, quote in one.quotes.items()],
        ]
        for one in said
    ]  # fmt: skip
    return hashlib.blake2b(orjson.dumps(plain), digest_size=16).digest()


def _own_forward_usd9(one: Said, scene: Scene, catalogue: Catalogue) -> int:
    """The reporter's own forward: its slice's, the one it told, or by parity from its quotes; 0: it has none."""
    carry_e9 = one.slice.carry_e9 if one.slice is not None else 0
    if not carry_e9 and one.forward is not None:
        carry_e9 = one.forward.carry_e9
    if carry_e9:
        return divide_half_even(scene.spot_usd9 * carry_e9, ONE_E9)
    listed = catalogue.instruments
    sides = [
        Side(listed[i].kind == "call", *(usd9 / USD9_PER_USD for usd9 in (listed[i].strike_usd9, *quote[2:])))
        for i, quote in one.quotes.items()
    ]
    growth = _terms(scene, catalogue).growth
    found = parity_forward(sides, scene.forward_usd9 / USD9_PER_USD, growth) if scene.forward_usd9 else None
    return round(found.price_usd * USD9_PER_USD) if found and found.spread_bp <= PARITY_SPREAD_MAX_BP else 0


def _agreed_forward_usd9(voters: list[Said], own: dict[str, int], p: RiskParameters) -> int:
    if not is_quorum(voters, p):
        return 0
    forwards = np.array([own[one.reporter] for one in voters], np.float64)
    return round(weighted_quantile(forwards, np.array([one.weight for one in voters], np.float64), 0.5))


def _agreed_rate_e9(said: list[Said], scene: Scene, p: RiskParameters) -> int:
    voters = [one for one in said if one.forward is not None]
    if not is_quorum(voters, p):
        return scene.rate_e9
    rates = np.array([one.forward.rate_e9 for one in voters if one.forward is not None], np.float64)
    return round(weighted_quantile(rates, np.array([one.weight for one in voters], np.float64), 0.5))


def _slice_of(one: Said, scene: Scene, catalogue: Catalogue) -> SliceE9 | None:
    if one.slice is not None or not one.quotes:
        return one.slice.slice_e9 if one.slice is not None else None
    listed = catalogue.instruments
    rows = [Quote(listed[i].kind == "call", listed[i].strike_usd9, *quote[1:]) for i, quote in one.quotes.items()]
    return fit_smile(rows, _terms(scene, catalogue)).slice_e9


def _terms(scene: Scene, catalogue: Catalogue) -> Terms:
    expiry = catalogue.expiries[scene.expiry]
    jumps = catalogue.underlyings[expiry.underlying].jumps
    return Terms(scene.forward_usd9, scene.rate_e9, expiry.expiry_ms - scene.time_ms, jumps)
