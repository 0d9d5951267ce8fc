"""Blocks of a replay: hashes, counts, parent links."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from msgspec import Struct

from schemas.events import AccountEvent, Block
from streams.replay.world import BlockInputs

NO_PARENT = "0x" + "00" * 32


def block_hash(world: str, number: int) -> str:
    """Hash of a block of a source that has none: blake2b-256 of "world:number"."""
    return "0x" + hashlib.blake2b(f"{world}:{number}".encode(), digest_size=32).hexdigest()


class BlockChain:
    """Makes the blocks of one world in order, each with its parent's hash and its counts."""

    def __init__(self, world: str, listing_count: int) -> None:
        self.world = world
        self.listing_count = listing_count
        self.parent_hash = NO_PARENT

    def block(
        self, number: int, time_ms: int, events: Sequence[AccountEvent | dict], ticks: Sequence[Struct | dict]
    ) -> BlockInputs:
        """The next block with its inputs."""
        block = Block(
            version=1,
            number=number,
            hash=block_hash(self.world, number),
            parent_hash=self.parent_hash,
            time_ms=time_ms,
            event_count=len(events),
            tick_count=len(ticks),
            listing_count=self.listing_count,
        )
        self.parent_hash = block.hash
        return BlockInputs(block, list(events), list(ticks))
