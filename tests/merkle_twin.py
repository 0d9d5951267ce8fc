"""A slow, obvious Merkle tree in plain Python with pycryptodome's keccak: twin of oracles.merkle, and its peer."""

from __future__ import annotations

from Crypto.Hash import keccak


def keccak256(message: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=message).digest()


def hash_pair(a: bytes, b: bytes) -> bytes:
    return keccak256(min(a, b) + max(a, b))


def tree(leaves: list[bytes]) -> list[bytes]:
    """Nodes of the tree over encoded leaves, root first."""
    nodes = [b""] * (2 * len(leaves) - 1)
    for i, leaf in enumerate(leaves):
        nodes[len(nodes) - 1 - i] = keccak256(keccak256(leaf))
    for n in reversed(range(len(leaves) - 1)):
        nodes[n] = hash_pair(nodes[2 * n + 1], nodes[2 * n + 2])
    return nodes


def verify(root: bytes, leaf: bytes, proof: list[bytes]) -> bool:
    node = keccak256(keccak256(leaf))
    for sibling in proof:
        node = hash_pair(node, sibling)
    return node == root


def word(value: int) -> bytes:
    """abi.encode of one integer."""
    return (value % 2**256).to_bytes(32, "big")
