"""Option books over years of spot and implied volatility: joint scenarios of both, full repricing, walked forward.

The history is that of an index of implied volatility (30 days), so the smile is a fixed shape in standardised moneyness
that moves with the level. A level shock is a past residual times today's vol-of-vol, (30 / T)^0.45 of it up to 30 days
and (30 / T)^0.70 beyond. Three models: joint residuals without and with the stress floor in the variance (the default
has it), and a Gaussian with the deviations and the correlation of the first. Attribution compares the P&L by Greeks,
by which warnings between blocks are raised, with full revaluation.

Prices are fractions of spot. Times to expiry are in years.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.variance import ewma_path
from oracles.backtest import rules
from oracles.backtest.attribution import Attribution, attribution
from oracles.backtest.capital import Capital, at_equal_coverage
from oracles.backtest.options import MONEYNESS, TENORS_DAYS, Instruments, instruments, revalue
from oracles.risk_model.bars import Bars
from oracles.risk_model.forecasts import Forecasts, WalkForward, realised_returns
from oracles.risk_model.variance_model import YEAR_HOURS, bars_of, variance_history, with_floor, with_implied

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
MODELS = JOINT, STRESSED, GAUSSIAN = "joint-fhs", "joint-fhs-stress", "gaussian-joint"
SCENARIOS = 2_000
WINDOW_YEARS, HISTORY_DAYS_MIN = 2, 200
VOL_OF_VOL_HOURS, VOL_OF_VOL_WEIGHTS = (48.0, 720.0), (0.6, 0.4)
STALE_HOURS = 6
MARKET_MAKERS, MAKER_LEGS, MAKER_SEED = 4, 100, 5
DIRECTIONAL, VOLATILITY, SPREADS, MAKERS = "one-sided", "strangles, straddles", "condors, calendars", "market makers"
_BUMP = 1e-3


class _History(NamedTuple):
    """By bar, f64[n]: implied volatility, forecast deviation of the log return (without and with the stress floor) and
    of ln IV over the horizon, and what they became. ``known`` [n]: all of it is there.
    """

    implied: FloatArray
    deviation: FloatArray
    stressed: FloatArray
    vol_deviation: FloatArray
    moved: FloatArray
    vol_moved: FloatArray
    known: BoolArray


class OptionRun(NamedTuple):
    """Forecasts by book (per unit of spot, a day apart), the attribution of each book's P&L by Greeks, and what other
    rules tie up at equal coverage."""

    forecasts: dict[str, list[Forecasts]]
    attributions: dict[str, Attribution]
    capital: list[Capital]


class _Day(NamedTuple):
    """Of one time (or of all, one axis more): tails f64[models, books, levels, 4], realised P&L [books], P&L by Greeks
    [books], margins by other rules [rules, books]."""

    tails: FloatArray
    realised: FloatArray
    greeks: FloatArray
    margins: FloatArray


def books(delta: FloatArray, seed: int) -> dict[str, FloatArray]:
    """Weights f64[2I + 1] of calls, puts and spot: 18 structures of 7 and 30 days, four market makers of 100 legs."""
    found = {}
    for days in (7, 30):
        at = {x: _place(x, days) for x in (-1.5, -0.67, 0, 0.67, 1.5)}
        legs: dict[str, tuple[list[tuple[int, float, str]], bool, float]] = {
            "long call": ([(at[0], 1, "c")], False, 0.0),
            "short put": ([(at[-0.67], -1, "p")], False, 0.0),
            "short strangle": ([(at[0.67], -1, "c"), (at[-0.67], -1, "p")], False, 0.0),
            "covered call": ([(at[0.67], -1, "c")], False, 1.0),
            "short straddle hedged": ([(at[0], -1, "c"), (at[0], -1, "p")], True, 0.0),
            "long straddle hedged": ([(at[0], 1, "c"), (at[0], 1, "p")], True, 0.0),
            "iron condor": (
                [(at[0.67], -1, "c"), (at[-0.67], -1, "p"), (at[1.5], 1, "c"), (at[-1.5], 1, "p")], False, 0.0
            ),
            "risk reversal hedged": ([(at[0.67], 1, "c"), (at[-0.67], -1, "p")], True, 0.0),
        }  # fmt: skip
        for name, (parts, hedged, spot) in legs.items():
            found[f"{name} {days} d"] = _weights(parts, delta, hedged, spot)
    near, far = _place(0, 7), _place(0, 30)
    found["calendar short"] = _weights([(near, 1, "c"), (far, -1, "c")], delta, False, 0.0)
    found["calendar long"] = _weights([(near, -1, "c"), (far, 1, "c")], delta, False, 0.0)
    draw = np.random.default_rng(seed)
    for maker in range(MARKET_MAKERS):
        legs_at = draw.integers(0, len(delta), MAKER_LEGS)
        sizes = draw.choice([-1, 1], MAKER_LEGS) * draw.lognormal(0, 0.7, MAKER_LEGS) / MAKER_LEGS
        parts = [(int(leg), float(size), "c") for leg, size in zip(legs_at, sizes)]
        found[f"market maker {maker + 1}"] = _weights(parts, delta, True, 0.0)
    return found


def _place(moneyness: float, days: int) -> int:
    return int(np.abs(MONEYNESS - moneyness).argmin() + len(MONEYNESS) * np.abs(TENORS_DAYS - days).argmin())


def kind_of(book: str) -> str:
    """Kind of a book, by which capital is compared."""
    if book.startswith("market maker"):
        return MAKERS
    if book.startswith(("iron condor", "calendar")):
        return SPREADS
    return VOLATILITY if "strangle" in book or "hedged" in book else DIRECTIONAL


def _weights(parts: list[tuple[int, float, str]], delta: FloatArray, hedged: bool, spot: float) -> FloatArray:
    out = np.zeros(2 * len(delta) + 1)
    for place, size, kind in parts:
        out[place + (len(delta) if kind == "p" else 0)] += size
    out[-1] = -(out @ deltas(delta)) if hedged else spot
    return out


def deltas(delta: FloatArray) -> FloatArray:
    """Of calls, puts and spot, f64[2I + 1], by those of the calls."""
    return np.concatenate([delta, delta - 1.0, [1.0]])


def profits(calls: FloatArray, move: FloatArray) -> FloatArray:
    """P&L f64[2I + 1, S] of calls, puts and spot by that of the calls [I, S] and the log moves of spot [S]."""
    simple = np.expm1(move)
    return np.vstack([calls, calls - simple, simple])


def walk(bars: Bars, index: Bars, horizon: int, options: WalkForward, listen: Callable[[float], None]) -> OptionRun:
    """Books priced on every ``horizon``-th bar; ``index``: bars of implied volatility in per cent.

    Raises:
        ValueError: spot and index share less than the 200 days that come before the first forecast.
    """
    history = _history(bars, index, horizon)
    known = np.flatnonzero(history.known)
    first = known[0] + bars_of(24 * HISTORY_DAYS_MIN, bars.interval_ms) if len(known) else bars.size
    places = [at for at in range(first, bars.size - horizon, horizon) if history.known[at]]
    if len(places) < 2:
        raise ValueError(f"option books: {bars.asset} and its index of volatility share too short a history")
    table, elapsed = instruments(), horizon * bars.interval_ms / (365 * 86_400_000)
    days = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # days know nothing of each other
        work = pool.map(lambda at: _one_day(history, at, horizon, bars, table, elapsed, options.tails), places)
        for done, day in enumerate(work):
            days.append(day)
            listen(done / len(places))
    names = list(books(np.zeros(len(table.expiry)), 0))
    return _collected(bars, np.array(places), names, _Day(*(np.array(part) for part in zip(*days))), options)


def _history(bars: Bars, index: Bars, horizon: int) -> _History:
    implied = _last_known(index, bars.time_ms) / 100
    logs = np.log(implied)
    moves = np.nan_to_num(np.diff(logs, prepend=np.nan))
    hours = 3_600_000 / bars.interval_ms
    parts = [
        weight * ewma_path(moves * moves, 0.5 ** (1 / (length * hours)))
        for length, weight in zip(VOL_OF_VOL_HOURS, VOL_OF_VOL_WEIGHTS)
    ]
    state = variance_history(bars, (horizon,))
    variance = with_implied(state.variance, implied, bars.interval_ms)
    moved = np.log1p(realised_returns(bars, horizon))
    vol_moved = np.full(bars.size, np.nan)
    vol_moved[:-horizon] = logs[horizon:] - logs[:-horizon]
    season, vol_deviation = state.season[:, 0], np.sqrt((parts[0] + parts[1]) * horizon)
    stressed = np.sqrt(with_floor(variance, state.floor, horizon * bars.interval_ms) * season)
    deviation = np.sqrt(variance * season)
    columns = (implied, deviation, stressed, vol_deviation, moved, vol_moved)
    return _History(*columns, known=np.isfinite(np.column_stack(columns)).all(axis=1) & (vol_deviation > 0))


def _last_known(index: Bars, time_ms: npt.NDArray[np.int64]) -> FloatArray:
    """Close of the index bar of each time, or of the last one not older than six hours."""
    rows = np.searchsorted(index.time_ms, time_ms, side="right") - 1
    fresh = (rows >= 0) & (time_ms - index.time_ms[rows] <= STALE_HOURS * 3_600_000)
    return np.where(fresh, index.close[rows], np.nan)


def _one_day(
    history: _History, at: int, horizon: int, bars: Bars, table: Instruments, elapsed: float, tails: FloatArray
) -> _Day:
    level = history.implied[at] * 0.95
    window = bars_of(YEAR_HOURS * WINDOW_YEARS, bars.interval_ms)
    past = np.arange(max(at - window, 0), at - horizon + 1)
    past = past[history.known[past]]
    past = past[np.linspace(0, len(past) - 1, min(SCENARIOS, len(past))).astype(np.int64)]
    residual = history.moved[past] / history.deviation[past]
    vol_residual = history.vol_moved[past] / history.vol_deviation[past]
    stressed = history.moved[past] / history.stressed[past] * history.stressed[at]
    normal, vol_normal = _gaussian(residual, vol_residual, at)
    models = (
        (residual * history.deviation[at], vol_residual),
        (stressed, vol_residual),
        (normal * history.deviation[at], vol_normal),
    )
    zeros = np.zeros(2)
    bumps = revalue(level, table, np.array([_BUMP, -_BUMP]), zeros, 0.0)
    delta = (bumps[:, 0] - bumps[:, 1]) / (2 * _BUMP)
    weights = np.array(list(books(delta, MAKER_SEED + at).values()))
    out, asked = [], np.zeros(0)
    for place, (moves, shocks) in enumerate(models):
        values = profits(revalue(level, table, moves, shocks * history.vol_deviation[at], elapsed), moves)
        out.append(_tails(weights @ values, tails))
        if place == MODELS.index(STRESSED):
            asked = rules.margins(level, table, weights, values, float(tails.min()))
    move, vol_move = history.moved[at : at + 1], history.vol_moved[at : at + 1]
    full = profits(revalue(level, table, move, vol_move, elapsed), move)
    approximate = profits(_by_greeks(level, table, move[0], vol_move[0], elapsed, bumps)[:, None], move)
    return _Day(np.array(out), (weights @ full)[:, 0], (weights @ approximate)[:, 0], asked)


def _gaussian(residual: FloatArray, vol_residual: FloatArray, seed: int) -> tuple[FloatArray, FloatArray]:
    draw = np.random.default_rng(seed).standard_normal((2, len(residual)))
    rho = float(np.corrcoef(residual, vol_residual)[0, 1])
    other = rho * draw[0] + np.sqrt(1 - rho * rho) * draw[1]
    return draw[0] * residual.std(), other * vol_residual.std()


def _by_greeks(
    level: float, table: Instruments, move: float, vol_move: float, elapsed: float, bumps: FloatArray
) -> FloatArray:
    """f64[I]: delta, gamma, vega and theta times what happened."""
    change = np.expm1(move)
    slope, bend = (bumps[:, 0] - bumps[:, 1]) / (2 * _BUMP), (bumps[:, 0] + bumps[:, 1]) / _BUMP**2
    gamma = bend - slope  # in the simple return: second derivative by log spot less the first
    vol_bumps = revalue(level, table, np.zeros(2), np.array([_BUMP, -_BUMP]), 0.0)
    vega = (vol_bumps[:, 0] - vol_bumps[:, 1]) / (2 * _BUMP)
    theta = revalue(level, table, np.zeros(1), np.zeros(1), elapsed)[:, 0]
    return slope * change + gamma * change * change / 2 + vega * vol_move + theta


def _tails(profits: FloatArray, tails: FloatArray) -> FloatArray:
    """f64[books, levels, 4] of P&L [books, S]: (VaR, ES) of the book and of its opposite, losses positive."""
    ordered = np.sort(profits, axis=1)
    out = np.empty((len(profits), len(tails), 4))
    for level, tail in enumerate(tails):
        k = max(int(np.ceil(profits.shape[1] * tail - 1e-9)), 1)
        out[:, level, 0], out[:, level, 1] = -ordered[:, k - 1], -ordered[:, :k].mean(axis=1)
        out[:, level, 2], out[:, level, 3] = ordered[:, -k], ordered[:, -k:].mean(axis=1)
    return out


def _collected(
    bars: Bars, places: npt.NDArray[np.int64], names: list[str], days: _Day, options: WalkForward
) -> OptionRun:
    time_ms = bars.time_ms[places] + bars.interval_ms
    forecasts, attributions = {}, {}
    for book, name in enumerate(names):
        forecasts[name] = [
            Forecasts(
                model, name, 1, options.levels, time_ms, days.realised[:, book],
                *(days.tails[:, place, book, :, column] for column in range(4)),
            )
            for place, model in enumerate(MODELS)
        ]  # fmt: skip
        attributions[name] = attribution(days.greeks[:, book], days.realised[:, book])
    own = days.tails[:, MODELS.index(STRESSED), :, int(np.argmax(options.levels)), 1]
    return OptionRun(forecasts, attributions, _capital(names, -days.realised, own, days.margins))


def _capital(names: list[str], losses: FloatArray, own: FloatArray, asked: FloatArray) -> list[Capital]:
    """``losses``, ``own`` f64[n, books], ``asked`` f64[n, rules, books]: by rule and kind of book."""
    kinds, found = [kind_of(name) for name in names], []
    for place, rule in enumerate(rules.RULES):
        found += at_equal_coverage(rule, kinds, list(losses.T), list(own.T), list(asked[:, place].T))
    return found
