"""Scenario sets and residual banks as records of `scenario.sets`: chunks under the broker's limit, manifest last."""

from __future__ import annotations

import orjson

from schemas.topics import SCENARIO_SETS
from streams.engine.output import Output

CHUNK_BYTES = 500_000


def set_records(raw: bytes, digest: str) -> list[Output]:
    """Records that carry these bytes under their digest; appending them again changes nothing."""
    chunks = [raw[at : at + CHUNK_BYTES] for at in range(0, len(raw), CHUNK_BYTES)]
    found = [Output(SCENARIO_SETS, 0, f"{digest}/{n}".encode(), chunk) for n, chunk in enumerate(chunks)]
    manifest = orjson.dumps({"chunks": len(chunks), "bytes": len(raw)})
    return [*found, Output(SCENARIO_SETS, 0, f"{digest}/manifest".encode(), manifest)]
