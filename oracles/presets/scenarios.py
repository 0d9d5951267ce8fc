"""Rows of a preset as arrays, written or drawn, and what volatility each option has in each of them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.layout import NANO, tail_mass_of_level
from kernels.normal import exponential, logarithm
from kernels.option_rows import SKEW_LOG_MONEYNESS_LIMIT, SKEW_MULTIPLIER_MINIMUM, expiry_loadings
from oracles.presets.case import Case
from oracles.presets.document import (
    Draw,
    Group,
    Parameters,
    PresetDocument,
    Row,
    SkewRule,
    VolRule,
    check_rule,
)
from oracles.scenario_set import FactorVolatilities, default_correlation, draw_scenario_set

FloatArray = npt.NDArray[np.float64]
DAY_SECONDS = 86_400
POWER_DAYS = 30.0  # a vol range is quoted for this time to expiry
SKEW_SHOCKS = ("linear", "abs")


class Shocks(NamedTuple):
    """The rows of one group, arrays [S]. `skew`, `curvature` and `term` are factors of a surface (drawn rows, the last
    two empty in sets without them); `weight` multiplies P&L, `dampener_usd` takes from it; `probability` int32 sums to
    2**30 in drawn groups, else it is empty."""

    group: Group
    spot_multiplier: FloatArray
    spot_log_return: FloatArray
    vol_shock: tuple[str, ...]
    vol_multiplier: FloatArray
    skew: FloatArray
    rate_shift: FloatArray
    weight: FloatArray
    dampener_usd: FloatArray
    scope: tuple[str, ...]
    probability: npt.NDArray[np.int32]
    curvature: FloatArray
    term: FloatArray

    @property
    def size(self) -> int:
        return len(self.vol_shock)

    @property
    def tail_mass(self) -> int:
        """Weight of the tail of 2**30 that expected shortfall averages."""
        level = self.group.level or 0.0
        return tail_mass_of_level(round(level * 1_000_000))

    def name(self, row: int) -> str:
        """What to call a row."""
        return self.group.rows[row].name if self.group.rows else f"drawn scenario {row}"


def rules_for(case: Case, document: PresetDocument) -> Parameters:
    """The document's parameters, or the case's own where the document lets a case bring them."""
    own = case.parameters
    if own is None or not document.case_rules:
        return document.parameters
    p = document.parameters
    return Parameters(
        skew=own.skew, vol=own.vol, margin=own.margin, basis=own.basis, other=own.other,
        add_ons=p.add_ons, time_value_bounds=p.time_value_bounds,
    )  # fmt: skip


def shocks_for(case: Case, document: PresetDocument) -> list[Shocks]:
    """One entry a group of the document; a case's own rows are one group of their own.

    Raises:
        DocumentError: a row of the case names a rule that is not there.
    """
    if case.scenarios is None or not document.case_rules:
        return [group_shocks(group) for group in document.groups]
    rows = tuple(
        Row(
            name=f"scenarios[{place}] spot x{row.spot_multiplier:g} vol {row.vol_shock}",
            reason="given by the case",
            spot_multiplier=row.spot_multiplier,
            vol_shock=row.vol_shock,
            weight=row.dampening,
        )
        for place, row in enumerate(case.scenarios)
    )
    for place, row in enumerate(rows):
        check_rule(f"case {case.id}: scenarios[{place}]", row.vol_shock, rules_for(case, document))
    return [_written(Group(name="case", rows=rows))]


@cache
def group_shocks(group: Group) -> Shocks:
    """The group's rows as arrays."""
    return _written(group) if group.draw is None else _drawn(group, group.draw)


def _written(group: Group) -> Shocks:
    rows = group.rows
    return Shocks(
        group,
        np.array([row.spot_multiplier for row in rows]),
        np.array([logarithm(row.spot_multiplier) for row in rows]),
        tuple(row.vol_shock for row in rows),
        np.array([row.vol_multiplier for row in rows]),
        np.zeros(len(rows)),
        np.array([row.rate_shift for row in rows]),
        np.array([row.weight for row in rows]),
        np.array([row.dampener_usd for row in rows]),
        tuple(row.scope for row in rows),
        np.zeros(0, np.int32),
        np.zeros(0),
        np.zeros(0),
    )


def _drawn(group: Group, draw: Draw) -> Shocks:
    annual = [draw.spot_volatility, draw.level_volatility, draw.skew_volatility, draw.rate_volatility]
    if draw.curvature_volatility or draw.term_volatility:
        annual += [draw.curvature_volatility, draw.term_volatility]
    spot, level, skew, rate, *shape = (np.array([volatility]) for volatility in annual)
    volatilities = FactorVolatilities.from_annual(spot, level, skew, rate, group.horizon_seconds, *shape)
    correlation = default_correlation(
        np.eye(1), [0], level_to_own_spot=draw.level_to_spot_correlation, kinds=volatilities.kinds
    )
    found = draw_scenario_set(
        ("X",), ("X",), volatilities, correlation, seed=draw.seed, scenarios=draw.scenarios,
        horizon_seconds=max(group.horizon_seconds, 1),
    )  # fmt: skip
    size, log_return = found.size, found.spot_log_return[0] / float(NANO)
    return Shocks(
        group,
        _exponentials(log_return),
        log_return,
        ("none",) * size,
        _exponentials(found.level_log[0] / float(NANO)),
        found.skew[0] / float(NANO),
        found.rate_shift[0] / float(NANO),
        np.ones(size),
        np.zeros(size),
        ("all",) * size,
        found.weights,
        *(found.table().curvature.ravel(), found.table().term.ravel()),
    )


def _exponentials(x: FloatArray) -> FloatArray:
    return np.array([exponential(value) for value in x.tolist()])


class OptionMoments(NamedTuple):
    """Of one option: mark vol, years and seconds to expiry, ln(strike / forward)."""

    vol: float
    years: float
    seconds: int
    log_moneyness: float


def shocked_vols(option: OptionMoments, shocks: Shocks, p: Parameters) -> FloatArray:
    """The option's volatility in every row, [S]."""
    of_kind = {kind: shocked_vol(kind, option, p) for kind in set(shocks.vol_shock)}
    vol = np.array([of_kind[kind] for kind in shocks.vol_shock]) * shocks.vol_multiplier
    if not shocks.skew.any() and not shocks.term.size:
        return vol
    k = np.clip(option.log_moneyness - shocks.spot_log_return, -SKEW_LOG_MONEYNESS_LIMIT, SKEW_LOG_MONEYNESS_LIMIT)
    if not shocks.term.size or option.years <= 0.0:
        return vol * np.maximum(SKEW_MULTIPLIER_MINIMUM, 1.0 + shocks.skew * k)
    term, smile = expiry_loadings(option.years)
    k *= smile
    smile_multiplier = np.maximum(SKEW_MULTIPLIER_MINIMUM, 1.0 + (shocks.skew + shocks.curvature * k) * k)
    return vol * _exponentials(shocks.term * term) * smile_multiplier


def shocked_vol(kind: str, option: OptionMoments, p: Parameters) -> float:
    """The option's volatility under a named shock of the document."""
    if kind in SKEW_SHOCKS and p.skew is not None:
        return option.vol * _skew_multiplier(kind, option, p.skew)
    if kind == "none" or p.vol is None:
        return option.vol
    range_multiplier = _range_multiplier(option.seconds, p.vol)
    if kind == "up":
        return max(p.vol.min_vol_when_shocked_up, option.vol * (1.0 + p.vol.range_up * range_multiplier))
    return option.vol * max(0.0, 1.0 - p.vol.range_down * range_multiplier)


def _range_multiplier(seconds: int, rule: VolRule) -> float:
    days = seconds / DAY_SECONDS
    power = rule.short_term_power if days <= POWER_DAYS else rule.long_term_power
    floored = max(days, rule.dte_floor_days)
    return float(exponential(power * logarithm(POWER_DAYS / floored))) if floored > 0.0 else 1.0


def _skew_multiplier(kind: str, option: OptionMoments, rule: SkewRule) -> float:
    root = float(np.sqrt(option.years))
    linear = kind == "linear"
    cap = rule.linear_cap if linear else rule.abs_cap
    cap += (rule.linear_cap_slope_sqrt_tau if linear else rule.abs_cap_slope_sqrt_tau) * root
    k = option.log_moneyness if linear else abs(option.log_moneyness)
    width = root * rule.width_scale * (rule.vol_param_static + root * rule.vol_param_scale)
    change = k * cap / max(rule.min_k_star, width)
    return max(0.0, 1.0 + min(max(change, -cap), cap))
