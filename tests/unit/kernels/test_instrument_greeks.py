"""kernels.instrument_greeks against differences of the repricing kernel."""

import numpy as np
import pytest
from kernel_worlds import World, small_world

from kernels import black76, reprice
from kernels.instrument_greeks import SATURATION_USD9, instrument_greeks
from kernels.layout import CALL, FUTURE, PERPETUAL, PUT, SPOT
from kernels.svi import total_variance


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


def option_value(world: World, i: int, relative: float = 1.0, vol: float = 0.0, days: float = 0.0, rate: float = 0.0):
    """Nano-USD of one lot with forward, vol, time and rate moved; vol starts from today's smile at the strike."""
    instruments, market, _ = world
    e = instruments.expiry[i]
    k = np.log(instruments.strike[i] / market.forward[e])
    sigma = np.sqrt(total_variance(*market.svi[e], k) / market.years[e]) + vol
    price = black76.price(
        market.forward[e] * relative, instruments.strike[i], sigma, market.years[e] - days / 365, market.rate[e] + rate,
        instruments.kind[i] == CALL,
    )  # fmt: skip
    return price * instruments.lot_size[i] * 1e9


def test_option_greeks_equal_central_differences(world: World) -> None:
    computed = instrument_greeks(world.instruments, world.market)
    rows = np.flatnonzero((world.instruments.kind >= CALL) & (world.instruments.expiry <= 1))
    assert rows.size == 20
    for i in rows:
        scale = world.market.forward[world.instruments.expiry[i]] * world.instruments.lot_size[i] * 1e9

        up, down = option_value(world, i, relative=1.0001), option_value(world, i, relative=0.9999)
        now = option_value(world, i)
        assert computed.delta_usd9[i] == pytest.approx((up - down) / 2e-4, abs=1e-5 * scale)
        assert computed.gamma_usd9[i] == pytest.approx((up - 2 * now + down) / 1e-8, abs=1e-3 * scale)
        vega = (option_value(world, i, vol=1e-5) - option_value(world, i, vol=-1e-5)) / 2e-5
        assert computed.vega_usd9[i] == pytest.approx(vega, abs=1e-6 * scale)
        theta = (option_value(world, i, days=1e-3) - option_value(world, i, days=-1e-3)) / 2e-3
        assert computed.theta_usd9[i] == pytest.approx(theta, abs=1e-7 * scale)
        rho = (option_value(world, i, rate=1e-5) - option_value(world, i, rate=-1e-5)) / 2e-5
        assert computed.rho_usd9[i] == pytest.approx(rho, abs=1e-7 * scale)


def test_linear_instruments_have_delta_only(world: World) -> None:
    computed = instrument_greeks(world.instruments, world.market)
    mark, collateral = reprice.marks(world.instruments, world.market)
    linear = np.isin(world.instruments.kind, (PERPETUAL, FUTURE))
    spot = world.instruments.kind == SPOT
    assert (computed.delta_usd9[linear] == mark[linear]).all()
    assert (np.abs(computed.delta_usd9[spot] - collateral[spot]) <= 1).all()
    for column in computed[1:]:
        assert (column[linear | spot] == 0).all()


def test_expired_options_have_the_delta_of_their_payoff(world: World) -> None:
    computed = instrument_greeks(world.instruments, world.market)
    for i in np.flatnonzero((world.instruments.expiry == 3) & world.instruments.alive):
        forward, strike = world.market.forward[3], world.instruments.strike[i]
        expected = 0.0
        if world.instruments.kind[i] == CALL and forward > strike:
            expected = forward
        if world.instruments.kind[i] == PUT and forward < strike:
            expected = -forward
        assert computed.delta_usd9[i] == pytest.approx(expected * 0.1 * 1e9, abs=1)
        assert computed.gamma_usd9[i] == computed.vega_usd9[i] == computed.theta_usd9[i] == 0


def test_rows_dead_rows_and_saturation(world: World) -> None:
    rows = np.array([37, 3, 12], np.int64)
    some, whole = instrument_greeks(*world[:2], rows), instrument_greeks(*world[:2])
    for part, column in zip(some, whole):
        assert part.tolist() == column[rows].tolist()
        assert column[-1] == 0
    huge = world.instruments._replace(lot_size=np.full(world.instruments.kind.shape, 1e12))
    assert instrument_greeks(huge, world.market).delta_usd9[0] == SATURATION_USD9


def test_an_unusable_market_is_refused(world: World) -> None:
    broken = world.market._replace(forward=np.full(4, np.nan))
    with pytest.raises(ValueError, match="unusable market"):
        instrument_greeks(world.instruments, broken)
