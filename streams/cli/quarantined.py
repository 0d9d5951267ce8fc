"""Quarantined inputs as people ask for them: which, what is wrong, what to do. Pure: records in, entries out."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import orjson

from schemas import refusals
from schemas.codec import decode_inputs
from schemas.decisions import Quarantined

SEND_CORRECTED = "send it corrected (`replay ID --edit FILE`)"
NEW_BLOCK = "name a block that is not announced yet, and have its producer count it"
WHAT_TO_DO = {
    refusals.UNKNOWN_REPORTER: "only governed reporters are heard: list it in surface_ or spot_reporters, replay it",
    refusals.MALFORMED: f"the bytes are no events in JSON: {SEND_CORRECTED}",
    refusals.UNKNOWN_TYPE: f"the type belongs to no event of this topic: {SEND_CORRECTED}, or to its own topic",
    refusals.UNKNOWN_VERSION: f"this engine does not read the version: {SEND_CORRECTED}, or upgrade and replay it",
    refusals.MISSING_FIELD: f"{SEND_CORRECTED} with the field",
    refusals.UNKNOWN_FIELD: f"{SEND_CORRECTED} without the field",
    refusals.WRONG_TYPE: f"{SEND_CORRECTED}; numbers are integers without a point, not text",
    refusals.OUT_OF_RANGE: f"{SEND_CORRECTED}; `dpme schema` says what is allowed",
    refusals.IDENTITY_CONFLICT: "the id belongs to another event, which counts: give this one an id of its own",
    refusals.BLOCK_CLOSED: f"the block is closed and stays so: {SEND_CORRECTED}; {NEW_BLOCK}",
    refusals.BLOCK_CONFLICT: "the block was announced otherwise, and that counts: look at the producer",
    refusals.BLOCK_UNKNOWN: "announce the block, then replay this",
    refusals.LATE_TICK: "newer prices count already: nothing to do",
    refusals.UNKNOWN_INSTRUMENT: f"list the instrument, then {SEND_CORRECTED}; {NEW_BLOCK}",
    refusals.UNKNOWN_UNDERLYING: "list the underlying, or give it a price first; the next tick counts",
    refusals.UNKNOWN_EXPIRY: "list an instrument of this expiry; the next tick counts",
    refusals.WRONG_KIND: f"the instrument is of another kind: {SEND_CORRECTED}; {NEW_BLOCK}",
    refusals.INSTRUMENT_EXPIRED: "the instrument is settled: nothing can be booked on it any more",
    refusals.INSTRUMENT_UNPRICED: f"give the instrument a price, then {SEND_CORRECTED}; {NEW_BLOCK}",
    refusals.LISTING_REFUSED: f"the catalogue cannot take it as it is: {SEND_CORRECTED}",
    refusals.BLOCK_RETRACTED: "the chain went on without its block: if it still holds, it comes again in a new one",
    refusals.TRANSFER_REFUSED: f"one thing, between subaccounts of one owner: {SEND_CORRECTED}; {NEW_BLOCK}",
    refusals.POSITION_LIMIT: f"beyond what one event may move: {SEND_CORRECTED} in parts; {NEW_BLOCK}",
}


class Entry(NamedTuple):
    """One quarantined input. `block` and `time_ms` are what its bytes say, where they can be read."""

    id: str
    what: Quarantined
    raw: bytes
    block: int | None
    time_ms: int | None

    def plain(self) -> dict[str, Any]:
        """For machines: the record, with its id."""
        return {"id": self.id, "block": self.block, "time_ms": self.time_ms, **msgspec.to_builtins(self.what)}


class Wanted(NamedTuple):
    """Filters; None: any. Bounds of blocks and times are inclusive."""

    reason: str | None = None
    topic: str | None = None
    block_from: int | None = None
    block_to: int | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def admits(self, entry: Entry) -> bool:
        named = self.reason in (None, entry.what.reason) and self.topic in (None, entry.what.topic)
        return (
            named
            and _within(entry.block, self.block_from, self.block_to)
            and _within(entry.time_ms, self.from_ms, self.to_ms)
        )


def _within(value: int | None, low: int | None, high: int | None) -> bool:
    if low is None and high is None:
        return True
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def entries(values: Iterable[bytes]) -> list[Entry]:
    """Records of the quarantine in their order; a restarted sequencer writes the same again: each input once."""
    found: dict[str, Entry] = {}
    for value in values:
        entry = _entry(msgspec.json.decode(value, type=Quarantined))
        found.setdefault(entry.id, entry)
    return list(found.values())


def _entry(what: Quarantined) -> Entry:
    raw = base64.b64decode(what.bytes_base64)
    plain = _plain(raw)
    block = plain.get("block", plain.get("number"))
    return Entry(
        f"{what.topic}/{what.partition}/{what.offset}/{what.index}", what, raw, _int(block), _int(plain.get("time_ms"))
    )


def _plain(raw: bytes) -> dict[str, Any]:
    try:
        plain = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return plain if isinstance(plain, dict) else {}


def _int(value: Any) -> int | None:
    return value if type(value) is int else None


def cannot_send(entry: Entry, edited: bytes | None) -> str | None:
    """Why sending the bytes (or what is sent in their place) is of no use; None where the sequencer has to judge."""
    if edited is None and entry.what.bytes_total is not None:
        return f"only {len(entry.raw)} of its {entry.what.bytes_total} bytes are kept: produce it again at its source"
    raw = entry.raw if edited is None else edited
    for _, refusal, _ in decode_inputs(entry.what.topic, raw):
        if refusal is not None:
            where = f"{refusal.field}: " if refusal.field else ""
            return f"would be refused again ({refusal.reason}; {where}{refusal.detail})"
    return None


def as_text(raw: bytes, limit: int) -> str:
    """Bytes for a terminal: text where they are text without control characters, else hex; cut at `limit` bytes."""
    cut = raw[:limit]
    more = f" ... ({len(raw):,} bytes)" if len(raw) > limit else ""
    try:
        text = cut.decode()
    except UnicodeDecodeError:
        text = ""
    if text and all(c.isprintable() or c in "\n\t" for c in text):
        return text + more
    return cut.hex(" ") + more
