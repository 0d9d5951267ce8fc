"""The lifecycle benchmark at small size: what it computes, not how fast."""

from __future__ import annotations

from tests.bench.lifecycle import rows


def test_rows_have_results_and_repeat() -> None:
    first, second = list(rows(small=True)), list(rows(small=True))
    assert [row.name for row in first] == ["funding of every holder", "gate"]
    assert [row.checksum for row in first] == [row.checksum for row in second]
    assert all(row.checksum and row.value is not None and row.ok is not False for row in first)
