"""What `dpme stress` says, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from kernels.layout import NANO
from oracles.scenario_set import ScenarioSet
from streams.cli.as_of import AsOf
from streams.cli.errors import CommandError
from streams.engine.output import Fault
from streams.engine.reverse_stress import Found, reverse_stress
from streams.engine.tables import scenario_table_of
from streams.engine.venue_stress import (
    EQUITY,
    VIEWS,
    Group,
    VenueTables,
    group_of,
    losses_of,
    priced,
    rows_named,
    uncovered,
    venue_tables,
    views_of,
)


def stress_view(
    machines: Sequence[AsOf],
    confidence_e6: int,
    fund_usd6: int | None,
    reverse: bool,
    heard: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """The venue under its scenario set and stress rows; without a fund, the fund is what cover 2 asks for."""
    first = machines[0]
    tables = venue_tables(first.tables, first.catalogue, first.parameters)
    groups = _groups(machines)
    weights = first.tables.scenarios.weights
    found = {name: uncovered(groups, tables, name) for name in VIEWS}
    views, known = views_of(found, weights, rows_named(first.parameters), confidence_e6, fund_usd6)
    view: dict[str, Any] = {
        "block": first.risk.block,
        "time_ms": first.risk.market.time_ms,
        "accounts": sum(len(group.accounts) for group in groups),
        "scenarios": len(weights),
        "scenario_digest": first.risk.scenario_digest,
        "confidence_e6": confidence_e6,
        "fund_usd6": known,
        "fund_given": fund_usd6 is not None,
        "unpriced_accounts": list(losses_of(groups, tables.pnl, EQUITY)[1]),
        "views": msgspec.to_builtins(views),
    }
    if reverse:
        view["reverse"] = _reverse(first, groups, tables, known, heard)
    return view


def _groups(machines: Sequence[AsOf]) -> list[Group]:
    try:
        return [
            group_of(book.legs(), book.accounts, book.cash(), book.entry_by_account(), found.tables, found.parameters)
            for found in machines
            for book in (found.risk.book,)
        ]
    except Fault as fault:
        raise CommandError(f"the venue cannot be stressed: {fault}") from fault


def _reverse(
    found: AsOf, groups: list[Group], tables: VenueTables, fund_usd6: int, heard: Callable[[float], None]
) -> dict[str, Any]:
    recorded = found.risk.cache.lookup(found.risk.scenario_digest)

    def losses(scenarios: ScenarioSet) -> np.ndarray:
        pnl = priced(tables.instruments, found.tables, scenario_table_of(scenarios, found.catalogue))
        return losses_of(groups, pnl, EQUITY)[0].total_usd6

    try:
        nearest = reverse_stress(recorded, losses, fund_usd6, heard)
    except ValueError as error:
        raise CommandError(f"--reverse: {error}") from error
    if nearest is None:
        return {"found": False}
    return {
        "found": True,
        "distance": round(nearest.distance, 3),
        "odds": nearest.odds,
        "horizon_seconds": recorded.horizon_seconds,
        "uncovered_usd6": nearest.uncovered_usd6,
        "moves": _moves(nearest),
    }


def _moves(found: Found) -> list[dict[str, Any]]:
    """Every factor's move as a set states it (log return of spot and volatility level, ...), and in own sd."""
    scenario = found.scenario
    named = [("spot", name) for name in scenario.underlyings]
    kinds = ["volatility" if kind == "level" else kind for kind in scenario.kinds]
    named += [(kind, name) for kind in kinds for name in scenario.option_underlyings]
    moves = scenario.factors()[:, 0] / NANO
    own = scenario.volatility_e9 / NANO
    return [
        {"factor": kind, "underlying": name, "move": float(move), "deviations": float(move / sd) if sd else 0.0}
        for (kind, name), move, sd in zip(named, moves, own, strict=True)
    ]
