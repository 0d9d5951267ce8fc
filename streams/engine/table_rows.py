"""Rows of the tables of a market: what a row is computed from, and which rows of the last market still hold.

Everything of a row (scenario P&L, stress P&L, marks, Greeks) is a function of its inputs alone: columns of its
instrument; spot of its underlying and what guards it, for perpetuals and coins; forward of its expiry, for futures;
and for options also slice, rate, jumps and time to expiry. The clock runs on at every barrier, so options are priced
at every barrier while they live; the other rows hold until their own price moves, and so does what has expired or is
settled. A row whose inputs are the same bits is taken over: it equals the row built anew, to the bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kernels.instrument_greeks import instrument_greeks
from kernels.layout import (
    CALL,
    FUTURE,
    SPOT,
    BoolArray,
    InstrumentTable,
    Int64Array,
    MarketTable,
    PnlTable,
    ScenarioTable,
    empty_pnl_table,
)
from kernels.reprice import marks, pnl_table
from kernels.stress import StressShocks, stress_table
from schemas.quantities import USD9_PER_USD

GREEKS = 4
"""Delta, gamma, vega, theta."""


class RowInputs(NamedTuple):
    """Everything that rows are computed from; I instruments, R stress rows, U underlyings. `guarded_usd9` int64[U,2]:
    spot, and the price that a coin held counts at, at most (0: its spot)."""

    instruments: InstrumentTable
    market: MarketTable
    scenarios: ScenarioTable
    shocks: StressShocks
    guarded_usd9: np.ndarray


class Rows(NamedTuple):
    """Per lot and instrument: `stress` int64[I,R], `columns_usd9` int64[3,I] (mark, mark after the collateral factor,
    notional), `greeks_usd9` int64[I,4]. Never written again once they are made: later tables may share them."""

    pnl: PnlTable
    stress: np.ndarray
    columns_usd9: np.ndarray
    greeks_usd9: np.ndarray


def rows_of(inputs: RowInputs) -> Rows:
    """Every row, computed."""
    pnl = empty_pnl_table(len(inputs.instruments.kind), len(inputs.scenarios.weights))
    pnl_table(inputs.instruments, inputs.market, inputs.scenarios, pnl)
    return Rows(pnl, *_small_columns(inputs))


def rows_after(before: RowInputs, rows: Rows, now: RowInputs, held: BoolArray) -> Rows:
    """The rows of `now`: those `held` (bool[I]) from `rows`, which are of `before`; the others computed."""
    if not held.any():
        return rows_of(now)
    fresh = np.flatnonzero(~held)
    if len(fresh) == 0 and len(held) == len(before.instruments.kind):
        return rows
    kept = np.flatnonzero(held)
    count = min(len(held), len(rows.pnl.exponent))
    pnl = empty_pnl_table(len(held), len(now.scenarios.weights))
    columns: Any = zip(pnl, rows.pnl, strict=True)
    for column, old in columns:
        column[:count] = old[:count]  # with the rows that do not hold: one copy in order is the fastest
    pnl_table(now.instruments, now.market, now.scenarios, pnl, fresh)
    some = now._replace(instruments=rows_of_instruments(now.instruments, fresh))
    stress, columns, greeks = _small_columns(some)
    return Rows(
        pnl,
        _joined(held, rows.stress[kept], stress),
        np.ascontiguousarray(_joined(held, rows.columns_usd9.T[kept], columns.T).T),
        _joined(held, rows.greeks_usd9[kept], greeks),
    )


def rows_of_instruments(instruments: InstrumentTable, chosen: Int64Array) -> InstrumentTable:
    """These rows, in this order."""
    columns: list[Any] = [np.ascontiguousarray(column[chosen]) for column in instruments]
    return InstrumentTable(*columns)


def _joined(held: BoolArray, kept: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    out = np.empty((len(held), *fresh.shape[1:]), fresh.dtype)
    out[held], out[~held] = kept, fresh
    return out


def _small_columns(inputs: RowInputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stress P&L, columns, Greeks."""
    instruments, market = inputs.instruments, inputs.market
    greeks = np.ascontiguousarray(np.stack(instrument_greeks(instruments, market)[:GREEKS], axis=1))
    return stress_of(instruments, market, inputs.shocks), columns_of(instruments, market, inputs.guarded_usd9), greeks


def stress_of(instruments: InstrumentTable, market: MarketTable, shocks: StressShocks) -> np.ndarray:
    """Stress P&L per lot of every row, int64[I,R]."""
    return stress_table(
        instruments,
        market,
        shocks.spot_multiplier,
        shocks.vol_multiplier,
        shocks.rate_shift,
        shocks.skew,
        shocks.funding,
    )


def columns_of(instruments: InstrumentTable, market: MarketTable, guarded_usd9: np.ndarray) -> np.ndarray:
    """Mark, mark after the collateral factor and the guard, and notional of one lot of every row, int64[3,I]."""
    mark_usd9, haircut_usd9 = marks(instruments, market)
    _guard(haircut_usd9, instruments, guarded_usd9)
    price = market.spot[instruments.underlying].copy()
    dated = instruments.expiry >= 0
    price[dated] = market.forward[instruments.expiry[dated]]
    notional = np.rint(price * instruments.lot_size * float(USD9_PER_USD)).astype(np.int64)
    notional[(instruments.kind == SPOT) | ~instruments.alive] = 0
    return np.ascontiguousarray(np.stack([mark_usd9, haircut_usd9, notional]))


def _guard(haircut_usd9: np.ndarray, instruments: InstrumentTable, guarded_usd9: np.ndarray) -> None:
    """Coins held count at the guarded price where that is below their spot; rounded down, exactly."""
    spot, price = guarded_usd9[instruments.underlying].T
    for i in np.flatnonzero((instruments.kind == SPOT) & (price > 0) & (price < spot)).tolist():
        haircut_usd9[i] = int(haircut_usd9[i]) * int(price[i]) // int(spot[i])


def rows_that_hold(before: RowInputs, now: RowInputs) -> BoolArray:
    """bool[I]: rows of `now` whose inputs are those of the same row of `before`.

    Another scenario set, and one brought into the order of more underlyings, is another object: then no row holds.
    """
    kind, u, e = now.instruments.kind, now.instruments.underlying, now.instruments.expiry
    if before.scenarios is not now.scenarios or not _same_shocks(before.shocks, now.shocks):
        return np.zeros(len(kind), np.bool_)
    old, new = before.market, now.market
    columns: Any = zip(before.instruments, now.instruments, strict=True)
    held: BoolArray = np.logical_and.reduce([_same(*column) for column in columns])
    multiplier = _same(before.shocks.spot_multiplier.T, now.shocks.spot_multiplier.T)
    held &= (_same(old.jumps, new.jumps) & multiplier)[u]
    held &= (kind >= FUTURE) | (_same(old.spot, new.spot) & _same(before.guarded_usd9, now.guarded_usd9))[u]
    dated, option = kind >= FUTURE, kind >= CALL
    held[dated] &= _same(old.forward, new.forward)[e[dated]]
    slices = _same(old.svi, new.svi) & _same(old.rate, new.rate) & _same(old.years, new.years)
    held[option] &= slices[e[option]]
    return held


def _same(old: np.ndarray, new: np.ndarray) -> BoolArray:
    """bool[N]: rows of `new` that stand at the same place of `old`; all are made of integers, so none is NaN or -0."""
    found = np.zeros(len(new), np.bool_)
    count = min(len(old), len(new))
    equal = old[:count] == new[:count]
    found[:count] = equal if equal.ndim == 1 else equal.all(axis=1)
    return found


def _same_shocks(old: StressShocks, new: StressShocks) -> bool:
    """The same rows, but for what they multiply spots by: that is for each underlying to say."""
    return all(np.array_equal(*columns) for columns in zip(old[1:], new[1:], strict=True))
