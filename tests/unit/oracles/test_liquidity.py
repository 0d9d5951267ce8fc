"""Tiers and factors from recorded liquidity: never below the law they stand for, monotone, bounded, refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.liquidity import (
    DAY_MS,
    HistoryTooShort,
    Liquidity,
    collateral_factor_e6,
    concentration_tiers,
    liquidity_of,
    price_fall,
)
from oracles.risk_model.bars import Bars
from schemas.risk_parameters import Concentration

HOUR_MS = 3_600_000
FLOOR_E6, CAP_E6 = 500_000, 980_000


def bars(days: int, volume: float = 10.0, seed: int = 1) -> Bars:
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, days * 24)))
    time_ms = 20_000 * DAY_MS + HOUR_MS * np.arange(len(close))
    return Bars("X", HOUR_MS, time_ms, close, close, close, close, np.full(len(close), volume))


def charge_usd(size_usd: float, market: Liquidity) -> float:
    """As the engine charges: bracket by bracket."""
    total, before = 0.0, 0
    for tier in concentration_tiers(market):
        total += max(0.0, size_usd - tier.above_usd6 / 1e6) * (tier.rate_e6 - before) / 1e6
        before = tier.rate_e6
    return total


@given(
    st.floats(1e4, 1e11), st.floats(0.001, 0.2), st.floats(1e4, 1e11), st.floats(0.0, 1e7), st.floats(0.0, 2.0)
)  # fmt: skip
def test_the_charge_is_at_least_the_square_root_cost_beyond_the_depth(
    volume: float, volatility: float, interest: float, depth: float, share: float
) -> None:
    market = Liquidity(volume, volatility, interest, depth)
    size = share * max(market.turnover_usd, depth)
    due = market.cost_usd(size) - market.cost_usd(depth) if size > depth else 0.0
    due = min(due, max(0.0, size - depth))  # no rate is above 1
    assert charge_usd(size, market) >= due * (1 - 1e-9) - 1e-6
    Concentration(underlying="X", tiers=concentration_tiers(market))  # the document takes them: they rise


def test_tiers_touch_the_law_where_they_begin() -> None:
    market = Liquidity(1e9, 0.04)
    assert charge_usd(1e8, market) == pytest.approx(market.cost_usd(1e8), rel=1e-3)
    assert charge_usd(market.depth_usd, market) == 0


def test_volume_is_the_median_day_and_open_interest_bounds_it() -> None:
    history = bars(30)
    history.volume[:24] *= 1_000
    market = liquidity_of(history)
    assert market.daily_volume_usd == pytest.approx(24 * 10 * np.median(history.close), rel=0.1)
    assert market.daily_volatility == pytest.approx(0.01 * np.sqrt(24), rel=0.1)
    assert liquidity_of(history, open_interest_usd=5.0).turnover_usd == 5.0


def test_a_week_of_history_and_a_market_are_needed() -> None:
    with pytest.raises(HistoryTooShort, match="X: 6 days"):
        liquidity_of(bars(6))
    with pytest.raises(ValueError, match="X: no volume"):
        liquidity_of(bars(10, volume=0.0))


def test_factors_fall_with_the_lot_and_the_fall_within_governed_bounds() -> None:
    market = Liquidity(1e9, 0.04)
    factors = [collateral_factor_e6(market, size, 0.0, FLOOR_E6, CAP_E6) for size in (1e3, 1e7, 1e8, 1e13)]
    assert factors == sorted(factors, reverse=True)
    assert (factors[0], factors[-1]) == (CAP_E6, FLOOR_E6)
    assert collateral_factor_e6(market, 1e6, 0.2, FLOOR_E6, CAP_E6) < 800_000
    assert all(factor % 5_000 == 0 for factor in factors)


def test_the_price_fall_is_the_mean_of_the_worst_windows() -> None:
    history = bars(100)
    windows = sorted(history.close[24:] / history.close[:-24] - 1)
    worst = windows[: -(-len(windows) // 100)]
    assert price_fall(history, 24) == pytest.approx(-float(np.mean(worst)))
    assert price_fall(bars(8, seed=2), 24) >= 0
