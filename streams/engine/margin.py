"""The decision: terms -> maintenance and initial margin, state, cure. One pure function for every margin there is.

equity = cash + marks of positions + collateral at its price          (nothing haircut)
NLV    = cash + marks of positions + collateral at price x factor  (open gains by their share: streams/engine/gains.py)
risk   = max(expected shortfall, worst weighted stress loss, short-option minimum)
MM     = risk + add-ons,   IM = multiplier x risk + add-ons           (rounded up: against the account)
add-ons = charge on gross notional
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.account_sums import portfolio_sums
from kernels.expected_shortfall import FAST, INVALID, NO_TAIL_THRESHOLD, account_terms, account_terms_wide
from schemas.decisions import BINDING_TERMS, Cure
from schemas.quantities import ONE_E6, USD9_PER_USD6, divide_up, saturated
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Legs
from streams.engine.gains import uncounted_gain_usd6, uncounted_gains_usd6
from streams.engine.output import Fault
from streams.engine.tables import Tables

HEALTHY, MARGIN_CALL, LIQUIDATABLE, INSOLVENT = range(4)
EXPECTED_SHORTFALL, STRESS, SHORT_OPTION_MINIMUM = range(len(BINDING_TERMS))
SUM_LIMIT = 2.0**61
VALUE_LIMIT = 2**62


class Margins(NamedTuple):
    """One entry an account, int64 micro-USD unless said otherwise. `es_usd9` and `stress_usd9` are the keyframe of the
    screen (nano-USD; unbounded accounts: saturated). `wide`: computed on the wide path.
    """

    nlv_usd6: np.ndarray
    equity_usd6: np.ndarray
    initial_margin_usd6: np.ndarray
    maintenance_margin_usd6: np.ndarray
    expected_shortfall_usd6: np.ndarray
    stress_loss_usd6: np.ndarray
    short_option_minimum_usd6: np.ndarray
    add_ons_usd6: np.ndarray
    binding: np.ndarray
    stress_row: np.ndarray
    state: np.ndarray
    wide: np.ndarray
    es_usd9: np.ndarray
    stress_usd9: np.ndarray
    tail_threshold: np.ndarray


class Sums(NamedTuple):
    """Per account without any scenario: nlv, equity, short-option minimum and add-ons in micro-USD (exact), and whether
    an account is out of the fast range: `exact` has its four numbers as Python integers (the arrays: saturated)."""

    nlv_usd6: np.ndarray
    equity_usd6: np.ndarray
    short_minimum_usd9: np.ndarray
    add_ons_usd9: np.ndarray
    wide: np.ndarray
    exact: dict[int, tuple[int, int, int, int]]


def empty_margins(count: int) -> Margins:
    """Zeros, healthy, without a warm threshold."""
    columns = {name: np.zeros(count, np.int64) for name in Margins._fields}
    columns["binding"] = np.zeros(count, np.int8)
    columns["stress_row"] = np.full(count, -1, np.int32)
    columns["state"] = np.zeros(count, np.int8)
    columns["wide"] = np.zeros(count, np.bool_)
    columns["tail_threshold"] = np.full(count, NO_TAIL_THRESHOLD, np.int64)
    return Margins(**columns)


def account_sums(legs: Legs, cash_usd6: np.ndarray, entry_usd6: np.ndarray, tables: Tables, p: RiskParameters) -> Sums:
    """Everything of the decision that needs no scenario, exact for every account."""
    count = len(legs.account_ptr) - 1
    out, magnitude = np.zeros((count, 4), np.int64), np.zeros(count)
    expiries = len(tables.market.forward)
    portfolio_sums(*legs, tables.columns_usd9, tables.option_expiry, expiries, out, magnitude)
    base = cash_usd6 - entry_usd6
    equity = base + out[:, 0] // USD9_PER_USD6
    nlv = base + out[:, 1] // USD9_PER_USD6 - uncounted_gains_usd6(legs, entry_usd6, tables, p)
    short = _ratio_up(out[:, 3], p.short_option_minimum_e6)
    charge = _ratio_up(out[:, 2], p.gross_notional_charge_e6)
    wide = magnitude >= SUM_LIMIT
    exact = {a: _wide_sums(legs, a, int(base[a]), int(entry_usd6[a]), tables, p) for a in np.flatnonzero(wide).tolist()}
    for a, values in exact.items():
        nlv[a], equity[a], short[a], charge[a] = map(saturated, values)
    return Sums(nlv, equity, short, charge, wide, exact)


def _wide_sums(
    legs: Legs, account: int, base_usd6: int, entry_usd6: int, tables: Tables, p: RiskParameters
) -> tuple[int, int, int, int]:
    begin, end = int(legs.account_ptr[account]), int(legs.account_ptr[account + 1])
    totals = [0, 0, 0]
    net: dict[int, int] = {}
    for i, lots in zip(legs.leg_instrument[begin:end].tolist(), legs.leg_lots[begin:end].tolist(), strict=True):
        mark, haircut, notional = (int(v) for v in tables.columns_usd9[:, i])
        totals = [
            totals[0] + lots * mark,
            totals[1] + lots * (haircut if lots > 0 else mark),
            totals[2] + abs(lots) * notional,
        ]
        expiry = int(tables.option_expiry[i])
        if expiry >= 0:
            net[expiry] = net.get(expiry, 0) + lots * notional
    short = sum(max(0, -value) for value in net.values())
    return (
        base_usd6 + totals[1] // USD9_PER_USD6 - uncounted_gain_usd6(legs, account, entry_usd6, tables, p),
        base_usd6 + totals[0] // USD9_PER_USD6,
        divide_up(short * p.short_option_minimum_e6, ONE_E6),
        divide_up(totals[2] * p.gross_notional_charge_e6, ONE_E6),
    )


def _ratio_up(values_usd9: np.ndarray, ratio_e6: int) -> np.ndarray:
    """ceil(values * ratio / 1e6) without overflow: whole millions and the rest apart."""
    millions = values_usd9 // ONE_E6
    rest = values_usd9 - millions * ONE_E6
    return millions * ratio_e6 - (-(rest * ratio_e6) // ONE_E6)


def compute(legs: Legs, accounts: np.ndarray, sums: Sums, tables: Tables, p: RiskParameters, into: Margins) -> None:
    """Exact margins of the given accounts (int64 indices) into `into`; the other entries are left alone."""
    status = np.zeros(len(into.state), np.int8)
    account_terms(
        *legs, accounts, tables.pnl, tables.scenarios.weights, tables.tail_mass, tables.stress, tables.stress_weight_e6,
        into.es_usd9, into.stress_usd9, into.stress_row, into.tail_threshold, status,
    )  # fmt: skip
    slow = accounts[(status[accounts] != FAST) | sums.wide[accounts]]
    into.wide[accounts] = False
    decide(accounts, sums, p, into)
    for account in slow.tolist():
        if status[account] == INVALID:
            raise Fault(f"account {account} holds an instrument that cannot be priced")
        _compute_wide(legs, account, sums, tables, p, into)


def decide(accounts: np.ndarray, sums: Sums, p: RiskParameters, into: Margins) -> None:
    """The formulas of the module's head on arrays."""
    a = accounts
    short = sums.short_minimum_usd9[a]
    terms = np.stack([into.es_usd9[a], into.stress_usd9[a], short])
    binding = np.argmax(terms, axis=0)
    risk = np.take_along_axis(terms, binding[None, :], axis=0)[0]
    add_ons = sums.add_ons_usd9[a]
    into.binding[a] = binding
    into.nlv_usd6[a], into.equity_usd6[a] = sums.nlv_usd6[a], sums.equity_usd6[a]
    into.maintenance_margin_usd6[a] = _up_usd6(risk + add_ons)
    into.initial_margin_usd6[a] = _up_usd6(_ratio_up(risk, p.initial_margin_multiplier_e6) + add_ons)
    into.expected_shortfall_usd6[a] = _up_usd6(into.es_usd9[a])
    into.stress_loss_usd6[a] = _up_usd6(into.stress_usd9[a])
    into.short_option_minimum_usd6[a] = _up_usd6(short)
    into.add_ons_usd6[a] = _up_usd6(add_ons)
    into.state[a] = states(into, a)


def states(margins: Margins, a: np.ndarray) -> np.ndarray:
    """HEALTHY NLV >= IM; MARGIN_CALL MM <= NLV < IM; LIQUIDATABLE NLV < MM; INSOLVENT equity < 0."""
    nlv = margins.nlv_usd6[a]
    state = np.where(nlv >= margins.initial_margin_usd6[a], HEALTHY, MARGIN_CALL)
    state = np.where(nlv < margins.maintenance_margin_usd6[a], LIQUIDATABLE, state)
    return np.where(margins.equity_usd6[a] < 0, INSOLVENT, state).astype(np.int8)


def _compute_wide(legs: Legs, account: int, sums: Sums, tables: Tables, p: RiskParameters, into: Margins) -> None:
    """The same decision in Python integers; what does not fit int64 is stored saturated."""
    leg = slice(int(legs.account_ptr[account]), int(legs.account_ptr[account + 1]))
    terms = account_terms_wide(
        legs.leg_instrument[leg], legs.leg_lots[leg], tables.pnl, tables.scenarios.weights, tables.tail_mass,
        tables.stress, tables.stress_weight_e6,
    )  # fmt: skip
    fitting = tuple(int(column[account]) for column in sums[:4])
    nlv, equity, short, add_ons = sums.exact.get(account, fitting)
    found = [terms.es_usd9, terms.stress_usd9, short]
    risk = max(found)
    into.binding[account] = found.index(risk)
    into.stress_row[account] = terms.stress_row
    maintenance = divide_up(risk + add_ons, USD9_PER_USD6)
    initial = divide_up(divide_up(risk * p.initial_margin_multiplier_e6, ONE_E6) + add_ons, USD9_PER_USD6)
    into.nlv_usd6[account], into.equity_usd6[account] = saturated(nlv), saturated(equity)
    into.maintenance_margin_usd6[account], into.initial_margin_usd6[account] = map(saturated, (maintenance, initial))
    for column, value in (
        (into.expected_shortfall_usd6, terms.es_usd9),
        (into.stress_loss_usd6, terms.stress_usd9),
        (into.short_option_minimum_usd6, short),
        (into.add_ons_usd6, add_ons),
    ):
        column[account] = saturated(divide_up(value, USD9_PER_USD6))
    into.es_usd9[account] = into.stress_usd9[account] = VALUE_LIMIT  # no keyframe: the screen takes it first
    into.tail_threshold[account] = NO_TAIL_THRESHOLD
    into.wide[account] = True
    into.state[account] = _state_of(nlv, equity, maintenance, initial)


def _state_of(nlv: int, equity: int, maintenance: int, initial: int) -> int:
    """`states` for one account of any size."""
    if equity < 0:
        return INSOLVENT
    if nlv < maintenance:
        return LIQUIDATABLE
    return HEALTHY if nlv >= initial else MARGIN_CALL


def _up_usd6(values_usd9: np.ndarray) -> np.ndarray:
    return -(-values_usd9 // USD9_PER_USD6)


def cure(nlv_usd6: int, initial_margin_usd6: int) -> Cure:
    """What makes an account healthy again: a deposit, or closing this share of every position and coin at its mark
    (margin and marks shrink together, cash does not)."""
    missing = initial_margin_usd6 - nlv_usd6
    share = ONE_E6 if nlv_usd6 <= 0 else min(ONE_E6, divide_up(missing * ONE_E6, initial_margin_usd6))
    return Cure(saturated(missing), share)


def isolated_maintenance_usd6(legs: Legs, account: int, tables: Tables, p: RiskParameters) -> int:
    """What the same decision asks when every position of the account stands alone: the sum over its legs."""
    begin, end = int(legs.account_ptr[account]), int(legs.account_ptr[account + 1])
    count = end - begin
    alone = Legs(np.arange(count + 1, dtype=np.int64), legs.leg_instrument[begin:end], legs.leg_lots[begin:end])
    margins, zeros = empty_margins(count), np.zeros(count, np.int64)
    compute(alone, np.arange(count), account_sums(alone, zeros, zeros, tables, p), tables, p, margins)
    return int(margins.maintenance_margin_usd6.sum())
