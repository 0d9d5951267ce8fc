"""Enforcement: flags of all partitions -> liquidations in one total order.

Every partition says the same sequence of steps in blocks.done: blocks, and marks of rollbacks. A step is taken when
every partition has come to it (a halted partition holds nobody back), so the output is a function of the logs,
whatever order partitions arrive in. A block's flags are acted on once as many blocks are done behind it as blocks.done
demands (0: at once), by severity and account. Flags of a block that is retracted before are dropped, and a liquidation
that went out already is retracted by id.

The bids of a block come from market.log, in its order; blocks.done says how many there are, so that a step waits for
them and for nothing else. They stand in the block's record (auctions, which judge them, are not built yet).

Beside the steps, parts of the stress of the venue become one record once every partition that goes on has said its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from schemas import log_records as records
from schemas.codec import decode_output, encode
from schemas.decisions import INSOLVENT, LIQUIDATABLE, STATES
from schemas.log_records import NewerEngine
from schemas.risk_parameters import FINALITY_DEPTH_MAX
from schemas.topics import (
    BLOCKS_DONE,
    LIQUIDATIONS,
    MARGIN_CALLS,
    MARKET_LOG,
    VENUE_PARTS,
    VENUE_STRESS,
)
from streams.engine.decision_log import DecisionLog
from streams.engine.output import Fault, Output, check_dump_version
from streams.engine.reports import retraction_id
from streams.engine.venue_parts import combined, read_part

DUMP_VERSION = 2
VERSION = 1  # of the outputs that it reads and writes
FLAGGED = "flagged"
RETRACTION = "retraction"
ROLLED_BACK = -1  # in place of a block's number: the step that begins an epoch

Key = tuple[int, int]  # epoch, block: in the order of the log


class Enforcement:
    """State: per log the last record number taken, per block the flags that wait, per partition how far it is."""

    def __init__(self, partitions: int, checkpoint_every: int = 16) -> None:
        self.partitions = partitions
        self.checkpoint_every = checkpoint_every
        self.read: dict[tuple[str, int], int] = {
            (t, p): 0 for t in (MARGIN_CALLS, BLOCKS_DONE, VENUE_PARTS) for p in range(partitions)
        }
        self.taken: dict[tuple[str, int], int] = dict.fromkeys(self.read, 0)
        self.read[MARKET_LOG, 0] = 0
        self.decisions = DecisionLog()
        self.epoch = 0  # of market.log, as far as it is read
        self.bids: dict[Key, list[dict]] = {}  # step -> bids in market.log, not yet taken
        self.bids_due: dict[Key, int] = {}  # step -> how many blocks.done declares
        self.done: list[Key] = [(0, ROLLED_BACK)] * partitions
        self.halted: list[Key | None] = [None] * partitions  # step in which a partition halted
        self.flags: dict[Key, list[dict]] = {}
        self.steps_due: dict[Key, dict] = {}  # done by somebody, not yet taken -> blocks.done
        self.calls_seen: dict[Key, list[int]] = {}  # step -> per partition, events of margin.calls read
        self.calls_due: dict[Key, list[int]] = {}  # step -> per partition, events that blocks.done declares
        self.held: dict[int, list[dict]] = {}  # block -> flags that wait for confirmations
        self.emitted: dict[int, list[tuple[str, str]]] = {}  # block -> account and id of its liquidations
        self.venue_parts: dict[Key, dict[int, bytes]] = {}  # step -> partition -> its part of the venue's stress
        self.venue_seq = 0
        self.marked = -1  # block of the last checkpoint mark: after a rollback they come again
        self.record_seq = 0
        self.event_seq = 0
        self._mark: int | None = None

    def positions(self) -> dict[tuple[str, int], int]:
        return self.read

    def start(self) -> list[Output]:
        return []

    def is_long(self, topic: str, value: bytes | None) -> bool:
        return False

    def checkpoint_mark(self) -> int | None:
        mark, self._mark = self._mark, None
        return mark

    def steps(
        self, topic: str, partition: int, offset: int, value: bytes | None, headers: Any = ()
    ) -> Iterator[list[Output]]:
        """Apply one record of its logs; repeats (by number) change nothing."""
        self.read[topic, partition] = offset + 1
        if topic == MARKET_LOG:
            self._take_decision(value or b"", dict(headers))
            yield self._act()
            return
        record = decode_output(value or b"{}")
        seq = record["seq"]
        if record.get("version", 1) > VERSION:
            said = f"{topic} has records of version {record['version']}"
            raise NewerEngine(f"{said}, this engine reads up to {VERSION}: upgrade it")
        if seq > self.taken[topic, partition] + 1:
            raise Fault(f"{topic}/{partition} jumps from record {self.taken[topic, partition]} to {seq}")
        if seq <= self.taken[topic, partition]:
            return
        self.taken[topic, partition] = seq
        if topic == VENUE_PARTS:
            self.venue_parts.setdefault((record.get("epoch", 0), record["block"]), {})[partition] = value or b""
        elif topic == MARGIN_CALLS:
            self._take_calls(partition, record)
        else:
            self._take_done(partition, record)
        yield [*self._act(), *self._venue()]

    def _take_decision(self, raw: bytes, headers: dict[str, bytes]) -> None:
        header = self.decisions.take(raw, headers)
        if header is None:
            return
        if header.kind == records.ROLLBACK:
            self.epoch, last = records.read_rollback(raw)  # bids of the block that was open then are of no step
            self.bids = {key: bids for key, bids in self.bids.items() if key[1] <= last}
        elif header.kind == records.BIDS:
            self.bids.setdefault((self.epoch, header.block), []).extend(records.read_bids(raw))

    def _take_calls(self, partition: int, record: dict) -> None:
        events, epoch = record["events"], record.get("epoch", 0)
        is_retraction = bool(events) and events[0].get("type") == RETRACTION
        key = (epoch, ROLLED_BACK if is_retraction else record["block"])
        self._counts(self.calls_seen, key)[partition] += len(events)
        flagged = [e for e in events if e.get("to") in (LIQUIDATABLE, INSOLVENT)]
        self.flags.setdefault(key, []).extend(flagged)

    def _take_done(self, partition: int, record: dict) -> None:
        key = (record.get("epoch", 0), ROLLED_BACK if "rollback_from" in record else record["block"])
        self._counts(self.calls_due, key)[partition] = record["calls"]
        self.bids_due[key] = max(self.bids_due.get(key, 0), record.get("bids", 0))
        if record["halted"]:
            self.halted[partition] = key
            return
        self.done[partition] = key
        said = {name: record[name] for name in ("block", "time_ms")}
        self.steps_due[key] = said | {"depth": record.get("liquidation_depth_blocks", 0)}

    def _counts(self, counts: dict[Key, list[int]], key: Key) -> list[int]:
        return counts.setdefault(key, [0] * self.partitions)

    def _act(self) -> list[Output]:
        out = []
        while self.steps_due:
            key = min(self.steps_due)
            if not self._complete(key):
                break
            out += self._step(key, self.steps_due.pop(key))
            self.bids_due.pop(key, None)
            for kept in (self.calls_seen, self.calls_due):
                kept.pop(key, None)
        return out

    def _complete(self, key: Key) -> bool:
        """Every partition has taken the step or halted in it or before, and what it announced has been read."""
        if len(self.bids.get(key, ())) < self.bids_due.get(key, 0):
            return False
        seen, due = self._counts(self.calls_seen, key), self._counts(self.calls_due, key)
        for p, halted in enumerate(self.halted):
            if (halted is None and self.done[p] < key) or seen[p] != due[p]:
                return False
        return True

    def _venue(self) -> list[Output]:
        """Records of the venue of which every part is there, in the order of the log."""
        out = []
        while self.venue_parts:
            key = min(self.venue_parts)
            parts = self.venue_parts[key]
            if not all(p in parts or (h is not None and h <= key) for p, h in enumerate(self.halted)):
                break
            del self.venue_parts[key]
            self.venue_seq += 1
            said = combined([read_part(parts[p]) for p in sorted(parts)], self.venue_seq)
            out.append(Output(VENUE_STRESS, 0, str(key[1]).encode(), encode(said)))
        return out

    def _step(self, key: Key, done: dict) -> list[Output]:
        block, flags = done["block"], self.flags.pop(key, [])
        if key[1] == ROLLED_BACK:
            return self._retract(block, key[0])
        if flags:
            self.held[block] = flags
        out, bids = [], self.bids.pop(key, [])
        for ready in sorted(b for b in self.held if b <= block - done["depth"]):
            out.append(self._liquidate(ready, done["time_ms"], block - ready, key[0], bids if ready == block else []))
        if bids and block not in self.emitted:
            out.append(self._record(block, [], key[0], bids))
        for final in [b for b in self.emitted if b < block - FINALITY_DEPTH_MAX]:
            del self.emitted[final]
        if block % self.checkpoint_every == 0 and block > self.marked:
            self._mark = self.marked = block
        return out

    def _liquidate(self, block: int, time_ms: int, confirmations: int, epoch: int, bids: list[dict]) -> Output:
        flags = self.held.pop(block)
        ordered = sorted(flags, key=lambda e: (-STATES.index(e["to"]), -_shortfall(e), e["account"]))
        of_epoch = {name: value for name, value in (("epoch", epoch), ("confirmations", confirmations)) if value}
        events = [self._event(flag, time_ms) | of_epoch for flag in ordered]
        self.emitted[block] = [(e["account"], e["id"]) for e in events]
        return self._record(block, events, epoch, bids)

    def _retract(self, block: int, epoch: int) -> list[Output]:
        """The chain went back to `block`: what was flagged since is dropped, what was said of it is retracted."""
        for gone in [b for b in self.held if b > block]:
            del self.held[gone]
        events = []
        for gone in sorted(b for b in self.emitted if b > block):
            for account, event_id in self.emitted.pop(gone):
                events.append(self._retraction(gone, account, event_id, epoch))
        return [self._record(block, events, epoch)] if events else []

    def _retraction(self, block: int, account: str, event_id: str, epoch: int) -> dict:
        self.event_seq += 1
        return {
            "type": RETRACTION,
            "seq": self.event_seq,
            "id": retraction_id(event_id, epoch),
            "account": account,
            "block": block,
            "retracts": event_id,
            "epoch": epoch,
        }

    def _record(self, block: int, events: list[dict], epoch: int, bids: list[dict] | None = None) -> Output:
        self.record_seq += 1
        record = {
            "type": "liquidations",
            "version": VERSION,
            "partition": 0,
            "seq": self.record_seq,
            "block": block,
            "events": events,
        }
        rest = {name: value for name, value in (("epoch", epoch), ("bids", bids)) if value}
        return Output(LIQUIDATIONS, 0, str(block).encode(), encode(record | rest))

    def _event(self, flag: dict, time_ms: int) -> dict:
        self.event_seq += 1
        epoch = flag.get("epoch", 0)
        return {
            "type": "liquidation",
            "seq": self.event_seq,
            "id": f"{flag['block']}/{flag['account']}/{FLAGGED}" + (f"/{epoch}" if epoch else ""),
            "account": flag["account"],
            "block": flag["block"],
            "time_ms": time_ms,
            "state": FLAGGED,
            "shortfall_usd6": _shortfall(flag),
            "margin": flag["margin"],
            "positions": flag["positions"],
            "cash_usd6": flag["cash_usd6"],
        }

    # -- checkpoint

    def dump(self) -> bytes:
        plain = {name: value for name, value in vars(self).items() if name != "_mark"}
        plain["decisions"] = [self.decisions.holder, self.decisions.number]
        for name in ("read", "taken"):
            plain[name] = [[*tp, v] for tp, v in plain[name].items()]
        for name in (*_BY_STEP, *_BY_BLOCK):
            plain[name] = sorted(plain[name].items())
        return msgspec.msgpack.encode({"dump_version": DUMP_VERSION, **plain})

    @classmethod
    def load(cls, raw: bytes) -> Enforcement:
        plain = msgspec.msgpack.decode(raw)
        check_dump_version("enforcement", plain.pop("dump_version"), DUMP_VERSION)
        state = cls(plain["partitions"], plain["checkpoint_every"])
        for name in ("read", "taken"):
            plain[name] = getattr(state, name) | {(t, p): v for t, p, v in plain[name]}
        for name in _BY_STEP:
            plain[name] = {(epoch, block): value for (epoch, block), value in plain.get(name, ())}
        plain["decisions"] = DecisionLog(
            *plain.get("decisions", ())
        )  # dumps before bids have none: read from the first
        for name in _BY_BLOCK:
            plain[name] = dict(map(tuple, plain[name]))
        plain["done"] = [tuple(key) for key in plain["done"]]
        plain["halted"] = [tuple(key) if key else None for key in plain["halted"]]
        for name, value in plain.items():
            setattr(state, name, value)
        return state


_BY_STEP = ("flags", "steps_due", "calls_seen", "calls_due", "bids", "bids_due", "venue_parts")
_BY_BLOCK = ("held", "emitted")


def _shortfall(flag: dict) -> int:
    """What is missing to initial margin."""
    return flag["margin"]["initial_margin_usd6"] - flag["margin"]["nlv_usd6"]
