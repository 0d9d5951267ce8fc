"""What it costs to close a large position, from recorded volume, open interest and depth: tiers and factors.

Square-root law: closing a position of q USD in a market that trades V USD a day at a daily volatility sigma costs

    cost(q) = q * Y * sigma * sqrt(q / V),   Y about 1

(Tóth et al., "Anomalous price impact and the critical nature of liquidity", 2011; Almgren et al., "Direct estimation of
equity market impact", 2005, find an exponent of 0.6). V is the least of what was recorded: daily volume and open
interest. What lies in the book at once (depth) is closed without a charge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from oracles.risk_model.bars import Bars
from schemas.quantities import ONE_E6
from schemas.risk_parameters import SIZE_MAX_USD6, ConcentrationTier

DAY_MS = 86_400_000
COEFFICIENT = 1.0
STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Where tiers begin and end, in parts of V; the last tier goes on at the slope it has at twice V."""
FACTOR_STEP_E6 = 5_000
DAYS_MIN = 7


class HistoryTooShort(ValueError):
    """An asset with less history than a week: nothing is suggested for it."""


@dataclass(frozen=True)
class Liquidity:
    """Recorded liquidity of one asset, USD. `daily_volume_usd` is the median day: one wild day does not make depth."""

    daily_volume_usd: float
    daily_volatility: float
    open_interest_usd: float = math.inf
    depth_usd: float = 0.0

    @property
    def turnover_usd(self) -> float:
        """V of the square-root law."""
        return min(self.daily_volume_usd, self.open_interest_usd)

    def cost_usd(self, size_usd: float) -> float:
        """Expected cost of closing a position."""
        return size_usd * COEFFICIENT * self.daily_volatility * math.sqrt(size_usd / self.turnover_usd)


def liquidity_of(bars: Bars, open_interest_usd: float = math.inf, depth_usd: float = 0.0) -> Liquidity:
    """Volume and volatility of whole days of bars.

    Raises:
        HistoryTooShort: fewer than seven days.
        ValueError: volume or open interest is not positive: there is no market to close in.
    """
    day = bars.time_ms // DAY_MS
    first = np.flatnonzero(np.diff(day, prepend=day[0] - 1))
    if len(first) < DAYS_MIN:
        raise HistoryTooShort(f"{bars.asset}: {len(first)} days of bars, at least {DAYS_MIN} are needed")
    volume = np.add.reduceat(bars.volume * bars.close, first)
    returns = np.diff(np.log(bars.close))
    per_day = DAY_MS / bars.interval_ms
    found = Liquidity(
        float(np.median(volume)), float(np.sqrt(np.mean(returns**2) * per_day)), open_interest_usd, depth_usd
    )  # fmt: skip
    if not found.turnover_usd > 0:
        raise ValueError(f"{bars.asset}: no volume or open interest was recorded")
    return found


def concentration_tiers(market: Liquidity) -> tuple[ConcentrationTier, ...]:
    """Tiers whose charge is at least the square-root cost of a position beyond the book's depth.

    Chords of a convex function lie above it; rates are rounded up, and none is above 1.
    """
    ends = [market.depth_usd, *(s * market.turnover_usd for s in STEPS if s * market.turnover_usd > market.depth_usd)]
    ends.append(2.0 * max(ends[-1], market.turnover_usd))
    tiers: list[ConcentrationTier] = []
    for low, high in pairwise(ends):
        slope = (market.cost_usd(high) - market.cost_usd(low)) / (high - low)
        rate_e6 = min(ONE_E6, math.ceil(slope * ONE_E6))
        above_usd6 = math.floor(low * 1e6)
        if above_usd6 <= SIZE_MAX_USD6 and (not tiers or above_usd6 > tiers[-1].above_usd6):
            tiers.append(ConcentrationTier(above_usd6=above_usd6, rate_e6=rate_e6))
    return tuple(tiers)


def collateral_factor_e6(
    market: Liquidity, reference_size_usd: float, price_fall: float, floor_e6: int, cap_e6: int
) -> int:
    """Factor of a coin as collateral: 1 less what its price may fall before it is sold, less the cost of selling.

    Args:
        reference_size_usd: a lot that the venue would have to sell at once.
        price_fall: expected shortfall of the price over the liquidation horizon; 0 for a coin that is stressed inside
            the scenarios (its factor then carries liquidity only).
        floor_e6: governed bounds; the result is rounded down to half a percent within them.
    """
    selling = market.cost_usd(reference_size_usd) / reference_size_usd
    whole = (1.0 - min(1.0, price_fall)) * (1.0 - min(1.0, selling))
    return max(floor_e6, min(cap_e6, math.floor(whole * ONE_E6 / FACTOR_STEP_E6) * FACTOR_STEP_E6))


def price_fall(bars: Bars, horizon_bars: int, level: float = 0.99) -> float:
    """Historical expected shortfall of the price over a horizon, a fraction of it: overlapping windows."""
    returns = bars.close[horizon_bars:] / bars.close[:-horizon_bars] - 1.0
    worst = np.sort(returns)[: max(1, math.ceil((1.0 - level) * len(returns)))]
    return float(max(0.0, -worst.mean()))
