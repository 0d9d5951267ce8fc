"""Between barriers: where each account's NLV probably stands, by its Greeks, and which accounts to compute exactly.

An estimate only chooses whom to look at; what is said is always the exact margin. Each account has two lines, IM and
MM. A line that was reported is disarmed until the estimate is back above `rearm` x line, or until a barrier changes the
account's state.
"""

from __future__ import annotations

import numpy as np

from kernels.account_sums import greeks_estimate
from schemas.quantities import ONE_E6, ONE_E9, USD9_PER_USD6
from schemas.risk_parameters import RiskParameters
from streams.engine.book import INSTRUMENT_BITS, INSTRUMENT_MASK, Book
from streams.engine.margin import HEALTHY, MARGIN_CALL, Margins
from streams.engine.market import RecordedMarket

IM, MM = 0, 1
LINE_NAMES = ("IM", "MM")
MILLISECONDS_PER_DAY = 86_400_000.0


class Lines:
    """Per account: NLV at the barrier's marks (moved by trades since), the two lines, and whether each is armed."""

    def __init__(self) -> None:
        self.base_usd6 = np.zeros(0, np.float64)
        self.line_usd6 = np.zeros((0, 2), np.float64)
        self.armed = np.zeros((0, 2), np.bool_)
        self.traded = np.zeros(0, np.bool_)

    def fit_to(self, count: int) -> None:
        """Room for new accounts: they start armed, with lines at zero."""
        missing = count - len(self.base_usd6)
        if missing > 0:
            self.base_usd6 = np.append(self.base_usd6, np.zeros(missing))
            self.line_usd6 = np.vstack([self.line_usd6, np.zeros((missing, 2))])
            self.armed = np.vstack([self.armed, np.ones((missing, 2), np.bool_)])
            self.traded = np.append(self.traded, np.zeros(missing, np.bool_))

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
        self.rearm(nlv_usd6, p)

    def rearm(self, estimate_usd6: np.ndarray, p: RiskParameters) -> None:
        """Arm what stands above `rearm_ratio` x line again."""
        self.armed |= estimate_usd6[:, None] * ONE_E6 >= self.line_usd6 * p.rearm_ratio_e6

    def on_trades(self, nlv_change_usd6: np.ndarray, line_rise_usd6: np.ndarray) -> None:
        """Trades since the barrier, float64[A]: NLV at the barrier's marks, and a bound by which the lines can rise."""
        self.fit_to(len(nlv_change_usd6))
        self.base_usd6 += nlv_change_usd6
        self.line_usd6 += line_rise_usd6[:, None]

    def estimates(self, book: Book, now: RecordedMarket, then: RecordedMarket) -> np.ndarray:
        """NLV of every account by its Greeks at `now`, float64[A] micro-USD; `then` is the last barrier's market."""
        known = then.spot_usd9 > 0
        spot_move = np.zeros(len(now.spot_usd9))
        both = known & (now.spot_usd9 > 0)
        spot_move[both] = now.spot_usd9[both] / then.spot_usd9[both] - 1.0
        volatility_move = np.where(
            (then.volatility_e9 > 0) & (now.volatility_e9 > 0),
            (now.volatility_e9 - then.volatility_e9) / float(ONE_E9),
            0.0,
        )
        change_usd9 = np.zeros(len(book.accounts))
        rows, underlyings = book.pair_keys >> INSTRUMENT_BITS, book.pair_keys & INSTRUMENT_MASK
        days = (now.time_ms - then.time_ms) / MILLISECONDS_PER_DAY
        greeks_estimate(rows, underlyings, book.pair_greeks_usd9, spot_move, volatility_move, days, change_usd9)
        return self.base_usd6 + change_usd9 / float(USD9_PER_USD6)

    def crossed(self, estimate_usd6: np.ndarray) -> np.ndarray:
        """Rows whose estimate is below an armed line (a NaN counts as below)."""
        below = ~(estimate_usd6[:, None] >= self.line_usd6) & self.armed
        return np.flatnonzero(below.any(axis=1))

    def to_plain(self) -> dict:
        return {name: value.tobytes() for name, value in vars(self).items()}

    @classmethod
    def from_plain(cls, plain: dict) -> Lines:
        lines = cls()
        lines.base_usd6 = np.frombuffer(plain["base_usd6"], np.float64).copy()
        lines.line_usd6 = np.frombuffer(plain["line_usd6"], np.float64).reshape(-1, 2).copy()
        lines.armed = np.frombuffer(plain["armed"], np.bool_).reshape(-1, 2).copy()
        lines.traded = np.frombuffer(plain["traded"], np.bool_).copy()
        return lines
