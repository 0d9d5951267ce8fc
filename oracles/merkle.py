"""Merkle trees over scenario sets, P&L tables and margins, verifiable by OpenZeppelin's ``MerkleProof`` contracts.

The tree is that of OpenZeppelin's StandardMerkleTree with unsorted leaves: an array of 2N - 1 nodes, root first, the
children of node n at 2n + 1 and 2n + 2, leaf i at 2N - 2 - i. A node is the hash of its two children, the smaller
first; a leaf is hashed twice, so that no node can be shown as a leaf. Leaves keep their places, so a change of k leaves
costs k paths.

A leaf is the Solidity ``abi.encode`` of static values: 32 bytes each, integers big-endian in two's complement.

* Scenario set, one leaf a scenario: (number, weight, factors in the order of ``ScenarioSet.factors``).
* P&L table, one leaf a scenario and a chunk of 16 instruments, at number scenario * chunks + chunk: (scenario, chunk,
  bytes32, bytes32), the two words being 16 int32 values. A fraud proof shows k columns at the few rows of one account:
  a leaf of a whole column would have to be shown whole (8 KB for 2,000 instruments), a leaf a value would cost a path
  a position; legs of one expiry stand side by side and share a chunk. The exponents of the rows are one more column,
  number S.
* Margins of a block, one leaf an account: (keccak256 of its name, NLV, initial margin, maintenance margin), micro-USD.
  What all accounts share (block, market, scenario root, parameter version) belongs beside the root, once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kernels.keccak import HASH_WORDS, UInt8Array, UInt64Array, keccak256_each, keccak256_pairs, keccak256_rows
from kernels.layout import Int64Array, PnlTable
from oracles.scenario_set import ScenarioSet

WORD_BYTES = 32
CHUNK = 16
"""Instruments a leaf of a P&L table."""


def leaf_hashes(leaves: UInt8Array) -> UInt64Array:
    """Hashes uint64[N,4] of encoded leaves uint8[N,M]: hashed twice."""
    return keccak256_rows(np.ascontiguousarray(keccak256_rows(leaves)).view(np.uint8))


class MerkleTree:
    """A tree over leaf hashes uint64[N,4], N >= 1; ``update`` changes it in place."""

    def __init__(self, hashes: UInt64Array) -> None:
        if hashes.ndim != 2 or hashes.shape[0] < 1 or hashes.shape[1] != HASH_WORDS:
            raise ValueError(f"a Merkle tree needs leaf hashes of shape [N,{HASH_WORDS}], not {list(hashes.shape)}")
        self.leaves = hashes.shape[0]
        self.nodes = np.empty((2 * self.leaves - 1, HASH_WORDS), np.uint64)
        self.nodes[self.leaves - 1 :] = hashes[::-1]
        for first in _levels(self.leaves):
            last = min(2 * first + 1, self.leaves - 1)
            children = self.nodes[2 * first + 1 : 2 * last + 1]
            self.nodes[first:last] = keccak256_pairs(children[::2], children[1::2])

    @property
    def root(self) -> bytes:
        """32 bytes."""
        return self.nodes[0].tobytes()

    def update(self, indices: Int64Array, hashes: UInt64Array) -> None:
        """Replace the leaves at ``indices`` [K] (each once) by ``hashes`` [K,4].

        Raises:
            IndexError: no such leaf.
        """
        if indices.size and not (int(indices.min()) >= 0 and int(indices.max()) < self.leaves):
            raise IndexError(f"the tree has leaves 0 to {self.leaves - 1}")
        changed = 2 * self.leaves - 2 - indices
        self.nodes[changed] = hashes
        for first in _levels(self.leaves):
            below = changed > 2 * first
            parents = np.unique((changed[below] - 1) // 2)
            self.nodes[parents] = keccak256_pairs(self.nodes[2 * parents + 1], self.nodes[2 * parents + 2])
            changed = np.concatenate([changed[~below], parents])

    def proof(self, index: int) -> list[bytes]:
        """Siblings from the leaf up, 32 bytes each.

        Raises:
            IndexError: no such leaf.
        """
        if not 0 <= index < self.leaves:
            raise IndexError(f"the tree has leaves 0 to {self.leaves - 1}, not {index}")
        node, found = 2 * self.leaves - 2 - index, []
        while node > 0:
            found.append(self.nodes[node - 1 if node % 2 == 0 else node + 1].tobytes())
            node = (node - 1) // 2
        return found


def verify(root: bytes, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Whether an encoded leaf is in the tree of this root (OpenZeppelin's ``MerkleProof.verify``)."""
    node = leaf_hashes(np.frombuffer(leaf, np.uint8).reshape(1, -1))
    for sibling in proof:
        node = keccak256_pairs(node, np.frombuffer(sibling, np.uint64).reshape(1, HASH_WORDS))
    return bool(node.tobytes() == root)


def _levels(leaves: int) -> list[int]:
    """First node of each level that has inner nodes, the deepest level first."""
    return [(1 << depth) - 1 for depth in reversed(range((leaves - 1).bit_length()))]


def encoded(values: npt.NDArray[np.int64]) -> UInt8Array:
    """abi.encode of integers [N,K]: uint8[N,32 K]."""
    count, width = values.shape
    out = np.zeros((count, width, WORD_BYTES), np.uint8)
    out[:, :, : WORD_BYTES - 8] = np.where(values < 0, 255, 0)[:, :, None]
    out[:, :, WORD_BYTES - 8 :] = np.ascontiguousarray(values, ">i8").view(np.uint8).reshape(count, width, 8)
    return out.reshape(count, width * WORD_BYTES)


def scenario_leaves(scenario_set: ScenarioSet) -> UInt8Array:
    """Encoded leaves of a scenario set, [S, 32 (2 + D)]."""
    values = np.vstack([np.arange(scenario_set.size), scenario_set.weights, scenario_set.factors()])
    return encoded(values.T.astype(np.int64))


def table_leaves(table: PnlTable) -> UInt8Array:
    """Encoded leaves of a P&L table, [(S + 1) chunks, 128]; rows that are missing in the last chunk are zero."""
    rows, scenarios = table.values.shape
    chunks = -(-rows // CHUNK)
    columns = np.zeros((scenarios + 1, chunks * CHUNK), ">i4")
    columns[:scenarios, :rows] = table.values.T
    columns[scenarios, :rows] = table.exponent
    numbers = np.stack(np.divmod(np.arange((scenarios + 1) * chunks), chunks), axis=1)
    return np.concatenate([encoded(numbers), columns.view(np.uint8).reshape(len(numbers), 4 * CHUNK)], axis=1)


def margin_leaves(
    accounts: Sequence[str],
    nlv_usd6: Int64Array,
    initial_margin_usd6: Int64Array,
    maintenance_margin_usd6: Int64Array,
) -> UInt8Array:
    """Encoded leaves of the margins of accounts, [A, 128]."""
    names = keccak256_each([account.encode() for account in accounts])
    amounts = encoded(np.stack([nlv_usd6, initial_margin_usd6, maintenance_margin_usd6], axis=1))
    return np.concatenate([names.view(np.uint8), amounts], axis=1)


def scenario_root(scenario_set: ScenarioSet) -> bytes:
    """Merkle root of a scenario set."""
    return MerkleTree(leaf_hashes(scenario_leaves(scenario_set))).root


def table_root(table: PnlTable) -> bytes:
    """Merkle root of a P&L table: what a fraud proof shows columns of."""
    return MerkleTree(leaf_hashes(table_leaves(table))).root
