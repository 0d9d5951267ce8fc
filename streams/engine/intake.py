"""The sequencer's waiting room: events that were read but are in no log record yet, and the ids already known.

Everything here is a function of *which* records were read, not of the order in which topics took turns: that is what
lets the sequencer record its position vector and be rebuilt from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeGuard

import orjson

from schemas import refusals
from schemas.codec import decode_inputs, own_bytes
from schemas.events import BLOCKS_MAX, TIME_MAX_MS
from schemas.refusals import Refusal
from schemas.topics import ACCOUNT_FILLS, AUCTION_BIDS, CHAIN_BLOCKS, INPUTS, INSTRUMENTS, OF_BLOCKS, ORACLE_TICKS
from streams.engine.branches import Branches, ClosedBlock, packed, unpacked

TICKS, EVENTS, BIDS = INPUTS.index(ORACLE_TICKS), INPUTS.index(ACCOUNT_FILLS), INPUTS.index(AUCTION_BIDS)
ANY_BRANCH = ""  # events that name no block hash
BlockKey = tuple[int, str]  # number, hash or ANY_BRANCH


class Candidate(NamedTuple):
    """A valid event where it was read. Order of candidates = canonical order of reading."""

    rank: int
    partition: int
    offset: int
    place: int
    mark: bytes
    event: dict
    own: bytes = b""  # its bytes where they are not just `event` in JSON again

    @property
    def name(self) -> str:
        """Identity: ids are unique within a topic."""
        return f"{self.rank}/{self.event['id']}"

    @property
    def place_in_pool(self) -> str:
        """Bids wait beside account events; no id has a control character in it."""
        return self.event["id"] if self.rank != BIDS else f"\0{self.event['id']}"

    @property
    def raw(self) -> bytes:
        """The event's own bytes."""
        return self.own or orjson.dumps(self.event)


class Refused(NamedTuple):
    """An event or record that goes to quarantine; `raw` are its own bytes."""

    refusal: Refusal
    topic: str
    partition: int
    offset: int
    place: int
    raw: bytes


def content_mark(event: dict) -> bytes:
    """16 bytes that tell one content from another."""
    return hashlib.blake2b(orjson.dumps(event, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def conflict(candidate: Candidate) -> Refusal:
    """The refusal of an event whose id belongs to another."""
    return Refusal(refusals.IDENTITY_CONFLICT, f"id {candidate.event['id']} was taken with other content", "id")


def _closed(number: int) -> Refusal:
    return Refusal(refusals.BLOCK_CLOSED, f"the log begins at block {number}", "block")


def _retracted() -> Refusal:
    return Refusal(refusals.BLOCK_RETRACTED, "its block is not, or no longer, of the chain", "block")


def _hash_named(plain: dict) -> str:
    """The block hash that a refused event names, if that is well-formed."""
    named = plain.get("block_hash", ANY_BRANCH)
    return named if isinstance(named, str) else ANY_BRANCH


def _is_number(value: object, limit: int) -> TypeGuard[int]:
    """A whole number that the schema admits (JSON's true is none, though Python's is)."""
    return type(value) is int and 0 <= value < limit


def _json(plain: dict | None) -> bytes:
    return b"" if plain is None else orjson.dumps(plain)


class Intake:
    """Pending events by block, ticks, listings and blocks; ids of the last blocks."""

    def __init__(self, memory_blocks: int, finality_blocks: int) -> None:
        self.memory_blocks = memory_blocks
        self.branches = Branches(finality_blocks)
        self.closed: int | None = None
        self.closed_time_ms = -1
        self.final_time_ms = -1  # of the last block that is final
        self.closes: set[str] = set()
        self.events: dict[BlockKey, dict[str, list[Candidate]]] = {}
        self.flushed: dict[int, int] = {}  # block -> events of it that were taken out before its close
        self.refused: dict[BlockKey, set[bytes]] = {}  # block -> marks of refused events that named it
        self.ticks: dict[str, list[Candidate]] = {}
        self.gone_ticks: dict[bytes, int] = {}  # refused or taken out, not final -> time: they count all the same
        self.taken_ticks: list[Candidate] = []  # taken out since the last close
        self.listings: list[Candidate] = []
        self.listing_marks: dict[bytes, int] = {}  # of all listings ever -> place in their topic's order
        self.known: dict[str, tuple[bytes, int]] = {}  # name -> mark, block at which it was taken
        self.freed: set[str] = set()  # of those, whose event was refused later: another may have the name
        self.repeats = 0

    # -- reading

    def read(self, topic: str, partition: int, offset: int, raw: bytes | None, lateness_ms: int) -> list[Refused]:
        """Judge one record; valid events wait, the others are returned."""
        found = decode_inputs(topic, raw)
        out = []
        own_of = own_bytes(raw or b"", [plain for _, _, plain in found])
        for place, ((_, refusal, plain), own) in enumerate(zip(found, own_of, strict=True)):
            if refusal is None and plain is not None:
                rank = INPUTS.index(topic)
                candidate = Candidate(rank, partition, offset, place, content_mark(plain), plain, own)
                refusal = self._take(topic, candidate, lateness_ms)
            if refusal is not None:
                self._count_refused(topic, plain)
                out.append(Refused(refusal, topic, partition, offset, place, own or _json(plain)))
        return out

    def _take(self, topic: str, candidate: Candidate, lateness_ms: int) -> Refusal | None:
        if topic == CHAIN_BLOCKS:
            return self._take_block(candidate.event)
        if topic in OF_BLOCKS and (answer := self._take_of_branch(candidate)) is not None:
            return None if answer is True else answer
        if topic == INSTRUMENTS and candidate.mark in self.listing_marks:
            self.repeats += 1
            return None
        taken = self.known.get(candidate.name)
        if taken is not None and taken[0] == candidate.mark:
            self.repeats += 1
            return None
        if self.is_taken(candidate.name):
            return conflict(candidate)
        if topic in OF_BLOCKS:
            return self._take_account_event(candidate)
        if topic == ORACLE_TICKS:
            return self._take_tick(candidate, lateness_ms)
        self.listing_marks[candidate.mark] = len(self.listing_marks)
        self.listings.append(candidate)
        return None

    def _take_block(self, event: dict) -> Refusal | None:
        if event["type"] == "block_close":
            return self._take_block_close(event)
        answer = self.branches.announce(event)
        if isinstance(answer, Refusal):
            return answer
        self.repeats += not answer
        return None

    def _take_block_close(self, event: dict) -> Refusal | None:
        number, block_hash = event["number"], event["hash"]
        announced = self.branches.with_number(number)
        if block_hash in announced:
            self.closes.add(block_hash)
            return None
        if self.closed is not None and number <= self.closed:
            closed_hash = self.branches.hash_at(number) or block_hash
            if closed_hash != block_hash:
                return Refusal(refusals.BLOCK_CONFLICT, f"block {number} is closed with hash {closed_hash}", "hash")
            self.repeats += 1
            return None
        if not announced:
            return Refusal(refusals.BLOCK_UNKNOWN, f"block {number} was not announced", "number")
        return Refusal(refusals.BLOCK_CONFLICT, f"block {number} was announced as {announced[-1]}", "hash")

    def _take_of_branch(self, candidate: Candidate) -> Literal[True] | Refusal | None:
        """An event that names the hash of its block: True once it waits for that block; None if it is judged like any
        other, as its block is closed, or final, or it names none.

        What ids it collides with is seen when its block closes: until then it may be of another branch than they.
        """
        event = candidate.event
        block, block_hash = event["block"], event.get("block_hash", ANY_BRANCH)
        closed_hash = self.branches.hash_at(block)
        if block_hash == ANY_BRANCH or closed_hash == block_hash:
            return None
        if self.branches.is_final(block):
            return _retracted() if closed_hash is not None else None
        self._add(self.events.setdefault((block, block_hash), {}), candidate)
        return True

    def _take_account_event(self, candidate: Candidate) -> Refusal | None:
        block = candidate.event["block"]
        if self.closed is not None and block <= self.closed:
            return Refusal(
                refusals.BLOCK_CLOSED, f"block {block} is closed; the open block is {self.closed + 1}", "block"
            )
        self._add(self.events.setdefault((block, ANY_BRANCH), {}), candidate)
        return None

    def _take_tick(self, candidate: Candidate, lateness_ms: int) -> Refusal | None:
        late_ms = self.closed_time_ms - candidate.event["time_ms"]
        if late_ms > lateness_ms:
            return Refusal(refusals.LATE_TICK, f"tick is {late_ms} ms older than the last closed block", "time_ms")
        self._add(self.ticks, candidate)
        return None

    def _add(self, pool: dict[str, list[Candidate]], candidate: Candidate) -> None:
        same_id = pool.setdefault(candidate.place_in_pool, [])
        if any(other.mark == candidate.mark for other in same_id):
            self.repeats += 1
            return
        same_id.append(candidate)
        same_id.sort()

    def _count_refused(self, topic: str, plain: dict | None) -> None:
        """A refused event that names its block (a refused tick: its time) counts, or the block would wait for ever."""
        if plain is None:
            return
        mark, block, time_ms = content_mark(plain), plain.get("block"), plain.get("time_ms")
        named = _hash_named(plain)
        if topic in OF_BLOCKS and _is_number(block, BLOCKS_MAX) and self._may_close(block, named):
            self.refused.setdefault((block, named), set()).add(mark)
        elif topic == ORACLE_TICKS and _is_number(time_ms, TIME_MAX_MS) and time_ms > self.final_time_ms:
            self.gone_ticks[mark] = time_ms
        elif topic == INSTRUMENTS:
            self.listing_marks.setdefault(mark, len(self.listing_marks))

    def _may_close(self, block: int, named: str) -> bool:
        if self.closed is None or block > self.closed:
            return True
        return named != ANY_BRANCH and not self.branches.is_final(block) and self.branches.hash_at(block) != named

    # -- asking

    def open_block(self) -> dict | None:
        """The block that closes next, if it has been announced (the first one ever: the lowest announced)."""
        return self.branches.next_block()

    def open_number(self) -> int | None:
        block = self.open_block()
        return block["number"] if block is not None else None

    def waiting(self, block: int, block_hash: str) -> Iterator[list[Candidate]]:
        """Pending events of a block of the present branch, candidates of one id together."""
        for named in dict.fromkeys((ANY_BRANCH, block_hash)):
            yield from self.events.get((block, named), {}).values()

    def missing(self, block: dict) -> bool:
        """Does the block still wait for anything it declares?"""
        number, block_hash = block["number"], block["hash"]
        if block_hash in self.closes:
            return False
        came = sum(map(len, self.waiting(number, block_hash))) + self.flushed.get(number, 0)
        came += sum(len(self.refused.get((number, named), ())) for named in (ANY_BRANCH, block_hash))
        if came < block["event_count"]:
            return True
        if block.get("listing_count") is not None and len(self.listing_marks) < block["listing_count"]:
            return True
        return block.get("tick_count") is not None and self._ticks_until(block["time_ms"]) < block["tick_count"]

    def _ticks_until(self, time_ms: int) -> int:
        low = self.closed_time_ms
        came = sum(1 for same_id in self.ticks.values() for c in same_id if low < c.event["time_ms"] <= time_ms)
        return came + sum(1 for t in self.gone_ticks.values() if low < t <= time_ms)

    def ticks_in_order(self, time_ms: int) -> list[Candidate]:
        """Chosen candidates of ticks until `time_ms` by (time, source, id)."""
        due = [c[0] for c in self.ticks.values() if c[0].event["time_ms"] <= time_ms]
        return sorted(due, key=lambda c: (c.event["time_ms"], c.event["source"], c.event["id"]))

    # -- taking out

    def pop_events(self, block: int, block_hash: str, until_ms: int | None) -> tuple[list[Candidate], list[Candidate]]:
        """Account events of `block` in order (time, topic, id), up to `until_ms` if given -> (chosen, losers)."""
        return self._pop_of_block(EVENTS, block, block_hash, until_ms)

    def pop_bids(self, block: int, block_hash: str, until: tuple[int, str]) -> tuple[list[Candidate], list[Candidate]]:
        """Bids of `block` in order (time, id), up to the one with this time and id -> (chosen, losers)."""
        return self._pop_of_block(BIDS, block, block_hash, *until)

    def _pop_of_block(
        self, rank: int, block: int, block_hash: str, until_ms: int | None, until_id: str | None = None
    ) -> tuple[list[Candidate], list[Candidate]]:
        chosen: list[Candidate] = []
        losers: list[Candidate] = []

        def is_due(first: Candidate) -> bool:
            time_ms, event_id = first.event["time_ms"], first.event["id"]
            return (
                until_ms is None or time_ms < until_ms or (time_ms == until_ms and event_id <= (until_id or event_id))
            )

        for named in dict.fromkeys((ANY_BRANCH, block_hash)):
            pool = self.events.get((block, named), {})
            due = [i for i, c in pool.items() if c[0].rank == rank and is_due(c[0])]
            for kept, found in zip((chosen, losers), self._pop(pool, due, block), strict=True):
                kept += found
        self.flushed[block] = self.flushed.get(block, 0) + len(chosen) + len(losers)
        return sorted(chosen, key=lambda c: (c.event["time_ms"], c.rank, c.event["id"])), losers

    def pop_ticks(self, until_ms: int, block: int) -> tuple[list[Candidate], list[Candidate]]:
        """Ticks until `until_ms` in order -> (chosen, losers)."""
        chosen, losers = self._pop(self.ticks, [c.event["id"] for c in self.ticks_in_order(until_ms)], block)
        self.gone_ticks.update((c.mark, c.event["time_ms"]) for c in chosen + losers)
        self.taken_ticks += chosen + losers
        return chosen, losers

    def listings_due(self, listing_count: int | None) -> list[Candidate]:
        """Waiting listings, of the first `listing_count` of their topic if that is given."""
        if listing_count is None:
            return self.listings
        return [c for c in self.listings if self.listing_marks[c.mark] < listing_count]

    def pop_listings(self, count: int, block: int) -> tuple[list[Candidate], list[Candidate]]:
        """The first `count` waiting listings in the order of their topic -> (chosen, losers of id conflicts)."""
        taken, self.listings = self.listings[:count], self.listings[count:]
        chosen = self.winners(taken)
        for candidate in chosen:
            self._know(candidate, block)
        return chosen, [c for c in taken if c not in chosen]

    def winners(self, listings: list[Candidate]) -> list[Candidate]:
        """Those whose id is not another's: of a listing before, or of one of these that comes first."""
        first: dict[str, bytes] = {}
        for candidate in listings:
            held = self.known[candidate.name] if self.is_taken(candidate.name) else (candidate.mark,)
            first.setdefault(candidate.name, held[0])
        return [c for c in listings if first[c.name] == c.mark]

    def is_taken(self, name: str) -> bool:
        """Does the id belong to an event that was not refused?"""
        return name in self.known and name not in self.freed

    def _know(self, candidate: Candidate, block: int) -> None:
        self.known[candidate.name] = (candidate.mark, block)
        self.freed.discard(candidate.name)

    def free(self, candidate: Candidate) -> None:
        """An event taken out is refused: a repeat of it is still dropped, its id may name a corrected one."""
        self.freed.add(candidate.name)

    def _pop(
        self, pool: dict[str, list[Candidate]], ids: list[str], block: int
    ) -> tuple[list[Candidate], list[Candidate]]:
        chosen, losers = [], []
        for event_id in ids:
            first, *others = pool.pop(event_id)
            losers += others
            if self.is_taken(first.name):  # the same id in a block before: this one lost
                losers.append(first)
                continue
            self._know(first, block)
            chosen.append(first)
        return chosen, losers

    def close(self, block_hash: str, ticks: bytes) -> list[tuple[Candidate, Refusal]]:
        """An announced block is closed; `ticks` packs the market at its close. Returns events that no block takes:
        of branches that are dead for good, and, at the first block ever, of earlier numbers."""
        block, is_first = self.branches.announced[block_hash], self.closed is None
        number = block["number"]
        taken = packed(self.taken_ticks) if self.branches.depth else b""
        self.branches.close(ClosedBlock(block, ticks, taken))
        self.closed, self.closed_time_ms = number, block["time_ms"]
        self.final_time_ms = self.branches.closed[0].event["time_ms"]
        self.taken_ticks = []
        self.closes.discard(block_hash)
        gone = [key for key in self.events if self._is_over(key)]
        reason = _closed(number) if is_first else _retracted()
        stale = [(c, reason) for key in gone for same in self.events.pop(key).values() for c in same]
        self.flushed.pop(number, None)
        for key in [key for key in self.refused if self._is_over(key)]:
            del self.refused[key]
        self.gone_ticks = {m: t for m, t in self.gone_ticks.items() if t > self.final_time_ms}
        if number % 8 == 0:
            oldest = number - self.memory_blocks
            self.known = {i: v for i, v in self.known.items() if v[1] > oldest}
            self.freed &= self.known.keys()
        return stale

    def _is_over(self, key: BlockKey) -> bool:
        """Can events of this block count no more?"""
        block, named = key
        return not self._may_close(block, named)

    def go_back(self, number: int) -> tuple[dict, bytes, list[tuple[Candidate, Refusal]]]:
        """The chain goes on behind block `number`: the ticks taken since wait again, the ids of what was taken of the
        retracted blocks are free again. Returns that block, the market at its close, and the events that are lost."""
        back: list[Candidate] = self.taken_ticks
        for gone in self.branches.go_back(number):
            back += [Candidate(*c) for c in unpacked(gone.taken)]  # type: ignore[attr-defined]
        last = self.branches.closed[-1]
        self.closed, self.closed_time_ms = number, last.event["time_ms"]
        self.known = {i: v for i, v in self.known.items() if v[1] <= number or int(i[0]) not in (TICKS, EVENTS, BIDS)}
        self.taken_ticks, self.flushed = [], {}
        for candidate in back:
            self.gone_ticks.pop(candidate.mark, None)
            self._put_back(candidate)
        lost = [key for key in self.events if key[0] > number and key[1] == ANY_BRANCH]
        events = [(c, _retracted()) for key in lost for same in self.events.pop(key).values() for c in same]
        for key in [key for key in self.refused if key[0] > number and key[1] == ANY_BRANCH]:
            del self.refused[key]
        return last.event, last.ticks, events

    def _put_back(self, candidate: Candidate) -> None:
        same_id = self.ticks.setdefault(candidate.event["id"], [])
        if all(other.mark != candidate.mark for other in same_id):
            same_id.append(candidate)
            same_id.sort()

    # -- checkpoint

    def to_plain(self) -> dict:
        """Plain value; containers in sorted order, so equal states give equal bytes."""
        plain: dict[str, Any] = dict(vars(self))
        plain["branches"] = self.branches.to_plain()
        plain["closes"] = sorted(self.closes)
        plain["events"] = sorted((*key, sorted(pool.items())) for key, pool in self.events.items())
        plain["ticks"] = sorted(self.ticks.items())
        plain["refused"] = sorted((*key, sorted(marks)) for key, marks in self.refused.items())
        plain["gone_ticks"] = sorted(self.gone_ticks.items())
        plain["flushed"] = sorted(self.flushed.items())
        plain["known"] = sorted(self.known.items())
        plain["freed"] = sorted(self.freed)
        plain["listing_marks"] = sorted(self.listing_marks.items())
        return plain

    @classmethod
    def from_plain(cls, plain: dict) -> Intake:
        intake = cls(plain["memory_blocks"], plain["branches"]["depth"])
        for name in ("closed", "closed_time_ms", "final_time_ms", "repeats"):
            setattr(intake, name, plain[name])
        intake.branches = Branches.from_plain(plain["branches"])
        intake.closes = set(plain["closes"])
        intake.events = {(b, h): {i: [Candidate(*c) for c in cs] for i, cs in pool} for b, h, pool in plain["events"]}
        intake.ticks = {i: [Candidate(*c) for c in cs] for i, cs in plain["ticks"]}
        intake.refused = {(b, h): set(marks) for b, h, marks in plain["refused"]}
        intake.taken_ticks = [Candidate(*c) for c in plain["taken_ticks"]]
        intake.gone_ticks = dict(map(tuple, plain["gone_ticks"]))
        intake.flushed = dict(map(tuple, plain["flushed"]))
        intake.listings = [Candidate(*c) for c in plain["listings"]]
        intake.listing_marks = dict(map(tuple, plain["listing_marks"]))
        intake.known = {i: (v[0], v[1]) for i, v in plain["known"]}
        intake.freed = set(plain.get("freed", ()))  # dumps before it have none
        return intake
