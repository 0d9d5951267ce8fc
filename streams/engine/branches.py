"""The sequencer's memory of blocks: those closed, back to the finality depth, and the tree of those announced.

The head is the block that was announced last among those that connect, through announced parents, to a remembered
closed block: whoever reads the chain announces what its node calls the head, and is followed, whether that branch is
heavier or not. Where it connects below the last closed block the chain has reorganised. All of this is a function of
the prefix of `chain.blocks` and of the decisions carried out.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from schemas import refusals
from schemas.refusals import Refusal


class ClosedBlock(NamedTuple):
    """A closed block and what going back to it takes: `ticks` packs the sequencer's market at its close, `taken` the
    ticks that were taken for it."""

    event: dict
    ticks: bytes
    taken: bytes


def packed(plain: object) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(plain), 1)


def unpacked(raw: bytes) -> object:
    return msgspec.msgpack.decode(zlib.decompress(raw))


class Branches:
    """See the module's head. `path` are the hashes to close next, `fork` the number of the block that they follow."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.closed: deque[ClosedBlock] = deque()
        self.announced: dict[str, dict] = {}  # hash -> block, in the order of their first announcement
        self.path: deque[str] = deque()
        self.fork = -1
        self.unreachable = ""  # hash of a head that left a final block
        self._children: dict[str, list[str]] = {}

    # -- asking

    @property
    def tip(self) -> dict | None:
        """The last closed block."""
        return self.closed[-1].event if self.closed else None

    def next_block(self) -> dict | None:
        """The block that closes next, if it has been announced and nothing must be undone for it."""
        if not self.path or self.is_off():
            return None
        return self.announced[self.path[0]]

    def is_off(self) -> bool:
        """Does the head belong to another branch than the last closed block?"""
        return bool(self.closed) and (self.fork < self.closed[-1].event["number"] or bool(self.unreachable))

    def hash_at(self, number: int) -> str | None:
        """Hash of a remembered closed block."""
        if not self.closed:
            return None
        place = number - self.closed[0].event["number"]
        return self.closed[place].event["hash"] if 0 <= place < len(self.closed) else None

    def is_final(self, number: int) -> bool:
        """No block of this number can come into the chain any more."""
        return bool(self.closed) and number <= self.closed[0].event["number"]

    def with_number(self, number: int) -> list[str]:
        """Hashes announced for a number, not closed."""
        return [h for h, block in self.announced.items() if block["number"] == number]

    def path_blocks(self) -> Iterator[dict]:
        return (self.announced[h] for h in self.path)

    # -- announcements

    def announce(self, event: dict) -> Refusal | bool:
        """Take a block; False if it is known already."""
        number, block_hash = event["number"], event["hash"]
        known = self.announced.get(block_hash)
        if known is not None and known != event:
            return Refusal(refusals.BLOCK_CONFLICT, f"block {number} was announced with other content", "number")
        if known is not None or self.hash_at(number) == block_hash:
            return False
        if self.is_final(number):
            final = self.hash_at(number)
            detail = f"block {number} is closed with hash {final}, and final"
            return Refusal(refusals.BLOCK_CONFLICT, detail, "hash") if final is not None else False
        self._add(event)
        if self._follows(event):
            self.path.append(block_hash)
            self._go_on()
        elif self.closed:
            self._follow(block_hash)
        else:
            self._choose_first()
        return True

    def _add(self, event: dict) -> None:
        self.announced[event["hash"]] = event
        self._children.setdefault(event["parent_hash"], []).append(event["hash"])

    def _follows(self, event: dict) -> bool:
        """Does it simply come behind the head?"""
        last = self._last()
        return last is not None and not self.unreachable and _is_child(event, last)

    def _last(self) -> dict | None:
        return self.announced[self.path[-1]] if self.path else self.tip

    def _go_on(self) -> None:
        """On from the end of the path to the newest announced child of each block."""
        while (last := self._last()) is not None:
            found = [h for h in self._children.get(last["hash"], ()) if _is_child(self.announced[h], last)]
            if not found:
                return
            self.path.append(found[-1])

    def _follow(self, block_hash: str) -> None:
        """The block is the newest: it is the head if it connects."""
        chain = self._ancestry(block_hash)
        before = self.announced[chain[0]]["number"] - 1
        if self.hash_at(before) == self.announced[chain[0]]["parent_hash"]:
            self.path, self.fork, self.unreachable = chain, before, ""
            self._go_on()
        elif self.is_final(before) and self.announced[block_hash]["number"] > self.closed[-1].event["number"]:
            self.unreachable = block_hash

    def _choose_first(self) -> None:
        """Nothing is closed yet: the lowest number announced, the newest block of it."""
        lowest = min(block["number"] for block in self.announced.values())
        self.path = deque(self.with_number(lowest)[-1:])
        self._go_on()

    def _ancestry(self, block_hash: str) -> deque[str]:
        """From the first announced ancestor to the block."""
        chain = deque([block_hash])
        while True:
            first = self.announced[chain[0]]
            parent = self.announced.get(first["parent_hash"])
            if parent is None or not _is_child(first, parent):
                return chain
            chain.appendleft(parent["hash"])

    # -- decisions

    def close(self, block: ClosedBlock) -> None:
        """A block was closed: what is beyond the finality depth is forgotten."""
        number, block_hash = block.event["number"], block.event["hash"]
        is_first, is_next = not self.closed, bool(self.path) and self.path[0] == block_hash
        self._forget(block_hash)
        self.closed.append(block)
        while len(self.closed) > self.depth + 1:
            self.closed.popleft()
        if is_next:
            self.path.popleft()
            self.fork = number
        elif is_first:
            self.path, self.fork = deque(), number
            self._go_on()
        elif self.path and self.hash_at(self.fork) is None:
            self.path, self.fork, self.unreachable = deque(), number, self.path[-1]
        if len(self.announced) > len(self.path):
            for gone in [h for h, b in self.announced.items() if self.is_final(b["number"])]:
                self._forget(gone)

    def _forget(self, block_hash: str) -> None:
        parent = self.announced.pop(block_hash)["parent_hash"]
        self._children[parent].remove(block_hash)
        if not self._children[parent]:
            del self._children[parent]

    def go_back(self, number: int) -> list[ClosedBlock]:
        """Closed blocks above `number` are announced ones again, older than all others; returns them."""
        gone: list[ClosedBlock] = []
        while self.closed and self.closed[-1].event["number"] > number:
            gone.insert(0, self.closed.pop())
        newer = list(self.announced.values())
        self.announced, self._children = {}, {}
        for event in [block.event for block in gone] + newer:
            self._add(event)
        if self.path:
            chain = self._ancestry(self.path.popleft())
            self.path, self.fork = chain + self.path, self.announced[chain[0]]["number"] - 1
        elif self.closed:
            self.fork = self.closed[-1].event["number"]
        return gone

    # -- checkpoint

    def to_plain(self) -> dict:
        return {
            "depth": self.depth,
            "closed": [list(block) for block in self.closed],
            "announced": list(self.announced.values()),
            "path": list(self.path),
            "fork": self.fork,
            "unreachable": self.unreachable,
        }

    @classmethod
    def from_plain(cls, plain: dict) -> Branches:
        branches = cls(plain["depth"])
        branches.closed = deque(ClosedBlock(*block) for block in plain["closed"])
        for event in plain["announced"]:
            branches._add(event)
        branches.path, branches.fork = deque(plain["path"]), plain["fork"]
        branches.unreachable = plain["unreachable"]
        return branches


def _is_child(event: dict, parent: dict) -> bool:
    return event["parent_hash"] == parent["hash"] and event["number"] == parent["number"] + 1
