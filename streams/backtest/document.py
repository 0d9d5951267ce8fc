"""A backtest as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import to_builtins

from oracles.backtest.evaluation import Evaluation
from streams.backtest.reference import Row
from streams.backtest.run import Backtest
from streams.market_data.findings import utc


def document(backtests: Sequence[Backtest], rows: Sequence[Row] = ()) -> dict[str, Any]:
    """``runs``, one a horizon; ``reference``: the table's rows, ``reference_ok``: whether all of them are good."""
    out: dict[str, Any] = {"runs": [_run(backtest) for backtest in backtests]}
    if rows:
        out["reference"] = [to_builtins(row) for row in rows]
        out["reference_ok"] = all(row.ok for row in rows)
    return out


def _run(backtest: Backtest) -> dict[str, Any]:
    evaluation = backtest.evaluation
    return {
        "run_id": backtest.run_id,
        "horizon_ms": backtest.horizon_ms,
        "first": utc(evaluation.first_ms),
        "last": utc(evaluation.last_ms),
        "levels": list(evaluation.levels),
        "observations": evaluation.observations,
        "data": [history.facts() for history in backtest.histories],
        "models": [_summary(summary) for summary in evaluation.summaries],
        "assets": [_score(score) for score in evaluation.scores],
        "requirements": _requirements(backtest),
        "spread_books": _books(backtest.spreads),
        "option_books": _books(backtest.options),
        "capital": [to_builtins(one) for one in backtest.capital],
        "worst_months": to_builtins(backtest.months),
        "attributions": {name: found._asdict() for name, found in backtest.attributions.items()},
    }


def _requirements(backtest: Backtest) -> list[dict[str, Any]]:
    out = []
    for stack in backtest.stacks:
        terms = [
            {
                **to_builtins(term),
                "worst_month": term.worst_month._asdict(),
                "procyclicality": term.procyclicality._asdict(),
            }
            for term in stack.terms
        ]
        out.append({**to_builtins(stack), "terms": terms})
    return out


def _books(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    return {
        "observations": evaluation.observations,
        "models": [_summary(summary) for summary in evaluation.summaries],
        "books": [_score(score) for score in evaluation.scores],
    }


def _summary(summary: Any) -> dict[str, Any]:
    plain = dict(to_builtins(summary))
    plain["months"] = [month._asdict() for month in summary.months]
    plain["worst_month"] = summary.worst_month._asdict()
    plain["against"] = {name: test._asdict() for name, test in summary.against.items()}
    return plain


def _score(score: Any) -> dict[str, Any]:
    plain = dict(to_builtins(score))
    plain["procyclicality"] = score.procyclicality._asdict()
    plain["worst_months"] = [month._asdict() for month in score.worst_months]
    return plain
