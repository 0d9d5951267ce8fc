"""What other rules ask for the option books of a backtest: a fixed ratio, every position alone, the grids of presets.

Amounts are fractions of spot for a book of one unit. Of a preset the rows of its document are taken, at the volatility
of each strike, without contingencies and without rows of skew or with a dampener: what remains is scaled to equal
coverage anyway (``oracles.backtest.capital``).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from kernels.layout import YEAR_SECONDS
from oracles.backtest.capital import FIXED_RATIO
from oracles.backtest.options import Instruments, put_values, reprice, smile
from oracles.presets.document import PresetDocument, Row, preset
from oracles.presets.scenarios import SKEW_SHOCKS, OptionMoments, shocked_vol

FloatArray = npt.NDArray[np.float64]
ALONE, LEGS = "isolated", "single legs"
GRIDS = ("derive-pm2", "deribit-pm", "span-scan", "stress")
RULES = (FIXED_RATIO, ALONE, LEGS, *GRIDS)


def margins(level: float, table: Instruments, weights: FloatArray, profits: FloatArray, tail: float) -> FloatArray:
    """f64[rules, books] in the order of ``RULES``.

    ``weights`` f64[books, 2I + 1] of calls, puts and spot; ``profits`` f64[2I + 1, S]: of one unit each in the model's
    scenarios, whose expected shortfall at ``tail`` the single legs ask.
    """
    long, short = np.maximum(weights, 0.0), np.maximum(-weights, 0.0)
    alone_long, alone_short = isolated(level, table)
    loss_long, loss_short = _shortfall(profits, tail), _shortfall(-profits, tail)
    asked = [
        np.abs(weights).sum(axis=1),
        long @ alone_long + short @ alone_short,
        long @ loss_long + short @ loss_short,
    ]
    return np.array(asked + [np.maximum(-grid(name, level, table, weights), 0.0) for name in GRIDS])


def isolated(level: float, table: Instruments) -> tuple[FloatArray, FloatArray]:
    """(of one long, of one short) f64[2I + 1] by the document "isolated": a long option its value, which is no credit;
    a short one what the bound says it may come to be worth, less its value; contracts a share of their price."""
    document = preset(ALONE)
    rows = {row.scope: row.spot_multiplier for row in document.groups[0].rows}  # of contracts the rise, last of two
    strike, value = table.strikes(level), table.values(level)
    puts = put_values(value, strike)
    bounds = document.parameters.time_value_bounds
    bound = np.array([next((b.bound for b in bounds if d <= b.days), bounds[-1].bound) for d in table.expiry * 365])
    up, down, contract = rows["call"], rows["put"], rows["linear"] - 1.0
    call_most = np.maximum(up - strike, 0.0) + bound * np.minimum(strike, up)
    put_most = np.maximum(strike - down, 0.0) + bound * np.minimum(strike, down)
    short = [np.maximum(call_most - value, 0.0), np.maximum(put_most - puts, 0.0), [contract]]
    return np.concatenate([value, puts, [contract]]), np.concatenate(short)


def grid(name: str, level: float, table: Instruments, weights: FloatArray) -> FloatArray:
    """f64[books]: the worst weighted P&L of the rows of a preset's document."""
    document = preset(name)
    rows = _rows(name)
    multiplier = np.array([row.spot_multiplier for row in rows])
    changes = reprice(level, table, multiplier, _volatilities(level, table, document, rows))
    move = multiplier - 1.0
    profits = np.vstack([changes, changes - move, move]) * np.array([row.weight for row in rows])
    return np.asarray((weights @ profits).min(axis=1))


@cache
def _rows(name: str) -> tuple[Row, ...]:
    rows = (row for group in preset(name).groups for row in group.rows)
    return tuple(
        row for row in rows if row.vol_shock not in SKEW_SHOCKS and not row.dampener_usd and row.scope == "all"
    )


def _volatilities(level: float, table: Instruments, document: PresetDocument, rows: tuple[Row, ...]) -> FloatArray:
    """f64[I, rows]."""
    out = np.empty((len(table.expiry), len(rows)))
    for i, (moneyness, years) in enumerate(zip(table.moneyness, table.expiry)):
        moments = OptionMoments(smile(level, moneyness), years, round(years * YEAR_SECONDS), 0.0)
        kinds = {kind: shocked_vol(kind, moments, document.parameters) for kind in {row.vol_shock for row in rows}}
        out[i] = [kinds[row.vol_shock] * row.vol_multiplier for row in rows]
    return out


def _shortfall(profits: FloatArray, tail: float) -> FloatArray:
    """Expected shortfall of every line, at least nothing."""
    k = max(int(np.ceil(profits.shape[1] * tail - 1e-9)), 1)
    return np.maximum(-np.partition(profits, k - 1, axis=1)[:, :k].mean(axis=1), 0.0)
