"""Full repricing of every instrument: today, and in every scenario, quantised once to integers.

Scenario price of instrument i (sticky moneyness, SVI slice at today's time to expiry T, horizon h):

    F_s = F * exp(x_s)                       forward, perpetual and spot move by the same log return x_s
    k_s = ln(K / F_s)
    c_s = a clip(k_s, -1, 1),  T_h = max(T - h, 0),  (g, a) the loadings of T (``option_rows.expiry_loadings``)
    v_s = sqrt(w(k_s)) * sqrt(T_h / T) * exp(level_s + term_s g) * max(0.1, 1 + skew_s c_s + curvature_s c_s**2)
    price_s = exp(-(rate + rate_shift_s) * T_h) * Black76(F_s, K, v_s)

A scenario table without curvature and term (sets up to version 3) has a = 1. Underlyings with jumps have Merton's model
in place of Black-76, with v_s the diffusion's (``kernels.option_rows``).
A call and its put share one out-of-the-money value; rows are visited by underlying, expiry and strike, so that they
meet and everything they share is computed once.

Floats stop at the quantised table: ``values[i, s] = rint((price_s - price_now) * (lot_size * 1e9) / 2**exponent[i])``
(half to even), exponent the smallest e >= 0 with all abs(values) < 2**31. Each row is a function of that row's inputs
alone, so any subset of rows, in any order, in any worker gives the same bytes. All kernels are serial and release the
interpreter lock.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.compiling import compiled
from kernels.layout import (
    CALL,
    FUTURE,
    INVALID_EXPONENT,
    INVALID_USD9,
    NANO,
    SPOT,
    FloatArray,
    InstrumentTable,
    Int64Array,
    MarketTable,
    PnlTable,
    ScenarioTable,
)
from kernels.loops import assign
from kernels.normal import bits_of_float, exponential, float_of_bits, fma
from kernels.option_rows import expiry_loadings, out_of_the_money_row, undiscounted_price_now

MAXIMUM_EXPONENT = 30
"""Largest exponent of a P&L row: 2**61 nano-USD per lot (2.3 billion USD); beyond it a row is invalid."""

_INT32_LIMIT = 2147483648.0
_MARK_LIMIT = 2.0**62
# 1.5 * 2**52: adding and subtracting it rounds |x| < 2**51 half to even (the mode of IEEE addition); it vectorises.
_ROUNDING = 6755399441055744.0


class _Shared(NamedTuple):
    """What rows of one underlying (the first two), one expiry (the next five) or one strike share, all [S]."""

    spot_multiplier: FloatArray
    level_multiplier: FloatArray
    moved: FloatArray
    stddev_multiplier: FloatArray
    skew: FloatArray
    curvature: FloatArray
    discount: FloatArray
    out_of_the_money: FloatArray


@compiled
def _price_now(instruments: InstrumentTable, market: MarketTable, i: int) -> float:
    """Unquantised price of instrument i per unit of underlying, USD; SPOT rows without their collateral factor."""
    if not instruments.alive[i]:
        return 0.0
    kind, e = instruments.kind[i], instruments.expiry[i]
    if kind < FUTURE:
        return market.spot[instruments.underlying[i]]
    if kind == FUTURE:
        return market.forward[e]
    value = undiscounted_price_now(
        market.forward[e], instruments.strike[i], kind == CALL, market.svi[e], market.years[e], market,
        instruments.underlying[i],
    )  # fmt: skip
    return exponential(-market.rate[e] * market.years[e]) * value


@compiled
def _fill_prices(instruments: InstrumentTable, market: MarketTable, out: FloatArray) -> None:
    for i in range(out.shape[0]):
        out[i] = _price_now(instruments, market, i)


def price_now(instruments: InstrumentTable, market: MarketTable) -> FloatArray:
    """Price of every instrument [I] per unit of underlying, USD; 0 for dead ones, NaN where the market is unusable.

    SPOT rows are unfactored. Options: discounted Black-76 on the SVI slice, intrinsic value at ``years`` 0.
    """
    price = np.empty(instruments.kind.shape[0])
    _fill_prices(instruments, market, price)
    return price


def marks(instruments: InstrumentTable, market: MarketTable) -> tuple[Int64Array, Int64Array]:
    """(mark_usd9, collateral_mark_usd9), both int64[I], nano-USD per lot, rounded half to even.

    The second carries the collateral factor of SPOT rows. INVALID_USD9 where the price is not finite or the mark
    reaches 2**62 nano-USD (4.6 billion USD) a lot.
    """
    mark = price_now(instruments, market) * (instruments.lot_size * float(NANO))
    return _to_usd9(mark), _to_usd9(mark * instruments.factor)


def _to_usd9(value: FloatArray) -> Int64Array:
    usable = np.abs(value) < _MARK_LIMIT  # False for NaN
    rounded = np.rint(np.where(usable, value, 0.0)).astype(np.int64)
    return np.where(usable, rounded, np.int64(INVALID_USD9))


@compiled
def _exponentials(x: FloatArray, out: FloatArray) -> None:
    for s in range(out.shape[0]):
        out[s] = exponential(x[s])


@compiled
def _linear_pnl(price: float, spot_multiplier: FloatArray, scale: float, out: FloatArray) -> None:
    for s in range(out.shape[0]):
        out[s] = (price * spot_multiplier[s] - price) * scale


@compiled
def _option_pnl(strike, is_call, price, scale, moved, discount, out_of_the_money, out) -> None:  # type: ignore[no-untyped-def]
    """out[s] = (price_s - price) * scale."""
    for s in range(out.shape[0]):
        difference = moved[s] - strike if is_call else strike - moved[s]
        intrinsic = 0.0 if difference < 0.0 else difference
        out[s] = (discount[s] * (intrinsic + out_of_the_money[s]) - price) * scale


@compiled
def _largest_magnitude(x: FloatArray) -> float:
    """max |x|; NaN or infinity if there is one (compared as integers: their order is that of the magnitudes)."""
    largest = np.int64(0)
    for s in range(x.shape[0]):
        bits = bits_of_float(abs(x[s]))
        largest = bits if bits > largest else largest
    return float_of_bits(largest)


@compiled
def _quantise(pnl: FloatArray, out: PnlTable, i: int) -> None:
    """Round one row of nano-USD floats into the table with the smallest exponent that fits."""
    largest = _largest_magnitude(pnl)
    exponent, unit = 0, 1.0
    while exponent <= MAXIMUM_EXPONENT and np.rint(largest * unit) >= _INT32_LIMIT:
        exponent += 1
        unit *= 0.5
    if not largest < np.inf or exponent > MAXIMUM_EXPONENT:
        _clear_row(out, i, np.int64(INVALID_EXPONENT))
        return
    values = out.values[i]
    lowest, highest = np.int32(2147483647), np.int32(-2147483647)
    for s in range(values.shape[0]):
        value = np.int32((pnl[s] * unit + _ROUNDING) - _ROUNDING)
        values[s] = value
        lowest = value if value < lowest else lowest
        highest = value if value > highest else highest
    out.exponent[i] = exponent
    out.minimum_usd9[i] = np.int64(lowest) << exponent
    out.maximum_usd9[i] = np.int64(highest) << exponent
    out.absolute_maximum[i] = max(-np.int64(lowest), np.int64(highest), np.int64(0))


@compiled
def _clear_row(out: PnlTable, i: int, exponent: np.int64) -> None:
    out.values[i, :] = 0
    out.exponent[i] = exponent
    out.minimum_usd9[i] = 0
    out.maximum_usd9[i] = 0
    out.absolute_maximum[i] = 0


@compiled
def _share_underlying(scenarios: ScenarioTable, u: int, shared: _Shared) -> None:
    _exponentials(scenarios.spot_log_return[u], shared.spot_multiplier)
    o = scenarios.option_row[u]
    if o >= 0:
        _exponentials(scenarios.level_log[o], shared.level_multiplier)
    else:
        shared.level_multiplier[:] = 1.0


@compiled
def _share_surface(scenarios: ScenarioTable, o: int, years: float, ratio: float, shared: _Shared) -> None:
    """What the factors of a surface do to an expiry; factors of zero give the bits of a table without them."""
    shared.curvature[:] = 0.0
    if o < 0:
        shared.skew[:] = 0.0
    elif scenarios.curvature.shape[0] == 0:
        assign(shared.skew, scenarios.skew[o])
    else:
        term, smile = expiry_loadings(years)
        for s in range(shared.skew.shape[0]):
            shared.stddev_multiplier[s] = (
                exponential(fma(scenarios.term[o, s], term, scenarios.level_log[o, s])) * ratio
            )
            shared.skew[s] = scenarios.skew[o, s] * smile
            shared.curvature[s] = scenarios.curvature[o, s] * (smile * smile)


@compiled
def _share_expiry(market: MarketTable, scenarios: ScenarioTable, u: int, e: int, shared: _Shared) -> None:
    """An option that expires within the horizon has remaining time 0: discount 1 and no time value."""
    years, o = market.years[e], scenarios.option_row[u]
    remaining = max(years - scenarios.horizon_years, 0.0)
    ratio = np.sqrt(remaining / years) if remaining > 0.0 else 0.0
    for s in range(shared.moved.shape[0]):
        shared.moved[s] = market.forward[e] * shared.spot_multiplier[s]
        shared.stddev_multiplier[s] = shared.level_multiplier[s] * ratio
    if remaining > 0.0:
        _share_surface(scenarios, o, years, ratio, shared)
    if o >= 0:
        assign(shared.discount, scenarios.rate_shift[o])
    else:
        shared.discount[:] = 0.0
    for s in range(shared.moved.shape[0]):
        shared.discount[s] = exponential(-(market.rate[e] + shared.discount[s]) * remaining)


@compiled
def _share_strike(instruments, market, scenarios, i, shared) -> None:  # type: ignore[no-untyped-def]
    u, e = instruments.underlying[i], instruments.expiry[i]
    remaining = market.years[e] - scenarios.horizon_years
    if remaining > 0.0:
        out_of_the_money_row(
            market.forward[e], instruments.strike[i], market.svi[e], remaining, market, u,
            scenarios.spot_log_return[u], shared.moved, shared.stddev_multiplier, shared.skew, shared.curvature,
            shared.out_of_the_money,
        )  # fmt: skip
    else:
        shared.out_of_the_money[:] = 0.0


@compiled
def _fill_rows(instruments, market, scenarios, rows, shared, out) -> int:  # type: ignore[no-untyped-def]
    pnl = np.empty(scenarios.weights.shape[0])
    last_u, last_e, last_strike, invalid = -1, -1, -1.0, 0
    for i in rows:
        if not instruments.alive[i]:
            _clear_row(out, i, np.int64(0))
            continue
        kind, u, e, strike = (
            instruments.kind[i],
            instruments.underlying[i],
            instruments.expiry[i],
            instruments.strike[i],
        )
        price, scale = _price_now(instruments, market, i), instruments.lot_size[i] * float(NANO)
        if u != last_u:
            _share_underlying(scenarios, u, shared)
            last_u, last_e = u, -1
        if kind < CALL:
            scale = scale * instruments.factor[i] if kind == SPOT else scale
            _linear_pnl(price, shared.spot_multiplier, scale, pnl)
        else:
            if e != last_e:
                _share_expiry(market, scenarios, u, e, shared)
                last_e, last_strike = e, -1.0
            if strike != last_strike:
                _share_strike(instruments, market, scenarios, i, shared)
                last_strike = strike
            _option_pnl(strike, kind == CALL, price, scale, shared.moved, shared.discount, shared.out_of_the_money, pnl)
        _quantise(pnl, out, i)
        invalid += out.exponent[i] < 0
    return invalid


def pnl_table(
    instruments: InstrumentTable,
    market: MarketTable,
    scenarios: ScenarioTable,
    out: PnlTable,
    rows: Int64Array | None = None,
) -> int:
    """Fill the given rows (all by default) of ``out`` with the quantised scenario P&L of one lot.

    Args:
        rows: int64 instrument indices; the other rows of ``out`` are not touched.
        out: preallocated (``layout.empty_pnl_table``); SPOT rows carry their collateral factor, dead rows are zero.

    Returns:
        How many of the rows are invalid: not finite or above 2**61 nano-USD a lot. Their exponent is
        INVALID_EXPONENT and their values are zero; accounts that hold them get status INVALID.
    """
    chosen = np.arange(instruments.kind.shape[0], dtype=np.int64) if rows is None else rows
    order = np.lexsort((instruments.strike[chosen], instruments.expiry[chosen], instruments.underlying[chosen]))
    shared = _Shared(*np.empty((len(_Shared._fields), len(scenarios.weights))))
    return int(_fill_rows(instruments, market, scenarios, chosen[order], shared, out))


@compiled
def _row_change(new, old, new_exponent, old_exponent):  # type: ignore[no-untyped-def]
    low, high = np.int64(2**62), np.int64(-(2**62))
    for s in range(new.shape[0]):
        change = (np.int64(new[s]) << new_exponent) - (np.int64(old[s]) << old_exponent)
        low = change if change < low else low
        high = change if change > high else high
    return low, high


@compiled
def _fill_change_bounds(new: PnlTable, old: PnlTable, rows, low, high) -> None:  # type: ignore[no-untyped-def]
    for j in range(rows.shape[0]):
        i = rows[j]
        if new.exponent[i] < 0 or old.exponent[i] < 0:
            low[j], high[j] = -(2**62), 2**62  # an invalid row may have changed by anything
        else:
            low[j], high[j] = _row_change(
                new.values[i], old.values[i], np.int64(new.exponent[i]), np.int64(old.exponent[i])
            )


def pnl_change_bounds(new: PnlTable, old: PnlTable, rows: Int64Array | None = None) -> tuple[Int64Array, Int64Array]:
    """(low, high) int64 nano-USD per lot: exact minimum and maximum over scenarios of new minus old P&L.

    One entry for each of ``rows`` (all by default), in that order. Rows invalid in either table get -+2**62, which
    makes every screening bound that touches them saturate.
    """
    chosen = np.arange(new.exponent.shape[0], dtype=np.int64) if rows is None else rows
    low, high = np.empty(chosen.shape[0], np.int64), np.empty(chosen.shape[0], np.int64)
    _fill_change_bounds(new, old, chosen, low, high)
    return low, high
