"""The whole requirement beside expected shortfall alone, for one unit of a linear position.

    risk = max(ES, worst weighted stress loss)    MM = risk + charge    IM = multiplier * risk + charge

the terms of ``kernels.decision`` with the governed parameters; a linear position has no short-option minimum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from oracles.backtest.evaluation import HOURS_A_MONTH_MIN, LONG, side_of
from oracles.backtest.procyclicality import Month, Procyclicality, months, procyclicality
from oracles.risk_model.forecasts import Forecasts
from schemas.risk_parameters import RiskParameters

FloatArray = npt.NDArray[np.float64]


class Requirement(NamedTuple):
    """float64[n], fractions of the position's value."""

    expected_shortfall: FloatArray
    maintenance: FloatArray
    initial: FloatArray


class Covered(Struct, frozen=True):
    """How one requirement would have done. ``exceeded``: share of losses above it; ``worst``: greatest loss over it."""

    name: str
    mean: float
    exceeded: float
    worst: float
    worst_month: Month
    procyclicality: Procyclicality


class Stack(Struct, frozen=True):
    """ES alone, MM and IM of one unit; ``stress_binds``: share of the time in which the stress floor rules."""

    asset: str
    side: str
    stress_loss: float
    stress_binds: float
    terms: tuple[Covered, ...]


def stress_loss(side: str, parameters: RiskParameters) -> float:
    """Worst weighted loss of one unit over the stress rows that move every underlying."""
    sign = 1 if side == LONG else -1
    rows = [row for row in parameters.stress_rows if row.scope == "all"]
    return max(0.0, *(-sign * row.spot_move_e6 * row.weight_e6 / 1e12 for row in rows))


def requirement(es: FloatArray, stress: float, parameters: RiskParameters) -> Requirement:
    """Terms of the decision as fractions of the position's value."""
    risk, charge = np.maximum(es, stress), parameters.gross_notional_charge_e6 / 1e6
    return Requirement(es, risk + charge, risk * parameters.initial_margin_multiplier_e6 / 1e6 + charge)


def stack(forecasts: Forecasts, side: str, parameters: RiskParameters, bars_a_day: int = 24) -> Stack:
    """Coverage of ES alone, MM and IM at the highest level of usable forecasts."""
    loss, _, es = side_of(forecasts, side, int(np.argmax(forecasts.levels)))
    stress = stress_loss(side, parameters)
    least = HOURS_A_MONTH_MIN * bars_a_day // 24
    terms = requirement(es, stress, parameters)
    covered = []
    for name, margin in zip(("ES", "MM", "IM"), terms):
        by_month = months(forecasts.time_ms, loss, margin, margin, least)
        none = Month("", 0, float("nan"), float("nan"))
        covered.append(
            Covered(
                name=name,
                mean=float(margin.mean()),
                exceeded=float((loss > margin).mean()),
                worst=float((loss / margin).max()),
                worst_month=max(by_month, key=lambda month: (month.rate, month.worst), default=none),
                procyclicality=procyclicality(forecasts.time_ms, margin),
            )
        )
    return Stack(forecasts.asset, side, stress, float((es < stress).mean()), tuple(covered))
