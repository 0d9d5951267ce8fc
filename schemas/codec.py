"""JSON of single events: bytes -> events or refusals, outputs -> bytes."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from schemas import refusals
from schemas.events import INPUT_TYPES, RECORD_EVENTS_MAX, RECORD_LEVELS_MAX
from schemas.refusals import Refusal
from schemas.topics import INPUT_BYTES_MAX

_FIELD = re.compile(r"at `\$\.?([^`]*)`")
_NAMED = re.compile(r"field `([^`]*)`")
_TYPE = re.compile(r"Expected `\w+(?: \| null)?`, got")


def decode_inputs(topic: str, raw: bytes | None) -> list[tuple[Any, Refusal | None, dict | None]]:
    """One record of an input topic -> [(event, None, plain) | (None, refusal, plain or None)], one entry an event.

    A record holds one event or an array of events; one bad event of an array costs only itself.
    """
    if not raw:
        return [_malformed("empty record")]
    if len(raw) > INPUT_BYTES_MAX:
        return [_malformed(f"a record of {len(raw)} bytes; at most {INPUT_BYTES_MAX} are read")]
    try:
        plain = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return [_malformed(f"not JSON: {error}")]
    items = plain if isinstance(plain, list) else [plain]
    if not items:
        return [_malformed("empty array")]
    if len(items) > RECORD_EVENTS_MAX:
        return [_malformed(f"an array of {len(items)} events; at most {RECORD_EVENTS_MAX} may be one record")]
    containers = raw.count(b"{") + raw.count(b"[")  # a record of flat events has one for each, and its own
    if containers > len(items) + 1 and not _is_shallow(plain):
        return [_malformed(f"nested more than {RECORD_LEVELS_MAX} levels deep")]
    return [_decode_one(topic, item) for item in items]


def own_bytes(raw: bytes, plains: list[Any]) -> list[bytes]:
    """Bytes of each event of a record as its producer wrote them; empty where writing it again gives the same.

    `plains` are the events as `decode_inputs` returned them: None for what is no event.
    """
    if len(plains) == 1:
        return [b"" if plains[0] is not None and orjson.dumps(plains[0]) == raw else raw]
    if None not in plains and orjson.dumps(plains) == raw:
        return [b""] * len(plains)
    parts = [bytes(part) for part in msgspec.json.decode(raw, type=list[msgspec.Raw])]
    return [b"" if p is not None and orjson.dumps(p) == part else part for p, part in zip(plains, parts, strict=True)]


def _malformed(detail: str) -> tuple[None, Refusal, None]:
    return None, Refusal(refusals.MALFORMED, detail), None


def _is_shallow(plain: Any) -> bool:
    """At most RECORD_LEVELS_MAX containers within each other: what the readers of the logs can read and write."""
    level = [plain]
    for _ in range(RECORD_LEVELS_MAX + 1):
        values = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        level = [value for held in values for value in held]
        if not level:
            return True
    return False


def _decode_one(topic: str, plain: Any) -> tuple[Any, Refusal | None, dict | None]:
    if not isinstance(plain, dict):
        return _malformed(f"an event is a JSON object, not {type(plain).__name__}")
    if "type" not in plain:  # msgspec demands it of unions alone
        return None, _refusal("Object missing required field `type`", plain), plain
    try:
        return msgspec.convert(plain, INPUT_TYPES[topic]), None, plain
    except msgspec.ValidationError as error:
        return None, _refusal(str(error), plain), plain


def _refusal(message: str, plain: dict) -> Refusal:
    """msgspec's message -> reason code and field."""
    found = _FIELD.search(message) or _NAMED.search(message)
    field = found[1] if found else ""
    if "missing required field" in message:
        named = _NAMED.search(message)
        field = named[1] if named else field
        return Refusal(refusals.UNKNOWN_TYPE if field == "type" else refusals.MISSING_FIELD, message, field)
    if field == "type":
        return Refusal(refusals.UNKNOWN_TYPE, f"type {plain.get('type')!r} is not an event of this topic", field)
    if field == "version":
        return Refusal(
            refusals.UNKNOWN_VERSION, f"version {plain.get('version')!r}; this engine reads version 1", field
        )
    if "unknown field" in message:
        return Refusal(refusals.UNKNOWN_FIELD, message, field)
    if _TYPE.match(message):
        return Refusal(refusals.WRONG_TYPE, message, field)
    return Refusal(refusals.OUT_OF_RANGE, message, field)


def encode(value: Struct | dict | list) -> bytes:
    """JSON bytes of an output or input, fields in their declared order."""
    return orjson.dumps(value if isinstance(value, dict | list) else msgspec.to_builtins(value))


def decode_output(raw: bytes) -> dict:
    """JSON bytes of an output -> plain dict."""
    return orjson.loads(raw)
