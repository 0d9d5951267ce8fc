"""Enforcement: flags of all partitions -> liquidations in one total order.

It acts on block N when every partition has done N (a halted partition holds nobody back), on that block's flags by
severity and account. So its output is a function of the logs, whatever order partitions arrive in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from schemas.codec import decode_output, encode
from schemas.decisions import INSOLVENT, LIQUIDATABLE, STATES
from schemas.topics import BLOCKS_DONE, LIQUIDATIONS, MARGIN_CALLS
from streams.engine.output import Fault, Output

DUMP_VERSION = 1
FLAGGED = "flagged"


class Enforcement:
    """State: per log the last record number taken, per block the flags that wait, per partition how far it is."""

    def __init__(self, partitions: int, checkpoint_every: int = 16) -> None:
        self.partitions = partitions
        self.checkpoint_every = checkpoint_every
        self.read: dict[tuple[str, int], int] = {
            (t, p): 0 for t in (MARGIN_CALLS, BLOCKS_DONE) for p in range(partitions)
        }
        self.taken: dict[tuple[str, int], int] = dict.fromkeys(self.read, 0)
        self.done: list[int] = [-1] * partitions
        self.halted: list[int | None] = [None] * partitions  # block in which a partition halted
        self.flags: dict[int, list[dict]] = {}
        self.times: dict[int, int] = {}  # blocks done by somebody, not yet acted on -> time
        self.calls_seen: dict[int, list[int]] = {}  # block -> per partition, events of margin.calls read
        self.calls_due: dict[int, list[int]] = {}  # block -> per partition, events that blocks.done declares
        self.acted = -1
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
        """Apply one record of margin.calls or blocks.done; repeats (by record number) change nothing."""
        self.read[topic, partition] = offset + 1
        record = decode_output(value or b"{}")
        seq = record["seq"]
        if seq > self.taken[topic, partition] + 1:
            raise Fault(f"{topic}/{partition} jumps from record {self.taken[topic, partition]} to {seq}")
        if seq <= self.taken[topic, partition]:
            return
        self.taken[topic, partition] = seq
        if topic == MARGIN_CALLS:
            self._take_calls(partition, record)
        else:
            self._take_done(partition, record)
        yield self._act()

    def _take_calls(self, partition: int, record: dict) -> None:
        block = record["block"]
        self._counts(self.calls_seen, block)[partition] += len(record["events"])
        flagged = [e for e in record["events"] if e["to"] in (LIQUIDATABLE, INSOLVENT)]
        self.flags.setdefault(block, []).extend(flagged)

    def _take_done(self, partition: int, record: dict) -> None:
        block = record["block"]
        if record["halted"]:
            self.halted[partition] = block
            self._counts(self.calls_due, block)[partition] = record["calls"]
            return
        self.done[partition] = block
        self.times[block] = record["time_ms"]
        self._counts(self.calls_due, block)[partition] = record["calls"]

    def _counts(self, counts: dict[int, list[int]], block: int) -> list[int]:
        return counts.setdefault(block, [0] * self.partitions)

    def _act(self) -> list[Output]:
        out = []
        while self.times:
            block = min(self.times)
            if not self._complete(block):
                break
            out += self._liquidate(block, self.times.pop(block))
            for kept in (self.calls_seen, self.calls_due):
                kept.pop(block, None)
            self.acted = block
            if block % self.checkpoint_every == 0:
                self._mark = block
        return out

    def _complete(self, block: int) -> bool:
        """Every partition has done the block or halted in it or before, and the calls it announced have been read."""
        seen, due = self._counts(self.calls_seen, block), self._counts(self.calls_due, block)
        for p, halted in enumerate(self.halted):
            if (halted is None and self.done[p] < block) or seen[p] != due[p]:
                return False
        return True

    def _liquidate(self, block: int, time_ms: int) -> list[Output]:
        flags = self.flags.pop(block, [])
        if not flags:
            return []
        ordered = sorted(flags, key=lambda e: (-STATES.index(e["to"]), -_shortfall(e), e["account"]))
        events = [self._event(flag, time_ms) for flag in ordered]
        self.record_seq += 1
        record = {
            "type": "liquidations",
            "version": 1,
            "partition": 0,
            "seq": self.record_seq,
            "block": block,
            "events": events,
        }
        return [Output(LIQUIDATIONS, 0, str(block).encode(), encode(record))]

    def _event(self, flag: dict, time_ms: int) -> dict:
        self.event_seq += 1
        return {
            "type": "liquidation",
            "seq": self.event_seq,
            "id": f"{flag['block']}/{flag['account']}/{FLAGGED}",
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
        for name in ("read", "taken"):
            plain[name] = [[*tp, v] for tp, v in plain[name].items()]
        for name in ("flags", "times", "calls_seen", "calls_due"):
            plain[name] = sorted(plain[name].items())
        return msgspec.msgpack.encode({"dump_version": DUMP_VERSION, **plain})

    @classmethod
    def load(cls, raw: bytes) -> Enforcement:
        plain = msgspec.msgpack.decode(raw)
        if plain.pop("dump_version") != DUMP_VERSION:
            raise Fault("enforcement checkpoint of another version")
        state = cls(plain["partitions"], plain["checkpoint_every"])
        for name in ("read", "taken"):
            plain[name] = {(t, p): v for t, p, v in plain[name]}
        for name in ("flags", "times", "calls_seen", "calls_due"):
            plain[name] = dict(map(tuple, plain[name]))
        for name, value in plain.items():
            setattr(state, name, value)
        return state


def _shortfall(flag: dict) -> int:
    """What is missing to initial margin."""
    return flag["margin"]["initial_margin_usd6"] - flag["margin"]["nlv_usd6"]
