"""The observer of a chaos run: it knows which partitions were halted on purpose."""

from __future__ import annotations

from typing import Any

from schemas.events import Block
from schemas.topics import BLOCKS_DONE
from streams.pipeline.observe import Observer
from streams.runtime.settings import RuntimeSettings


class ChaosObserver(Observer):
    """`may_halt`: partition -> the record that halts it; such a partition is waited for no more."""

    def __init__(self, settings: RuntimeSettings, partitions: int, may_halt: dict[int, bytes]) -> None:
        super().__init__(settings, partitions, lambda *_: None)
        self.may_halt = may_halt
        self.halted: set[int] = set()

    def _take_done(self, partition: int, value: dict[str, Any], timestamp_ms: int) -> None:
        if value["halted"] and partition in self.may_halt:
            self.halted.add(partition)
        else:
            super()._take_done(partition, value, timestamp_ms)

    def going(self) -> list[int]:
        return [p for p in range(self.partitions) if p not in self.halted]

    def progress(self) -> int:
        """How many new records of `blocks.done` the slowest partition has."""
        return min((self.once[BLOCKS_DONE, p].last for p in self.going()), default=0)

    def is_done(self, block: int) -> bool:
        return all((block, p) in self.done_ms for p in self.going())

    def has_done(self, block: Block) -> bool:
        """Every partition has done this very block, not only one of its number."""
        done = self.done.get(block.number, {})
        return all(done.get(p, {}).get("block_hash") == block.hash for p in self.going())
