"""The benchmark of compilation with a small workload: processes share a cache, and it survives them."""

from tests.bench import compilation


def test_rows() -> None:
    rows = list(compilation.rows(small=True))  # it asserts itself that nothing is compiled twice
    assert [row.name for row in rows[1::2]] == list(compilation.NAMES)
    assert [row.name for row in rows[::2]] == [f"{name}, on the wall" for name in compilation.NAMES]
    assert len({row.checksum for row in rows}) == 1
    assert all(row.value and row.ok is None for row in rows)
    assert not rows[1].size.startswith("0 cache files")
