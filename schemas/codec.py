"""JSON of single events: bytes -> events or refusals, outputs -> bytes."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from schemas import refusals
from schemas.events import INPUT_TYPES
from schemas.refusals import Refusal

_FIELD = re.compile(r"at `\$\.?([^`]*)`")
_NAMED = re.compile(r"field `([^`]*)`")


def decode_inputs(topic: str, raw: bytes | None) -> list[tuple[Any, Refusal | None, dict | None]]:
    """One record of an input topic -> [(event, None, plain) | (None, refusal, plain or None)], one entry an event.

    A record holds one event or an array of events; one bad event of an array costs only itself.
    """
    try:
        plain = orjson.loads(raw if raw is not None else b"")
    except orjson.JSONDecodeError as error:
        return [(None, Refusal(refusals.MALFORMED, f"not JSON: {error}"), None)]
    items = plain if isinstance(plain, list) else [plain]
    if not items:
        return [(None, Refusal(refusals.MALFORMED, "empty array"), None)]
    return [_decode_one(topic, item) for item in items]


def _decode_one(topic: str, plain: Any) -> tuple[Any, Refusal | None, dict | None]:
    if not isinstance(plain, dict):
        return None, Refusal(refusals.MALFORMED, f"an event is a JSON object, not {type(plain).__name__}"), None
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
    if re.match(r"Expected `\w+`, got", message):
        return Refusal(refusals.WRONG_TYPE, message, field)
    return Refusal(refusals.OUT_OF_RANGE, message, field)


def encode(value: Struct | dict | list) -> bytes:
    """JSON bytes of an output or input, fields in their declared order."""
    return orjson.dumps(value if isinstance(value, dict | list) else msgspec.to_builtins(value))


def decode_output(raw: bytes) -> dict:
    """JSON bytes of an output -> plain dict."""
    return orjson.loads(raw)
