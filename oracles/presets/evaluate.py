"""The float twin: a preset's margin of a case in float64, every term of it told.

P&L of a row   = sum over expiries of (discount(shocked value) / divisor - value) x weight + linear legs
risk           = worst loss or expected shortfall per group, combined; at least basis and short-option minimum
MM requirement = mm_loss_factor x (risk + roll) + maintenance charges
IM requirement = (im_loss_factor + peg) x (risk + roll) + maintenance and initial charges
balance        = cash + marks + collateral at its price - requirement                >= 0: the margin is met
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from kernels.black76 import price
from oracles.presets.case import Case
from oracles.presets.charges import (
    coin_price,
    initial_charges,
    maintenance_charges,
    option_credit,
    roll_charges,
    short_option_minimum,
)
from oracles.presets.document import Parameters, PresetDocument
from oracles.presets.netting import NettingSet, Rows, Valued, ValuedExpiry, valued
from oracles.presets.repricing import OptionLeg, shocked_forwards
from oracles.presets.scenarios import FloatArray, Shocks

BASIS, SHORT_OPTION_MINIMUM, NOTHING = "basis contingency", "short-option minimum", "nothing"


class Assessment(Struct, frozen=True, kw_only=True):
    """A margin and its terms, USD. `equity`: what counts; the requirements are what cash, marks and collateral at their
    price must reach. `scenario_pnl`: of the rows in the document's order (drawn rows are left out).

    `risks`: each candidate of the risk; `binding`: the largest, with its row where it has one, or "nothing".
    """

    id: str
    initial_margin_balance: float
    maintenance_margin_balance: float
    initial_requirement: float
    maintenance_requirement: float
    equity: float
    option_mtm: float
    collateral_mtm: float
    basis_contingency: float
    scenario_pnl: tuple[float, ...]
    risks: dict[str, float]
    risk: float
    roll: float
    binding: str


class GroupRisk(Struct, frozen=True):
    """Risk of one group and which row it comes from."""

    name: str
    risk: float
    row: str
    pnl: tuple[float, ...]


def evaluate(case: Case, document: PresetDocument) -> Assessment:
    """Margin of a case under a preset.

    Raises:
        DocumentError: the case brings rows whose rule is not among its parameters.
    """
    found = valued(case, document)
    p, legs, other = found.parameters, found.options, found.parameters.other
    groups = [_group_risk(rows, sets, p) for rows, sets in found.groups]
    basis = basis_contingency(found)
    risks = _candidates(found, groups, basis)
    binding = max(risks, key=lambda name: risks[name])
    risk, roll = risks[binding], sum(charge.usd for charge in roll_charges(case, legs, p))
    peg = max(0.0, other.peg_threshold - case.market.stable_price) * other.peg_factor
    maintenance = sum(charge.usd for charge in maintenance_charges(case, legs, p))
    extra = sum(charge.usd for charge in initial_charges(case, legs, p))
    maintenance_requirement = p.margin.mm_loss_factor * (risk + roll) + maintenance
    initial_requirement = (p.margin.im_loss_factor + peg) * (risk + roll) + maintenance + extra
    equity = equity_of(found, full=False)
    not_counted = equity_of(found, full=True) - equity
    row = next((group.row for group in groups if group.name == binding), "")
    told = f"{binding}: {row}" if row else binding
    return Assessment(
        id=case.id,
        initial_margin_balance=equity - initial_requirement,
        maintenance_margin_balance=equity - maintenance_requirement,
        initial_requirement=initial_requirement + not_counted,
        maintenance_requirement=maintenance_requirement + not_counted,
        equity=equity,
        option_mtm=option_mtm(found),
        collateral_mtm=collateral_mtm(case),
        basis_contingency=basis,
        scenario_pnl=tuple(pnl for group in groups for pnl in group.pnl),
        risks=risks,
        risk=risk,
        roll=roll,
        binding=told if risk > 0.0 else NOTHING,
    )


def _candidates(found: Valued, groups: list[GroupRisk], basis: float) -> dict[str, float]:
    """The risk is the largest of these; summed groups are one candidate."""
    if found.document.combine == "sum":
        risks = {" + ".join(group.name for group in groups): sum(group.risk for group in groups)}
    else:
        risks = {group.name: group.risk for group in groups}
    minimum = sum(charge.usd for charge in short_option_minimum(found.case, found.options, found.parameters))
    return {**risks, BASIS: -basis, SHORT_OPTION_MINIMUM: minimum}


# -- equity


def equity_of(found: Valued, full: bool) -> float:
    """Cash, marks and collateral; of long options the share that counts, or the whole where `full`."""
    held, p = found.case.positions, found.parameters
    options = sum(leg.option.quantity * leg.value * (1.0 if full else option_credit(leg, p)) for leg in found.options)
    gains = held.perp_unrealised_pnl + held.perp_unrealised_funding
    gains += sum(future.unrealised_pnl for future in held.futures)
    return held.cash + options + gains + collateral_mtm(found.case)


def option_mtm(found: Valued) -> float:
    """Options at their value."""
    return sum(leg.option.quantity * leg.value for leg in found.options)


def collateral_mtm(case: Case) -> float:
    """Coins at their price in cash."""
    return sum(coin.quantity * coin_price(coin, case) for coin in case.positions.collateral)


# -- scenarios


def _group_risk(rows: Rows, sets: list[NettingSet], p: Parameters) -> GroupRisk:
    shocks = rows.shocks
    pnl = [_counted_gains(set_pnl(netted, rows), p) for netted in sets]
    if not pnl:
        return GroupRisk(shocks.group.name, 0.0, "", (0.0,) * len(shocks.group.rows))
    if shocks.group.draw is not None:
        return GroupRisk(shocks.group.name, max(0.0, weighted_shortfall(-pnl[0], shocks)), "", ())
    risk = worst_loss(pnl)
    total = np.sum(pnl, axis=0)
    worst = shocks.name(int(total.argmin())) if len(pnl) == 1 else ""  # positions alone have a row each
    return GroupRisk(shocks.group.name, risk, worst, tuple(total.tolist()))


def worst_loss(pnl: list[FloatArray]) -> float:
    """Largest loss of a row, at least 0, summed over the lines that do not net."""
    return sum(max(0.0, -float(line.min())) for line in pnl)


def set_pnl(netted: NettingSet, rows: Rows) -> FloatArray:
    """P&L of a netting set in every row, weighted and dampened, [S]."""
    total = np.zeros(rows.shocks.size)
    for expiry in netted.expiries:
        total += expiry_pnl(expiry, rows)
    for leg in netted.linear:
        change = (rows.shocks.spot_multiplier - 1.0) / rows.divisor
        total += np.where(rows.moves_linear, leg.quantity * leg.price * change, 0.0) * rows.shocks.weight
    return np.copysign(np.maximum(np.abs(total) - rows.shocks.dampener_usd, 0.0), total) + 0.0  # no -0


def expiry_pnl(expiry: ValuedExpiry, rows: Rows) -> FloatArray:
    """(discounted shocked value - value) x weight of the options of one expiry, [S]."""
    quantity = np.array([leg.option.quantity for leg in expiry.legs])
    shocked = (quantity[:, None] * expiry.values).sum(axis=0)
    value = sum(leg.option.quantity * leg.value for leg in expiry.legs)
    long, short = expiry.discounts
    change = shocked * np.where(shocked >= 0.0, long, short) / rows.divisor - value
    return np.where(rows.unsigned, -np.abs(change), change) * rows.shocks.weight


def _counted_gains(pnl: FloatArray, p: Parameters) -> FloatArray:
    gains = np.maximum(pnl, 0.0) * p.add_ons.gain_share
    if p.add_ons.gain_limit_usd is not None:
        gains = np.minimum(gains, p.add_ons.gain_limit_usd)
    return np.where(pnl > 0.0, gains, pnl)


def weighted_shortfall(losses: FloatArray, shocks: Shocks) -> float:
    """Expected shortfall of weighted losses (kernels.expected_shortfall in floats)."""
    order = np.argsort(-losses, kind="stable")
    sorted_losses, weights = losses[order], shocks.probability[order].astype(np.float64)
    left = np.clip(shocks.tail_mass - (np.cumsum(weights) - weights), 0.0, weights)
    return float((sorted_losses * left).sum() / shocks.tail_mass)


# -- basis


def basis_contingency(found: Valued) -> float:
    """Sum over expiries, at most 0."""
    rule = found.parameters.basis
    if rule is None:
        return 0.0
    by_expiry: dict[int, list[OptionLeg]] = {}
    for leg in found.options:
        by_expiry.setdefault(leg.expiry, []).append(leg)
    total = 0.0
    for legs in by_expiry.values():
        moves = [basis_move(legs, multiplier, found) for multiplier in (rule.spot_up, rule.spot_down)]
        total += min(*moves, 0.0) * (rule.add + rule.mult * legs[0].years)
    return total


def basis_move(legs: list[OptionLeg], multiplier: float, found: Valued) -> float:
    """Change of value of one expiry when its forward alone moves."""
    return sum(leg.option.quantity * (moved_value(leg, multiplier, found) - leg.value) for leg in legs)


def moved_value(leg: OptionLeg, multiplier: float, found: Valued) -> float:
    """Value of one unit at a moved forward, volatility unchanged."""
    window = found.document.settlement_window_seconds
    forward = float(shocked_forwards(leg, np.array([multiplier]), window)[0])
    return float(price(forward, leg.option.strike, leg.vol, leg.years, leg.rate, leg.is_call))
