"""Volatilities of the replays: constants with their origin, and the seeded scenario set made of them.

The constants are root mean squares of hourly log changes of closing prices over the common hours of recorded Binance
history, 2020-10 to 2024-06 (31,942 to 31,972 hours; BTC and SOL perpetuals, ETH spot), and of the BTC DVOL index,
2021-03 to 2025-10 (38,788 hours). They are constants on purpose: calibrated models come later and take their place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from oracles.scenario_set import (
    SURFACE_KINDS,
    FactorVolatilities,
    ScenarioSet,
    default_correlation,
    draw_scenario_set,
)  # fmt: skip

HORIZON_SECONDS = 3600
WITH_HISTORY = ("BTC", "ETH", "SOL")
HOURLY_VOLATILITY = np.array([0.00696, 0.00878, 0.01445])
HOURLY_CORRELATION = np.array([[1.0, 0.85, 0.62], [0.85, 1.0, 0.66], [0.62, 0.66, 1.0]])
FALLBACK_BASE = "BTC"
FALLBACK_NOISE = 0.0127  # own noise an hour: beta 1 to BTC plus this moves as much as SOL did
STABLE_NOISE = 0.0010  # stablecoins: no beta; depegs are the stress grid's
STAKED_NOISE = 0.00054  # stETH against ETH: 0.265 % a day in the recorded Chainlink rounds of 2022-01 to 2024-01
LEVEL_VOLATILITY = 0.0102  # of DVOL, which is of thirty days; the term factor has the rest
SKEW_VOLATILITY = 0.05  # assumption: relative volatility change per unit of log-moneyness, an hour
CURVATURE_VOLATILITY = 0.055  # BTC and ETH chains of 2025-12-30 to 2026-04-02: infra/docs/risk_model.md
TERM_VOLATILITY = 0.01  # the same; with the level it moves a ten-day volatility by 0.017 an hour
RATE_VOLATILITY = 0.0005  # assumption: 5 basis points an hour

FloatArray = npt.NDArray[np.float64]


class SpotFactor(NamedTuple):
    """An underlying's hourly move: that of `base` (one of WITH_HISTORY, or none), plus own noise."""

    symbol: str
    base: str | None
    noise: float


class Factors(NamedTuple):
    """Spot factors, and which of the underlyings have an option surface."""

    spots: list[SpotFactor]
    option_underlyings: list[str]


def coin_volatilities(underlyings: Sequence[str], stable: Collection[str] = ()) -> Factors:
    """Spot factors alone: history where there is one, stablecoins, else beta 1 to BTC plus FALLBACK_NOISE."""
    return Factors([_coin(symbol, symbol in stable) for symbol in underlyings], [])


def option_volatilities(option_underlyings: Sequence[str], stable: Sequence[str]) -> Factors:
    """Spot and surface factors of underlyings with options, and stablecoins beside them."""
    spots = [_coin(symbol, False) for symbol in option_underlyings] + [_coin(symbol, True) for symbol in stable]
    return Factors(spots, list(option_underlyings))


def staked_volatilities(coin: str, staked: Sequence[str]) -> Factors:
    """A coin and its staked forms: beta 1 to it plus STAKED_NOISE."""
    return Factors([_coin(coin, False), *(SpotFactor(symbol, coin, STAKED_NOISE) for symbol in staked)], [])


def scenario_set_of(factors: Factors, seed: int, scenarios: int) -> ScenarioSet:
    """The seeded weighted set (60 minutes, 99 %) over these factors; `scenarios` is a power of two."""
    volatility, correlation = spot_moments(factors.spots)
    surfaces = len(factors.option_underlyings)
    volatilities = FactorVolatilities(
        volatility,
        np.full(surfaces, LEVEL_VOLATILITY),
        np.full(surfaces, SKEW_VOLATILITY),
        np.full(surfaces, RATE_VOLATILITY),
        np.full(surfaces, CURVATURE_VOLATILITY),
        np.full(surfaces, TERM_VOLATILITY),
    )
    symbols = [factor.symbol for factor in factors.spots]
    rows = [symbols.index(symbol) for symbol in factors.option_underlyings]
    joint = default_correlation(correlation, rows, kinds=SURFACE_KINDS)
    return draw_scenario_set(
        symbols,
        factors.option_underlyings,
        volatilities,
        joint,
        seed=seed,
        scenarios=scenarios,
        horizon_seconds=HORIZON_SECONDS,
    )


def spot_moments(spots: Sequence[SpotFactor]) -> tuple[FloatArray, FloatArray]:
    """-> (hourly volatility [U], correlation [U,U]) of base moves plus independent noise."""
    loading = np.array([[float(name == factor.base) for name in WITH_HISTORY] for factor in spots])
    noise = np.array([factor.noise for factor in spots])
    history = HOURLY_CORRELATION * np.outer(HOURLY_VOLATILITY, HOURLY_VOLATILITY)
    covariance = loading @ history @ loading.T + np.diag(noise**2)
    volatility: FloatArray = np.sqrt(np.diag(covariance))
    return volatility, covariance / np.outer(volatility, volatility)


def _coin(symbol: str, stable: bool) -> SpotFactor:
    if stable:
        return SpotFactor(symbol, None, STABLE_NOISE)
    if symbol in WITH_HISTORY:
        return SpotFactor(symbol, symbol, 0.0)
    return SpotFactor(symbol, FALLBACK_BASE, FALLBACK_NOISE)
