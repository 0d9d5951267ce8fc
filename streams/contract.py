"""The public contract as documents, made from the message types: JSON Schema (2020-12) a topic, and one AsyncAPI 3.

What JSON Schema cannot say and the intake demands all the same: whole numbers are written without point or exponent,
a record has at most 4 MiB and 32 levels, ids are unique, and what the catalogue and the market make of an event.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from schemas import decisions, topics, venue
from schemas.events import INPUT_TYPES, RECORD_EVENTS_MAX
from schemas.risk_parameters import RiskParameters
from streams.gateway.hub import CHANNELS
from streams.gateway.rpc import ChannelParams, MarginParams, Params, ReplayParams

Document = dict[str, Any]

CONTRACT_VERSION = "1.0.0"
OUTPUT_TYPES: dict[str, type] = {
    topics.MARGIN_WARNINGS: decisions.WarningRecord,
    topics.MARGIN_CALLS: decisions.CallRecord,
    topics.LIQUIDATIONS: decisions.LiquidationRecord,
    topics.VENUE_PARTS: venue.VenuePart,
    topics.VENUE_STRESS: venue.VenueStressRecord,
    topics.BLOCKS_DONE: decisions.BlockDone,
    topics.QUARANTINE: decisions.Quarantined,
}
PARAMETERS = "risk.parameters"  # the document of a `parameters` listing
CHANNEL_TYPES: dict[str, type] = {
    "margin.warnings": decisions.MarginWarning,
    "margin.calls": decisions.Call,
    "liquidations": decisions.Liquidation,
    "risk.blocks": decisions.BlockDone,
}
METHODS: dict[str, type] = {
    "public/hello": Params,
    "public/subscribe": ChannelParams,
    "public/unsubscribe": ChannelParams,
    "public/replay": ReplayParams,
    "public/get_margin": MarginParams,
}


def schema_names() -> tuple[str, ...]:
    """Names of all JSON Schemas: the topics in JSON, and the parameter document."""
    return (*INPUT_TYPES, *OUTPUT_TYPES, PARAMETERS)


def json_schema(name: str) -> Document:
    """The JSON Schema of a record of a topic (or of the parameter document), whole in itself."""
    found, definitions = _schemas({**INPUT_TYPES, **OUTPUT_TYPES, PARAMETERS: RiskParameters}[name], "#/$defs/")
    body = {"anyOf": [found, _array_of(found)]} if name in INPUT_TYPES else found
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:dpme:schema:v1:{name}",
        "title": name,
        **body,
        "$defs": definitions,
    }


def asyncapi() -> Document:
    """AsyncAPI 3.0: the topics on Kafka and the gateway's WebSocket."""
    channels, operations = {}, {}
    for name in (*INPUT_TYPES, *OUTPUT_TYPES, topics.MARGIN_BATCHES):
        channels[name] = _topic_channel(name)
        operations[_operation(name)] = _on(name, "receive" if name in INPUT_TYPES else "send")
    channels["gateway"] = _gateway_channel()
    operations["answer"] = _on("gateway", "receive", [_key(method) for method in METHODS])
    operations["push"] = _on("gateway", "send", [*map(_key, CHANNELS), "response"])
    types = [*INPUT_TYPES.values(), *OUTPUT_TYPES.values(), *CHANNEL_TYPES.values(), *METHODS.values(), RiskParameters]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "DPME",
            "version": CONTRACT_VERSION,
            "description": "Inputs anyone may produce, decisions anyone may follow. Money and quantities are integers.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {"host": "127.0.0.1:9092", "protocol": "kafka"},
            "gateway": {"host": "127.0.0.1:8765", "protocol": "ws"},
        },
        "channels": channels,
        "operations": operations,
        "components": {"schemas": _schemas(tuple(types), "#/components/schemas/")[1]},
    }


def files() -> dict[str, bytes]:
    """File name -> bytes of every document."""
    found = {f"{name}.schema.json": json_schema(name) for name in schema_names()} | {"asyncapi.json": asyncapi()}
    return {name: text(document) for name, document in found.items()}


def text(document: Document) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def write(folder: Path) -> list[Path]:
    """Write every document into a folder; -> their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files()]


# -- JSON Schema


def _schemas(types: Any, prefix: str) -> tuple[Any, Document]:
    """(schema of a type, or of a tuple of them; definitions that they refer to under `prefix`)."""
    each = types if isinstance(types, tuple) else (types,)
    found, definitions = msgspec.json.schema_components(each, ref_template=prefix + "{name}")
    tidied = [_tidy(schema) for schema in found]
    return tidied if isinstance(types, tuple) else tidied[0], _tidy(definitions)


def _tidy(value: Any) -> Any:
    """Without OpenAPI's `discriminator`, which neither JSON Schema nor AsyncAPI knows; descriptions on one line."""
    if isinstance(value, list):
        return [_tidy(held) for held in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _tidy(held) for name, held in value.items() if name != "discriminator"}
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split())
    return kept


def _array_of(schema: Document) -> Document:
    return {"type": "array", "minItems": 1, "maxItems": RECORD_EVENTS_MAX, "items": schema}


# -- AsyncAPI


def _key(name: str) -> str:
    """Names within the document: no dots or slashes."""
    return name.replace(".", "_").replace("/", "_")


def _operation(topic: str) -> str:
    return f"{'read' if topic in INPUT_TYPES else 'write'}_{_key(topic)}"


def _reference(*parts: str) -> Document:
    """JSON pointer, escaped."""
    return {"$ref": "#/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)}


def _on(channel: str, action: str, messages: list[str] | None = None) -> Document:
    found: Document = {"action": action, "channel": _reference("channels", channel)}
    if messages is not None:
        found["messages"] = [_reference("channels", channel, "messages", name) for name in messages]
    return found


def _topic_channel(topic: str) -> Document:
    return {
        "address": "{prefix}" + topic,
        "servers": [_reference("servers", "kafka")],
        "parameters": {"prefix": {"description": "Prefix of the installation.", "default": "dpme."}},
        "messages": _topic_messages(topic),
    }


def _topic_messages(topic: str) -> Document:
    if topic == topics.MARGIN_BATCHES:
        told = "Every account's margin of a partition and block: an Arrow IPC stream (schemas/margin_batch.py)."
        return {"batch": {"contentType": "application/vnd.apache.arrow.stream", "summary": told}}
    if topic in OUTPUT_TYPES:
        return {"record": {"payload": _schemas(OUTPUT_TYPES[topic], "#/components/schemas/")[0]}}
    union: Any = INPUT_TYPES[topic]
    found, _ = _schemas(union, "#/components/schemas/")
    events = {
        kind.__struct_config__.tag: {"payload": _schemas(kind, "#/components/schemas/")[0]}
        for kind in getattr(union, "__args__", (union,))
    }
    return {**events, "array": {"summary": "Several events as one record.", "payload": _array_of(found)}}


def _gateway_channel() -> Document:
    messages = {_key(method): {"payload": _request(method)} for method in METHODS}
    messages |= {_key(channel): {"payload": _notification(channel)} for channel in CHANNELS}
    messages["response"] = {"payload": _response()}
    return {
        "address": "/",
        "description": "JSON-RPC 2.0 in text frames; infra/docs/websocket.md has the protocol.",
        "servers": [_reference("servers", "gateway")],
        "messages": messages,
    }


def _request(method: str) -> Document:
    params, _ = _schemas(METHODS[method], "#/components/schemas/")
    return {
        "type": "object",
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["integer", "string"]},
            "method": {"const": method},
            "params": params,
        },
        "required": ["method"] if METHODS[method] is Params else ["method", "params"],
    }


def _notification(channel: str) -> Document:
    data, _ = _schemas(CHANNEL_TYPES[channel], "#/components/schemas/")
    numbers = {name: {"type": "integer", "minimum": 0} for name in ("partition", "seq", "prev_seq")}
    params = {"channel": {"const": channel}, "epoch": {"type": "string"}, **numbers, "data": data}
    return {
        "type": "object",
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "method": {"const": "subscription"},
            "params": {"type": "object", "properties": params, "required": list(params)},
        },
        "required": ["jsonrpc", "method", "params"],
    }


def _response() -> Document:
    error = {"code": {"type": "integer"}, "message": {"type": "string"}, "data": {"type": "object"}}
    return {
        "type": "object",
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["integer", "string", "null"]},
            "result": {"type": "object"},
            "error": {"type": "object", "properties": error, "required": ["code", "message"]},
        },
        "required": ["jsonrpc", "id"],
    }
