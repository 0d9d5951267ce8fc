"""What events between barriers do to an account's estimate: exactly to its NLV, at most to its lines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.quantities import ONE_E6, USD9_PER_USD6
from schemas.risk_parameters import RiskParameters
from streams.engine.book import INSTRUMENT_BITS, INSTRUMENT_MASK, Book
from streams.engine.tables import Tables


class TradeEffects(NamedTuple):
    """Over all accounts, float64[A] micro-USD; `rows` int64: those touched."""

    rows: np.ndarray
    nlv_change_usd6: np.ndarray
    line_rise_usd6: np.ndarray


def loss_bound_usd9(tables: Tables, p: RiskParameters) -> np.ndarray:
    """Most that one lot, long or short, can add to IM: float64[I].

    ES and stress are subadditive (SCREENING: trades), the worst scenario bounds the ES of one lot, and the minimum and
    the charge on notional grow by at most their own rates.
    """
    pnl = np.maximum(np.abs(tables.pnl.minimum_usd9), np.abs(tables.pnl.maximum_usd9)).astype(np.float64)
    stress = (np.abs(tables.stress) * (tables.stress_weight_e6 / ONE_E6)).max(axis=1, initial=0.0)
    notional = tables.columns_usd9[2].astype(np.float64)
    risk = np.maximum(pnl, stress) + notional * (p.short_option_minimum_e6 / ONE_E6)
    return risk * (p.initial_margin_multiplier_e6 / ONE_E6) + notional * (p.gross_notional_charge_e6 / ONE_E6)


def trade_effects(
    book: Book, events: records.Events, catalogue: Catalogue, tables: Tables, bound_usd9: np.ndarray
) -> TradeEffects:
    """Apply the events to the book and say what they did."""
    known = np.array([book.row_of[name] for name in events.names if name in book.row_of], np.int64)
    before_nlv, before_lots = _nlv_usd6(book, known, tables), _lots(book, known)
    rows = book.apply_events(events, catalogue, tables.greeks_usd9)
    count = len(book.accounts)
    change, rise = np.zeros(count), np.zeros(count)
    change[known] -= before_nlv
    change[rows] += _nlv_usd6(book, rows, tables)
    for key, lots in _lots(book, rows).items():
        moved = abs(lots - before_lots.get(key, 0))
        index = key & INSTRUMENT_MASK
        if moved:
            rise[key >> INSTRUMENT_BITS] += (
                moved * bound_usd9[index] / USD9_PER_USD6 if index < len(bound_usd9) else np.inf
            )
    return TradeEffects(rows, change, rise)


def _nlv_usd6(book: Book, rows: np.ndarray, tables: Tables) -> np.ndarray:
    """NLV of some accounts at the tables' marks, float64; legs listed since then count nothing yet."""
    mark, haircut = tables.columns_usd9[:2].astype(np.float64)
    out = np.zeros(len(rows))
    for n, row in enumerate(rows.tolist()):
        leg = book.leg_slice(row)
        index = book.keys[leg] & INSTRUMENT_MASK
        listed = index < len(haircut)
        lots, listed_index = book.lots[leg][listed], index[listed]
        value = lots * np.where(lots > 0, haircut[listed_index], mark[listed_index]) / USD9_PER_USD6
        total = float(book.cash_usd6[row]) - float(book.entry_usd6[leg].sum())
        for part in value.tolist():
            total += part
        out[n] = total
    return out


def _lots(book: Book, rows: np.ndarray) -> dict[int, int]:
    found: dict[int, int] = {}
    for row in rows.tolist():
        leg = book.leg_slice(row)
        found.update(zip(book.keys[leg].tolist(), book.lots[leg].tolist(), strict=True))
    return found
