"""Which records of market.log are decisions: by the holder of the last fence, the first record of every number."""

from __future__ import annotations

from collections.abc import Mapping

from schemas import log_records as records
from streams.engine.output import Fault


class DecisionLog:
    """What a reader of market.log remembers: the token of the last fence, the number of the last decision."""

    def __init__(self, holder: bytes = b"", number: int = 0) -> None:
        self.holder, self.number = holder, number

    def take(self, raw: bytes, headers: Mapping[str, bytes]) -> records.Header | None:
        """The header of a decision; None for a fence, a seal, a repeat, and what came behind another's fence."""
        header = records.read_header(raw)
        if header.kind == records.FENCE:
            self.holder = raw[records.HEADER.size :]
            return None
        void = headers.get("token", self.holder) != self.holder
        if void or header.kind == records.SEAL or header.number <= self.number:
            return None
        if header.number != self.number + 1:
            raise Fault(f"market.log jumps to {header.number}, expected {self.number + 1}")
        self.number = header.number
        return header
