"""A backtest: every model walked forward over every history, evaluated, with the requirement as a whole beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from oracles.backtest import option_books, spreads
from oracles.backtest.attribution import Attribution
from oracles.backtest.capital import Capital, of_units
from oracles.backtest.evaluation import (
    HOURS_A_MONTH_MIN,
    LONG,
    SHORT,
    Evaluation,
    aligned,
    evaluate,
    long_ratios,
    month_least,
)
from oracles.backtest.stack import Stack, stack
from oracles.backtest.worst_months import WorstMonths, frontier, perfect_months
from oracles.risk_model.forecasts import DEFAULT_MODEL, MODELS, Forecasts, realised_returns
from oracles.risk_model.variance_model import variance_history
from schemas.risk_parameters import RiskParameters
from streams.backtest.inputs import DAY_MS, HOUR_MS, BacktestError, History, horizon_bars, walk_forward

Listener = Callable[[str], None]
TENTHS = 10
RESULTS_VERSION = 3
"""Raised when a model or a measure changes: the same inputs are another run then."""
OPTIONS_HORIZON_MIN_MS = 6 * HOUR_MS


class Backtest(Struct, frozen=True):
    """One horizon. ``forecasts``: by asset, aligned, in the order of ``models``. ``spreads``, ``options``: books of
    several assets and of options where there was data for them, ``attributions`` of the P&L of the latter; ``capital``:
    what other models and rules tie up at equal coverage; ``months``: the worst ones of the chosen model.
    """

    run_id: str
    horizon_ms: int
    models: tuple[str, ...]
    histories: tuple[History, ...]
    forecasts: dict[str, list[Forecasts]]
    evaluation: Evaluation
    stacks: tuple[Stack, ...]
    spreads: Evaluation | None
    options: Evaluation | None
    attributions: dict[str, Attribution]
    capital: tuple[Capital, ...]
    months: WorstMonths

    @property
    def chosen(self) -> str:
        """The model that plots and requirements show: the default if it ran, else the last."""
        return DEFAULT_MODEL if DEFAULT_MODEL in self.models else self.models[-1]


def check_models(names: Sequence[str]) -> tuple[str, ...]:
    """Names of models in the order given; BacktestError naming one that is not known, or a repetition."""
    for name in names:
        if name not in MODELS:
            raise BacktestError(f"--models: {name!r} is not known; choose from {', '.join(MODELS)}")
    if not names or len(set(names)) != len(names):
        raise BacktestError("--models: name at least one model, and each once")
    return tuple(names)


def steps(histories: Sequence[History], models: Sequence[str], horizon_ms: int, index: History | None) -> int:
    """How often the listener of ``run`` is called."""
    books = (len(histories) > 1) + _has_options(horizon_ms, index)
    return len(histories) * len(models) + 1 + books * TENTHS


def run(
    histories: Sequence[History], horizon_ms: int, models: Sequence[str], listen: Listener, index: History | None = None
) -> Backtest:
    """Walk, align, evaluate. ``index``: bars of the first asset's implied volatility in per cent, for option books.

    Raises:
        BacktestError: a horizon that does not fit the bars, bars of unequal length, a history that is too short.
    """
    intervals = {history.bars.interval_ms for history in (*histories, *([index] if index else []))}
    if len(intervals) != 1:
        raise BacktestError("bars of different lengths: import them at one interval")
    forecasts = {history.bars.asset: _walked(history, horizon_ms, models, listen) for history in histories}
    bars_a_day = max(DAY_MS // intervals.pop(), 1)
    parameters = RiskParameters()
    shown = models.index(DEFAULT_MODEL) if DEFAULT_MODEL in models else len(models) - 1
    try:
        shared = {asset: aligned(group) for asset, group in forecasts.items()}
        evaluation = evaluate(shared, bars_a_day)
        listen("evaluated")
        option_run = _option_books(histories[0], horizon_ms, index, listen)
        return Backtest(
            run_id=run_id_of([*histories, *([index] if index else [])], horizon_ms, models),
            horizon_ms=horizon_ms,
            models=tuple(models),
            histories=tuple(histories),
            forecasts=shared,
            evaluation=evaluation,
            stacks=tuple(
                stack(group[shown], side, parameters, bars_a_day) for group in shared.values() for side in (LONG, SHORT)
            ),
            spreads=_spread_books(histories, horizon_ms, bars_a_day, listen),
            options=evaluate(option_run.forecasts, max(DAY_MS // horizon_ms, 1)) if option_run else None,
            attributions=option_run.attributions if option_run else {},
            capital=(*of_units(shared, models[shown]), *(option_run.capital if option_run else ())),
            months=_worst_months(histories, [group[shown] for group in shared.values()], bars_a_day, evaluation),
        )
    except ValueError as error:
        raise BacktestError(str(error)) from error


def _worst_months(
    histories: Sequence[History], forecasts: list[Forecasts], bars_a_day: int, evaluation: Evaluation
) -> WorstMonths:
    """Of the model of ``forecasts``, one an asset; a perfect forecast is held to as many months, as long on average."""
    one, count = forecasts[0], len(evaluation.summary(forecasts[0].model).months)
    steps = frontier(long_ratios(forecasts), month_least(bars_a_day, len(forecasts)))
    shocks = _shocks(histories)
    if not count or not len(shocks):
        return WorstMonths(None, steps)
    bars = max(sum(evaluation.observations.values()) // (count * len(forecasts)), HOURS_A_MONTH_MIN * bars_a_day // 24)
    return WorstMonths(perfect_months(shocks, one.horizon_bars, count, bars, 1 - max(one.levels)), steps)


def _shocks(histories: Sequence[History]) -> npt.NDArray[np.float64]:
    """float64[n,A]: log returns of one bar over their forecast deviations, on the bars that all assets have."""
    times = reduce(np.intersect1d, [history.bars.time_ms for history in histories])
    columns = []
    for history in histories:
        bars = history.bars
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log1p(realised_returns(bars, 1)) / variance_history(bars, (1,)).stddev(1, stress=False)
        columns.append(ratio[np.searchsorted(bars.time_ms, times)])
    shocks = np.stack(columns, axis=1)
    return np.ascontiguousarray(shocks[np.isfinite(shocks).all(axis=1)])


def _has_options(horizon_ms: int, index: History | None) -> bool:
    return index is not None and horizon_ms >= OPTIONS_HORIZON_MIN_MS


def _spread_books(
    histories: Sequence[History], horizon_ms: int, bars_a_day: int, listen: Listener
) -> Evaluation | None:
    if len(histories) < 2:
        return None
    bars, count = [history.bars for history in histories], horizon_bars(histories[0], horizon_ms)
    options = walk_forward(bars[0].interval_ms)
    books = spreads.books_of([one.asset for one in bars])
    forecasts = spreads.walk(bars, count, books, options, _tenths(listen, "spread books"))
    every = spreads.bars_between(bars[0].interval_ms, count)
    return evaluate(forecasts, max(bars_a_day // every, 1))


def _option_books(
    history: History, horizon_ms: int, index: History | None, listen: Listener
) -> option_books.OptionRun | None:
    if index is None or not _has_options(horizon_ms, index):
        return None
    options = walk_forward(history.bars.interval_ms)
    heard = _tenths(listen, "option books")
    return option_books.walk(history.bars, index.bars, horizon_bars(history, horizon_ms), options, heard)


def _tenths(listen: Listener, what: str) -> Callable[[float], None]:
    """Passes on every tenth of the way, the last one included when the end is near."""
    heard = 0

    def share(done: float) -> None:
        nonlocal heard
        while heard < TENTHS and done * TENTHS >= heard + 1 - 0.1:
            heard += 1
            listen(f"{what} {10 * heard} %")

    return share


def run_id_of(histories: Sequence[History], horizon_ms: int, models: Sequence[str]) -> str:
    """Identity of a run by its inputs: the same bars, horizon and models (of a version) give the same id."""
    digest = hashlib.blake2b(repr((RESULTS_VERSION, horizon_ms, tuple(models))).encode(), digest_size=8)
    for history in histories:
        bars = history.bars
        digest.update(bars.asset.encode())
        for column in (bars.time_ms, bars.open, bars.high, bars.low, bars.close, bars.volume):
            digest.update(column.tobytes())
    return digest.hexdigest()


def _walked(history: History, horizon_ms: int, models: Sequence[str], listen: Listener) -> list[Forecasts]:
    bars, count = history.bars, horizon_bars(history, horizon_ms)
    options = walk_forward(bars.interval_ms)
    found = []
    for name in models:
        found.append(MODELS[name](bars, count, options))
        listen(f"{bars.asset} {name}")
    return found
