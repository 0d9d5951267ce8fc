"""Coins that move by their parts: a staked coin as its coin, a pool's share as the weighted sum of logarithms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine_worlds import event, listings, scenario_set

from kernels.stress import weighted_products
from schemas.catalogue import Catalogue
from schemas.risk_parameters import RiskParameters, StressRow
from streams.engine.tables import scenario_table_of, stress_shocks_of


def catalogue(*more: dict[str, Any]) -> Catalogue:
    found = Catalogue()
    for listing in (*listings(RiskParameters()), *more):
        assert found.refusal(listing) is None
        found.apply(listing)
    return found


def composite(name: str, parts: dict[str, int], **fields: Any) -> dict[str, Any]:
    return event("underlying", name, underlying=name, parts=parts, **fields)


def test_a_staked_coin_moves_as_its_coin_and_a_pool_share_as_the_mean_of_logarithms() -> None:
    found = catalogue(composite("stX", {"X": 1_000_000}), composite("LP", {"X": 500_000, "Y": 500_000}))
    spot = scenario_table_of(scenario_set(), found).spot_log_return
    x, y, staked, pool = (spot[found.underlying_index[name]] for name in ("X", "Y", "stX", "LP"))
    assert x.any()
    assert y.any()
    np.testing.assert_array_equal(staked, x)
    np.testing.assert_allclose(pool, (x + y) / 2, rtol=1e-12)


def test_stress_rows_move_each_part_by_its_own_scope() -> None:
    rows = (
        StressRow(name="all", reason="", weight_e6=1, spot_move_e6=-360_000),
        StressRow(name="stable", reason="", weight_e6=1, spot_move_e6=-190_000, scope="stable"),
    )
    found = catalogue(
        event("underlying", "USD", underlying="USD", stable=True),
        composite("stX", {"X": 1_000_000}),
        composite("LP", {"X": 500_000, "USD": 500_000}),
    )
    moves = stress_shocks_of(RiskParameters(stress_rows=rows), found).spot_multiplier
    place = found.underlying_index
    assert moves[:, place["stX"]].tolist() == [0.64, 1.0]
    np.testing.assert_allclose(moves[:, place["LP"]], [0.8, 0.9], rtol=1e-14)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"nothing": 1_000_000}, "nothing is not listed"),
        ({"X": 999_999}, "sum to 999999"),
        ({"X": 500_000, "stX": 500_000}, "stX has parts itself"),
    ],
)
def test_parts_that_make_no_sense_are_refused_by_name(parts: dict[str, int], said: str) -> None:
    found = catalogue(composite("stX", {"X": 1_000_000}))
    assert said in (found.refusal(composite("new", parts)) or "")


def test_parts_survive_a_checkpoint() -> None:
    found = catalogue(composite("LP", {"X": 400_000, "Y": 600_000}))
    again = Catalogue.from_listings(found.to_listings())
    assert again.underlyings == found.underlyings
    assert again.underlyings[-1].parts == ((0, 400_000), (1, 600_000))


def test_products_of_powers_against_numpy() -> None:
    multiplier = np.random.default_rng(1).uniform(0.1, 4.0, (50, 3))
    weight = np.array([0.2, 0.5, 0.3])
    np.testing.assert_allclose(weighted_products(multiplier, weight), np.prod(multiplier**weight, axis=1), rtol=1e-13)
