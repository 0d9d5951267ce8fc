"""Exact margins of a few accounts at the present market, and which of them are warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streams.engine.book import Legs
from streams.engine.lines import IM, MM, Lines
from streams.engine.margin import Margins, account_sums, compute, empty_margins
from streams.engine.tables import build_tables

if TYPE_CHECKING:
    from streams.engine.risk import Risk

SHARE_WORTH_ALL = 4  # a quarter of the instruments to reprice: as well all of them, once for every partition


class WarningDue(NamedTuple):
    """A confirmed crossing: account row, its place in `exact`, which line, what triggered it, the estimate that led to
    it, the exact margins.
    """

    row: int
    place: int
    line: int
    trigger: str
    estimate_usd6: float
    exact: Margins


def exact_now(state: Risk, rows: np.ndarray) -> Margins:
    """Full margins of `rows` at the present market.

    Only the instruments they hold are repriced, unless that is a good part of all: then the tables of the whole market
    are shared with the other partitions. A row's bytes are the same either way.
    """
    book, catalogue, p = state.book, state.catalogue, state.parameters
    pointer, held, lots, entry_usd6 = book.legs_of(rows)
    chosen = np.unique(held).astype(np.int64)
    if len(chosen) * SHARE_WORTH_ALL >= len(catalogue.instruments):
        tables = state.cache.get(catalogue, state.market, p, state.scenario_digest)
    else:
        scenarios = state.cache.scenarios(state.scenario_digest, catalogue)
        tables = build_tables(catalogue, state.market, p, scenarios, chosen)
        held = np.searchsorted(chosen, held).astype(np.int32)
    entry = np.zeros(len(rows), np.int64)
    np.add.at(entry, np.repeat(np.arange(len(rows)), np.diff(pointer)), entry_usd6)
    legs = Legs(pointer, held, lots)
    margins = empty_margins(len(rows))
    _start_warm(margins, state.margins, rows)
    sums = account_sums(legs, book.cash_usd6[rows], entry, tables, p)
    compute(legs, np.arange(len(rows)), sums, tables, p, margins)
    return margins


def _start_warm(margins: Margins, known: Margins, rows: np.ndarray) -> None:
    """Where the last barrier's tail began: changes the speed, never a result."""
    old = rows < len(known.state)
    margins.tail_threshold[old] = known.tail_threshold[rows[old]]
    margins.es_usd9[old] = known.es_usd9[rows[old]]


def warnings_due(
    lines: Lines, rows: np.ndarray, estimate_usd6: np.ndarray, exact: Margins, trigger: str
) -> list[WarningDue]:
    """Confirmed crossings of armed lines; the exact numbers replace the estimates (float64[n]) of all `rows` int64[n].

    A fall through both lines at once is one warning, of the lower line.
    """
    due = []
    for place, row in enumerate(rows.tolist()):
        nlv = int(exact.nlv_usd6[place])
        limits = (int(exact.initial_margin_usd6[place]), int(exact.maintenance_margin_usd6[place]))
        estimate = estimate_usd6[place]
        lines.base_usd6[row] += nlv - estimate
        lines.line_usd6[row] = limits
        lines.unsettled[row] = True
        if nlv < limits[MM] and lines.armed[row, MM]:
            due.append(WarningDue(row, place, MM, trigger, estimate, exact))
            lines.armed[row] = False
        elif nlv < limits[IM] and lines.armed[row, IM]:
            due.append(WarningDue(row, place, IM, trigger, estimate, exact))
            lines.armed[row, IM] = False
    return due
