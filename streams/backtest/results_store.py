"""Results of a backtest in the store, for `dpme query sql`: models and tails of assets and books, capital of rules."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pyarrow as pa
from msgspec.structs import asdict

from oracles.backtest.evaluation import Evaluation
from streams.backtest.run import Backtest
from streams.sink.store import DATABASE, Store

MODELS_TABLE, TAILS_TABLE, CAPITAL_TABLE = "backtest_models", "backtest_tails", "backtest_capital"
_NOT_STORED = ("months", "against", "rate_error")


def write(store: Store, backtest: Backtest) -> bool:
    """Append what the store lacks of the run; True if that was anything.

    Each table is filled by one insert for each kind of books, which happens or does not: a kill in between is mended by
    a repeat.
    """
    for statement in _statements(store.database):
        store.execute(statement)
    written = False
    for books, evaluation in evaluations(backtest).items():
        for table, rows in (
            (TAILS_TABLE, tail_rows(backtest, books, evaluation)),
            (MODELS_TABLE, model_rows(backtest, books, evaluation)),
        ):
            written |= _append(store, table, rows, f"run_id = {{run:String}} AND books = '{books}'", backtest.run_id)
    capital = [{"run_id": backtest.run_id, **asdict(one)} for one in backtest.capital]
    return _append(store, CAPITAL_TABLE, capital, "run_id = {run:String}", backtest.run_id) or written


def _append(store: Store, table: str, rows: list[dict[str, Any]], known: str, run_id: str) -> bool:
    held = store.query(f"SELECT count() AS n FROM {store.database}.{table} WHERE {known}", {"run": run_id})
    if int(held[0]["n"]) or not rows:
        return False
    store.insert(table, pa.Table.from_pylist(rows))
    return True


def evaluations(backtest: Backtest) -> dict[str, Evaluation]:
    """What was evaluated, by kind of books."""
    found = {"single assets": backtest.evaluation, "spread books": backtest.spreads, "option books": backtest.options}
    return {books: evaluation for books, evaluation in found.items() if evaluation is not None}


def model_rows(backtest: Backtest, books: str, evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row a model."""
    shared = {
        "run_id": backtest.run_id,
        "books": books,
        "horizon_ms": backtest.horizon_ms,
        "first_ms": evaluation.first_ms,
        "last_ms": evaluation.last_ms,
    }
    rows = []
    for summary in evaluation.summaries:
        own = {name: value for name, value in asdict(summary).items() if name not in _NOT_STORED}
        worst = summary.worst_month
        rows.append({**shared, **own, "worst_month": worst.name, "worst_month_rate": worst.rate})
    return rows


def tail_rows(backtest: Backtest, books: str, evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row a tail of an asset or book and model."""
    return [
        {"run_id": backtest.run_id, "books": books, "asset": score.asset, "model": score.model, **asdict(tail)}
        for score in evaluation.scores
        for tail in score.tails
    ]


def _statements(database: str) -> list[str]:
    text = resources.files("streams.backtest").joinpath("schema.sql").read_text(encoding="utf-8")
    plain = "\n".join(line.split("--", 1)[0] for line in text.splitlines())
    return [
        re.sub(rf"\b{DATABASE}\.", f"{database}.", statement.strip())
        for statement in plain.split(";")
        if statement.strip()
    ]
