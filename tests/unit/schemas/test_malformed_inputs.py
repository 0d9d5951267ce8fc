"""Every field of every input with every wrong type, and what is nearly JSON: always a refusal that names the field."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "golden"))
import make_samples as samples

from schemas import refusals
from schemas.codec import decode_inputs, encode, own_bytes
from schemas.topics import INPUTS
from streams.engine.intake import Intake

WRONG: dict[type, list[Any]] = {
    int: ["1", 1.5, 1.0, True, None, [], {}, [1], -(2**63), 2**64 - 1],
    str: [1, True, None, [], {}, ["x"], "", "x" * 5_000, "a\x00b", "a\nb"],
    bool: [0, 1, "true", None, []],
    dict: [[], "{}", 1, None],
}
FIELDS = [
    (name, field)
    for name, (_, value) in samples.INPUTS.items()
    for field in msgspec.to_builtins(value)
    if msgspec.to_builtins(value)[field] is not None
]
NOT_WRONG = {"tick_count", "listing_count", "expiry_ms", "strike_usd9", "bid_usd9", "ask_usd9"}  # null says: none
NULL_IN_TRANSFERS = {"instrument", "price_usd9"}


def judged(topic: str, raw: bytes) -> list:
    """Refusals of a record, by the waiting room: it must not fail, and its state must be writable."""
    intake = Intake(64, 64)
    found = intake.read(topic, 0, 0, raw, 2_000)
    msgspec.msgpack.encode(intake.to_plain())
    return found


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_wrong_type_names_the_field(name: str, field: str) -> None:
    topic, value = samples.INPUTS[name]
    good = orjson.loads(encode(value))
    for wrong in WRONG[type(good[field])]:
        if wrong is None and (field in NOT_WRONG or (name.startswith("transfer") and field in NULL_IN_TRANSFERS)):
            continue
        (refused,) = judged(topic, orjson.dumps({**good, field: wrong}))
        refusal = refused.refusal
        assert refusal.field == field, wrong
        assert refusal.reason in (
            {"type": refusals.UNKNOWN_TYPE, "version": refusals.UNKNOWN_VERSION}.get(field),
            refusals.OUT_OF_RANGE if type(wrong) is type(good[field]) else refusals.WRONG_TYPE,
        ), wrong


@pytest.mark.parametrize("name", samples.INPUTS)
def test_cut_bytes_are_malformed_and_kept(name: str) -> None:
    topic, value = samples.INPUTS[name]
    raw = encode(value)
    for cut in range(len(raw)):
        (refused,) = judged(topic, raw[:cut])
        assert (refused.refusal.reason, refused.raw) == (refusals.MALFORMED, raw[:cut])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda held: st.lists(held, max_size=4) | st.dictionaries(st.text(max_size=8), held, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(INPUTS), st.binary(max_size=60))
def test_any_bytes_are_judged(topic: str, raw: bytes) -> None:
    assert all(refused.raw == raw for refused in judged(topic, raw))


@given(st.sampled_from(INPUTS), st.lists(JSON, max_size=5), st.sampled_from([None, 1, "  "]))
def test_any_json_is_judged_and_each_event_keeps_its_own_bytes(topic: str, items: list, indent: Any) -> None:
    parts = [json.dumps(item, indent=indent) for item in items]
    raw = ("[" + " ,".join(parts) + "]").encode()
    found = judged(topic, raw)
    if len(parts) > 1:
        assert [refused.raw for refused in found] == [part.encode() for part in parts]
    plains = [plain for _, _, plain in decode_inputs(topic, raw)]
    kept = [own or orjson.dumps(plain) for own, plain in zip(own_bytes(raw, plains), plains, strict=True)]
    assert kept == ([part.encode() for part in parts] if len(parts) > 1 else [raw])
