"""Results of a backtest in the store: two tables that `dpme query sql` reads, one row a model and one a tail."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pyarrow as pa
from msgspec.structs import asdict

from streams.backtest.run import Backtest
from streams.sink.store import DATABASE, Store

MODELS_TABLE, TAILS_TABLE = "backtest_models", "backtest_tails"
_NOT_STORED = ("months", "against")


def write(store: Store, backtest: Backtest) -> bool:
    """Append the run unless the store has it; True if it was written.

    Tails go first: a run counts as stored by its row of models, so that a kill between the two is mended by a repeat.
    """
    for statement in _statements(store.database):
        store.execute(statement)
    models = f"{store.database}.{MODELS_TABLE}"
    known = store.query(f"SELECT count() AS n FROM {models} WHERE run_id = {{run:String}}", {"run": backtest.run_id})
    if int(known[0]["n"]):
        return False
    tails = f"{store.database}.{TAILS_TABLE}"
    held = store.query(f"SELECT count() AS n FROM {tails} WHERE run_id = {{run:String}}", {"run": backtest.run_id})
    if not int(held[0]["n"]):
        store.insert(TAILS_TABLE, pa.Table.from_pylist(tail_rows(backtest)))
    store.insert(MODELS_TABLE, pa.Table.from_pylist(model_rows(backtest)))
    return True


def model_rows(backtest: Backtest) -> list[dict[str, Any]]:
    """One row a model."""
    evaluation = backtest.evaluation
    shared = {
        "run_id": backtest.run_id,
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


def tail_rows(backtest: Backtest) -> list[dict[str, Any]]:
    """One row a tail of an asset and model."""
    return [
        {"run_id": backtest.run_id, "asset": score.asset, "model": score.model, **asdict(tail)}
        for score in backtest.evaluation.scores
        for tail in score.tails
    ]


def _statements(database: str) -> list[str]:
    text = resources.files("streams.backtest").joinpath("schema.sql").read_text(encoding="utf-8")
    plain = "\n".join(line.split("--", 1)[0] for line in text.splitlines())
    return [
        re.sub(rf"(EXISTS ){DATABASE}\b", rf"\g<1>{database}", statement.strip(), count=1)
        for statement in plain.split(";")
        if statement.strip()
    ]
