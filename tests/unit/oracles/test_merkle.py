"""oracles.merkle: OpenZeppelin's published root, a plain Python twin, updates, proofs, the layouts of the leaves."""

import merkle_twin as twin
import numpy as np
import pytest
from engine_worlds import scenario_set
from hypothesis import given
from hypothesis import strategies as st

from kernels.layout import empty_pnl_table
from oracles import merkle

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 100]


def rows(count: int, seed: int = 0, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, width), dtype=np.uint8)


def encoded_bytes(leaves: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in leaves]


def test_the_example_of_openzeppelins_library_has_its_published_root() -> None:
    """Its leaves are sorted by hash there; two leaves have the same root in either order."""
    leaves = [
        twin.word(int("11" * 20, 16)) + twin.word(5 * 10**18),
        twin.word(int("22" * 20, 16)) + twin.word(25 * 10**17),
    ]
    tree = merkle.MerkleTree(merkle.leaf_hashes(np.array([list(leaf) for leaf in leaves], np.uint8)))
    assert tree.root.hex() == "d4dee0beab2d53f2cc83e567171bd2820e49898130a22622b10ead383e90bd77"


@pytest.mark.parametrize("count", SIZES)
def test_the_tree_is_that_of_the_twin_and_every_leaf_is_proved(count: int) -> None:
    leaves = rows(count)
    tree = merkle.MerkleTree(merkle.leaf_hashes(leaves))
    assert encoded_bytes(tree.nodes) == twin.tree(encoded_bytes(leaves))
    for i, leaf in enumerate(encoded_bytes(leaves)):
        proof = tree.proof(i)
        assert merkle.verify(tree.root, leaf, proof)
        assert twin.verify(tree.root, leaf, proof)
        assert not merkle.verify(tree.root, bytes([leaf[0] ^ 1]) + leaf[1:], proof)


def test_an_inner_node_is_no_leaf() -> None:
    tree = merkle.MerkleTree(merkle.leaf_hashes(rows(4)))
    children = sorted(encoded_bytes(tree.nodes[3:5]))
    assert not merkle.verify(tree.root, b"".join(children), tree.proof(0)[1:])


@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_updates_give_the_tree_built_anew(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = merkle.leaf_hashes(rows(count))
    tree = merkle.MerkleTree(hashes)
    for _ in range(3):
        chosen = rng.permutation(count)[: rng.integers(0, count + 1)]
        hashes[chosen] = merkle.leaf_hashes(rows(len(chosen), int(rng.integers(1000))))
        tree.update(chosen, hashes[chosen])
        assert (tree.nodes == merkle.MerkleTree(hashes).nodes).all()


def test_what_is_not_in_the_tree_is_refused() -> None:
    hashes = merkle.leaf_hashes(rows(3))
    tree = merkle.MerkleTree(hashes)
    for wrong in (-1, 3):
        with pytest.raises(IndexError):
            tree.proof(wrong)
        with pytest.raises(IndexError):
            tree.update(np.array([wrong]), hashes[:1])
    with pytest.raises(ValueError, match="leaf hashes"):
        merkle.MerkleTree(hashes[:0])


def test_a_scenario_leaf_is_number_weight_and_factors() -> None:
    drawn = scenario_set()
    leaves = encoded_bytes(merkle.scenario_leaves(drawn))
    for s in (0, 5, drawn.size - 1):
        values = [s, int(drawn.weights[s]), *drawn.factors()[:, s].tolist()]
        assert leaves[s] == b"".join(map(twin.word, values))
    assert merkle.scenario_root(drawn) == twin.tree(leaves)[0]


def test_a_table_leaf_is_a_column_of_sixteen_instruments() -> None:
    table = empty_pnl_table(20, 3)
    table.values[:] = np.random.default_rng(1).integers(-(2**31), 2**31, (20, 3))
    table.exponent[:] = np.arange(20) - 1
    leaves = encoded_bytes(merkle.table_leaves(table))
    assert len(leaves) == 4 * 2
    columns = [*table.values.T.tolist(), table.exponent.tolist()]
    for s, column in enumerate(columns):
        for chunk in range(2):
            values = (column + [0] * 12)[16 * chunk : 16 * chunk + 16]
            packed = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
            assert leaves[2 * s + chunk] == twin.word(s) + twin.word(chunk) + packed
    assert merkle.table_root(table) == twin.tree(leaves)[0]


def test_a_margin_leaf_is_the_account_and_its_amounts() -> None:
    amounts = [np.array([5, -(2**62)]), np.array([7, 8]), np.array([1, 2**62])]
    leaves = encoded_bytes(merkle.margin_leaves(["retail-1", "maker"], *amounts))
    assert leaves[1] == twin.keccak256(b"maker") + twin.word(-(2**62)) + twin.word(8) + twin.word(2**62)
