"""Rows of a preset against the engine's own tables: the same scenario set and stress rows, under a flat smile."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.layout import (
    CALL,
    PERPETUAL,
    PUT,
    YEAR_SECONDS,
    InstrumentTable,
    MarketTable,
    empty_pnl_table,
    tail_mass_of_level,
)
from kernels.reprice import pnl_table
from kernels.stress import stress_table
from oracles.presets.case import Case, Expiry, Market, Option, Positions
from oracles.presets.document import preset
from oracles.presets.netting import valued
from oracles.scenario_set import FactorVolatilities, default_correlation, draw_scenario_set
from schemas.risk_parameters import default_stress_rows

FORWARD, RATE, VOL, SECONDS, SPOT = 60_500.0, 0.05, 0.6, 20 * 86_400, 60_000.0
STRIKES = [(48_000.0, "put"), (60_000.0, "call"), (60_000.0, "put"), (75_000.0, "call")]
CASE = Case(
    id="flat",
    positions=Positions(
        perp_quantity=1.0,
        options=tuple(
            Option(seconds_to_expiry=SECONDS, strike=k, type=t, quantity=1.0, mark_vol=VOL)  # type: ignore[arg-type]
            for k, t in STRIKES
        ),
    ),
    market=Market(spot=SPOT, perp_price=SPOT),
    expiries=(Expiry(seconds_to_expiry=SECONDS, forward=FORWARD, rate=RATE),),
)


def engine_tables() -> tuple[InstrumentTable, MarketTable]:
    """Four options and a perpetual in units; the slice is flat: w = vol**2 years."""
    count, years = len(STRIKES) + 1, SECONDS / YEAR_SECONDS
    kinds = [CALL if t == "call" else PUT for _, t in STRIKES] + [PERPETUAL]
    instruments = InstrumentTable(
        np.array(kinds, np.int8), np.zeros(count, np.int32), np.array([0] * (count - 1) + [-1], np.int32),
        np.array([k for k, _ in STRIKES] + [0.0]), np.ones(count), np.ones(count), np.ones(count, np.bool_),
    )  # fmt: skip
    flat = np.array([[VOL**2 * years, 0.0, 0.0, 0.0, 1.0]])
    market = MarketTable(
        np.array([SPOT]), np.array([FORWARD]), flat, np.array([RATE]), np.array([years]), np.zeros(1, np.int32)
    )
    return instruments, market


def unit_pnl(group: int) -> np.ndarray:
    """P&L of a unit of every leg of `es`, USD [L,S]."""
    rows, (netted,) = valued(CASE, preset("es")).groups[group]
    (expiry,) = netted.expiries
    options = [values - leg.value for leg, values in zip(expiry.legs, expiry.values, strict=True)]
    return np.array([*options, netted.linear[0].price * (rows.shocks.spot_multiplier - 1.0)])


def test_drawn_rows_reprice_as_the_engine_does() -> None:
    """To half a unit of the table's quantisation: time decay, every factor of the surface, rate and spot alike."""
    document = preset("es")
    draw = document.groups[0].draw
    assert draw is not None
    annual = (draw.spot_volatility, draw.level_volatility, draw.skew_volatility, draw.rate_volatility)
    spot, level, skew, rate = (np.array([volatility]) for volatility in annual)
    shape = (np.array([draw.curvature_volatility]), np.array([draw.term_volatility]))
    volatilities = FactorVolatilities.from_annual(spot, level, skew, rate, document.groups[0].horizon_seconds, *shape)
    correlation = default_correlation(
        np.eye(1), [0], level_to_own_spot=draw.level_to_spot_correlation, kinds=volatilities.kinds
    )
    drawn = draw_scenario_set(("X",), ("X",), volatilities, correlation, seed=draw.seed, scenarios=draw.scenarios)
    instruments, market = engine_tables()
    table = empty_pnl_table(len(STRIKES) + 1, drawn.size)
    assert pnl_table(instruments, market, drawn.table(), table) == 0
    unit_usd = 2.0 ** table.exponent.astype(np.float64) * 1e-9
    assert np.all(np.abs(unit_pnl(0) - table.values * unit_usd[:, None]) <= 0.51 * unit_usd[:, None])
    shocks = valued(CASE, document).groups[0][0].shocks
    assert np.array_equal(shocks.probability, drawn.weights)
    assert shocks.tail_mass == tail_mass_of_level(990_000)


def test_written_rows_reprice_as_the_engines_stress_does() -> None:
    rows = default_stress_rows()[: len(preset("stress").groups[-1].rows)]
    instruments, market = engine_tables()
    table = stress_table(
        instruments,
        market,
        np.array([[1 + row.spot_move_e6 / 1e6] for row in rows]),
        np.array([1 + row.volatility_move_e6 / 1e6 for row in rows]),
        np.array([row.rate_shift_e6 / 1e6 for row in rows]),
    )
    assert unit_pnl(1) * 1e9 == pytest.approx(table, rel=1e-11, abs=100.0)
