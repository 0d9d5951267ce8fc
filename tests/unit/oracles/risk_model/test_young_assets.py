"""A GARCH fit to a short calm history has the floor that every other model has."""

from __future__ import annotations

import math

import pytest
from risk_model_worlds import HOUR_MS, START_MS, bar_at, market

from oracles.risk_model.inputs import scenario_inputs
from oracles.risk_model.refits import GarchParameters
from oracles.risk_model.state import ModelSpec, RiskModelState

YOUNG, YEAR = 3_000, 8_760
ONE_E18, ONE_E12 = 10**18, 10**12


def state_of(number: int, variance: str) -> RiskModelState:
    found = RiskModelState(ModelSpec(("A0", "A1"), (), variance=variance))
    old, other = market(YEAR + 1, 2, 5)
    for t in range(YEAR + 1):
        bars = {"A0": bar_at(old, t)}
        if t > YEAR - number:
            bars["A1"] = bar_at(other, t)
        found.update(START_MS + HOUR_MS * t, bars, {})
    return found


@pytest.mark.parametrize("horizon_seconds", [600, 3_600, 86_400])
def test_a_calm_fit_is_floored_while_the_asset_is_young(horizon_seconds: int) -> None:
    garch, plain = state_of(YOUNG, "garch-t"), state_of(YOUNG, "multi-speed")
    calm = GarchParameters(int(1e-9 * ONE_E18), int(0.02 * ONE_E12), 0, int(0.9 * ONE_E12))
    for u in range(2):
        garch.returns[u].take(calm, 2_000, int(garch.returns[u].seen[0]))
    own = garch.spot_stddev(1, int(garch.time_ms[0]), 1)
    assert own < 0.5 * garch.floored_stddev(1, int(garch.time_ms[0]), 1)
    found, default = (scenario_inputs(one, (), horizon_seconds) for one in (garch, plain))
    assert [one.name for one in found.fallbacks if one.asset == "A1"] == ["short_history"]
    bars = max(horizon_seconds // 3_600, 1)
    share = math.sqrt(min(horizon_seconds / 3_600, 1.0))
    floor = plain.spot_stddev(1, int(plain.time_ms[0]), bars) * share
    assert found.volatilities.spot[1] >= floor
    assert found.volatilities.spot[1] >= found.volatilities.spot[0]
    assert default.volatilities.spot[1] >= floor
