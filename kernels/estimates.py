"""Between barriers: NLV of accounts by their Greeks, and whose estimate is below a line that is armed.

Plain float64 in a fixed order (an account's underlyings ascending), so equal inputs give equal bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.compiling import borrows, compiled
from kernels.layout import BoolArray, FloatArray, Int64Array
from kernels.open_book import FIRST_GREEK, PAIRS, PAIRS_END, UNDERLYING, OpenBook

_USD9_PER_USD6 = 1_000.0
_ONE_E6, _ONE_E9 = 1_000_000.0, 1_000_000_000.0


class Moves(NamedTuple):
    """From a barrier's market to the present one: prices and volatilities int64[U], 0 where there is none; days."""

    spot_usd9: Int64Array
    spot_before_usd9: Int64Array
    volatility_e9: Int64Array
    volatility_before_e9: Int64Array
    days: float


@borrows
def _relative_move(now_usd9: int, before_usd9: int) -> float:
    if now_usd9 <= 0 or before_usd9 <= 0:
        return 0.0
    return np.float64(now_usd9) / np.float64(before_usd9) - 1.0


@borrows
def _absolute_move(now_e9: int, before_e9: int) -> float:
    if now_e9 <= 0 or before_e9 <= 0:
        return 0.0
    return np.float64(now_e9 - before_e9) / _ONE_E9


@borrows
def _estimate_usd6(row: int, book: OpenBook, moved: FloatArray, days: float, base_usd6: float) -> float:
    change_usd9 = 0.0
    for at in range(book.spans[row, PAIRS], book.spans[row, PAIRS_END]):
        underlying = book.pairs[at, UNDERLYING]
        change = np.float64(book.pairs[at, FIRST_GREEK]) * moved[underlying, 0]
        change = change + np.float64(book.pairs[at, FIRST_GREEK + 1]) * moved[underlying, 1]
        change = change + np.float64(book.pairs[at, FIRST_GREEK + 2]) * moved[underlying, 2]
        change = change + np.float64(book.pairs[at, FIRST_GREEK + 3]) * days
        change_usd9 += change
    return base_usd6 + change_usd9 / _USD9_PER_USD6


@compiled
def estimates(rows: Int64Array, book: OpenBook, moves: Moves, base_usd6: FloatArray, out_usd6: FloatArray) -> None:
    """out_usd6 f64[n] = base_usd6[row] + delta r + gamma r^2 / 2 + vega dv + theta dt over the row's underlyings.

    r is the relative move of a price, dv the absolute one of a volatility; Greeks are delta, gamma per +100 % spot,
    vega per 1.00, theta per day. rows int64[n]; base_usd6 f64[A].
    """
    moved = np.empty((moves.spot_usd9.shape[0], 3))
    for u in range(moved.shape[0]):
        r = _relative_move(moves.spot_usd9[u], moves.spot_before_usd9[u])
        moved[u, 0], moved[u, 1] = r, r * r * 0.5
        moved[u, 2] = _absolute_move(moves.volatility_e9[u], moves.volatility_before_e9[u])
    for n in range(rows.shape[0]):
        out_usd6[n] = _estimate_usd6(rows[n], book, moved, moves.days, base_usd6[rows[n]])


@compiled
def look(
    rows: Int64Array,
    book: OpenBook,
    moves: Moves,
    base_usd6: FloatArray,
    line_usd6: FloatArray,
    rearm_ratio_e6: float,
    armed: BoolArray,
    unsettled: BoolArray,
    out_usd6: FloatArray,
    out_below: BoolArray,
) -> None:
    """`estimates`, and with them: arm what stands above rearm ratio x line; out_below bool[n]: below an armed line.

    line_usd6 f64[A,2] and armed bool[A,2]: the two lines of each account. A NaN counts as below and arms nothing.
    unsettled bool[A] is cleared for `rows`.
    """
    estimates(rows, book, moves, base_usd6, out_usd6)
    for n in range(rows.shape[0]):
        row, estimate_usd6 = rows[n], out_usd6[n]
        for line in range(2):
            if estimate_usd6 * _ONE_E6 >= line_usd6[row, line] * rearm_ratio_e6:
                armed[row, line] = True
            if armed[row, line] and not estimate_usd6 >= line_usd6[row, line]:
                out_below[n] = True
        unsettled[row] = False


@compiled
def move_lines(
    rows: Int64Array, change_usd6: FloatArray, rise_usd6: FloatArray, base_usd6: FloatArray, line_usd6: FloatArray
) -> None:
    """Add f64[n] changes of NLV and rises of the lines of `rows` int64[n] to base f64[A] and lines f64[A,2]."""
    for n in range(rows.shape[0]):
        base_usd6[rows[n]] += change_usd6[n]
        line_usd6[rows[n], 0] += rise_usd6[n]
        line_usd6[rows[n], 1] += rise_usd6[n]
