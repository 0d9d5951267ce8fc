"""The factors' benchmark over surfaces that move by factors alone: at the forward everything is explained."""

import math

import numpy as np
import pytest

from kernels.option_rows import expiry_loadings
from oracles.surface_fit import Slice
from tests.bench import surface_factors

DAY_MS = 86_400_000


def moment(n: int) -> surface_factors.Moment:
    """Flat smiles but for a common bend, at the very maturities that are read."""
    level, term = 0.05 * math.sin(n), 0.1 + 0.04 * math.cos(2 * n)
    slices = []
    for days in (5, 7, 14, 30, 60, 120, 180):
        years = days / 365
        at_forward = 0.36 * math.exp(2 * (level + term * expiry_loadings(years)[0])) * years
        bend = at_forward * (0.5 + 0.1 * math.sin(3 * n))
        values = (at_forward - 0.2 * bend, bend, -0.3, 0.0, 0.2)
        slices.append(Slice((n + days) * DAY_MS, *(round(value * 1e9) for value in values)))
    return n * DAY_MS, slices


def test_what_moves_by_factors_is_explained_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.name: row for row in surface_factors.explained("X", [moment(n) for n in range(1, 12)])}
    assert len(rows) == len(surface_factors.AT_THE_FORWARD_DAYS) + len(surface_factors.SMILES)
    for days in (5, 7, 14, 60, 120, 180):
        assert (rows[f"X volatility at the forward, {days} d"].value or 0) > 0.93
    assert (rows["X smile within 0.3, 30 d"].value or 0) > 0.9
    assert np.isfinite([row.value for row in rows.values() if row.value is not None]).all()
    monkeypatch.delenv(surface_factors.SNAPSHOTS, raising=False)
    (row,) = surface_factors.rows(small=True)
    assert "not run" in row.goal
