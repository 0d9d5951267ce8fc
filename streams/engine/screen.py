"""Who is computed first at a barrier: everyone whom a certified bound cannot clear.

By the sup bound (kernels/screening.py, theorem and proof there) an account's expected shortfall, and its worst weighted
stress loss, have grown since the keyframe by at most what its lots can make of the extremes of the changes of its rows.
Short-option minimum, add-ons and NLV need no scenario and are exact. So IM <= multiplier * max(bounds) + add-ons; where
NLV reaches that, the account is healthy for certain.
"""

from __future__ import annotations

import numpy as np

from kernels.reprice import pnl_change_bounds
from kernels.screening import stress_change_bounds, sup_bound
from schemas.quantities import ONE_E6
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Legs
from streams.engine.margin import HEALTHY, VALUE_LIMIT, Margins, Sums
from streams.engine.tables import Tables


def accounts_first(
    legs: Legs, sums: Sums, keyframe: Margins, traded: np.ndarray, before: Tables | None, now: Tables, p: RiskParameters
) -> np.ndarray:
    """bool[A]: True for those to be computed first; False only where the account is certain to be healthy and was so.

    `keyframe` holds the margins of the last barrier, of which `before` are the tables (None: no bound can be had).
    """
    count = len(sums.nlv_usd6)
    if before is None:
        return np.ones(count, np.bool_)
    shortfall = keyframe.es_usd9 + _saturating(sup_bound(*legs, *pnl_change_bounds(now.pnl, before.pnl)))
    rows = stress_change_bounds(now.stress, before.stress, now.stress_weight_e6)
    stress = np.maximum(0, keyframe.stress_usd9 + _saturating(sup_bound(*legs, *rows)))
    risk = np.maximum(np.maximum(shortfall, stress), sums.short_minimum_usd9).astype(np.float64)
    bound_usd9 = risk * (p.initial_margin_multiplier_e6 / ONE_E6) + sums.add_ons_usd9
    cleared = sums.nlv_usd6 * 1e3 > bound_usd9 + np.abs(bound_usd9) * 1e-9 + 2_000.0  # outward float slack
    unbounded = (keyframe.es_usd9 >= VALUE_LIMIT) | keyframe.wide | sums.wide | traded
    return ~cleared | unbounded | (keyframe.state != HEALTHY) | (sums.equity_usd6 < 0)


def _saturating(increase_usd9: np.ndarray) -> np.ndarray:
    """Keeps the sum with a keyframe below 2**62 inside int64."""
    return np.clip(increase_usd9, -VALUE_LIMIT, VALUE_LIMIT - 1)
