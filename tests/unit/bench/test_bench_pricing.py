"""The pricing benchmark at its small size: every row has its figure or says why not, and results are as promised."""

from tests.bench import pricing


def test_rows() -> None:
    rows = list(pricing.rows(small=True))
    assert len({row.name for row in rows}) == len(rows) == 13
    for row in rows:
        assert (row.value is None) == row.goal.startswith("not run")
        if row.value is not None:
            assert row.checksum
        if row.goal and not row.goal.startswith(">="):
            assert row.ok is not False
