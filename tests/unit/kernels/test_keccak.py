"""kernels.keccak: published vectors, pycryptodome at every length around a block, batches of any size."""

import numpy as np
import pytest
from merkle_twin import hash_pair
from merkle_twin import keccak256 as expected

from kernels.keccak import keccak256, keccak256_each, keccak256_pairs, keccak256_rows


def test_published_vectors() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak256(b"abc").hex() == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 31, 32, 64, 127, 128, 134, 135, 136, 137, 271, 272, 273, 1000])
def test_every_length_is_that_of_pycryptodome(length: int) -> None:
    message = np.random.default_rng(length).bytes(length)
    assert keccak256(message) == expected(message)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40])
def test_batches_of_any_size(count: int) -> None:
    messages = np.random.default_rng(count).integers(0, 256, (count, 150), dtype=np.uint8)
    found = keccak256_rows(messages)
    assert [row.tobytes() for row in found] == [expected(row.tobytes()) for row in messages]


def test_messages_of_different_lengths_keep_their_order() -> None:
    messages = [b"account", b"", b"retail-0001", b"another", b"x" * 200]
    assert [row.tobytes() for row in keccak256_each(messages)] == [expected(message) for message in messages]


def test_pairs_are_ordered_as_bytes() -> None:
    hashes = [np.random.default_rng(n).integers(0, 2**64, (9, 4), dtype=np.uint64) for n in range(2)]
    hashes[1][:5] = hashes[0][:5]
    for n in range(1, 5):
        hashes[1][n, n - 1] ^= np.uint64(1) << np.uint64(11 * n)
    found = keccak256_pairs(*hashes)
    pairs = zip(*hashes, strict=True)
    assert [row.tobytes() for row in found] == [hash_pair(a.tobytes(), b.tobytes()) for a, b in pairs]
