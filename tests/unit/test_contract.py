"""The published contract: up to date, valid, and saying what the code does."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import make_samples as samples
from engine_worlds import random_world

from schemas.codec import decode_inputs, encode
from schemas.events import INPUT_TYPES
from schemas.risk_parameters import VenueStress
from streams import contract
from streams.gateway.hub import CHANNELS, Hub
from streams.gateway.margins import MarginReplica
from streams.gateway.rpc import Rpc

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "infra" / "schema"
VALIDATORS = {
    name: jsonschema.Draft202012Validator(contract.json_schema(name)) for name in contract.schema_names()
}  # fmt: skip
SAMPLES = [(topic, orjson.loads(encode(value))) for topic, value in samples.INPUTS.values()]


def admits(topic: str, value: Any) -> bool:
    return VALIDATORS[topic].is_valid(value)


def takes(topic: str, raw: bytes) -> bool:
    return all(refusal is None for _, refusal, _ in decode_inputs(topic, raw))


# -- up to date and valid


def test_the_committed_documents_are_those_of_the_code() -> None:
    """`dpme schema --write infra/schema` writes them anew."""
    assert {path.name: path.read_bytes() for path in COMMITTED.iterdir()} == contract.files()


@pytest.mark.parametrize("name", contract.schema_names())
def test_json_schemas_are_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(contract.json_schema(name))


def test_the_asyncapi_document_is_valid() -> None:
    """Against the schema of AsyncAPI 3.0.0 from npm's @asyncapi/specs 6.11.1 (Apache-2.0); and that schema bites."""
    packed = (ROOT / "tests" / "reference" / "vectors" / "asyncapi_3.0.0.json.gz").read_bytes()
    validator = jsonschema.Draft7Validator(json.loads(gzip.decompress(packed)))
    document = contract.asyncapi()
    validator.validate(document)
    for broken in ({"asyncapi": "2.0.0"}, {"operations": {"x": {"action": "shout"}}}, {"channels": {"x": {"ad": 1}}}):
        assert not validator.is_valid({**document, **broken})


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = contract.asyncapi()
    found = list(_references(document))
    assert len(found) > 50
    for reference in found:
        held = document
        for part in reference.removeprefix("#/").split("/"):
            held = held[part.replace("~1", "/").replace("~0", "~")]


def _references(value: Any) -> Any:
    if isinstance(value, dict):
        yield from (held for name, held in value.items() if name == "$ref")
        value = list(value.values())
    if isinstance(value, list):
        for held in value:
            yield from _references(held)


# -- what is said is so


@pytest.mark.parametrize(("topic", "plain"), SAMPLES)
def test_golden_inputs_are_admitted(topic: str, plain: dict) -> None:
    VALIDATORS[topic].validate(plain)
    VALIDATORS[topic].validate([plain, plain])


def test_golden_outputs_are_as_the_schema_says() -> None:
    named = {
        "block_done": "blocks.done",
        "block_done_rollback": "blocks.done",
        "margin_calls_retracted": "margin.calls",
        "liquidations_confirmed": "liquidations",
        "liquidations_bids": "liquidations",
        "quarantined": "quarantine",
        "venue_part": "venue.parts",
        "risk_parameters": contract.PARAMETERS,
        "risk_parameters_oracles": contract.PARAMETERS,
    }
    for name, value in samples.OUTPUTS.items():
        VALIDATORS[named.get(name, name.replace("_", "."))].validate(orjson.loads(encode(value)))


def test_outputs_of_a_run_are_as_the_schema_says() -> None:
    run = random_world(3, venue=VenueStress()).pipeline(2)
    for topic in contract.OUTPUT_TYPES:
        values = run.values(topic)
        assert values, topic
        for value in values:
            VALIDATORS[topic].validate(orjson.loads(value))


def test_every_method_and_channel_of_the_gateway_is_documented() -> None:
    assert set(contract.METHODS) == set(Rpc(Hub("epoch"), MarginReplica()).methods)
    assert set(contract.CHANNEL_TYPES) == set(CHANNELS)


# -- schema and intake agree

NUMBERS = st.sampled_from(
    [-(2**63), -(10**12), -1, 0, 1, 6, 7, 10**6, 10**9, 2**31, 2**40, 2**43, 10**17, 2**53, 2**64]
)
OTHER = NUMBERS | st.sampled_from(
    [None, True, False, 0.5, "", "x", "x" * 64, "x" * 65, "é" * 64, "a\n", "a\x00", "0x" + "a" * 64, "0x" + "a" * 65,
     "0x" + "A" * 64, "0x" + "a" * 64 + "\n", "a" * 64, "spot", "call", "cash", "add", "set", "fill", [], {}, [1]]
)  # fmt: skip
EXTRA = st.sampled_from(["more", "type", "id", "expiry_ms", "fee_usd6", "mode", "bid_usd9", "tick_count"])


@st.composite
def mutated(draw: Any) -> tuple[str, Any]:
    """A golden input with some fields changed, dropped or added; perhaps an array; perhaps on another topic."""
    topic, good = draw(st.sampled_from(SAMPLES))
    events = []
    for _ in range(draw(st.integers(1, 3))):
        event = dict(good)
        for _ in range(draw(st.integers(0, 2))):
            field = draw(st.sampled_from(sorted(good)) | EXTRA)
            if draw(st.integers(0, 4)) == 0:
                event.pop(field, None)
            else:
                event[field] = draw(OTHER)
        events.append(event)
    if draw(st.integers(0, 9)) == 0:
        topic = draw(st.sampled_from(sorted(INPUT_TYPES)))
    return topic, events if len(events) > 1 else events[0]


@given(mutated())
def test_what_the_schema_admits_the_intake_takes_and_the_other_way_round(case: tuple[str, Any]) -> None:
    topic, value = case
    assert admits(topic, value) == takes(topic, orjson.dumps(value) if _fits(value) else json.dumps(value).encode())


def _fits(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return False
    return True


@pytest.mark.parametrize(("topic", "plain"), SAMPLES)
def test_each_field_alone(topic: str, plain: dict) -> None:
    """Every field with every odd value, one at a time."""
    odd = [None, True, 0.5, "", "x" * 65, "a\n", -(2**63), -1, 0, 2**43, 10**17 + 1, 2**63, [], {}]
    for field in plain:
        for value in odd:
            changed = {**plain, field: value}
            assert admits(topic, changed) == takes(topic, orjson.dumps(changed)), (field, value)
        dropped = {k: v for k, v in plain.items() if k != field}
        assert admits(topic, dropped) == takes(topic, orjson.dumps(dropped)), field


@pytest.mark.parametrize("topic", INPUT_TYPES)
@pytest.mark.parametrize("value", [[], {}, 17, "x", None, True, [[]], [None]])
def test_what_is_no_event(topic: str, value: Any) -> None:
    assert not admits(topic, value)
    assert not takes(topic, orjson.dumps(value))


def test_json_schema_cannot_tell_one_from_one_point_zero() -> None:
    """The one known difference, and the reason why it is documented: the intake is the stricter one."""
    topic, plain = SAMPLES[2]
    assert admits(topic, {**plain, "lots": -3.0})
    assert not takes(topic, orjson.dumps({**plain, "lots": -3.0}))


# -- samples of every version are read for ever

VERSIONS = sorted(path for path in (ROOT / "tests" / "golden").iterdir() if path.is_dir() and path.name[0] == "v")
KEPT = [path for folder in VERSIONS for path in sorted(folder.iterdir())]


def test_versions_are_kept_as_they_were() -> None:
    """A folder is only ever added: a sample that changed would prove nothing."""
    digests = {}
    for folder in VERSIONS:
        digest = hashlib.blake2b(digest_size=16)
        for path in sorted(folder.iterdir()):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        digests[folder.name] = digest.hexdigest()
    assert digests == {"v1": "5d190bdd18f10452c32e0fac5ecfcf1e", "v2": "9f8ebadac8d8f5fa19aba0e539085f4b"}


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_samples_of_every_version_are_read(path: Path) -> None:
    raw, name = path.read_bytes(), path.stem
    if path.suffix == ".json":
        _read_json(name, raw)
    elif path.suffix == ".arrow":
        head, table = _batch(raw)
        assert (head.block, table.num_rows) == (17, 2)
    else:
        _read_record(name, raw)


def _read_json(name: str, raw: bytes) -> None:
    """Read by today's types with every value it was written with."""
    if name in samples.INPUTS:
        topic, value = samples.INPUTS[name]
        ((found, refusal, _),) = decode_inputs(topic, raw)
        assert refusal is None
        VALIDATORS[topic].validate(orjson.loads(raw))
        assert type(found) is type(value)
    else:
        found = msgspec.json.decode(raw, type=type(samples.OUTPUTS[name]))
    assert _within(orjson.loads(raw), orjson.loads(encode(found)))


def _within(old: Any, new: Any) -> bool:
    """Everything of `old` stands in `new`, which may have more fields."""
    if isinstance(old, dict):
        return all(name in new and _within(value, new[name]) for name, value in old.items())
    if isinstance(old, list):
        return len(old) == len(new) and all(_within(a, b) for a, b in zip(old, new, strict=True))
    return old == new


def _batch(raw: bytes) -> Any:
    from schemas.margin_batch import decode_batch

    return decode_batch(raw)


def _read_record(name: str, raw: bytes) -> None:
    from schemas import log_records as r

    header = r.read_header(raw)
    if header.version == 2:  # the layout is that of version 3: what is read of one is read of the other
        assert raw[1:] == samples.RECORDS[name][1:]
    elif name == "market":
        found = r.read_market(raw, header)
        assert (found.spots.tolist(), len(found.expiries)) == (samples.SPOTS.tolist(), 1)
    elif name == "barrier":
        assert r.read_barrier(raw, header).counts.tolist() == [3, 0, 1, 0]
    elif name == "events":
        assert r.read_events(raw, header).names == ["alice", "bób"]
    elif name == "listings":
        assert r.read_listings(raw) == [{"type": "underlying", "underlying": "Ω"}]
    else:
        assert (name, header.kind) == ("fence", r.FENCE)
