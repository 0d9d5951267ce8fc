"""The benchmark of the exact path at small size: its results, not its times."""

from tests.bench import expected_shortfall


def test_every_result_is_that_of_its_peer() -> None:
    found = list(expected_shortfall.rows(small=True))
    assert [row.name for row in found if row.ok is False] == []
    assert all(row.checksum for row in found if row.value is not None)
    assert [row.checksum for row in expected_shortfall.rows(small=True)] == [row.checksum for row in found]
