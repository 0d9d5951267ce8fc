"""The benchmarks of the risk model at small size: every row has its figure and checksum, and repeats."""

from tests.bench import model


def test_small_sizes_run_and_repeat() -> None:
    first, second = list(model.rows(small=True)), list(model.rows(small=True))
    assert len(first) == 8
    assert all(row.value is not None and row.checksum and row.ok is None for row in first)
    assert [row.checksum for row in first] == [row.checksum for row in second]
    assert first[-1].ratio is not None
    assert first[-1].ratio > 1.0
