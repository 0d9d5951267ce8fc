"""The risk machine: one partition of account.log -> warnings, calls, margin batches, blocks done.

Its state is a function of the prefix of that log and of nothing else. Between barriers events move positions and Greeks
at once and market ticks are valued by Greeks; an account whose estimate crosses its line is computed exactly there and
then. At a barrier everyone is: first those whom the certified bound (infra/docs/screening.md) cannot clear, so that
their calls leave early, then the rest; where governance allows, those certain to be healthy keep a bound for a while.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.risk_parameters import (
    RiskParameters,
    VenueStress,
    parameters_digest,
    parameters_document,
    parse_parameters,
)
from schemas.topics import ACCOUNT_LOG
from streams.engine.book import Book
from streams.engine.held import Held
from streams.engine.lines import Lines, guard_changes_usd9
from streams.engine.margin import Margins, Spread, account_sums, compute, empty_margins, serially
from streams.engine.market import RecordedMarket
from streams.engine.open_orders import OpenOrders
from streams.engine.output import Fault, Output, check_dump_version
from streams.engine.reports import Reporter
from streams.engine.screen import Touched, screen
from streams.engine.tables import TableCache, Tables
from streams.engine.trades import LotTerms, lot_terms, trade_effects
from streams.engine.undo import Undo
from streams.engine.warn import exact_now, warnings_due

DUMP_VERSION = 2
REPEATS_REMEMBERED = 4_096


class AtHand(NamedTuple):
    """Tables of a keyframe and what follows from them, with what they were found by (the keyframe is never changed but
    for room for what is listed)."""

    keyframe: RecordedMarket
    parameters: RiskParameters
    listed: tuple[str, int, int]  # scenario set, underlyings, instruments
    tables: Tables
    lot_terms: LotTerms


class Risk:
    """State of one partition; see the module's head. `cache` is shared and holds no state."""

    def __init__(
        self, partition: int, cache: TableCache, checkpoint_every: int = 16, spread: Spread = serially
    ) -> None:
        self.partition = partition
        self.spread = spread  # how blocks of accounts are computed: one after the other, or by an executor's map
        self.cache = cache
        self.checkpoint_every = checkpoint_every
        self.next_offset = 0
        self.number = 0  # of the last decision applied
        self.block = -1
        self.opened = 0  # latest block that a record spoke of
        self.halted = ""
        self.catalogue = Catalogue()
        self.parameters = RiskParameters()
        self.scenario_digest = ""
        self.market = RecordedMarket()  # now: last tick or barrier
        self.keyframe = RecordedMarket()  # at the last barrier
        self.keyframe_instruments = 0
        self.keyframe_identity = ("", "")  # scenario set and parameters the keyframe's margins were computed with
        self.book = Book()
        self.orders = OpenOrders()
        self.margins = empty_margins(0)
        self.lines = Lines()
        self.held = Held()
        self.events = 0  # of the open block
        self.warned = 0  # warnings of the open block
        self.bids = 0  # of the open block, in market.log
        self.reporter = Reporter(partition)
        self.undo = Undo()
        self.marked = -1  # block of the last checkpoint mark: after a rollback they come again
        self.seen: dict[tuple[int, int], bytes] = {}  # (number, kind is EVENTS) -> mark of the bytes
        self._mark: int | None = None
        self._at_hand: AtHand | None = None  # no state: found again from it

    # -- machine

    def positions(self) -> dict[tuple[str, int], int]:
        return {(ACCOUNT_LOG, self.partition): self.next_offset}

    def start(self) -> list[Output]:
        return []

    def is_long(self, topic: str, value: bytes | None) -> bool:
        return bool(value) and value[1] in (records.MARKET, records.BARRIER, records.ROLLBACK)  # type: ignore[index]

    def checkpoint_mark(self) -> int | None:
        mark, self._mark = self._mark, None
        return mark

    def steps(
        self, topic: str, partition: int, offset: int, value: bytes | None, headers: Any = ()
    ) -> Iterator[list[Output]]:
        """Apply one record. One that contradicts the log halts the partition, loudly: it says so in blocks.done.
        NewerEngine passes: a worker that does not know the record has no say in it."""
        if not self.halted:
            try:
                yield from self._apply(value or b"")
            except (Fault, ValueError, LookupError, ArithmeticError) as fault:
                self.halted = f"offset {offset}: {type(fault).__name__}: {fault}"
                yield [self.reporter.halted(max(self.block + 1, self.opened), self.halted)]
        self.next_offset = offset + 1

    def _apply(self, raw: bytes) -> Iterator[list[Output]]:
        header = records.read_header(raw)
        if header.partition not in (self.partition, records.EVERY_PARTITION):
            raise Fault(f"record of partition {header.partition} in the log of partition {self.partition}")
        if self._is_repeat(header, raw):
            return
        self.opened = max(self.opened, header.block)
        if header.kind == records.EVENTS:
            yield self._events(header, records.read_packed_events(raw, header))
            return
        self.number = header.number
        if header.kind == records.LISTINGS:
            self._list(records.read_listings(raw))
        elif header.kind == records.BIDS:
            self.bids += header.entries  # enforcement's
        elif header.kind == records.MARKET:
            self.market.record(records.read_market(raw, header), header.time_ms, header.version)
            yield self._warn(header, None)
        elif header.kind == records.BARRIER:
            yield from self._barrier(header, records.read_barrier(raw, header))
        elif header.kind == records.ROLLBACK:
            yield self._go_back(header, records.read_rollback(raw))
        else:
            raise Fault(f"record of kind {header.kind} in account.log")

    def _is_repeat(self, header: records.Header, raw: bytes) -> bool:
        """A record whose number was applied is dropped, or a fault if its bytes are others; a hole is a fault."""
        key = (header.number, int(header.kind == records.EVENTS))
        mark = hashlib.blake2b(raw, digest_size=8).digest()
        known = self.seen.get(key)
        if known is not None:
            if known != mark:
                raise Fault(f"log number {header.number} came with other bytes")
            return True
        if header.number <= self.number:
            return True  # older than what is remembered
        if header.number != self.number + 1:
            raise Fault(f"log number {header.number} after {self.number}")
        self.seen[key] = mark
        if len(self.seen) > 2 * REPEATS_REMEMBERED:
            self.seen = {k: v for k, v in self.seen.items() if k[0] > header.number - REPEATS_REMEMBERED}
        return False

    # -- between barriers

    def _list(self, listings: list[dict]) -> None:
        for listing in listings:
            if self.catalogue.refusal(listing) is not None:
                continue  # the sequencer has put it into quarantine
            self.catalogue.apply(listing)
            if listing["type"] == "parameters":
                before, self.parameters = self.parameters, parse_parameters(listing["document"])
                self.lines.unsettled |= before != self.parameters
            elif listing["type"] == "scenario_set":
                self.scenario_digest = listing["digest"]
            elif listing["type"] == "halt" and listing["partition"] == self.partition:
                raise Fault(f"declared in market.log: {listing['reason']}")
        for market in (self.market, self.keyframe):
            market.fit_to(self.catalogue)

    def _events(self, header: records.Header, events: records.PackedEvents) -> list[Output]:
        if header.block != self.block + 1 and self.block >= 0:
            raise Fault(f"events of block {header.block} after block {self.block}")
        self.events += header.entries
        events = self.orders.take(events)
        at_hand = self._tables_at_hand()
        if at_hand is None:
            self.book.apply_events(events, self.catalogue, np.zeros((0, 4), np.int64))
            return []
        effects = trade_effects(self.book, events, self.catalogue, at_hand.tables.greeks_usd9, at_hand.lot_terms)
        self.lines.fit_to(len(self.book.accounts))
        self.lines.on_trades(effects.rows, effects.nlv_change_usd6, effects.line_rise_usd6)
        if self.parameters.bound_accounts_min:
            named = np.sort(effects.named)
            self.held.remember(self.book, named[~self.lines.traded[named]], effects.rows, effects.lots_before)
        self.lines.traded[effects.named] = True
        return self._warn(header, effects.rows)

    def _tables(self) -> Tables | None:
        """Tables of the last barrier; None before the first one."""
        at_hand = self._tables_at_hand()
        return None if at_hand is None else at_hand.tables

    def _tables_at_hand(self) -> AtHand | None:
        """The same with their bounds; looked up once for all records up to the next barrier."""
        if not self.keyframe_identity[0]:
            return None
        listed = (self.scenario_digest, len(self.catalogue.underlyings), len(self.catalogue.instruments))
        held = self._at_hand
        if (
            held is None
            or held.keyframe is not self.keyframe
            or held.parameters is not self.parameters
            or held.listed != listed
        ):
            tables = self.cache.get(self.catalogue, self.keyframe, self.parameters, self.scenario_digest)
            terms = lot_terms(tables, self.parameters)
            held = self._at_hand = AtHand(self.keyframe, self.parameters, listed, tables, terms)
        return held

    def _warn(self, header: records.Header, touched: np.ndarray | None) -> list[Output]:
        """Exact margins of those whose estimate crossed an armed line: of everybody, or of those `touched`."""
        if self._tables() is None or not len(self.lines.base_usd6):
            return []
        rows = np.arange(len(self.book.accounts)) if touched is None else touched
        if touched is not None and self.lines.unsettled.any():  # events wake nobody else, but arm whoever is above
            self._look(np.flatnonzero(self.lines.unsettled))
        below, estimate_usd6 = self._look(rows)
        if not len(below):
            return []
        crossed = rows[below]
        exact = exact_now(self, crossed)
        trigger = "tick" if touched is None else "fill"
        due = warnings_due(self.lines, crossed, estimate_usd6[below], exact, trigger)
        self.warned += len(due)
        return self.reporter.warnings(self, header, due) if due else []

    def _look(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.lines.look(rows, self.book, self.market, self.keyframe, self.parameters, self.guard_usd9())

    def guard_usd9(self) -> np.ndarray | None:
        """What guards of collateral have changed since the last barrier, a lot (`guard_changes_usd9`)."""
        tables = self._tables()
        if tables is None:
            return None
        return guard_changes_usd9(tables, self.catalogue, self.market, self.keyframe, self.parameters)

    # -- barrier

    def _barrier(self, header: records.Header, barrier: records.Barrier) -> Iterator[list[Output]]:
        expected = int(barrier.counts[self.partition])
        if expected != self.events:
            raise Fault(f"block {header.block}: {self.events} events came, the barrier says {expected}")
        if self.block >= 0 and header.block != self.block + 1:
            raise Fault(f"barrier of block {header.block} after block {self.block}")
        self.market.record(barrier.market, header.time_ms, header.version)
        self.lines.fit_to(len(self.book.accounts))
        for settlement in barrier.settlements:
            rows = self.book.settle(int(settlement["expiry"]), int(settlement["price_usd9"]), self.catalogue)
            self.orders.settle(int(settlement["expiry"]), self.catalogue)
            self.lines.traded[rows] = True  # no bound holds for lots that changed
            self.market.settled[settlement["expiry"]] = True
        self.book.drop_closed()
        is_evaluated = barrier.evaluate and bool(self.scenario_digest)
        if is_evaluated:
            yield from self._evaluate(header)
        else:
            self.lines.unsettled[:] = True  # the market moved, and nobody has looked
            yield [self.reporter.block_done(self, header, None, 0, {})]
        self.block, self.events, self.warned, self.bids = header.block, 0, 0, 0
        self.undo.close(self, is_evaluated and bool((self.margins.keyframe_block == header.block).all()))
        if header.block % self.checkpoint_every == 0 and header.block > self.marked:
            self._mark = self.marked = header.block

    def _go_back(self, header: records.Header, rollback: records.Rollback) -> list[Output]:
        """The state at an earlier block again; what was said since then is retracted by id."""
        if header.entries:
            depth = self.parameters.finality_depth_blocks
            raise Fault(f"the chain has left block {header.block - depth} or an earlier one, which are final")
        said = self.undo.go_back(self, header.block)
        self.bids = 0
        self.opened = header.block
        self.reporter.epoch = rollback.epoch
        return self.reporter.rolled_back(self, header, rollback, said)

    def _evaluate(self, header: records.Header) -> Iterator[list[Output]]:
        previous = self._keyframe_tables()
        tables = self.cache.get(self.catalogue, self.market, self.parameters, self.scenario_digest)
        legs = self.book.legs()
        cash, entry, p = self.book.cash(), self.book.entry_by_account(), self.parameters
        sums = account_sums(legs, cash, entry, tables, p, self.spread)
        margins = grown(self.margins, len(self.book.accounts))
        old_state = margins.state.copy()
        touched = Touched(self.lines.traded, self.held.holdings())
        plan = screen(legs, sums, margins, touched, previous, tables, p, header.block, self.spread)
        first, rest = plan.first, np.flatnonzero(plan.rest)
        compute(legs, np.flatnonzero(first), sums, tables, p, margins, header.block, plan.may_bound, self.spread)
        self.margins = margins
        yield self.reporter.calls(self, header, tables, np.flatnonzero(first & (margins.state != old_state)), old_state)
        compute(legs, rest, sums, tables, p, margins, header.block, spread=self.spread)
        late = np.flatnonzero(~first & (margins.state != old_state))
        out = self.reporter.calls(self, header, tables, late, old_state)
        identity = self.keyframe_identity
        self._take_keyframe(tables, margins.state != old_state)
        out.append(self.reporter.batch(self, header))
        yield [*out, self.reporter.block_done(self, header, tables, int(first.sum()), plan.stages(margins))]
        asked = self.parameters.venue_stress
        if isinstance(asked, VenueStress) and identity != self.keyframe_identity:  # a set or a document took effect
            yield [self.reporter.venue_part(self, asked, header, tables)]

    def _keyframe_tables(self) -> Tables | None:
        """Tables of the last barrier, if its margins may bound the new ones: same scenarios, same parameters."""
        if self.keyframe_identity != (self.scenario_digest, parameters_digest(self.parameters)):
            return None
        if self.keyframe_instruments != len(self.catalogue.instruments):
            return None
        return self._tables()

    def _take_keyframe(self, tables: Tables, changed: np.ndarray) -> None:
        self.keyframe, self.held = self.market.copy(), Held()
        self.keyframe_instruments = len(self.catalogue.instruments)
        self.keyframe_identity = (self.scenario_digest, parameters_digest(self.parameters))
        self.book.rebuild_greeks(self.catalogue, tables.greeks_usd9)
        self.lines.at_barrier(self.margins, changed, self.parameters)

    def state_digest(self) -> str:
        """Identity of accounts, positions, cash and margins."""
        h = hashlib.blake2b(digest_size=16)
        h.update("\0".join(self.book.accounts).encode())
        for part in (self.book.keys, self.book.lots, self.book.entry_usd6, self.book.cash()):
            h.update(part.tobytes())
        for part in self.margins[:11]:
            h.update(part.tobytes())
        h.update(self.orders.pack())
        return h.hexdigest()

    # -- checkpoint

    def dump(self) -> bytes:
        """The whole state; tables are computed again from the keyframe's market."""
        plain = {
            "dump_version": DUMP_VERSION,
            "parameters": parameters_document(self.parameters),
            "catalogue": self.catalogue.to_listings(),
            "market": self.market.to_plain(),
            "keyframe": self.keyframe.to_plain(),
            "keyframe_identity": self.keyframe_identity,
            "book": self.book.to_plain(),
            "orders": self.orders.pack(),
            "lines": self.lines.to_plain(),
            "held": self.held.to_plain(),
            "margins": {n: [str(v.dtype), v.data] for n, v in self.margins._asdict().items()},
            "reporter": self.reporter.to_plain(),
            "undo": self.undo.to_plain(self),
            "seen": sorted([*k, v] for k, v in self.seen.items()),
            **{name: getattr(self, name) for name in _SCALARS},
        }
        return msgspec.msgpack.encode(plain)

    @classmethod
    def load(cls, raw: bytes, cache: TableCache) -> Risk:
        plain = msgspec.msgpack.decode(raw)
        check_dump_version("risk", plain["dump_version"], DUMP_VERSION)
        state = cls(plain["partition"], cache, plain["checkpoint_every"])
        for name in _SCALARS:
            setattr(state, name, plain.get(name, getattr(state, name)))  # a dump before bids has none
        state.parameters = parse_parameters(plain["parameters"])
        state.catalogue = Catalogue.from_listings(plain["catalogue"])
        state.market = RecordedMarket.from_plain(plain["market"])
        state.keyframe = RecordedMarket.from_plain(plain["keyframe"])
        state.keyframe_identity = (plain["keyframe_identity"][0], plain["keyframe_identity"][1])
        state.book = Book.from_plain(plain["book"])
        state.orders = OpenOrders.unpack(plain.get("orders", b""))  # a dump before there were any has none
        state.lines = Lines.from_plain(plain["lines"])
        state.held = Held.from_plain(plain.get("held", []))
        state.margins = Margins(**{n: np.frombuffer(v, d).copy() for n, (d, v) in plain["margins"].items()})
        state.reporter = Reporter.from_plain(plain["reporter"])
        state.seen = {(n, e): v for n, e, v in plain["seen"]}
        state.undo = Undo.from_plain(plain["undo"], state)
        return state


_SCALARS = (
    "partition", "checkpoint_every", "next_offset", "number", "block", "opened", "halted", "scenario_digest",
    "keyframe_instruments", "events", "warned", "bids", "marked",
)  # fmt: skip


def grown(margins: Margins, count: int) -> Margins:
    """Margins of the last barrier with room for new accounts (healthy, no numbers yet)."""
    found = empty_margins(count)
    for name, old in margins._asdict().items():
        getattr(found, name)[: len(old)] = old
    return found
