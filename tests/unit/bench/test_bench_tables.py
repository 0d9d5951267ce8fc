"""The benchmark of a block's tables at small size: rows taken over are those built anew."""

from tests.bench import tables


def test_rows() -> None:
    rows = list(tables.rows(small=True))
    assert [row.name for row in rows if not row.ok] == []
    assert len({row.name for row in rows}) == len(rows) == 6
    assert [row.checksum for row in tables.rows(small=True)] == [row.checksum for row in rows]
    assert rows[0].size.startswith("11 of 18 rows taken over")
