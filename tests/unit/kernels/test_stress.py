"""The stress rows of the parameter document, as arrays, and kernels.stress against pricing of a moved market."""

import msgspec
import numpy as np
import pytest
from kernel_worlds import World, small_world

from kernels import black76, stress
from kernels.layout import CALL, FUTURE, SPOT
from kernels.svi import total_variance
from schemas.catalogue import Catalogue
from schemas.risk_parameters import RiskParameters, StressRow, default_stress_rows, parse_parameters
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
    return stress.stress_table(
        world.instruments, world.market, shocks.spot_multiplier, shocks.vol_multiplier, shocks.rate_shift
    )


def test_default_rows_are_the_stated_set() -> None:
    rows = default_stress_rows()
    grid = {(row.spot_move_e6, row.volatility_move_e6, row.rate_shift_e6) for row in rows if row.weight_e6 == 250_000}
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
    assert len(rows) == 85 == len({row.name for row in rows})
    assert all(row.reason for row in rows)


def test_scopes_move_their_underlyings_only() -> None:
    shocks = shocks_of(default_stress_rows())
    assert shocks.spot_multiplier[-2].tolist() == [0.65, 0.65, 0.65, 1.0]
    assert shocks.spot_multiplier[-1].tolist() == [1.0, 1.0, 1.0, 0.9]
    assert shocks.vol_multiplier[-2] == 1.8
    assert shocks.weight_e6[-1] == 150_000


def test_every_entry_equals_pricing_in_the_moved_market(world: World) -> None:
    rows = tuple(
        StressRow(name="a", reason="b", weight_e6=1, spot_move_e6=s, volatility_move_e6=v, rate_shift_e6=r)
        for s, v, r in ((-200_000, 450_000, 10_000), (50_000, 0, -10_000))
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
                change = option(world, i, m, 1 + row.volatility_move_e6 / 1e6, row.rate_shift_e6 / 1e6) - option(
                    world, i
                )
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
