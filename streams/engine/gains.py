"""The governed share of unrealised gains: what of an account's open profit does not count in its NLV.

Perpetuals and futures count by their profit since entry. Their net profit over the whole account (all of it is in USD)
counts in full where it is a loss, and by `unrealised_gain_share_e6` where it is a gain; equity has it all. Offsetting
legs are netted first, so a hedge of two futures is not punished. Options and coins are assets at their mark: what they
gain is not open profit. Rounded against the account.
"""

from __future__ import annotations

import numpy as np

from kernels.layout import FUTURE, PERPETUAL
from schemas.quantities import ONE_E6, USD9_PER_USD6, divide_up
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Legs
from streams.engine.tables import Tables


def uncounted_gains_usd6(legs: Legs, entry_usd6: np.ndarray, tables: Tables, p: RiskParameters) -> np.ndarray:
    """What NLV leaves out, int64[A] micro-USD >= 0; `entry_usd6` int64[A] as in `Book.entry_by_account`.

    Exact where the sums of marks fit int64; wide accounts ask `uncounted_gain_usd6`.
    """
    count = len(legs.account_ptr) - 1
    if p.unrealised_gain_share_e6 == ONE_E6:
        return np.zeros(count, np.int64)
    places = np.flatnonzero(_linear(tables)[legs.leg_instrument])
    account = np.repeat(np.arange(count), np.diff(legs.account_ptr))[places]
    marks_usd9 = np.zeros(count, np.int64)
    np.add.at(marks_usd9, account, legs.leg_lots[places] * tables.columns_usd9[0, legs.leg_instrument[places]])
    gain = np.maximum(-(-marks_usd9 // USD9_PER_USD6) - entry_usd6, 0)
    millions, rest = np.divmod(gain, ONE_E6)
    left_out_e6 = ONE_E6 - p.unrealised_gain_share_e6
    return millions * left_out_e6 - (-(rest * left_out_e6) // ONE_E6)


def uncounted_gain_usd6(legs: Legs, account: int, entry_usd6: int, tables: Tables, p: RiskParameters) -> int:
    """The same for one account of any size."""
    leg, linear = slice(int(legs.account_ptr[account]), int(legs.account_ptr[account + 1])), _linear(tables)
    marks_usd9 = sum(
        lots * int(tables.columns_usd9[0, i])
        for i, lots in zip(legs.leg_instrument[leg].tolist(), legs.leg_lots[leg].tolist(), strict=True)
        if linear[i]
    )
    gain = max(divide_up(marks_usd9, USD9_PER_USD6) - entry_usd6, 0)
    return divide_up(gain * (ONE_E6 - p.unrealised_gain_share_e6), ONE_E6)


def _linear(tables: Tables) -> np.ndarray:
    """bool[I]: perpetuals and futures."""
    kind = tables.instruments.kind
    return (kind == PERPETUAL) | (kind == FUTURE)
