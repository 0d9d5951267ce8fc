"""A small market with every kind of instrument, for the tests of the repricing kernels."""

from typing import NamedTuple

import numpy as np

from kernels.layout import (
    CALL,
    FUTURE,
    PERPETUAL,
    PUT,
    SPOT,
    InstrumentTable,
    MarketTable,
    ScenarioTable,
    scenario_table,
    tail_mass_of_level,
)
from kernels.weights import integer_weights

HOUR_YEARS = 1 / (365 * 24)


class World(NamedTuple):
    instruments: InstrumentTable
    market: MarketTable
    scenarios: ScenarioTable


def small_world(scenarios: int = 64, seed: int = 5, shaped: bool = False) -> World:
    """BTC and ETH with surfaces, a coin and a stablecoin without; an expiry far, near, within the horizon, and now.

    ``shaped``: the same scenarios with curvature and term.
    """
    rng = np.random.default_rng(seed)
    spot = np.array([90_000.0, 3_000.0, 0.25, 1.0])
    expiry_underlying = np.array([0, 1, 0, 1], np.int32)
    years = np.array([0.25, 0.02, 0.5 * HOUR_YEARS, 0.0])
    forward = spot[expiry_underlying] * np.exp(0.05 * years)
    svi = np.array([[0.01, 0.06, -0.3, 0.01, 0.1], [0.001, 0.02, -0.2, 0.0, 0.1], *[[1e-5, 1e-3, 0.0, 0.0, 0.1]] * 2])
    market = MarketTable(spot, forward, svi, np.array([0.05, 0.04, 0.03, 0.02]), years, expiry_underlying)
    rows = [(SPOT, u, -1, 0.0) for u in range(4)] + [(PERPETUAL, u, -1, 0.0) for u in range(3)]
    rows += [(FUTURE, int(expiry_underlying[e]), e, 0.0) for e in range(2)]
    rows += [
        (kind, int(expiry_underlying[e]), e, float(forward[e] * ratio))
        for e in range(4)
        for ratio in (0.4, 0.9, 1.0, 1.1, 3.0)
        for kind in (CALL, PUT)
    ]
    kind, underlying, expiry, strike = (np.array(column) for column in zip(*rows))
    alive = np.ones(len(rows), bool)
    alive[-1] = False
    instruments = InstrumentTable(
        kind.astype(np.int8),
        underlying.astype(np.int32),
        expiry.astype(np.int32),
        strike,
        np.where(kind >= FUTURE, 0.1, 0.01),
        np.where(kind == SPOT, 0.9, 1.0),
        alive,
    )
    return World(instruments, market, _scenarios(rng, scenarios, shaped))


def _scenarios(rng: np.random.Generator, size: int, shaped: bool) -> ScenarioTable:
    def nano(scale: float, rows: int) -> np.ndarray:
        return np.rint(np.clip(rng.standard_t(4, (rows, size)) * scale, -1.2, 1.2) * 1e9).astype(np.int32)

    plain = scenario_table(
        nano(0.05, 4),
        np.array([0, 1, -1, -1], np.int32),
        nano(0.1, 2),
        nano(0.5, 2),
        nano(0.01, 2),
        integer_weights(rng.random(size)),
        tail_mass_of_level(990_000),
        3600,
    )
    return plain._replace(curvature=nano(0.8, 2) / 1e9, term=nano(0.1, 2) / 1e9) if shaped else plain
