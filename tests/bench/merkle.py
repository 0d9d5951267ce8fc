"""Merkle roots of the margins of 100,000 accounts: built whole, and after 1 % of them changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oracles.merkle import MerkleTree, leaf_hashes, margin_leaves
from tests.bench.rows import Row, checksum, peak_memory_mb, side_by_side
from tests.merkle_twin import tree

PEER = "the same tree in Python, a pycryptodome keccak per hash"
PEER_ACCOUNTS = 5_000


def rows(small: bool) -> Iterator[Row]:
    """Two rows; the peer is measured on fewer accounts and scaled by their number."""
    accounts = 300 if small else 100_000
    fewer = min(accounts, 100 if small else PEER_ACCOUNTS)
    leaves = _leaves(accounts, 0)
    sample = [row.tobytes() for row in leaves[:fewer]]
    expected = MerkleTree(leaf_hashes(leaves[:fewer])).root
    assert tree(sample)[0] == expected, "the twin has another root"
    changed = np.random.default_rng(1).permutation(accounts)[: accounts // 100]
    new = _leaves(accounts, 2)[changed]
    kept = MerkleTree(leaf_hashes(leaves))

    def whole() -> None:
        MerkleTree(leaf_hashes(leaves))

    def update() -> None:
        kept.update(changed, leaf_hashes(new))

    seconds = side_by_side(whole, update, lambda: tree(sample), repeats=3 if small else 5).seconds
    peer = seconds[2] * accounts / fewer
    after = leaves.copy()
    after[changed] = new
    assert kept.root == MerkleTree(leaf_hashes(after)).root, "the update gives another root than a tree built anew"
    for name, taken, root, goal in (
        ("Merkle root of margins, full", seconds[0], MerkleTree(leaf_hashes(leaves)).root, 20.0),
        ("Merkle root of margins, 1 % changed", seconds[1], kept.root, None),
    ):
        ratio = peer / taken
        yield Row(
            name=name,
            value=round(taken * 1e3, 2),
            unit="ms",
            peer=f"{PEER} ({peer * 1e3:.0f} ms, scaled from {fewer} accounts)",
            ratio=round(ratio, 1),
            goal="" if goal is None else f">= {goal:g}x",
            ok=None if goal is None or small else ratio >= goal,
            size=f"{accounts} accounts",
            memory_mb=peak_memory_mb(),
            checksum=checksum(np.frombuffer(root, np.uint8)),
        )


def _leaves(accounts: int, seed: int) -> np.ndarray:
    amounts = np.random.default_rng(seed).integers(0, 10**12, (3, accounts))
    return margin_leaves([f"account-{n:06d}" for n in range(accounts)], *amounts)
