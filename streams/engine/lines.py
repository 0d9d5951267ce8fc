"""Between barriers: where each account's NLV probably stands, by its Greeks, and which accounts to compute exactly.

An estimate only chooses whom to look at; what is said is always the exact margin. Guards of collateral are in it: coins
held count at their guarded price and factor, as they will at the barrier. Each account has two lines, IM and
MM. A line that was reported is disarmed until the estimate is back above `rearm` x line, or until a barrier changes the
account's state.
"""

from __future__ import annotations

import numpy as np

from kernels.estimates import Moves, estimates, look, move_lines
from kernels.layout import SPOT
from schemas.catalogue import Catalogue
from schemas.quantities import ONE_E6, USD9_PER_USD6
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Book
from streams.engine.margin import HEALTHY, MARGIN_CALL, Margins
from streams.engine.market import RecordedMarket
from streams.engine.tables import Tables, haircut_usd9

IM, MM = 0, 1
LINE_NAMES = ("IM", "MM")
MILLISECONDS_PER_DAY = 86_400_000.0


class Lines:
    """Per account: NLV at the barrier's marks (moved by trades since), the two lines, and whether each is armed.

    `unsettled`: whose numbers or lines have changed, other than by trades, since it was last seen whether to arm them
    again. Where nobody is, events concern the accounts that they touch and nobody else.
    """

    def __init__(self) -> None:
        self.base_usd6 = np.zeros(0, np.float64)
        self.line_usd6 = np.zeros((0, 2), np.float64)
        self.armed = np.zeros((0, 2), np.bool_)
        self.traded = np.zeros(0, np.bool_)
        self.unsettled = np.zeros(0, np.bool_)

    def fit_to(self, count: int) -> None:
        """Room for new accounts: they start armed, with lines at zero."""
        missing = count - len(self.base_usd6)
        if missing > 0:
            self.base_usd6 = np.append(self.base_usd6, np.zeros(missing))
            self.line_usd6 = np.vstack([self.line_usd6, np.zeros((missing, 2))])
            self.armed = np.vstack([self.armed, np.ones((missing, 2), np.bool_)])
            self.traded = np.append(self.traded, np.zeros(missing, np.bool_))
            self.unsettled = np.append(self.unsettled, np.zeros(missing, np.bool_))

    def at_barrier(self, margins: Margins, changed: np.ndarray, p: RiskParameters) -> None:
        """Exact numbers of a barrier replace the estimates; bool[A] `changed`: the account's state changed here."""
        self.fit_to(len(margins.state))
        nlv_usd6 = margins.nlv_usd6.astype(np.float64)
        self.base_usd6 = np.where(margins.wide, np.nan, nlv_usd6)  # sums of Greeks may not fit: always look exactly
        self.line_usd6 = np.stack([margins.initial_margin_usd6, margins.maintenance_margin_usd6], axis=1).astype(
            np.float64
        )
        self.traded[:] = False
        fresh = np.stack(
            [margins.state == HEALTHY, (margins.state == HEALTHY) | (margins.state == MARGIN_CALL)], axis=1
        )
        self.armed = np.where(changed[:, None], fresh, self.armed & fresh)
        self.armed |= nlv_usd6[:, None] * ONE_E6 >= self.line_usd6 * p.rearm_ratio_e6
        self.unsettled[:] = False

    def on_trades(self, rows: np.ndarray, nlv_change_usd6: np.ndarray, line_rise_usd6: np.ndarray) -> None:
        """Trades of `rows` int64[n] since the barrier, float64[n]: NLV at the barrier's marks, and a bound by which the
        lines can rise.
        """
        move_lines(rows, nlv_change_usd6, line_rise_usd6, self.base_usd6, self.line_usd6)

    def look(
        self,
        rows: np.ndarray,
        book: Book,
        now: RecordedMarket,
        then: RecordedMarket,
        p: RiskParameters,
        guard_usd9: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(places in `rows` of who is below an armed line, float64[n] NLV of `rows` by their Greeks at `now`).

        `then` is the last barrier's market. What stands above `rearm_ratio` x line is armed again first; a NaN counts
        as below. `guard_usd9`: `guard_changes_usd9`; None: nothing is guarded.
        """
        base_usd6 = self.base_usd6
        if guard_usd9 is not None:
            base_usd6 = base_usd6.copy()
            base_usd6[rows] += held_coins_usd6(rows, book, guard_usd9)
        estimate_usd6, below = np.zeros(len(rows)), np.zeros(len(rows), np.bool_)
        look(
            rows, book.with_room(), _moves(now, then), base_usd6, self.line_usd6, float(p.rearm_ratio_e6),
            self.armed, self.unsettled, estimate_usd6, below,
        )  # fmt: skip
        return np.flatnonzero(below), estimate_usd6

    def estimate(
        self, row: int, book: Book, now: RecordedMarket, then: RecordedMarket, guard_usd9: np.ndarray | None = None
    ) -> float:
        """NLV of one account by its Greeks at `now`; nothing is armed or looked at by it."""
        rows, found = np.array([row]), np.zeros(1)
        estimates(rows, book.with_room(), _moves(now, then), self.base_usd6, found)
        return float(found[0]) + (float(held_coins_usd6(rows, book, guard_usd9)[0]) if guard_usd9 is not None else 0.0)

    def to_plain(self) -> dict:
        return {name: value.tobytes() for name, value in vars(self).items()}

    @classmethod
    def from_plain(cls, plain: dict) -> Lines:
        lines = cls()
        lines.base_usd6 = np.frombuffer(plain["base_usd6"], np.float64).copy()
        lines.line_usd6 = np.frombuffer(plain["line_usd6"], np.float64).reshape(-1, 2).copy()
        lines.armed = np.frombuffer(plain["armed"], np.bool_).reshape(-1, 2).copy()
        lines.traded = np.frombuffer(plain["traded"], np.bool_).copy()
        everybody = np.ones(len(lines.traded), np.bool_)  # of a checkpoint that does not say
        lines.unsettled = np.frombuffer(plain.get("unsettled", everybody.tobytes()), np.bool_).copy()
        return lines


def guard_changes_usd9(
    tables: Tables, catalogue: Catalogue, now: RecordedMarket, then: RecordedMarket, p: RiskParameters
) -> np.ndarray | None:
    """float64[I]: what one lot of a coin held counts for at `now`, less what its delta says since the barrier's market
    `then`, of which `tables` are: an average price, or a step from the peg, is no price move. None: nothing is guarded.
    """
    guarded = (
        (now.collateral_usd9 > 0) | (now.factor_cut_e6 > 0) | (then.collateral_usd9 > 0) | (then.factor_cut_e6 > 0)
    )
    kind, underlying = tables.instruments.kind, tables.instruments.underlying
    coins = np.flatnonzero((kind == SPOT) & guarded[underlying] & (then.spot_usd9[underlying] > 0))
    if not len(coins):
        return None
    of = underlying[coins]
    by_delta = tables.greeks_usd9[coins, 0] * (now.spot_usd9[of] / then.spot_usd9[of] - 1.0)
    found = np.zeros(len(kind))
    found[coins] = haircut_usd9(catalogue, now, p, coins) - tables.columns_usd9[1, coins] - by_delta
    return found


def held_coins_usd6(rows: np.ndarray, book: Book, change_usd9: np.ndarray) -> np.ndarray:
    """float64[n]: the sum over what `rows` hold of a change a lot (float64[I], 0 for all but coins)."""
    pointer, held, lots, _ = book.legs_of(rows)
    moved_usd9 = np.maximum(lots, 0) * change_usd9[held]
    return np.bincount(np.repeat(np.arange(len(rows)), np.diff(pointer)), moved_usd9, len(rows)) / USD9_PER_USD6


def _moves(now: RecordedMarket, then: RecordedMarket) -> Moves:
    days = (now.time_ms - then.time_ms) / MILLISECONDS_PER_DAY
    return Moves(now.spot_usd9, then.spot_usd9, now.volatility_e9, then.volatility_e9, days)
