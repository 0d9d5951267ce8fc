"""A backtest: every model walked forward over every history, evaluated, with the requirement as a whole beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from msgspec import Struct

from oracles.backtest.evaluation import LONG, SHORT, Evaluation, aligned, evaluate
from oracles.backtest.stack import Stack, stack
from oracles.risk_model.forecasts import DEFAULT_MODEL, MODELS, Forecasts
from schemas.risk_parameters import RiskParameters
from streams.backtest.inputs import DAY_MS, BacktestError, History, horizon_bars, walk_forward

Listener = Callable[[str], None]


class Backtest(Struct, frozen=True):
    """One horizon. ``forecasts``: by asset, aligned, in the order of ``models``."""

    run_id: str
    horizon_ms: int
    models: tuple[str, ...]
    histories: tuple[History, ...]
    forecasts: dict[str, list[Forecasts]]
    evaluation: Evaluation
    stacks: tuple[Stack, ...]

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


def steps(histories: Sequence[History], models: Sequence[str]) -> int:
    """How often the listener of ``run`` is called."""
    return len(histories) * len(models) + 1


def run(histories: Sequence[History], horizon_ms: int, models: Sequence[str], listen: Listener) -> Backtest:
    """Walk, align, evaluate. BacktestError where a horizon does not fit the bars or a history is too short."""
    intervals = {history.bars.interval_ms for history in histories}
    if len(intervals) != 1:
        raise BacktestError("bars of different lengths: import them at one interval")
    forecasts = {history.bars.asset: _walked(history, horizon_ms, models, listen) for history in histories}
    bars_a_day = max(DAY_MS // intervals.pop(), 1)
    try:
        shared = {asset: aligned(group) for asset, group in forecasts.items()}
        evaluation = evaluate(shared, bars_a_day)
    except ValueError as error:
        raise BacktestError(str(error)) from error
    listen("evaluated")
    shown = models.index(DEFAULT_MODEL) if DEFAULT_MODEL in models else len(models) - 1
    parameters = RiskParameters()
    stacks = [stack(group[shown], side, parameters, bars_a_day) for group in shared.values() for side in (LONG, SHORT)]
    return Backtest(
        run_id=run_id_of(histories, horizon_ms, models),
        horizon_ms=horizon_ms,
        models=tuple(models),
        histories=tuple(histories),
        forecasts=shared,
        evaluation=evaluation,
        stacks=tuple(stacks),
    )


def run_id_of(histories: Sequence[History], horizon_ms: int, models: Sequence[str]) -> str:
    """Identity of a run by its inputs: the same bars, horizon and models give the same id."""
    digest = hashlib.blake2b(repr((horizon_ms, tuple(models))).encode(), digest_size=8)
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
