"""The benchmark of the screen at small size: no bound below its margin, the same results again."""

from tests.bench import screening


def test_no_bound_is_violated() -> None:
    found = list(screening.rows(small=True))
    assert [row.name for row in found if row.ok is not True] == []
    assert any("bound_sup" in row.size for row in found)
    assert any("cleared_hinge" in row.size for row in found)
    assert [row.checksum for row in screening.rows(small=True)] == [row.checksum for row in found]
