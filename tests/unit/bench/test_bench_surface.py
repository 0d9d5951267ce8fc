"""The surface benchmark at its small size: results are as promised; times are not asserted."""

import pytest

from tests.bench import surface


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(surface.SNAPSHOTS, raising=False)
    rows = {row.name: row for row in surface.rows(small=True)}
    assert len(rows) == 14
    timed = rows.pop("SVI fit, free of butterfly arbitrage")
    assert timed.checksum
    for row in rows.values():
        assert row.ok is not False, row
        assert (row.value is None) == row.goal.startswith("not run")
