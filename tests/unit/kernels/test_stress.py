"""The stress rows of the parameter document, as arrays, and kernels.stress against pricing of a moved market."""

import msgspec
import numpy as np
import pytest
from kernel_worlds import World, small_world

from kernels import black76, stress
from kernels.layout import CALL, FUTURE, PERPETUAL, SPOT
from kernels.svi import total_variance
from schemas.catalogue import Catalogue
from schemas.risk_parameters import Crowding, RiskParameters, StressRow, default_stress_rows, parse_parameters
from streams.engine.table_rows import stress_of
from streams.engine.tables import stress_shocks_of

STABLE = np.array([False, False, False, True])
CATALOGUE = Catalogue.from_listings(
    [{"type": "underlying", "underlying": str(n), "stable": bool(stable)} for n, stable in enumerate(STABLE)]
)


def shocks_of(rows: tuple[StressRow, ...]) -> stress.StressShocks:
    return stress_shocks_of(RiskParameters(stress_rows=rows), CATALOGUE)


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


def compute(world: World, rows: tuple[StressRow, ...]) -> np.ndarray:
    shocks = shocks_of(rows)
    return stress_of(world.instruments, world.market, shocks)


def test_default_rows_are_the_stated_set() -> None:
    rows = default_stress_rows()
    grid = {
        (row.spot_move_e6, row.volatility_move_e6, row.rate_shift_e6) for row in rows if row.name.startswith("spot")
    }
    assert grid == {
        (spot * 50_000, vol, rate)
        for spot in range(-4, 5)
        for vol in (-250_000, 0, 450_000)
        for rate in (0, 10_000, -10_000)
    }
    extremes = [(r.spot_move_e6, r.volatility_move_e6, r.scope) for r in rows if r.weight_e6 == 150_000]
    assert extremes == [
        (-400_000, 450_000, "all"), (400_000, 450_000, "all"), (-350_000, 800_000, "all"), (-100_000, 0, "stable"),
    ]  # fmt: skip
    assert [(r.funding_e6, r.skew_e6, r.spot_move_e6, r.crowded) for r in rows[-6:]] == [
        (20_000, 0, 0, False), (-20_000, 0, 0, False), (0, 500_000, 0, False), (0, -500_000, 0, False),
        (0, 0, -200_000, True), (0, 0, 200_000, True),
    ]  # fmt: skip
    assert len(rows) == 91 == len({row.name for row in rows})
    assert all(row.reason for row in rows)


def test_scopes_move_their_underlyings_only() -> None:
    shocks = shocks_of(default_stress_rows())
    crash, depeg = 83, 84
    assert shocks.spot_multiplier[crash].tolist() == [0.65, 0.65, 0.65, 1.0]
    assert shocks.spot_multiplier[depeg].tolist() == [1.0, 1.0, 1.0, 0.9]
    assert shocks.vol_multiplier[crash] == 1.8
    assert shocks.weight_e6[depeg] == 150_000


def test_crowded_rows_move_an_underlying_further_by_its_governed_factor() -> None:
    rows = tuple(row for row in default_stress_rows() if row.crowded)
    crowding = (Crowding(underlying="1", factor_e6=500_000), Crowding(underlying="2", factor_e6=5_000_000))
    moves = stress_shocks_of(RiskParameters(stress_rows=rows, crowding=crowding), CATALOGUE).spot_multiplier
    assert moves.tolist() == [[0.8, 0.7, 0.01, 1.0], [1.2, 1.3, 2.2, 1.0]]


def test_funding_is_paid_by_who_is_long_a_perpetual_and_by_nothing_else(world: World) -> None:
    row = StressRow(name="a", reason="b", weight_e6=1, spot_move_e6=0, funding_e6=20_000)
    computed = compute(world, (row,))[:, 0]
    instruments, market, _ = world
    perpetual = (instruments.kind == PERPETUAL) & instruments.alive
    assert perpetual.any()
    expected = -0.02 * market.spot[instruments.underlying] * instruments.lot_size * 1e9
    np.testing.assert_allclose(computed[perpetual], expected[perpetual], rtol=1e-9)
    assert not computed[~perpetual].any()


def test_every_entry_equals_pricing_in_the_moved_market(world: World) -> None:
    rows = tuple(
        StressRow(name="a", reason="b", weight_e6=1, spot_move_e6=s, volatility_move_e6=v, rate_shift_e6=r, skew_e6=k)
        for s, v, r, k in ((-200_000, 450_000, 10_000, 0), (50_000, 0, -10_000, 0), (0, 0, 0, -500_000))
    )
    computed = compute(world, rows)
    instruments, market, _ = world
    for i in range(len(instruments.kind)):
        kind, u, e = int(instruments.kind[i]), instruments.underlying[i], instruments.expiry[i]
        for r, row in enumerate(rows):
            m = 1.0 if STABLE[u] else 1 + row.spot_move_e6 / 1e6
            if not instruments.alive[i]:
                assert computed[i, r] == 0
                continue
            if kind < CALL:
                base = market.forward[e] if kind == FUTURE else market.spot[u]
                change = base * (m - 1) * (0.9 if kind == SPOT else 1.0)
            else:
                twisted = 1 + row.skew_e6 / 1e6 * min(
                    max(np.log(instruments.strike[i] / (market.forward[e] * m)), -1), 1
                )
                vol = (1 + row.volatility_move_e6 / 1e6) * max(0.1, twisted)
                change = option(world, i, m, vol, row.rate_shift_e6 / 1e6) - option(world, i)
            scale = instruments.lot_size[i] * 1e9
            assert computed[i, r] == pytest.approx(change * scale, abs=1 + 1e-11 * scale * market.spot[u])


def option(world: World, i: int, moved: float = 1.0, vol: float = 1.0, rate: float = 0.0) -> float:
    instruments, market, _ = world
    e, strike = instruments.expiry[i], instruments.strike[i]
    forward, years = market.forward[e] * moved, market.years[e]
    sigma = vol * np.sqrt(total_variance(*market.svi[e], np.log(strike / forward)) / years) if years else 0.0
    return black76.price(forward, strike, sigma, years, market.rate[e] + rate, instruments.kind[i] == CALL)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scope", "some"),
        ("weight_e6", 1_000_001),
        ("weight_e6", -1),
        ("spot_move_e6", -1_000_000),
        ("volatility_move_e6", -1_000_000),
        ("rate_shift_e6", 100_001),
        ("skew_e6", 2_000_001),
        ("funding_e6", -1_000_001),
        ("crowded", 1),
    ],
)
def test_bad_rows_are_refused(field: str, value: object) -> None:
    row = {"name": "n", "reason": "r", "weight_e6": 1, "spot_move_e6": 0, field: value}
    with pytest.raises(msgspec.ValidationError, match=field):
        parse_parameters({"stress_rows": [row]})


def test_an_unusable_market_is_refused(world: World) -> None:
    broken = world._replace(market=world.market._replace(spot=np.full(4, np.inf)))
    with pytest.raises(ValueError, match="not finite or out of range"):
        compute(broken, default_stress_rows()[:1])
