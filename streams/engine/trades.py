"""What events between barriers do to an account's estimate: exactly to its NLV, at most to its lines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.quantities import ONE_E6, USD9_PER_USD6
from schemas.risk_parameters import RiskParameters
from streams.engine.book import INSTRUMENT_BITS, INSTRUMENT_MASK, Book
from streams.engine.concentration import marginal_rate_usd9
from streams.engine.tables import Tables

LegLots = tuple[np.ndarray, np.ndarray]  # keys of legs, lots (or moved lots) of each


class TradeEffects(NamedTuple):
    """Over all accounts, float64[A] micro-USD; `rows` int64: those touched, `named`: by an event of their own (the
    others were funded: their lots are what they were).
    """

    rows: np.ndarray
    named: np.ndarray
    nlv_change_usd6: np.ndarray
    line_rise_usd6: np.ndarray


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
    book: Book, events: records.Events, catalogue: Catalogue, tables: Tables, bound_usd9: np.ndarray
) -> TradeEffects:
    """Apply the events to the book and say what they did."""
    known = _rows_concerned(book, events)
    before_nlv, before_legs = _nlv_usd6(book, known, tables), _legs(book, known)
    rows = book.apply_events(events, catalogue, tables.greeks_usd9)
    count = len(book.accounts)
    change, rise = np.zeros(count), np.zeros(count)
    change[known] -= before_nlv
    change[rows] += _nlv_usd6(book, rows, tables)
    keys, moved = _moved(before_legs, _legs(book, rows))
    index = keys & INSTRUMENT_MASK
    bound = np.full(len(catalogue.instruments), np.inf)  # a lot of what was listed since then can do anything
    bound[: len(bound_usd9)] = bound_usd9
    np.add.at(rise, keys >> INSTRUMENT_BITS, moved * bound[index] / USD9_PER_USD6)
    named = np.array([book.row_of[name] for name in events.names], np.int64)
    return TradeEffects(rows, named, change, rise)


def _rows_concerned(book: Book, events: records.Events) -> np.ndarray:
    """Rows there are already that the events may move: those named, and holders of what is funded."""
    rows = [np.array([book.row_of[name] for name in events.names if name in book.row_of], np.int64)]
    funded = np.unique(events.rows["instrument"][events.rows["kind"] == records.FUNDING])
    rows += [book.keys[book.holders(index)] >> INSTRUMENT_BITS for index in funded.tolist()]
    return book.marked(rows)


def _nlv_usd6(book: Book, rows: np.ndarray, tables: Tables) -> np.ndarray:
    """NLV of some accounts at the tables' marks, float64; legs listed since then count nothing yet."""
    mark, haircut = tables.columns_usd9[:2].astype(np.float64)
    pointer, legs = book.legs_of(rows)
    index, lots = book.keys[legs] & INSTRUMENT_MASK, book.lots[legs]
    listed = index < len(haircut)
    value = np.zeros(len(legs))
    price = np.where(lots[listed] > 0, haircut[index[listed]], mark[index[listed]])
    value[listed] = lots[listed] * price / USD9_PER_USD6
    total = book.cash_usd6[rows].astype(np.float64)
    np.add.at(total, np.repeat(np.arange(len(rows)), np.diff(pointer)), value - book.entry_usd6[legs])
    return total


def _legs(book: Book, rows: np.ndarray) -> LegLots:
    """(keys, lots) of some accounts."""
    _, legs = book.legs_of(rows)
    return book.keys[legs], book.lots[legs]


def _moved(before: LegLots, after: LegLots) -> LegLots:
    """Keys whose lots differ, and by how many lots: float64."""
    keys, place = np.unique(np.concatenate([before[0], after[0]]), return_inverse=True)
    lots = np.zeros(len(keys), np.int64)
    np.subtract.at(lots, place[: len(before[0])], before[1])
    np.add.at(lots, place[len(before[0]) :], after[1])
    differs = lots != 0
    return keys[differs], np.abs(lots[differs]).astype(np.float64)
