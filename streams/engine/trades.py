"""What events between barriers do to an account's estimate: exactly to its NLV, at most to its lines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.account_events import LotTerms, effects_usd6, held_by
from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.quantities import ONE_E6
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Book
from streams.engine.concentration import marginal_rate_usd9
from streams.engine.tables import Tables


class TradeEffects(NamedTuple):
    """float64[n] micro-USD for each of `rows` int64[n], those touched, ascending; `named`: rows of an event of their
    own (the others were funded: their lots are what they were). `lots_before` int64[L]: of the legs of `rows`, as the
    book has these afterwards.
    """

    rows: np.ndarray
    named: np.ndarray
    nlv_change_usd6: np.ndarray
    line_rise_usd6: np.ndarray
    lots_before: np.ndarray


def lot_terms(tables: Tables, p: RiskParameters) -> LotTerms:
    """The terms by the tables of the last barrier."""
    mark, haircut_mark = (np.ascontiguousarray(column, np.float64) for column in tables.columns_usd9[:2])
    return LotTerms(mark, haircut_mark, loss_bound_usd9(tables, p))


def loss_bound_usd9(tables: Tables, p: RiskParameters) -> np.ndarray:
    """Most that one lot, long or short, can add to IM: float64[I].

    ES and stress are subadditive (SCREENING: trades), the worst scenario bounds the ES of one lot, and the minimum and
    the add-ons grow by at most their own rates.
    """
    pnl = np.maximum(np.abs(tables.pnl.minimum_usd9), np.abs(tables.pnl.maximum_usd9)).astype(np.float64)
    stress = (np.abs(tables.stress) * (tables.stress_weight_e6 / ONE_E6)).max(axis=1, initial=0.0)
    notional = tables.columns_usd9[2].astype(np.float64)
    charges = notional * (p.gross_notional_charge_e6 / ONE_E6) + marginal_rate_usd9(tables, p)
    risk = np.maximum(pnl, stress) + notional * (p.short_option_minimum_e6 / ONE_E6)
    if tables.degraded_usd9 is not None:
        charges = charges + tables.degraded_usd9
    return risk * (p.initial_margin_multiplier_e6 / ONE_E6) + charges


def trade_effects(
    book: Book,
    events: records.Events | records.PackedEvents,
    catalogue: Catalogue,
    greeks_usd9: np.ndarray,
    lot: LotTerms,
) -> TradeEffects:
    """Apply the events to the book and say what they did. greeks_usd9 int64[I,4] and `lot`: of one set of tables."""
    taken = book.take_up(events, catalogue)
    rows, lots_before, value_usd6 = held_by(taken.touched, book.with_room(), lot)
    book.carry_out(taken, catalogue, greeks_usd9)
    change_usd6, rise_usd6 = effects_usd6(rows, lots_before, value_usd6, book.with_room(), lot)
    return TradeEffects(rows, taken.named, change_usd6, rise_usd6, lots_before)
