"""The spine benchmark at small size on the development broker: what it computes, not how fast."""

from __future__ import annotations

import pytest

from tests.bench import spine_latency, spine_recovery, spine_throughput

PARTS = {"throughput": spine_throughput, "latency": spine_latency, "recovery": spine_recovery}


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_every_row_has_a_result_or_says_why_not(part: str) -> None:
    found = list(PARTS[part].rows(small=True, broker="dev"))
    assert [row.name for row in found if row.ok is False] == []
    for row in found:
        assert (row.value is None) == row.goal.startswith("not ")
        assert row.checksum or row.value is None
