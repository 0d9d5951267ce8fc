"""The sequencer's waiting room: events that were read but are in no log record yet, and the ids already known.

Everything here is a function of *which* records were read, not of the order in which topics took turns: that is what
lets the sequencer record its position vector and be rebuilt from it.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import orjson

from schemas import refusals
from schemas.codec import decode_inputs
from schemas.refusals import Refusal
from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, INPUTS, INSTRUMENTS, ORACLE_TICKS


class Candidate(NamedTuple):
    """A valid event where it was read. Order of candidates = canonical order of reading."""

    rank: int
    partition: int
    offset: int
    index: int
    mark: bytes
    event: dict


class Refused(NamedTuple):
    """An event or record that goes to quarantine; `raw` are its own bytes."""

    refusal: Refusal
    topic: str
    partition: int
    offset: int
    index: int
    raw: bytes


def content_mark(event: dict) -> bytes:
    """16 bytes that tell one content from another."""
    return hashlib.blake2b(orjson.dumps(event, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


class Intake:
    """Pending events by block, ticks, listings and blocks; ids of the last blocks."""

    def __init__(self, memory_blocks: int) -> None:
        self.memory_blocks = memory_blocks
        self.closed: int | None = None
        self.closed_time_ms = -1
        self.closed_hash = ""
        self.blocks: dict[int, dict] = {}
        self.closes: set[int] = set()
        self.events: dict[int, dict[str, list[Candidate]]] = {}
        self.flushed: dict[int, int] = {}  # block -> events of it that are in the log
        self.refused: dict[int, set[bytes]] = {}  # block -> marks of refused events that named it
        self.ticks: dict[str, list[Candidate]] = {}
        self.refused_ticks: dict[bytes, int] = {}  # mark -> time
        self.listings: list[Candidate] = []
        self.listing_marks: set[bytes] = set()
        self.known: dict[str, tuple[bytes, int]] = {}  # id -> mark, block at which it was taken
        self.repeats = 0

    # -- reading

    def read(self, topic: str, partition: int, offset: int, raw: bytes | None, lateness_ms: int) -> list[Refused]:
        """Judge one record; valid events wait, the others are returned."""
        out = []
        for index, (event, refusal, plain) in enumerate(decode_inputs(topic, raw)):
            if refusal is None and plain is not None:
                candidate = Candidate(INPUTS.index(topic), partition, offset, index, content_mark(plain), plain)
                refusal = self._take(topic, candidate, lateness_ms)
            elif plain is not None:
                self._count_refused(topic, plain)
            if refusal is not None:
                own = raw or b"" if plain is None else orjson.dumps(plain)
                out.append(Refused(refusal, topic, partition, offset, index, own))
            del event
        return out

    def _take(self, topic: str, candidate: Candidate, lateness_ms: int) -> Refusal | None:
        if topic == CHAIN_BLOCKS:
            return self._take_block(candidate.event)
        if topic == INSTRUMENTS and candidate.mark in self.listing_marks:
            self.repeats += 1
            return None
        repeat = self._known(candidate)
        if repeat is not None:
            return repeat or None
        if topic == ACCOUNT_FILLS:
            return self._take_account_event(candidate)
        if topic == ORACLE_TICKS:
            return self._take_tick(candidate, lateness_ms)
        self.listing_marks.add(candidate.mark)
        self.listings.append(candidate)
        self.listings.sort()
        return None

    def _known(self, candidate: Candidate) -> Refusal | bool | None:
        """None: never seen; False: the same again (dropped, counted); Refusal: the id is taken by other bytes."""
        taken = self.known.get(candidate.event["id"])
        if taken is None:
            return None
        if taken[0] == candidate.mark:
            self.repeats += 1
            return False
        return Refusal(refusals.IDENTITY_CONFLICT, f"id {candidate.event['id']} was taken with other content", "id")

    def _take_block(self, event: dict) -> Refusal | None:
        number = event["number"]
        if event["type"] == "block_close":
            self.closes.add(number)
            return None
        if self.closed is not None and number <= self.closed:
            if number == self.closed and event["hash"] != self.closed_hash:
                return Refusal(refusals.BLOCK_CONFLICT, f"block {number} is closed with hash {self.closed_hash}", "hash")
            self.repeats += 1
            return None
        known = self.blocks.setdefault(number, event)
        if known != event:
            return Refusal(refusals.BLOCK_CONFLICT, f"block {number} was announced with other content", "number")
        return None

    def _take_account_event(self, candidate: Candidate) -> Refusal | None:
        block = candidate.event["block"]
        if self.closed is not None and block <= self.closed:
            return Refusal(refusals.BLOCK_CLOSED, f"block {block} is closed; the open block is {self.closed + 1}", "block")
        self._add(self.events.setdefault(block, {}), candidate)
        return None

    def _take_tick(self, candidate: Candidate, lateness_ms: int) -> Refusal | None:
        late_ms = self.closed_time_ms - candidate.event["time_ms"]
        if late_ms > lateness_ms:
            return Refusal(refusals.LATE_TICK, f"tick is {late_ms} ms older than the last closed block", "time_ms")
        self._add(self.ticks, candidate)
        return None

    def _add(self, pool: dict[str, list[Candidate]], candidate: Candidate) -> None:
        same_id = pool.setdefault(candidate.event["id"], [])
        if any(other.mark == candidate.mark for other in same_id):
            self.repeats += 1
            return
        same_id.append(candidate)
        same_id.sort()

    def _count_refused(self, topic: str, plain: dict) -> None:
        """A refused event that names its block (a refused tick: its time) counts, or the block would wait for ever."""
        if topic == ACCOUNT_FILLS and isinstance(plain.get("block"), int):
            self.refused.setdefault(plain["block"], set()).add(content_mark(plain))
        elif topic == ORACLE_TICKS and isinstance(plain.get("time_ms"), int):
            self.refused_ticks[content_mark(plain)] = plain["time_ms"]
        elif topic == INSTRUMENTS:
            self.listing_marks.add(content_mark(plain))

    # -- asking

    def open_number(self) -> int | None:
        """The block that closes next, if it has been announced (the first one ever: the lowest announced)."""
        number = (min(self.blocks) if self.blocks else None) if self.closed is None else self.closed + 1
        return number if number in self.blocks else None

    def missing(self, block: dict) -> bool:
        """Does the block still wait for anything it declares?"""
        number = block["number"]
        if number in self.closes:
            return False
        came = len(self.events.get(number, ())) + self.flushed.get(number, 0) + len(self.refused.get(number, ()))
        if came < block["event_count"]:
            return True
        if block.get("listing_count") is not None and len(self.listing_marks) < block["listing_count"]:
            return True
        return block.get("tick_count") is not None and self._ticks_until(block["time_ms"]) < block["tick_count"]

    def _ticks_until(self, time_ms: int) -> int:
        low = self.closed_time_ms
        came = sum(1 for c in self.ticks.values() if low < c[0].event["time_ms"] <= time_ms)
        return came + sum(1 for t in self.refused_ticks.values() if low < t <= time_ms)

    def ticks_in_order(self, time_ms: int) -> list[Candidate]:
        """Chosen candidates of ticks until `time_ms` by (time, source, id)."""
        due = [c[0] for c in self.ticks.values() if c[0].event["time_ms"] <= time_ms]
        return sorted(due, key=lambda c: (c.event["time_ms"], c.event["source"], c.event["id"]))

    # -- taking out

    def pop_events(self, block: int, until_ms: int | None) -> tuple[list[Candidate], list[Candidate]]:
        """Events of `block` in order (time, topic, id), up to `until_ms` if given -> (chosen, losers of id conflicts)."""
        pool = self.events.get(block, {})
        due = [i for i, c in pool.items() if until_ms is None or c[0].event["time_ms"] <= until_ms]
        chosen, losers = self._pop(pool, due, block)
        self.flushed[block] = self.flushed.get(block, 0) + len(chosen)
        return sorted(chosen, key=lambda c: (c.event["time_ms"], c.rank, c.event["id"])), losers

    def pop_ticks(self, until_ms: int, block: int) -> tuple[list[Candidate], list[Candidate]]:
        """Ticks until `until_ms` in order -> (chosen, losers of id conflicts)."""
        ordered = self.ticks_in_order(until_ms)
        _, losers = self._pop(self.ticks, [c.event["id"] for c in ordered], block)
        return ordered, losers

    def pop_listings(self, count: int, block: int) -> list[Candidate]:
        """The first `count` waiting listings in the order of their topic."""
        taken, self.listings = self.listings[:count], self.listings[count:]
        for candidate in taken:
            self.known[candidate.event["id"]] = (candidate.mark, block)
        return taken

    def _pop(self, pool: dict[str, list[Candidate]], ids: list[str], block: int) -> tuple[list[Candidate], list[Candidate]]:
        chosen, losers = [], []
        for name in ids:
            first, *others = pool.pop(name)
            if name in self.known:  # the same id in a block before: this one lost
                losers += [first, *others]
                continue
            self.known[name] = (first.mark, block)
            chosen.append(first)
            losers += others
        return chosen, losers

    def close(self, number: int) -> list[Candidate]:
        """Block `number` is closed. Returns events of earlier numbers that can never be in a block (a first block only)."""
        block = self.blocks.pop(number)
        self.closed, self.closed_time_ms, self.closed_hash = number, block["time_ms"], block["hash"]
        self.closes.discard(number)
        stale = [c for b in [b for b in self.events if b <= number] for cs in self.events.pop(b).values() for c in cs]
        for gone in [b for b in self.blocks if b <= number]:
            del self.blocks[gone]
        for kept in (self.flushed, self.refused):
            for gone in [b for b in kept if b <= number]:
                del kept[gone]  # type: ignore[attr-defined]
        self.refused_ticks = {m: t for m, t in self.refused_ticks.items() if t > self.closed_time_ms}
        if number % 8 == 0:
            oldest = number - self.memory_blocks
            self.known = {i: v for i, v in self.known.items() if v[1] > oldest}
        return stale

    # -- checkpoint

    def to_plain(self) -> dict:
        """Plain value; containers in sorted order, so equal states give equal bytes."""
        plain: dict[str, Any] = dict(vars(self))
        plain["blocks"] = sorted(self.blocks.items())
        plain["closes"] = sorted(self.closes)
        plain["events"] = sorted((b, sorted(pool.items())) for b, pool in self.events.items())
        plain["ticks"] = sorted(self.ticks.items())
        plain["refused"] = sorted((b, sorted(marks)) for b, marks in self.refused.items())
        plain["refused_ticks"] = sorted(self.refused_ticks.items())
        plain["flushed"] = sorted(self.flushed.items())
        plain["known"] = sorted(self.known.items())
        plain["listing_marks"] = sorted(self.listing_marks)
        return plain

    @classmethod
    def from_plain(cls, plain: dict) -> Intake:
        intake = cls(plain["memory_blocks"])
        for name in ("closed", "closed_time_ms", "closed_hash", "repeats"):
            setattr(intake, name, plain[name])
        intake.blocks = dict(map(tuple, plain["blocks"]))
        intake.closes = set(plain["closes"])
        intake.events = {b: {i: [Candidate(*c) for c in cs] for i, cs in pool} for b, pool in plain["events"]}
        intake.ticks = {i: [Candidate(*c) for c in cs] for i, cs in plain["ticks"]}
        intake.refused = {b: set(marks) for b, marks in plain["refused"]}
        intake.refused_ticks = dict(map(tuple, plain["refused_ticks"]))
        intake.flushed = dict(map(tuple, plain["flushed"]))
        intake.listings = [Candidate(*c) for c in plain["listings"]]
        intake.listing_marks = set(plain["listing_marks"])
        intake.known = {i: (v[0], v[1]) for i, v in plain["known"]}
        return intake
