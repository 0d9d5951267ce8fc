"""The market as the ticks tell it, left of the log: latest index, carry, surface and quotes, all integers.

`absorb` is a pure function of ticks in their order, the price that governed reporters of an index make together
included. Fitting quotes to SVI slices, and combining what several reporters say of volatility, is not bit-reproducible
across machines, so `fitted` is called only for proposals; what was recorded is put back by `record`.
"""

from __future__ import annotations

import numpy as np

from oracles.option_quotes import Quote, Terms
from oracles.surface_bounds import MOVE_MAX_E6, is_within, surface_move_e6
from oracles.surface_fit import NO_FLOOR, FloorCurve, Slice, SliceE9, fit_smile, floor_of, volatility_level_e9
from schemas import refusals
from schemas.catalogue import Catalogue, Expiry, Instrument
from schemas.log_records import CONSENSUS_ROW, EXPIRY_ROW, SETTLEMENT_ROW, SPOT_ROW, Market
from schemas.quantities import MILLISECONDS_PER_YEAR, ONE_E9, PRICE_MAX_USD9, divide_half_even
from schemas.refusals import Refusal
from schemas.risk_parameters import Reporter, RiskParameters
from streams.engine.collateral_guard import Guards
from streams.engine.reporters import Reports, Scene, ToldForward, ToldQuote, ToldSlice, agree, is_quorum
from streams.engine.settlement import Window
from streams.engine.spot_reports import SpotReports, ToldSpot

OPTION_KINDS = ("call", "put")
TENOR_MAX_MS = 10 * MILLISECONDS_PER_YEAR
CARRY_MAX = 10
DISCOUNT_MAX_E9 = ONE_E9 // 2
HELD_MAX = 1_000_000


class TickState:
    """Latest values per underlying, expiry and instrument, by catalogue index (dicts: listings come any time)."""

    def __init__(self) -> None:
        self.spot_usd9: dict[int, int] = {}
        self.spot_key: dict[int, tuple[int, str, str]] = {}  # (time, source, id) of the tick that set it
        self.volatility_e9: dict[int, int] = {}
        self.carry_e9: dict[int, int] = {}
        self.rate_e9: dict[int, int] = {}
        self.surface: dict[int, SliceE9] = {}
        self.surface_ms: dict[int, int] = {}  # when the slice was recorded as it is
        self.told: dict[int, SliceE9] = {}  # slices of surface ticks, not yet recorded
        self.held: dict[int, int] = {}  # expiry -> slices held back in a row for moving too far
        self.quotes: dict[int, dict[int, tuple[int, int, int]]] = {}  # expiry -> instrument -> mark, bid, ask
        self.unfitted: set[int] = set()
        self.frozen_usd9: dict[int, int] = {}  # expiry -> last index at or before its expiry, once a later one came
        self.windows: dict[int, Window] = {}  # expiry -> what its settlement window has counted so far
        self.settled: set[int] = set()
        self.spoken: set[int] = set()  # underlyings whose reporters spoke since the last record
        self.reports = Reports()
        self.spot_reports = SpotReports()
        self.guards = Guards()

    def copy(self) -> TickState:
        """Independent copy (values are immutable, so one level of containers is enough)."""
        twin = TickState()
        for name, value in vars(self).items():
            setattr(twin, name, value.copy())
        twin.quotes = {expiry: quotes.copy() for expiry, quotes in self.quotes.items()}
        return twin

    # -- ticks

    def absorb(self, tick: dict, catalogue: Catalogue, p: RiskParameters) -> Refusal | None:
        """Take one tick (plain dict, validated) that comes next in order (time, source, id)."""
        kind = tick["type"]
        governed = reporters_of(kind, p)
        if governed and all(reporter.source != tick["source"] for reporter in governed):
            detail = f"{tick['source']} is none of the {len(governed)} governed reporters"
            return Refusal(refusals.UNKNOWN_REPORTER, detail, "source")
        if kind == "quote":
            return self._quote(tick, catalogue, bool(p.surface_reporters))
        underlying = catalogue.underlying_index.get(tick["underlying"])
        if underlying is None:
            return Refusal(refusals.UNKNOWN_UNDERLYING, f"underlying {tick['underlying']} is not listed", "underlying")
        if kind == "spot":
            self._spot(tick, underlying, catalogue, p)
            return None
        expiry = catalogue.expiry_index.get((underlying, tick["expiry_ms"]))
        if expiry is None:
            return Refusal(refusals.UNKNOWN_EXPIRY, f"no instrument expires at {tick['expiry_ms']}", "expiry_ms")
        if tick["expiry_ms"] - tick["time_ms"] > TENOR_MAX_MS:
            return Refusal(refusals.OUT_OF_RANGE, "more than ten years to expiry", "expiry_ms")
        if kind == "forward":
            return self._forward(tick, underlying, expiry, bool(p.surface_reporters))
        slice_e9 = (tick["a_e9"], tick["b_e9"], tick["rho_e9"], tick["m_e9"], tick["sigma_e9"])
        if p.surface_reporters:
            return self._reported_slice(tick, underlying, expiry, slice_e9)
        self.told[expiry] = slice_e9
        self.unfitted.discard(expiry)
        return None

    def _reported_slice(self, tick: dict, underlying: int, expiry: int, slice_e9: SliceE9) -> Refusal | None:
        carry_e9, forward_usd9 = 0, tick.get("forward_usd9")
        if forward_usd9 is not None:
            if (refusal := self._forward_refusal(forward_usd9, underlying, "forward_usd9")) is not None:
                return refusal
            carry_e9 = divide_half_even(forward_usd9 * ONE_E9, self.spot_usd9[underlying])
        self.reports.tell_slice((expiry, tick["source"]), ToldSlice(tick["time_ms"], carry_e9, slice_e9))
        self.unfitted.add(expiry)
        return None

    def _spot(self, tick: dict, underlying: int, catalogue: Catalogue, p: RiskParameters) -> None:
        key, known = (tick["time_ms"], tick["source"], tick["id"]), self.spot_key.get(underlying, (-1, "", ""))
        if not p.spot_reporters:
            if key > known:  # an older price that came late says nothing new
                self._set_spot(underlying, tick["price_usd9"], key, catalogue, p)
            return
        self.spot_reports.tell(underlying, key[1], ToldSpot(key[0], key[2], tick["price_usd9"]))
        self.spoken.add(underlying)
        time_ms, last_usd9 = max(key[0], known[0]), self.spot_usd9.get(underlying, 0)
        agreed_usd9 = self.spot_reports.price_usd9(underlying, time_ms, last_usd9, p.spot_reporters)
        if agreed_usd9:
            self._set_spot(underlying, agreed_usd9, (time_ms, *key[1:]), catalogue, p)

    def _set_spot(
        self, underlying: int, price_usd9: int, key: tuple[int, str, str], catalogue: Catalogue, p: RiskParameters
    ) -> None:
        """The index stands at this price from the time of `key` on."""
        before_usd9, time_ms = self.spot_usd9.get(underlying, 0), key[0]
        if underlying in self.spot_usd9:
            self.guards.stood(underlying, before_usd9, (self.spot_key[underlying][0], time_ms), p)
            for index, expiry in enumerate(catalogue.expiries):
                if expiry.underlying != underlying or index in self.settled:
                    continue
                self._count(index, expiry, time_ms, p.settlement_window_ms)
                if expiry.expiry_ms < time_ms:
                    self.frozen_usd9.setdefault(index, before_usd9)
        self.guards.see(underlying, price_usd9, self.spot_usd9, time_ms, catalogue, p)
        self.spot_usd9[underlying] = price_usd9
        self.spot_key[underlying] = key

    def _count(self, index: int, expiry: Expiry, until_ms: int, window_ms: int) -> None:
        """The present index stood until `until_ms`: into the settlement window of an expiry."""
        known, underlying = self.windows.get(index, Window()), expiry.underlying
        stood_ms = (self.spot_key[underlying][0], until_ms)
        counted = known.counting(self.spot_usd9[underlying], stood_ms, expiry.expiry_ms, window_ms)
        if counted != known:
            self.windows[index] = counted

    def _forward_refusal(self, forward_usd9: int, underlying: int, field: str) -> Refusal | None:
        spot = self.spot_usd9.get(underlying)
        if spot is None:
            return Refusal(refusals.UNKNOWN_UNDERLYING, "a forward before the first index price", "underlying")
        if not spot // CARRY_MAX <= forward_usd9 <= spot * CARRY_MAX:
            return Refusal(refusals.OUT_OF_RANGE, f"a forward beyond {CARRY_MAX} times its index", field)
        return None

    def _forward(self, tick: dict, underlying: int, expiry: int, is_report: bool) -> Refusal | None:
        if (refusal := self._forward_refusal(tick["price_usd9"], underlying, "price_usd9")) is not None:
            return refusal
        remaining_ms = max(tick["expiry_ms"] - tick["time_ms"], 0)
        if abs(tick.get("rate_e9", 0)) * remaining_ms > DISCOUNT_MAX_E9 * MILLISECONDS_PER_YEAR:
            return Refusal(refusals.OUT_OF_RANGE, "rate times time to expiry is above one half", "rate_e9")
        carry_e9 = divide_half_even(tick["price_usd9"] * ONE_E9, self.spot_usd9[underlying])
        rate_e9 = tick.get("rate_e9", 0)
        if is_report:
            told = ToldForward(tick["time_ms"], carry_e9, rate_e9)
            self.reports.tell_forward((expiry, tick["source"]), told)
        else:
            self.carry_e9[expiry], self.rate_e9[expiry] = carry_e9, rate_e9
        self.unfitted.add(expiry)
        return None

    def _quote(self, tick: dict, catalogue: Catalogue, is_report: bool) -> Refusal | None:
        index = catalogue.instrument_index.get(tick["instrument"])
        if index is None:
            return Refusal(refusals.UNKNOWN_INSTRUMENT, f"instrument {tick['instrument']} is not listed", "instrument")
        instrument = catalogue.instruments[index]
        if instrument.kind not in OPTION_KINDS:
            detail = f"a quote is for options, {tick['instrument']} is a {instrument.kind}"
            return Refusal(refusals.WRONG_KIND, detail, "instrument")
        if catalogue.expiries[instrument.expiry].expiry_ms - tick["time_ms"] > TENOR_MAX_MS:
            return Refusal(refusals.OUT_OF_RANGE, "more than ten years to expiry", "instrument")
        values = (tick["mark_usd9"], tick.get("bid_usd9") or 0, tick.get("ask_usd9") or 0)
        if is_report:
            self.reports.tell_quote((instrument.expiry, tick["source"]), index, ToldQuote(tick["time_ms"], *values))
        else:
            self.quotes.setdefault(instrument.expiry, {})[index] = values
        self.unfitted.add(instrument.expiry)
        return None

    # -- fitting (proposals only)

    def fitted(self, catalogue: Catalogue, time_ms: int, p: RiskParameters) -> np.ndarray:
        """Take the slices told, fit those whose quotes changed (where reporters are governed: combine what they said),
        and restate the volatility level of each underlying. Returns CONSENSUS_ROW[n] of what was combined.

        A slice that moved by more than `surface_move_max_e6` is held back (oracles/surface_bounds.py); so is an expiry
        whose quotes give none, or whose reporters are too few.
        """
        if p.surface_reporters:
            combined = self._combine(catalogue, time_ms, p)
        else:
            combined = np.zeros(0, CONSENSUS_ROW)
            self._fit_changed(catalogue, time_ms, p.surface_move_max_e6)
        combined = np.concatenate([self._spots_combined(time_ms, p), combined])
        self.unfitted.clear()
        self.told.clear()
        self.spoken.clear()
        self._restate_levels(catalogue, time_ms)
        return combined

    def _spots_combined(self, time_ms: int, p: RiskParameters) -> np.ndarray:
        """CONSENSUS_ROW[n] of the indexes whose reporters spoke."""
        if not p.spot_reporters:
            return np.zeros(0, CONSENSUS_ROW)
        priced = ((u, self.spot_usd9.get(u, 0)) for u in sorted(self.spoken))
        rows = [self.spot_reports.row(u, time_ms, price_usd9, p.spot_reporters) for u, price_usd9 in priced]
        return np.array(rows, CONSENSUS_ROW)

    def _combine(self, catalogue: Catalogue, time_ms: int, p: RiskParameters) -> np.ndarray:
        """What the reporters say of the expiries that they spoke of again; those of which too few speak any more are
        degraded, with their last good slice."""
        rows = []
        alive = (e for e in range(len(catalogue.expiries)) if e not in self.settled)
        for expiry in sorted(alive, key=lambda e: (catalogue.expiries[e].expiry_ms, e)):
            if expiry not in self.unfitted and (expiry not in self.surface or self.held.get(expiry)):
                continue
            said = self.reports.said(expiry, time_ms, p)
            if expiry not in self.unfitted and is_quorum([one for one in said if one.speaks_of_volatility], p):
                continue
            listed = catalogue.expiries[expiry]
            present = (self.forward_usd9(expiry, catalogue), self.rate_e9.get(expiry, 0))
            floor, spot = self._floor(listed, catalogue, time_ms), self.spot_usd9.get(listed.underlying, 0)
            found = agree(said, Scene(expiry, time_ms, spot, *present, floor), catalogue, p)
            if found.forward_usd9:
                self._take_forward(expiry, found.forward_usd9, found.rate_e9, catalogue)
            if found.slice_e9 is not None:
                self._take(expiry, found.slice_e9, listed.expiry_ms, time_ms, p.surface_move_max_e6)
            elif expiry in self.surface:
                self.held[expiry] = max(self.held.get(expiry, 0), 1)
            rows.append(found.row)
        return np.array(rows, CONSENSUS_ROW)

    def _take_forward(self, expiry: int, forward_usd9: int, rate_e9: int, catalogue: Catalogue) -> None:
        """A forward that was agreed on; what is in force already stays to the bit."""
        spot = self.spot_usd9.get(catalogue.expiries[expiry].underlying, 0)
        if spot and forward_usd9 != self.forward_usd9(expiry, catalogue):
            self.carry_e9[expiry] = divide_half_even(forward_usd9 * ONE_E9, spot)
        if rate_e9 != self.rate_e9.get(expiry, 0):
            self.rate_e9[expiry] = rate_e9

    def _fit_changed(self, catalogue: Catalogue, time_ms: int, move_max_e6: int) -> None:
        changed = self.unfitted | self.told.keys()
        for expiry in sorted(changed, key=lambda e: (catalogue.expiries[e].expiry_ms, e)):
            found = self.told.get(expiry) or self._fit(expiry, catalogue, time_ms)
            if found is not None or expiry in self.quotes:
                self._take(expiry, found, catalogue.expiries[expiry].expiry_ms, time_ms, move_max_e6)

    def _restate_levels(self, catalogue: Catalogue, time_ms: int) -> None:
        for underlying in sorted(self.spot_usd9):
            slices = [
                Slice(catalogue.expiries[e].expiry_ms, *values)
                for e, values in sorted(self.surface.items())
                if catalogue.expiries[e].underlying == underlying and e not in self.settled
            ]
            level = volatility_level_e9(slices, time_ms)
            if level:
                self.volatility_e9[underlying] = level

    def _take(self, expiry: int, found: SliceE9 | None, expiry_ms: int, time_ms: int, move_max_e6: int) -> None:
        """A slice found for an expiry (None: its quotes give none) becomes its surface, or the last good one stays."""
        last, held = self.surface.get(expiry), self.held.get(expiry, 0)
        if last is not None and any(last[:2]) and time_ms < expiry_ms:
            last_ms = expiry_ms - self.surface_ms.get(expiry, time_ms)
            move_e6 = MOVE_MAX_E6 if found is None else surface_move_e6(last, last_ms, found, expiry_ms - time_ms)
            if found is None or not is_within(move_e6, move_max_e6, held):
                self.held[expiry] = min(held + 1, HELD_MAX)
                return
        if found is not None:
            self.surface[expiry], self.surface_ms[expiry] = found, time_ms
            self.held.pop(expiry, None)

    def _fit(self, expiry: int, catalogue: Catalogue, time_ms: int) -> SliceE9 | None:
        forward = self.forward_usd9(expiry, catalogue)
        quotes = self.quotes.get(expiry, {})
        if not forward or not quotes or catalogue.expiries[expiry].expiry_ms <= time_ms:
            return None
        rows = [
            Quote(catalogue.instruments[i].kind == "call", catalogue.instruments[i].strike_usd9, *values)
            for i, values in sorted(quotes.items())
        ]
        listed = catalogue.expiries[expiry]
        jumps = catalogue.underlyings[listed.underlying].jumps
        terms = Terms(forward, self.rate_e9.get(expiry, 0), listed.expiry_ms - time_ms, jumps)
        return fit_smile(rows, terms, self._floor(listed, catalogue, time_ms)).slice_e9

    def _floor(self, listed: Expiry, catalogue: Catalogue, time_ms: int) -> FloorCurve:
        """Total variance of the expiry before, if its slice is of the same moment: below it would be an arbitrage."""
        before = [
            (other.expiry_ms, self.surface[e])
            for e, other in enumerate(catalogue.expiries)
            if other.underlying == listed.underlying and other.expiry_ms < listed.expiry_ms
            if self.surface_ms.get(e) == time_ms and any(self.surface[e][:2])
        ]
        return floor_of(max(before)[1]) if before else NO_FLOOR

    # -- rows

    def is_priced(self, instrument: Instrument, catalogue: Catalogue) -> bool:
        """Has it a price, as the risk tables will see it (`RecordedMarket.instrument_table`)?"""
        if instrument.expiry < 0:
            return instrument.underlying in self.spot_usd9
        slice_known = any(self.surface.get(instrument.expiry, (0, 0))[:2])
        return self.forward_usd9(instrument.expiry, catalogue) > 0 and (
            slice_known or instrument.kind not in OPTION_KINDS
        )

    def forward_usd9(self, expiry: int, catalogue: Catalogue) -> int:
        """Index times carry; the index itself where no forward was ever told."""
        spot = self.spot_usd9.get(catalogue.expiries[expiry].underlying, 0)
        return min(divide_half_even(spot * self.carry_e9.get(expiry, ONE_E9), ONE_E9), PRICE_MAX_USD9)

    def rows(self, catalogue: Catalogue, time_ms: int, p: RiskParameters) -> Market:
        """The whole market as recorded rows at `time_ms`."""
        spots = np.zeros(len(self.spot_usd9), SPOT_ROW)
        for row, underlying in enumerate(sorted(self.spot_usd9)):
            held = int(self._is_degraded(underlying, time_ms, p))
            spots[row] = (underlying, held, self.spot_usd9[underlying], self.volatility_e9.get(underlying, 0))
        listed = [
            e for e in range(len(catalogue.expiries)) if e not in self.settled and self.forward_usd9(e, catalogue)
        ]
        expiries = np.zeros(len(listed), EXPIRY_ROW)
        for row, expiry in enumerate(listed):
            surface = self.surface.get(expiry, (0, 0, 0, 0, 1))
            head = (expiry, self.held.get(expiry, 0), self.forward_usd9(expiry, catalogue))
            expiries[row] = (*head, self.rate_e9.get(expiry, 0), *surface)
        since_ms = {underlying: key[0] for underlying, key in self.spot_key.items()}
        return Market(spots, expiries, self.guards.rows(self.spot_usd9, since_ms, catalogue, time_ms, p))

    def _is_degraded(self, underlying: int, time_ms: int, p: RiskParameters) -> bool:
        if not p.spot_reporters:
            return False
        return self.spot_reports.is_degraded(underlying, time_ms, p.spot_reporters)

    def record(self, market: Market, time_ms: int, catalogue: Catalogue) -> None:
        """Take what was recorded for what cannot be recomputed to the bit: volatility levels, surfaces, and forwards
        that reporters agreed on."""
        for row in market.spots:
            if row["volatility_e9"]:
                self.volatility_e9[int(row["underlying"])] = int(row["volatility_e9"])
        reported = self.reports.expiries()
        for row in market.expiries:
            expiry = int(row["expiry"])
            if expiry in reported:
                self._take_forward(expiry, int(row["forward_usd9"]), int(row["rate_e9"]), catalogue)
            if row["b_e9"] or row["a_e9"]:
                a, b, rho, m, sigma = (int(row[n]) for n in ("a_e9", "b_e9", "rho_e9", "m_e9", "sigma_e9"))
                if self.surface.get(expiry) != (a, b, rho, m, sigma):
                    self.surface[expiry], self.surface_ms[expiry] = (a, b, rho, m, sigma), time_ms
            self.held[expiry] = int(row["held"])
            if not self.held[expiry]:
                del self.held[expiry]
        self.unfitted.clear()
        self.told.clear()
        self.spoken.clear()

    def settlements(self, catalogue: Catalogue, time_ms: int, window_ms: int) -> np.ndarray:
        """SETTLEMENT_ROW[n] of expiries that are over at `time_ms` (see streams/engine/settlement.py)."""
        due = []
        for index, expiry in enumerate(catalogue.expiries):
            last = self.frozen_usd9.get(index) or self.spot_usd9.get(expiry.underlying, 0)
            if index in self.settled or expiry.expiry_ms > time_ms or not last:
                continue
            window = self.windows.get(index, Window())
            if index not in self.frozen_usd9:  # the last tick stands until the expiry
                stood_ms = (self.spot_key[expiry.underlying][0], expiry.expiry_ms)
                window = window.counting(last, stood_ms, expiry.expiry_ms, window_ms)
            due.append((index, 0, window.average_usd9(last)))
        return np.array(due, SETTLEMENT_ROW)

    def settle(self, settlements: np.ndarray) -> None:
        for row in settlements:
            expiry = int(row["expiry"])
            self.settled.add(expiry)
            for kept in (
                self.surface, self.surface_ms, self.told, self.held, self.quotes, self.carry_e9, self.rate_e9,
                self.frozen_usd9, self.windows,
            ):  # fmt: skip
                kept.pop(expiry, None)
            self.unfitted.discard(expiry)
            self.reports.drop(expiry)

    # -- checkpoint

    def to_plain(self) -> dict:
        """Plain value, equal for equal states."""
        return {
            name: sorted(value) if isinstance(value, set) else sorted(value.items())
            for name, value in vars(self).items()
            if not isinstance(value, Reports | SpotReports | Guards)
        } | {
            "spot_reports": self.spot_reports.to_plain(),
            "reports": self.reports.to_plain(),
            "guards": self.guards.to_plain(),
            "quotes": sorted((e, sorted(q.items())) for e, q in self.quotes.items()),
            "windows": sorted((e, str(w.price_ms), w.known_ms) for e, w in self.windows.items()),
        }

    @classmethod
    def from_plain(cls, plain: dict) -> TickState:
        state = cls()
        for name, value in plain.items():
            if name in ("quotes", "windows", "reports", "spot_reports", "guards"):
                continue
            if isinstance(getattr(state, name), set):
                setattr(state, name, set(value))
            else:
                setattr(state, name, {k: _tupled(v) for k, v in value})
        state.quotes = {e: {i: tuple(v) for i, v in q} for e, q in plain["quotes"]}
        state.windows = {e: Window(int(price_ms), known_ms) for e, price_ms, known_ms in plain["windows"]}
        if "reports" in plain:  # a dump before there were any has none
            state.reports, state.guards = Reports.from_plain(plain["reports"]), Guards.from_plain(plain["guards"])
        state.spot_reports = SpotReports.from_plain(plain.get("spot_reports", []))
        return state


def reporters_of(kind: str, p: RiskParameters) -> tuple[Reporter, ...]:
    """Who may send ticks of this kind; empty: anyone."""
    if kind != "spot":
        return p.surface_reporters
    return p.spot_reporters.reporters if p.spot_reporters else ()


def _tupled(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
