"""Exact margins of a few accounts at the present market, and which of them are warnings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.layout import ScenarioTable
from schemas.catalogue import Catalogue
from schemas.risk_parameters import RiskParameters
from streams.engine.book import INSTRUMENT_MASK, Book, Legs
from streams.engine.lines import IM, MM, Lines
from streams.engine.margin import Margins, account_sums, compute, empty_margins
from streams.engine.market import RecordedMarket
from streams.engine.tables import build_tables


class WarningDue(NamedTuple):
    """A confirmed crossing: account row, its place in `exact`, which line, what triggered it, the exact margins."""

    row: int
    place: int
    line: int
    trigger: str
    exact: Margins


def exact_now(
    book: Book,
    rows: np.ndarray,
    catalogue: Catalogue,
    market: RecordedMarket,
    p: RiskParameters,
    scenarios: ScenarioTable,
) -> Margins:
    """Full margins of `rows` at `market`: only the instruments they hold are repriced."""
    slices = [book.leg_slice(row) for row in rows.tolist()]
    leg_instrument = np.concatenate([book.keys[s] & INSTRUMENT_MASK for s in slices])
    chosen = np.unique(leg_instrument)
    pointer = np.concatenate([[0], np.cumsum([s.stop - s.start for s in slices])]).astype(np.int64)
    lots = np.concatenate([book.lots[s] for s in slices])
    legs = Legs(pointer, np.searchsorted(chosen, leg_instrument).astype(np.int32), lots)
    entry = np.array([book.entry_usd6[s].sum() for s in slices], np.int64)
    tables = build_tables(catalogue, market, p, scenarios, chosen)
    margins = empty_margins(len(rows))
    sums = account_sums(legs, book.cash_usd6[rows], entry, tables, p)
    compute(legs, np.arange(len(rows)), sums, tables, p, margins)
    return margins


def warnings_due(
    lines: Lines, rows: np.ndarray, estimate_usd6: np.ndarray, exact: Margins, trigger: str
) -> list[WarningDue]:
    """Confirmed crossings of armed lines; the exact numbers replace the estimates of all `rows`.

    A fall through both lines at once is one warning, of the lower line.
    """
    due = []
    for place, row in enumerate(rows.tolist()):
        nlv = int(exact.nlv_usd6[place])
        limits = (int(exact.initial_margin_usd6[place]), int(exact.maintenance_margin_usd6[place]))
        lines.base_usd6[row] += nlv - estimate_usd6[row]
        lines.line_usd6[row] = limits
        if nlv < limits[MM] and lines.armed[row, MM]:
            due.append(WarningDue(row, place, MM, trigger, exact))
            lines.armed[row] = False
        elif nlv < limits[IM] and lines.armed[row, IM]:
            due.append(WarningDue(row, place, IM, trigger, exact))
            lines.armed[row, IM] = False
    return due
