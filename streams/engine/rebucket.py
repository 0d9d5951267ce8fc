"""Another number of partitions: the machines of all partitions at one decision -> those of another number of them.

Everything that belongs to an account goes where its name falls now, bit for bit: cash, positions, margins, lines, the
undo records of the last barriers. What belongs to all (market, catalogue, parameters) is the same in every partition.
Sequences of outputs begin anew, as their topics do; numbers of decisions, ids of events and the epoch go on. Rows are
ordered by the barrier at which an account was first remembered, then by name: a function of the state alone, in which
the accounts of every earlier barrier are the first ones, as a rollback wants it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from schemas import log_records as records
from schemas.topics import MARGIN_WARNINGS
from streams.engine.book import INSTRUMENT_BITS, INSTRUMENT_MASK, Book
from streams.engine.decision_log import DecisionLog
from streams.engine.enforcement import Enforcement
from streams.engine.held import Held, Holdings
from streams.engine.lines import Lines
from streams.engine.margin import Margins
from streams.engine.open_orders import merged, of_accounts
from streams.engine.output import Fault
from streams.engine.reports import Reporter
from streams.engine.risk import Risk, grown
from streams.engine.sequence import Sequencer, partition_of
from streams.engine.undo import Context, Kept, Point, Said, Undo, restore

Columns = dict[str, np.ndarray]
COMMON = (
    "number",
    "block",
    "scenario_digest",
    "keyframe_instruments",
    "keyframe_identity",
    "parameters",
    "marked",
    "bids",
)


class Machines(NamedTuple):
    """Every machine of an installation, all at the same decision."""

    sequencer: Sequencer
    risks: list[Risk]
    enforcement: Enforcement


class Places:
    """Where each row of the old partitions goes: `partition` and `row` by old partition; `names` of the new ones."""

    def __init__(self, risks: list[Risk], points: list[list[Point]], partitions: int) -> None:
        self.partitions = partitions
        since = {}
        for risk, remembered in zip(risks, points, strict=True):
            counts = [point.context.accounts for point in remembered]
            for row, name in enumerate(risk.book.accounts):
                since[name] = int(np.searchsorted(counts, row, side="right"))
        self.names: list[list[str]] = [[] for _ in range(partitions)]
        place = {}
        for name in sorted(since, key=lambda name: (since[name], name)):
            partition = partition_of(name, partitions)
            place[name] = partition, len(self.names[partition])
            self.names[partition].append(name)
        found = [np.array([place[name] for name in risk.book.accounts], np.int64).reshape(-1, 2) for risk in risks]
        self.partition, self.row = [f[:, 0] for f in found], [f[:, 1] for f in found]

    def rows(self, parts: list[np.ndarray]) -> list[np.ndarray]:
        """An array over the first accounts of every old partition -> over those of the new ones."""
        out = []
        for new in range(self.partitions):
            picked = [self.partition[old][: len(part)] == new for old, part in enumerate(parts)]
            made = np.zeros((sum(int(p.sum()) for p in picked), *parts[0].shape[1:]), parts[0].dtype)
            for old, part in enumerate(parts):
                made[self.row[old][: len(part)][picked[old]]] = part[picked[old]]
            out.append(made)
        return out

    def keyed(self, keys: list[np.ndarray], columns: list[Columns]) -> list[tuple[np.ndarray, Columns]]:
        """Sorted keys (row << 24 | other) with their columns."""
        row_of = [k >> INSTRUMENT_BITS for k in keys]
        partition = np.concatenate([self.partition[p][rows] for p, rows in enumerate(row_of)])
        row = np.concatenate([self.row[p][rows] for p, rows in enumerate(row_of)])
        moved = row << INSTRUMENT_BITS | (np.concatenate(keys) & INSTRUMENT_MASK)
        whole = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
        out = []
        for new in range(self.partitions):
            mine = np.flatnonzero(partition == new)
            mine = mine[np.argsort(moved[mine], kind="stable")]
            out.append((moved[mine], {name: values[mine] for name, values in whole.items()}))
        return out

    def columns(self, parts: list[Columns]) -> list[Columns]:
        """Several arrays over accounts at once."""
        made = {name: self.rows([part[name] for part in parts]) for name in parts[0]}
        return [{name: values[new] for name, values in made.items()} for new in range(self.partitions)]


def open_events(account_log: Iterable[bytes]) -> list[bytes]:
    """Packed events of the open block in a log, or in the end of one from a barrier on, each once."""
    found: dict[int, bytes] = {}
    taken = 0
    for raw in account_log:
        header = records.read_header(raw)
        if header.number <= taken:
            continue  # a repeat
        if header.kind == records.EVENTS:
            found[header.number] = raw
            continue
        taken = header.number
        if header.kind in (records.BARRIER, records.ROLLBACK):
            found = {}
    return list(found.values())


def rebucket(machines: Machines, open_events: Iterable[bytes], partitions: int, token: bytes) -> Machines:
    """The machines of `partitions` partitions at the same decision.

    Args:
        open_events: the packed events of the open block that are in the log, of every old partition, each once.

    Raises:
        Fault: a partition is halted, or the machines do not stand at the same decision.
    """
    risks = machines.risks
    _require_same(machines)
    events = _count_events(list(open_events), partitions, risks)
    points = [risk.undo.points() for risk in risks]
    if any([p.context.block for p in found] != [p.context.block for p in points[0]] for found in points):
        raise Fault("partitions remember different barriers")
    places = Places(risks, points, partitions)
    undo, orders = _undo(risks, points, places), merged([risk.orders.pack() for risk in risks])
    made = [_empty(risks[0], new, int(events[new])) for new in range(partitions)]
    for risk, book in zip(made, _books(risks, places), strict=True):
        risk.book, risk.undo = book, undo[risk.partition]
        risk.orders = of_accounts(orders, book.accounts)
        said = [one for block, found in risk.undo.said.items() if block > risk.block for one in found]
        risk.warned = sum(one.topic == MARGIN_WARNINGS for one in said)
    counts = [len(risk.book.accounts) for risk in risks]
    margins = _margins([grown(r.margins, n) for r, n in zip(risks, counts, strict=True)], places)
    lines = _lines([_fitted(r.lines, n) for r, n in zip(risks, counts, strict=True)], places)
    held = _held([r.held for r in risks], places)
    for risk, of_margins, of_lines, of_held in zip(made, margins, lines, held, strict=True):
        risk.margins, risk.lines, risk.held = of_margins, of_lines, of_held
    return Machines(_sequencer(machines.sequencer, events, token), made, _enforcement(machines.enforcement, partitions))


def _require_same(machines: Machines) -> None:
    risks, sequencer = machines.risks, machines.sequencer
    for risk in risks:
        if risk.halted:
            raise Fault(f"partition {risk.partition} is halted: {risk.halted}")
        if any(getattr(risk, name) != getattr(risks[0], name) for name in COMMON):
            raise Fault(f"partition {risk.partition} stands elsewhere than partition 0")
        if risk.market.to_plain() != risks[0].market.to_plain():
            raise Fault(f"partition {risk.partition} has another market than partition 0")
    if sequencer.number != risks[0].number or sequencer.recorded or sequencer.proposed:
        raise Fault(f"the sequencer stands at decision {sequencer.number}, the partitions at {risks[0].number}")
    if sequencer.accepted.tolist() != [risk.events for risk in risks]:
        raise Fault("the open block's events are not those that the partitions have")
    enforcement = machines.enforcement
    if (
        enforcement.decisions.number != sequencer.number
        or enforcement.steps_due
        or len(set(enforcement.done)) != 1
        or any(enforcement.halted)
        or enforcement.venue_parts
    ):
        raise Fault("enforcement has not taken every block that is done")


def _count_events(open_events: list[bytes], partitions: int, risks: list[Risk]) -> np.ndarray:
    """Events of the open block by new partition; one of every account counts in each."""
    counted = np.zeros(partitions, np.int64)
    before = np.zeros(len(risks), np.int64)
    for raw in open_events:
        header = records.read_header(raw)
        before[header.partition] += header.entries
        events = records.read_events(raw, header)
        for place in events.rows["account"].tolist():
            if place != records.EVERY_ACCOUNT:
                counted[partition_of(events.names[place], partitions)] += 1
            elif header.partition == 0:
                counted += 1
    if before.tolist() != [risk.events for risk in risks]:
        raise Fault("the open block's events in the log are not those that the partitions have counted")
    return counted


def _empty(old: Risk, partition: int, events: int) -> Risk:
    """A machine with everything that is of no single account."""
    risk = Risk(partition, old.cache, old.checkpoint_every, old.spread)
    for name in COMMON:
        setattr(risk, name, getattr(old, name))
    risk.opened, risk.events = old.block + 1, events
    risk.catalogue, risk.market, risk.keyframe = old.catalogue, old.market.copy(), old.keyframe.copy()
    risk.reporter = Reporter(partition)
    risk.reporter.epoch = old.reporter.epoch
    return risk


def _books(risks: list[Risk], places: Places) -> list[Book]:
    """Accounts and positions. The residue of all goes to partition 0: only its sum means anything."""
    books = [risk.book for risk in risks]
    cash = places.rows([book.cash() for book in books])
    legs = places.keyed([b.keys for b in books], [{"lots": b.lots, "entry_usd6": b.entry_usd6} for b in books])
    pairs = places.keyed([b.pair_keys for b in books], [{"pair_greeks_usd9": b.pair_greeks_usd9} for b in books])
    made = []
    for new in range(places.partitions):
        book = Book()
        book.accounts = list(places.names[new])
        book.row_of = {name: row for row, name in enumerate(book.accounts)}
        book.cash_usd6, book.keys, book.pair_keys = cash[new], legs[new][0], pairs[new][0]
        for name, values in (legs[new][1] | pairs[new][1]).items():
            setattr(book, name, values)
        book.residue_usd21 = sum(b.residue_usd21 for b in books) if new == 0 else 0
        made.append(book)
    return made


def _margins(parts: list[Margins], places: Places) -> list[Margins]:
    return [Margins(**columns) for columns in places.columns([part._asdict() for part in parts])]


def _lines(parts: list[Lines], places: Places) -> list[Lines]:
    made = []
    for columns in places.columns([vars(part) for part in parts]):
        lines = Lines()
        vars(lines).update(columns)
        made.append(lines)
    return made


def _held(parts: list[Held], places: Places) -> list[Held]:
    found = [part.holdings() for part in parts]
    rows = places.keyed([of_part.rows << INSTRUMENT_BITS for of_part in found], [{} for _ in found])
    legs = places.keyed([of_part.keys for of_part in found], [{"lots": of_part.lots} for of_part in found])
    return [
        Held(Holdings(marked >> INSTRUMENT_BITS, keys, columns["lots"]))
        for (marked, _), (keys, columns) in zip(rows, legs, strict=True)
    ]


def _fitted(lines: Lines, count: int) -> Lines:
    lines.fit_to(count)
    return lines


def _undo(risks: list[Risk], points: list[list[Point]], places: Places) -> list[Undo]:
    """The undo records of every new partition."""
    moved = [_points(list(of_block), risks, places) for of_block in zip(*points, strict=True)]
    out = []
    for new in range(places.partitions):
        said: dict[int, list[Said]] = {}
        for block in sorted({block for risk in risks for block in risk.undo.said}):
            of_block = [one for risk in risks for one in risk.undo.said.get(block, ())]
            if mine := [one for one in of_block if partition_of(one.account, places.partitions) == new]:
                said[block] = mine
        out.append(Undo.of_points([of_block[new] for of_block in moved], said))
    return out


def _points(parts: list[Point], risks: list[Risk], places: Places) -> list[Point]:
    """One barrier, remembered by every old partition -> by every new one."""
    rows = places.columns([point.rows for point in parts])
    legs = places.keyed([point.keys for point in parts], [point.legs for point in parts])
    kept = _kept(parts, risks, places)
    residue = sum(int(point.context.residue_usd21) for point in parts)
    orders = merged([point.context.orders for point in parts])
    made = []
    for new in range(places.partitions):
        own = {"accounts": len(rows[new]["cash_usd6"]), "kept": kept[new], "residue_usd21": str(0 if new else residue)}
        own["orders"] = of_accounts(orders, places.names[new]).pack()
        context = Context(**parts[0].context._asdict() | own)
        made.append(Point(context, rows[new], legs[new][0], legs[new][1]))
    return made


def _kept(parts: list[Point], risks: list[Risk], places: Places) -> list[bytes]:
    """Margins that cannot be computed again. Where one partition kept them, those of the others are computed here."""
    if not any(point.context.kept for point in parts):
        return [b""] * places.partitions
    kept = [_kept_of(point, risk) for point, risk in zip(parts, risks, strict=True)]
    counts = [point.context.accounts for point in parts]
    margins = _margins([grown(k.margins, n) for k, n in zip(kept, counts, strict=True)], places)
    lines = _lines([_fitted(k.lines, n) for k, n in zip(kept, counts, strict=True)], places)
    pairs = places.keyed([k.pair_keys for k in kept], [{"greeks": k.pair_greeks_usd9} for k in kept])
    held = _held([k.held for k in kept], places)
    return [
        Kept(margins[new], lines[new], kept[0].keyframe, pairs[new][0], pairs[new][1]["greeks"], held[new]).pack()
        for new in range(places.partitions)
    ]


def _kept_of(point: Point, risk: Risk) -> Kept:
    if point.context.kept:
        return Kept.unpack(point.context.kept)
    twin = Risk.load(risk.dump(), risk.cache)
    restore(twin, point)
    return Kept(twin.margins, twin.lines, twin.keyframe, twin.book.pair_keys, twin.book.pair_greeks_usd9, twin.held)


def _sequencer(old: Sequencer, events: np.ndarray, token: bytes) -> Sequencer:
    """The same judgement, at the beginning of a new market.log."""
    made = Sequencer.load(old.dump(), token)
    made.partitions, made.accepted = len(events), events.copy()
    made.market_offset, made.holder = 0, b""
    return made


def _enforcement(old: Enforcement, partitions: int) -> Enforcement:
    """The same flags that wait and liquidations that may be retracted; nothing read yet of the new topics."""
    made = Enforcement(partitions, old.checkpoint_every)
    made.done = [old.done[0]] * partitions
    made.held, made.emitted, made.marked = old.held, old.emitted, old.marked
    made.decisions, made.epoch, made.bids = DecisionLog(b"", old.decisions.number), old.epoch, old.bids
    return made
