"""Array columns, dtypes and units that every kernel and the engine share.

Lengths: I instruments, U underlyings, E expiries, S scenarios, O underlyings with an option surface, R stress rows,
A accounts, L legs. All arrays are C-contiguous. Money is int64 nano-USD (``*_usd9``); inside the P&L table it is int32
in units of 2**exponent nano-USD per lot. Accounts are compressed sparse rows: ``account_ptr`` int64[A+1] points into
``leg_instrument`` int32[L] and ``leg_lots`` int64[L], instruments ascending within an account.

Floats are derived from recorded integers by one IEEE division or one multiplication each, so every worker that reads
the same record holds the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SPOT, PERPETUAL, FUTURE, CALL, PUT = 0, 1, 2, 3, 4

WEIGHT_TOTAL = 2**30
"""Sum of the integer scenario weights of a set."""
NANO = 1_000_000_000
YEAR_SECONDS = 365 * 86_400
INVALID_EXPONENT = -1
"""Exponent of a P&L row that could not be priced or does not fit: no account may be margined on it."""
INVALID_USD9 = -(2**63)
"""Mark of an instrument that could not be priced."""

Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class InstrumentTable(NamedTuple):
    """One row per instrument; SPOT rows are collateral coins."""

    kind: Int8Array
    """SPOT, PERPETUAL, FUTURE, CALL or PUT."""
    underlying: Int32Array
    """Index into the underlyings."""
    expiry: Int32Array
    """Index into the expiries, -1 for SPOT and PERPETUAL."""
    strike: FloatArray
    """USD per unit of the underlying, 0 if there is none."""
    lot_size: FloatArray
    """Units of the underlying per lot, 10**lot_exponent."""
    factor: FloatArray
    """Collateral factor 0..1 of SPOT rows, 1.0 elsewhere."""
    alive: BoolArray
    """False once settled or unlisted: price 0 and P&L 0."""


NO_FACTORS: FloatArray = np.zeros((0, 0))
"""`ScenarioTable.curvature` and `.term` of a set without these factors."""
NO_JUMPS: FloatArray = np.zeros((0, 3))
"""`MarketTable.jumps` of a market in which every underlying is priced by Black-76."""


class MarketTable(NamedTuple):
    """The market of one barrier or tick."""

    spot: FloatArray
    """USD, [U]."""
    forward: FloatArray
    """USD, [E]."""
    svi: FloatArray
    """[E,5]: a, b, rho, m, sigma of the total variance w(k), k = ln(strike / forward)."""
    rate: FloatArray
    """Continuously compounded discount rate, [E]."""
    years: FloatArray
    """Time to expiry in years, [E]; 0 means expired now (intrinsic value)."""
    expiry_underlying: Int32Array
    """Underlying of each expiry, [E]."""
    jumps: FloatArray = NO_JUMPS
    """[U,3] or empty: jumps a year, mean and standard deviation of a jump's logarithm (``kernels.merton``). An
    underlying with jumps is priced by Merton's model, its slices then being the diffusion's; 0 jumps is Black-76."""


class ScenarioTable(NamedTuple):
    """A weighted scenario set, joint over spot, volatility level, skew, curvature, term and rate."""

    spot_log_return: FloatArray
    """[U,S]."""
    option_row: Int32Array
    """[U]: row of the underlying in the option factors, -1 for none (those factors are then zero)."""
    level_log: FloatArray
    """[O,S]: logarithm of the volatility multiplier."""
    skew: FloatArray
    """[O,S]: relative volatility change per unit of log-moneyness (with a curvature, of that scaled to 30 days)."""
    rate_shift: FloatArray
    """[O,S]: absolute change of the discount rate."""
    weights: Int32Array
    """[S], non-negative, sum WEIGHT_TOTAL."""
    tail_mass: int
    """Weight of the tail that expected shortfall averages, in (0, WEIGHT_TOTAL)."""
    horizon_years: float
    curvature: FloatArray = NO_FACTORS
    """[O,S] or empty: relative volatility change per squared unit of log-moneyness, scaled to 30 days."""
    term: FloatArray = NO_FACTORS
    """[O,S], empty where curvature is: times the term loading of an expiry (``option_rows.expiry_loadings``) it is
    added to the level."""


class StressTable(NamedTuple):
    """Stress P&L per lot and the weight of each row."""

    values: Int64Array
    """[I,R], nano-USD per lot."""
    weight_e6: Int64Array
    """[R], 0..1_000_000 (250_000 = 0.25)."""


class PnlTable(NamedTuple):
    """Quantised scenario P&L of one lot: ``values[i, s] * 2**exponent[i]`` nano-USD."""

    values: Int32Array
    """[I,S]."""
    exponent: Int8Array
    """[I], smallest that fits, or INVALID_EXPONENT."""
    minimum_usd9: Int64Array
    """[I], smallest ``values << exponent``."""
    maximum_usd9: Int64Array
    """[I], largest ``values << exponent``."""
    absolute_maximum: Int64Array
    """[I], largest ``abs(values)``, in units of the row."""


def empty_pnl_table(instruments: int, scenarios: int) -> PnlTable:
    """Preallocated P&L table of zeros for ``reprice.pnl_table`` to fill."""
    columns = [np.zeros(instruments, np.int64) for _ in range(3)]
    return PnlTable(np.zeros((instruments, scenarios), np.int32), np.zeros(instruments, np.int8), *columns)


def scenario_table(
    spot_log_return_e9: Int32Array,
    option_row: Int32Array,
    level_log_e9: Int32Array,
    skew_e9: Int32Array,
    rate_shift_e9: Int32Array,
    weights: Int32Array,
    tail_mass: int,
    horizon_seconds: int,
    curvature_e9: Int32Array | None = None,
    term_e9: Int32Array | None = None,
) -> ScenarioTable:
    """Scenario table from recorded integers in units of 1e-9 (int32 / 1e9, one IEEE division per element).

    Raises:
        ValueError: weights that are negative or do not sum to WEIGHT_TOTAL, or a tail mass outside (0, WEIGHT_TOTAL).
    """
    if int(weights.min()) < 0 or int(weights.sum(dtype=np.int64)) != WEIGHT_TOTAL:
        raise ValueError(f"scenario weights must be non-negative and sum to {WEIGHT_TOTAL}")
    if not 0 < tail_mass < WEIGHT_TOTAL:
        raise ValueError(f"tail mass {tail_mass} is outside (0, {WEIGHT_TOTAL})")
    return ScenarioTable(
        spot_log_return=_from_nano(spot_log_return_e9),
        option_row=np.ascontiguousarray(option_row, np.int32),
        level_log=_from_nano(level_log_e9),
        skew=_from_nano(skew_e9),
        rate_shift=_from_nano(rate_shift_e9),
        weights=np.ascontiguousarray(weights, np.int32),
        tail_mass=int(tail_mass),
        horizon_years=horizon_seconds / YEAR_SECONDS,
        curvature=NO_FACTORS if curvature_e9 is None else _from_nano(curvature_e9),
        term=NO_FACTORS if term_e9 is None else _from_nano(term_e9),
    )


def _from_nano(recorded: Int32Array) -> FloatArray:
    return np.ascontiguousarray(recorded / float(NANO))


def tail_mass_of_level(level_e6: int) -> int:
    """Integer tail mass of a confidence level in 1e-6: 990_000 gives floor(0.01 * 2**30) = 10_737_418."""
    return (1_000_000 - level_e6) * WEIGHT_TOTAL // 1_000_000
