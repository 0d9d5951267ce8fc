"""The benchmarks of scenarios and Merkle trees at small size: their own checks hold, every row has a checksum."""

import pytest

from tests.bench import merkle, scenarios


@pytest.mark.parametrize(("part", "count"), [(merkle, 2), (scenarios, 2)])
def test_small_sizes_run_and_repeat(part, count: int) -> None:
    first, second = list(part.rows(small=True)), list(part.rows(small=True))
    assert len(first) == count
    assert all(row.value and row.ratio and row.checksum and row.ok is None for row in first)
    assert [row.checksum for row in first] == [row.checksum for row in second]
