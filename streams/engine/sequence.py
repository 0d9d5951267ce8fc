"""The sequencer: decides the order of an unordered world, and writes the decision down.

Every decision (listings, market tick, block close) is a numbered record of `market.log`; the first record of a number
wins. A decision is proposed, read back, and only then carried out: events into `account.log`, packed by partition, and
a copy of the decision behind them. With each record travels the position vector of the inputs judged for it, so that a
restarted sequencer judges exactly the same inputs before it carries the decision out again, and writes the same bytes
(`account.log` drops them by number). Which inputs were judged is all that matters, not how topics took turns.

A sequencer decides behind a fence, a record with its token: what stands before it in the log is carried out first, and
a sequencer that reads another's fence after its own has been replaced and stops. A decision behind a fence that names
another token is void for every reader: its writer was frozen, or its last request was still under way, and is too late.

Beside the one that decides others may follow: they carry the same decisions out, so that `account.log` has each twice,
and one of them claims the log when nothing more is decided though something could be (`would_decide`, `claim`).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from schemas import log_records as records
from schemas import refusals
from schemas.catalogue import Catalogue
from schemas.refusals import Refusal
from schemas.risk_parameters import RiskParameters, parameters_document, parse_parameters
from schemas.topics import ACCOUNT_LOG, INPUTS, MARKET_LOG
from streams.engine.account_events import (
    Row,
    event_rows,
    funding_refusal,
    kind_refusal,
    transfer_refusal,
)
from streams.engine.branches import packed, unpacked
from streams.engine.intake import ANY_BRANCH, Candidate, Intake, conflict
from streams.engine.outgoing import orders_refusal, pack_events, quarantine_of, quarantined, size_refusal
from streams.engine.output import Fault, Output, check_dump_version
from streams.engine.planning import Step, plan_block, plan_live_tick, plan_rollback
from streams.engine.tick_state import TickState

Vector = dict[tuple[str, int], int]
DUMP_VERSION = 2


def partition_of(account: str, partitions: int) -> int:
    """Partition of `account.log` that holds an account."""
    return zlib.crc32(account.encode()) % partitions


class Sequencer:
    """State and transition of a writer of the logs. `token` names this life and takes no part in any decision;
    `follows`: it writes no fence before it is told to claim the log."""

    def __init__(
        self,
        partitions: int,
        input_partitions: dict[str, int],
        token: bytes,
        checkpoint_every: int = 16,
        follows: bool = False,
    ) -> None:
        self.partitions = partitions
        self.token, self.follows = token, follows
        self.checkpoint_every = checkpoint_every
        self.parameters = RiskParameters()
        self.catalogue = Catalogue()
        self.ticks = TickState()
        self.intake = Intake(self.parameters.identity_memory_blocks, self.parameters.finality_depth_blocks)
        self.number = 0  # of the last decision carried out
        self.declared = True
        self.epoch = 0  # rollbacks carried out
        self.halted = False  # the chain has left a final block
        self.begun = ANY_BRANCH  # hash of the open block that records were written for
        self.marked = -1  # block of the last checkpoint mark: after a rollback they come again
        self.last_tick_ms = -1  # of the last market record
        self.accepted = np.zeros(partitions, np.int64)  # events of the open block that are in the log, by partition
        self.read: Vector = {(t, p): 0 for t in INPUTS for p in range(input_partitions[t])}
        self.judged: Vector = dict(self.read)
        self.market_offset = 0
        self.inbox: dict[tuple[str, int], deque[tuple[int, bytes | None]]] = {log: deque() for log in self.read}
        self.recorded: deque[tuple[bytes, Vector]] = deque()
        self.proposed: deque[bytes] = deque()
        self.fenced = False  # our fence is in the log: we decide
        self.claimed = False  # it is on its way there
        self.settled = False  # a follower that has seen that nothing can be decided before something new comes
        self.holder = b""  # token of the last fence read: only its decisions count
        self._mark: int | None = None
        self._at_mark = b""

    def partitions_of(self, account: str | None) -> list[int]:
        """Where the rows of an account go; None: of every account."""
        return list(range(self.partitions)) if account is None else [partition_of(account, self.partitions)]

    # -- machine

    def positions(self) -> Vector:
        """Next offset of every topic partition it reads."""
        return {**self.read, (MARKET_LOG, 0): self.market_offset}

    def start(self) -> list[Output]:
        """What to send before the first record: this life's fence, unless it follows another."""
        return [] if self.follows else self.claim()

    def claim(self) -> list[Output]:
        """Our fence: behind it nobody else decides."""
        self.claimed = True
        header = records.pack_header(records.FENCE, 0, 0, 0, records.NO_HASH)
        return [Output(MARKET_LOG, 0, None, header + self.token)]

    def would_decide(self, until: Vector) -> tuple[bool, list[Output]]:
        """Of a follower: is there a decision to take by the inputs before `until`? -> (yes, what was refused of them).

        To ask costs: a follower that has judged further than whoever decides must begin again from its checkpoint. So
        `until` must be what that one has read as well, if it is alive.
        """
        if self.fenced or self.claimed or self.recorded:
            return False, []
        refused = self._judge({tp: max(offset, until.get(tp, 0)) for tp, offset in self.judged.items()})
        is_due = bool(self._plan())
        self.settled = not is_due and self.judged == self.read
        return is_due, refused

    def is_long(self, topic: str, value: bytes | None) -> bool:
        return False

    def checkpoint_mark(self) -> int | None:
        """Block at which a checkpoint is due, once."""
        mark, self._mark = self._mark, None
        return mark

    def steps(
        self, topic: str, partition: int, offset: int, value: bytes | None, headers: Any = ()
    ) -> Iterator[list[Output]]:
        """Apply one record."""
        self._at_mark, self.settled = b"", False
        if topic == MARKET_LOG:
            self.market_offset = offset + 1
            yield self._read_back(value or b"", dict(headers))
        else:
            self.read[topic, partition] = offset + 1
            self.inbox[topic, partition].append((offset, value))
        yield from self._advance()

    # -- the log

    def _read_back(self, raw: bytes, headers: dict[str, bytes]) -> list[Output]:
        header = records.read_header(raw)
        if header.kind == records.FENCE:
            self.holder = raw[records.HEADER.size :]
            return self._read_fence(raw[records.HEADER.size :])
        if headers.get("token", self.holder) != self.holder:
            return []  # by a writer whose fence is not the last one
        if header.kind == records.SEAL:
            seal = records.read_seal(raw)
            raise Fault(f"market.log is over: {seal.partitions} partitions now, generation {seal.generation}")
        expected = self.number + len(self.recorded) + 1
        if header.number < expected:
            return []  # a repeat: the first record of a number wins
        if header.number > expected:
            raise Fault(f"market.log jumps to {header.number}, expected {expected}")
        if self.proposed:
            if self.proposed.popleft() != raw:
                raise Fault(f"decision {header.number} in market.log is not the proposed one: begin again from the log")
            return self._carry_out(raw)
        if self.fenced:
            raise Fault(f"decision {header.number} in market.log was written by another sequencer: begin again")
        self.recorded.append((raw, _vector(headers["positions"])))
        return []

    def _read_fence(self, token: bytes) -> list[Output]:
        if token == self.token:
            self.fenced = True
        elif self.fenced:
            raise Fault("another sequencer has taken over")
        return []

    def _advance(self) -> Iterator[list[Output]]:
        while self.recorded and self._have_read(self.recorded[0][1]):
            raw, vector = self.recorded.popleft()
            yield self._judge(vector)
            yield self._carry_out(raw)
        if self.fenced and not self.recorded and not self.proposed:
            yield self._judge(self.read)
            yield self._propose()

    def _have_read(self, vector: Vector) -> bool:
        return all(self.read[tp] >= offset for tp, offset in vector.items())

    def _judge(self, until: Vector) -> list[Output]:
        """Judge what was read up to `until`, in the canonical order of topics, partitions and offsets."""
        out = []
        for tp in self.judged:
            if tp not in until:
                continue  # a topic that came later than the record
            if self.judged[tp] > until[tp]:
                raise Fault(f"{tp} is judged to {self.judged[tp]}, the log says {until[tp]}: begin again")
            waiting = self.inbox[tp]
            while waiting and waiting[0][0] < until[tp]:
                offset, raw = waiting.popleft()
                refused = self.intake.read(*tp, offset, raw, self.parameters.tick_lateness_max_ms)
                out += [quarantined(r) for r in refused]
            self.judged[tp] = until[tp]
        return out

    def _propose(self) -> list[Output]:
        steps = self._plan()
        positions = _vector_bytes(self.judged)
        self.proposed.extend(step.pack(self.number + 1 + i) for i, step in enumerate(steps))
        headers = (("positions", positions), ("token", self.token))
        return [Output(MARKET_LOG, 0, None, raw, headers) for raw in self.proposed]

    def _plan(self) -> list[Step]:
        if self.halted:
            return []
        if rollback := plan_rollback(self):
            return rollback
        announced = self.intake.open_block()
        if announced is not None:
            if not self.intake.missing(announced) or self._overdue(announced):
                return plan_block(self, announced)
            if announced.get("tick_count") is not None:
                return []
        return [] if self.declared else plan_live_tick(self)

    def begun_for_another(self) -> bool:
        """Were records of the open block written for another block than the head's branch has there?"""
        announced = self.intake.open_block()
        if not self.parameters.finality_depth_blocks:
            return False  # whoever says that the chain never reorganises has one branch
        return bool(self.begun) and announced is not None and announced["hash"] != self.begun

    def _overdue(self, announced: dict) -> bool:
        """Live only: a block that waits in vain closes once one is announced that is `block_close_grace_ms` younger."""
        if announced.get("tick_count") is not None:
            return False
        newest = max(b["time_ms"] for b in self.intake.branches.path_blocks())
        return newest >= announced["time_ms"] + self.parameters.block_close_grace_ms

    # -- carrying out

    def _carry_out(self, raw: bytes) -> list[Output]:
        header = records.read_header(raw)
        self.number = header.number
        if header.kind == records.LISTINGS:
            out = self._list(header)
        elif header.kind == records.ROLLBACK:
            out = self._go_back(header, raw)
        elif header.kind == records.BIDS:
            out = self._take_bids(header, records.read_bids(raw)[-1])
        else:
            out = self._market(header, raw)
        if self._mark is not None and not self._at_mark:
            self._at_mark = self._pack()
        return out + [Output(ACCOUNT_LOG, p, None, raw) for p in range(self.partitions)]

    def _list(self, header: records.Header) -> list[Output]:
        """Take the recorded number of waiting listings; those that the catalogue refuses go to quarantine."""
        out = []
        chosen, losers = self.intake.pop_listings(header.entries, header.block)
        out += [quarantine_of(c, conflict(c)) for c in losers]
        for candidate in chosen:
            refusal = self.catalogue.refusal(candidate.event) or _halt_refusal(candidate.event, self.partitions)
            if refusal is not None:
                out.append(self._refuse(candidate, Refusal(refusals.LISTING_REFUSED, refusal)))
                continue
            self.catalogue.apply(candidate.event)
            if candidate.event["type"] == "parameters":
                self._take_parameters(candidate.event["document"])
        return out

    def _refuse(self, candidate: Candidate, refusal: Refusal) -> Output:
        """An event that was taken out, but not in: its id is free for a corrected one."""
        self.intake.free(candidate)
        return quarantine_of(candidate, refusal)

    def _take_parameters(self, document: dict) -> None:
        self.parameters = parse_parameters(document)
        self.intake.memory_blocks = self.parameters.identity_memory_blocks
        self.intake.branches.depth = self.parameters.finality_depth_blocks

    def _market(self, header: records.Header, raw: bytes) -> list[Output]:
        """A market tick or a close: ticks are absorbed as the record has them, and events until then go before it."""
        closing = header.kind == records.BARRIER
        out = []
        chosen, losers = self.intake.pop_ticks(header.time_ms, header.block)
        out += [quarantine_of(c, conflict(c)) for c in losers]
        for candidate in chosen:
            refusal = self.ticks.absorb(candidate.event, self.catalogue, self.parameters)
            if refusal is not None:
                out.append(self._refuse(candidate, refusal))
        self.last_tick_ms = header.time_ms
        if not closing:
            self.ticks.record(records.read_market(raw, header), header.time_ms, self.catalogue)
            self.begun = _hash_of(header) or self.begun
            return out + self._flush(header, header.time_ms)
        barrier = records.read_barrier(raw, header)
        self.ticks.record(barrier.market, header.time_ms, self.catalogue)
        out += self._flush(header, None)
        self.ticks.settle(barrier.settlements)
        return out + self._close(header)

    def _close(self, header: records.Header) -> list[Output]:
        block = self.intake.branches.announced[_hash_of(header)]
        self.declared = block.get("tick_count") is not None
        ticks = packed(self.ticks.to_plain()) if self.intake.branches.depth else b""
        stale = self.intake.close(block["hash"], ticks)
        self.accepted[:], self.begun = 0, ANY_BRANCH
        if header.block % self.checkpoint_every == 0 and header.block > self.marked:
            self._mark = self.marked = header.block
        return [quarantine_of(c, refusal) for c, refusal in stale]

    def _go_back(self, header: records.Header, raw: bytes) -> list[Output]:
        """The state at a block's close again. Inputs are never un-read, listings stay listed."""
        self.epoch = records.read_rollback(raw).epoch
        if header.entries:
            self.halted = True
            return []
        block, ticks, lost = self.intake.go_back(header.block)
        self.ticks = TickState.from_plain(unpacked(ticks))  # type: ignore[arg-type]
        self.declared = block.get("tick_count") is not None
        self.last_tick_ms = block["time_ms"]
        self.accepted[:], self.begun = 0, ANY_BRANCH
        return [quarantine_of(c, refusal) for c, refusal in lost]

    def _take_bids(self, header: records.Header, last: dict) -> list[Output]:
        """Bids up to the record's last one: those that it does not have had lost their id to another."""
        self.begun = _hash_of(header) or self.begun
        until = (last["time_ms"], last["id"])
        return [quarantine_of(c, conflict(c)) for c in self.intake.pop_bids(header.block, _hash_of(header), until)[1]]

    def _flush(self, header: records.Header, until_ms: int | None) -> list[Output]:
        """Events of the open block into one packed record a partition."""
        chosen, losers = self.intake.pop_events(header.block, _hash_of(header), until_ms)
        out = [quarantine_of(c, conflict(c)) for c in losers]
        rows: list[list[tuple[str | None, Row]]] = [[] for _ in range(self.partitions)]
        for candidate in chosen:
            refusal = self.event_refusal(candidate.event, self.ticks)
            if refusal is not None:
                out.append(self._refuse(candidate, refusal))
                continue
            for account, row in event_rows(candidate.event, self.catalogue):
                for partition in self.partitions_of(account):
                    rows[partition].append((account, row))
                    self.accepted[partition] += 1
        return out + [
            Output(ACCOUNT_LOG, p, None, pack_events(header, p, found)) for p, found in enumerate(rows) if found
        ]

    def event_refusal(self, event: dict, ticks: TickState) -> Refusal | None:
        """Why an event cannot be taken into the book at this market; None if it can."""
        if event["type"] == "transfer" and (refusal := transfer_refusal(event)) is not None:
            return refusal
        if event.get("instrument") is None:
            return None  # cash alone
        index = self.catalogue.instrument_index.get(event["instrument"])
        if index is None:
            return Refusal(refusals.UNKNOWN_INSTRUMENT, f"instrument {event['instrument']} is not listed", "instrument")
        instrument = self.catalogue.instruments[index]
        if (refusal := kind_refusal(event, instrument)) is not None:
            return refusal
        if instrument.expiry in ticks.settled:
            return Refusal(refusals.INSTRUMENT_EXPIRED, f"{event['instrument']} is settled", "instrument")
        moves_coins = event["type"] == "collateral_move" or (event["type"] == "transfer" and instrument.kind == "spot")
        if not moves_coins and not ticks.is_priced(instrument, self.catalogue):
            return Refusal(refusals.INSTRUMENT_UNPRICED, f"{event['instrument']} has no price yet", "instrument")
        if event["type"] == "funding":
            return funding_refusal(event, ticks.spot_usd9[instrument.underlying])
        spot_usd9 = ticks.spot_usd9.get(instrument.underlying, 0)
        if event["type"] == "open_orders":
            return orders_refusal(event, instrument, spot_usd9)
        return size_refusal(event, instrument, spot_usd9)

    # -- checkpoint

    def dump(self) -> bytes:
        """Everything but the token and what is only proposed (it is read back from the log, or proposed again).

        At a mark: as it was there, before anything was judged for the next decision, which another one may take by
        fewer inputs.
        """
        return self._at_mark or self._pack()

    def _pack(self) -> bytes:
        plain = {
            "dump_version": DUMP_VERSION,
            "partitions": self.partitions,
            "checkpoint_every": self.checkpoint_every,
            "parameters": parameters_document(self.parameters),
            "catalogue": self.catalogue.to_listings(),
            "ticks": self.ticks.to_plain(),
            "intake": self.intake.to_plain(),
            "number": self.number,
            "declared": self.declared,
            "epoch": self.epoch,
            "halted": self.halted,
            "begun": self.begun,
            "marked": self.marked,
            "last_tick_ms": self.last_tick_ms,
            "accepted": self.accepted.tolist(),
            "read": [[*tp, o] for tp, o in self.read.items()],
            "judged": [[*tp, o] for tp, o in self.judged.items()],
            "market_offset": self.market_offset,
            "holder": self.holder,
            "recorded": [[raw, _vector_bytes(vector)] for raw, vector in self.recorded],
            "inbox": [[*tp, list(waiting)] for tp, waiting in self.inbox.items()],
        }
        return msgspec.msgpack.encode(plain)

    @classmethod
    def load(cls, raw: bytes, token: bytes, follows: bool = False) -> Sequencer:
        plain = msgspec.msgpack.decode(raw)
        check_dump_version("sequencer", plain["dump_version"], DUMP_VERSION)
        inputs: dict[str, int] = dict.fromkeys(INPUTS, 1)  # a dump may be older than one of them
        for topic, partition, _ in plain["read"]:
            inputs[topic] = max(inputs.get(topic, 0), partition + 1)
        state = cls(plain["partitions"], inputs, token, plain["checkpoint_every"], follows)
        state.parameters = parse_parameters(plain["parameters"])
        state.catalogue = Catalogue.from_listings(plain["catalogue"])
        state.ticks = TickState.from_plain(plain["ticks"])
        state.intake = Intake.from_plain(plain["intake"])
        for name in _SCALARS:
            setattr(state, name, plain[name])
        state.accepted = np.array(plain["accepted"], np.int64)
        state.read |= {(t, p): o for t, p, o in plain["read"]}
        state.judged |= {(t, p): o for t, p, o in plain["judged"]}
        state.recorded = deque((record, _vector(vector)) for record, vector in plain["recorded"])
        state.inbox |= {(t, p): deque((o, v) for o, v in waiting) for t, p, waiting in plain["inbox"]}
        return state


_SCALARS = (
    "number", "declared", "epoch", "halted", "begun", "marked", "last_tick_ms", "market_offset", "holder",
)  # fmt: skip


def _hash_of(header: records.Header) -> str:
    """The block hash of a record as events name it; ANY_BRANCH where it has none."""
    return ANY_BRANCH if header.block_hash == records.NO_HASH else "0x" + header.block_hash.hex()


def _halt_refusal(listing: dict, partitions: int) -> str | None:
    if listing["type"] == "halt" and listing["partition"] >= partitions:
        return f"partition {listing['partition']}: there are {partitions}"
    return None


def _vector_bytes(vector: Vector) -> bytes:
    return msgspec.json.encode([[t, p, o] for (t, p), o in vector.items()])


def _vector(raw: bytes) -> Vector:
    return {(t, p): o for t, p, o in msgspec.json.decode(raw)}
