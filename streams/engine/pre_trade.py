"""The pre-trade bound: an upper bound of a margin after trades, in O(legs) and without any scenario.

From a table of the 2 I margins of one lot (long and short of each instrument), made once a market. For trades dq and an
account whose margin is known (SCREENING, theorem 4; Artzner et al. 1999: subadditive, positively homogeneous):

    ES(q + dq)     <= ES(q)     + sum_i |dq_i| ES(one lot of i on the side of dq_i)
    stress(q + dq) <= stress(q) + sum_i |dq_i| stress(one lot of i on that side)

The left sides are ceilings of what is at most the right side, and the right sides are integers, so both hold for the
rounded terms as well. The short-option minimum, the add-ons and NLV need no scenario and are exact. So

    MM <= max(bounds, minimum) + add-ons        IM <= multiplier x max(bounds, minimum) + add-ons

rounded up. Where NLV reaches the second, the account is healthy after the trades for certain.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from msgspec import Struct

from kernels.expected_shortfall import INVALID, NO_TAIL_THRESHOLD, account_terms
from schemas.quantities import ONE_E6, USD9_PER_USD6, divide_up
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Book
from streams.engine.margin import Margins
from streams.engine.portfolio import sums_of
from streams.engine.tables import Tables

LONG, SHORT = 0, 1


class OneLotTerms(NamedTuple):
    """Terms of one lot alone, int64[2,I] nano-USD, long and short; `priced` bool[I]: False where there are none."""

    es_usd9: np.ndarray
    stress_usd9: np.ndarray
    priced: np.ndarray


class PreTradeBound(Struct, frozen=True):
    """Upper bounds of the margins after the trades, micro-USD. `nlv_usd6` and `equity_usd6` are exact.

    `surely_healthy` is a theorem; False says only that the exact margin is needed.
    """

    maintenance_margin_usd6: int
    initial_margin_usd6: int
    nlv_usd6: int
    equity_usd6: int
    surely_healthy: bool


def one_lot_terms(tables: Tables) -> OneLotTerms:
    """The 2 I one-lot terms of a market: every lot is an account of one leg."""
    count = len(tables.option_expiry)
    pointer = np.arange(2 * count + 1, dtype=np.int64)
    instruments = np.tile(np.arange(count, dtype=np.int32), 2)
    lots = np.repeat(np.array([1, -1], np.int64), count)
    es, stress = np.zeros(2 * count, np.int64), np.zeros(2 * count, np.int64)
    row, status = np.zeros(2 * count, np.int32), np.zeros(2 * count, np.int8)
    account_terms(
        pointer, instruments, lots, np.arange(2 * count), tables.pnl, tables.scenarios.weights, tables.tail_mass,
        tables.stress, tables.stress_weight_e6, es, stress, row, np.full(2 * count, NO_TAIL_THRESHOLD), status,
    )  # fmt: skip
    priced = status.reshape(2, count)[LONG] != INVALID
    return OneLotTerms(es.reshape(2, count), stress.reshape(2, count), priced)


def pre_trade_bound(
    margins: Margins, place: int, before: Book, after: Book, one_lot: OneLotTerms, tables: Tables, p: RiskParameters
) -> PreTradeBound | None:
    """Bound of the margin of `after`, from the margin of `before` (entry `place` of `margins`, same tables).

    None where no bound can be had: the account is on the wide path, or trades what has no price.
    """
    moved = moved_lots(before, after)
    _, sums = sums_of([after], tables, p)
    if margins.wide[place] or sums.wide[0] or not all(one_lot.priced[i] for i in moved):
        return None
    shortfall, stress = int(margins.es_usd9[place]), int(margins.stress_usd9[place])
    for i, lots in moved.items():
        side = LONG if lots > 0 else SHORT
        shortfall += abs(lots) * int(one_lot.es_usd9[side, i])
        stress += abs(lots) * int(one_lot.stress_usd9[side, i])
    risk = max(shortfall, stress, int(sums.short_minimum_usd9[0]))
    add_ons = int(sums.add_ons_usd9[0])
    maintenance = divide_up(risk + add_ons, USD9_PER_USD6)
    initial = divide_up(divide_up(risk * p.initial_margin_multiplier_e6, ONE_E6) + add_ons, USD9_PER_USD6)
    nlv, equity = int(sums.nlv_usd6[0]), int(sums.equity_usd6[0])
    return PreTradeBound(maintenance, initial, nlv, equity, equity >= 0 and nlv >= initial)


def moved_lots(before: Book, after: Book) -> dict[int, int]:
    """Lots after less lots before, by instrument, of accounts that are each a book of one row."""
    moved = dict(zip(after.keys.tolist(), after.lots.tolist(), strict=True))
    for i, lots in zip(before.keys.tolist(), before.lots.tolist(), strict=True):
        moved[i] = moved.get(i, 0) - lots
    return {i: lots for i, lots in moved.items() if lots}
