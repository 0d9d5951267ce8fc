"""The decision: terms -> maintenance and initial margin, state, cure. One pure function for every margin there is.

equity = cash + marks of positions + collateral at its price          (nothing haircut)
NLV    = cash + marks of positions + collateral at price x factor  (open gains by their share: streams/engine/gains.py)
risk   = max(expected shortfall, worst weighted stress loss, short-option minimum)
MM     = risk + add-ons,   IM = multiplier x risk + add-ons           (rounded up: against the account)
add-ons = charge on gross notional + concentration charge (streams/engine/concentration.py)
          + governed volatility x gross vega of options whose surface is degraded
          + governed move x gross delta of what is priced by a degraded index

Degraded oracles raise MM and IM, but liquidate nobody by themselves: who is below MM by what they add alone is in a
margin call. No new risk, no withdrawal, a warning; closed is what would be so without them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from kernels.account_sums import portfolio_sums
from kernels.decision import (
    HEALTHY,
    INSOLVENT,
    LIQUIDATABLE,
    MARGIN_CALL,
    Margins,
    PlainTerms,
    decisions,
    fill_plain_terms,
)
from kernels.expected_shortfall import FAST, INVALID, NO_TAIL_THRESHOLD, account_terms_wide
from kernels.wide_shortfall import account_terms_two_limb
from schemas.decisions import BINDING_TERMS, Cure
from schemas.quantities import ONE_E6, USD9_PER_USD6, divide_up, saturated
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Legs
from streams.engine.concentration import concentration_of, concentration_usd9
from streams.engine.gains import uncounted_gain_usd6, uncounted_gains_usd6
from streams.engine.output import Fault
from streams.engine.tables import Tables

EXPECTED_SHORTFALL, STRESS, SHORT_OPTION_MINIMUM = range(len(BINDING_TERMS))
SUM_LIMIT = 2.0**61
VALUE_LIMIT = 2**62
NEVER = -1
CHUNK_ACCOUNTS = 2_048
SUM_ACCOUNTS = 4_096  # a block of accounts where an account takes a tenth of a microsecond

Spread = Callable[[Callable[[Any], None], Iterable[Any]], Iterable[None]]
"""Like `map`: an executor's `map` computes blocks of accounts in threads (the kernels release the lock)."""


def serially(run: Callable[[Any], None], chunks: Iterable[Any]) -> Iterable[None]:
    """One block of accounts after the other."""
    return map(run, chunks)


def for_all(count: int, run: Callable[[int, int], None], spread: Spread) -> None:
    """run(begin, end) for blocks of all accounts; each fills its own rows, so no result depends on `spread`."""
    begins = range(0, count, SUM_ACCOUNTS)
    deque(spread(lambda begin: run(begin, min(begin + SUM_ACCOUNTS, count)), begins), maxlen=0)


class Sums(NamedTuple):
    """Per account without any scenario: nlv, equity, short-option minimum and add-ons in micro-USD (exact), and whether
    an account is out of the fast range: `exact` has its four numbers as Python integers (the arrays: saturated).
    `degraded_usd9`: of the add-ons, what degraded oracles make that liquidates nobody; None: nothing."""

    nlv_usd6: np.ndarray
    equity_usd6: np.ndarray
    short_minimum_usd9: np.ndarray
    add_ons_usd9: np.ndarray
    wide: np.ndarray
    exact: dict[int, tuple[int, int, int, int]]
    degraded_usd9: np.ndarray | None


def empty_margins(count: int) -> Margins:
    """Zeros, healthy, without a warm threshold."""
    columns: dict[str, Any] = {name: np.zeros(count, np.int64) for name in Margins._fields}
    columns["binding"] = np.zeros(count, np.int8)
    columns["stress_row"] = np.full(count, -1, np.int32)
    columns["state"] = np.zeros(count, np.int8)
    columns["wide"] = np.zeros(count, np.bool_)
    columns["tail_threshold"] = np.full(count, NO_TAIL_THRESHOLD, np.int64)
    columns["keyframe_block"] = np.full(count, NEVER, np.int64)
    return Margins(**columns)


def account_sums(
    legs: Legs,
    cash_usd6: np.ndarray,
    entry_usd6: np.ndarray,
    tables: Tables,
    p: RiskParameters,
    spread: Spread = serially,
) -> Sums:
    """Everything of the decision that needs no scenario, exact for every account."""
    count = len(legs.account_ptr) - 1
    plain, magnitude = PlainTerms(*(np.empty(count, np.int64) for _ in PlainTerms._fields)), np.empty(count)
    base, expiries = cash_usd6 - entry_usd6, len(tables.market.forward)

    def run(begin: int, end: int) -> None:
        sums_usd9 = np.empty((end - begin, 4), np.int64)
        portfolio_sums(
            legs.account_ptr[begin : end + 1], legs.leg_instrument, legs.leg_lots, tables.columns_usd9,
            tables.option_expiry, expiries, sums_usd9, magnitude[begin:end],
        )  # fmt: skip
        fill_plain_terms(begin, base, sums_usd9, p.short_option_minimum_e6, p.gross_notional_charge_e6, plain)

    for_all(count, run, spread)
    nlv, equity, short, charge = plain
    nlv -= uncounted_gains_usd6(legs, entry_usd6, tables, p)
    charge += concentration_usd9(legs, tables, p)
    degraded = None
    if tables.degraded_usd9 is not None:
        degraded, size = _degraded_charge(legs, tables.degraded_usd9)
        charge, magnitude = charge + degraded, magnitude + size
    wide = magnitude >= SUM_LIMIT
    exact = {a: _wide_sums(legs, a, int(base[a]), int(entry_usd6[a]), tables, p) for a in np.flatnonzero(wide).tolist()}
    for a, values in exact.items():
        nlv[a], equity[a], short[a], charge[a] = map(saturated, values)
    return Sums(nlv, equity, short, charge, wide, exact, degraded if tables.spares_degraded else None)


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
        divide_up(totals[2] * p.gross_notional_charge_e6, ONE_E6)
        + sum(charge for _, charge in concentration_of(legs, account, tables, p))
        + degraded_charge_of(legs, account, tables),
    )


def degraded_charge_of(legs: Legs, account: int, tables: Tables) -> int:
    """What degraded oracles add for one account of any size, nano-USD."""
    if tables.degraded_usd9 is None:
        return 0
    leg = slice(int(legs.account_ptr[account]), int(legs.account_ptr[account + 1]))
    per_lot = tables.degraded_usd9[legs.leg_instrument[leg]].tolist()
    return sum(abs(lots) * add_on for lots, add_on in zip(legs.leg_lots[leg].tolist(), per_lot, strict=True))


def _degraded_charge(legs: Legs, degraded_usd9: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[A]: sum of |lots| x add-on of a lot, int64 (exact while it fits) and as float."""
    lots, per_lot = np.abs(legs.leg_lots), degraded_usd9[legs.leg_instrument]
    cumulated = np.concatenate((np.zeros(1, np.int64), np.cumsum(lots * per_lot)))  # wraps, differences do not care
    count = len(legs.account_ptr) - 1
    account = np.repeat(np.arange(count), np.diff(legs.account_ptr))
    magnitude = np.bincount(account, lots.astype(np.float64) * per_lot, count)
    return np.diff(cumulated[legs.account_ptr]), magnitude


def plain_terms(sums: Sums) -> PlainTerms:
    """The arrays of the sums as the decision kernel takes them."""
    return PlainTerms(*sums[:4])


def compute(
    legs: Legs,
    accounts: np.ndarray,
    sums: Sums,
    tables: Tables,
    p: RiskParameters,
    into: Margins,
    block: int = NEVER,
    may_bound: np.ndarray | None = None,
    spread: Spread = serially,
) -> None:
    """Margins of the given accounts (int64 indices) into `into`; the other entries are left alone.

    All are exact, except that where `may_bound` (bool[A]) allows, a hinge bound that proves an account healthy is taken
    instead. `spread` may compute blocks of accounts at once: no result depends on it.
    """
    status = np.zeros(len(into.state), np.int8)
    allowed = np.zeros(len(into.state), np.bool_) if may_bound is None else may_bound
    plain = plain_terms(sums)

    def run(chunk: np.ndarray) -> None:
        decisions(
            *legs, chunk, tables.pnl, tables.scenarios.weights, tables.tail_mass, tables.stress,
            tables.stress_weight_e6, plain, p.initial_margin_multiplier_e6, allowed, block, into, status,
        )  # fmt: skip

    deque(spread(run, _chunks(accounts)), maxlen=0)
    if sums.degraded_usd9 is not None:
        _spare(accounts, sums, into)
    slow = accounts[(status[accounts] != FAST) | sums.wide[accounts]]
    for account in slow.tolist():
        if status[account] == INVALID:
            raise Fault(f"account {account} holds an instrument that cannot be priced")
        _compute_wide(legs, account, sums, tables, p, into)
        into.keyframe_block[account] = block


def _spare(accounts: np.ndarray, sums: Sums, into: Margins) -> None:
    """Who of the given accounts is liquidatable by degraded oracles alone is in a margin call instead."""
    flagged = accounts[into.state[accounts] == LIQUIDATABLE]
    terms = (into.es_usd9, into.stress_usd9, sums.short_minimum_usd9)
    risk_usd9 = np.max([term[flagged] for term in terms], axis=0)
    without_usd9 = risk_usd9 + (sums.add_ons_usd9 - sums.degraded_usd9)[flagged]
    spared = sums.nlv_usd6[flagged] >= -(-without_usd9 // USD9_PER_USD6)
    into.state[flagged[spared]] = MARGIN_CALL


def _chunks(accounts: np.ndarray) -> Iterator[np.ndarray]:
    for begin in range(0, len(accounts), CHUNK_ACCOUNTS):
        yield accounts[begin : begin + CHUNK_ACCOUNTS]


def _compute_wide(legs: Legs, account: int, sums: Sums, tables: Tables, p: RiskParameters, into: Margins) -> None:
    """The same decision for terms of any size (two limbs, else Python integers); what does not fit is saturated."""
    leg = slice(int(legs.account_ptr[account]), int(legs.account_ptr[account + 1]))
    arguments = (
        legs.leg_instrument[leg], legs.leg_lots[leg], tables.pnl, tables.scenarios.weights, tables.tail_mass,
        tables.stress, tables.stress_weight_e6,
    )  # fmt: skip
    terms = account_terms_two_limb(*arguments) or account_terms_wide(*arguments)
    fitting = tuple(int(column[account]) for column in sums[:4])
    nlv, equity, short, add_ons = sums.exact.get(account, fitting)
    found = [terms.es_usd9, terms.stress_usd9, short]
    risk = max(found)
    into.binding[account] = found.index(risk)
    into.stress_row[account] = terms.stress_row
    maintenance = divide_up(risk + add_ons, USD9_PER_USD6)
    spared_usd9 = degraded_charge_of(legs, account, tables) if tables.spares_degraded else 0
    line = divide_up(risk + add_ons - spared_usd9, USD9_PER_USD6)
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
    into.state[account] = _state_of(nlv, equity, line, initial)


def _state_of(nlv: int, equity: int, line: int, initial: int) -> int:
    """State of one account of any size; `line`: MM without what degraded oracles add."""
    if equity < 0:
        return INSOLVENT
    if nlv < line:
        return LIQUIDATABLE
    return HEALTHY if nlv >= initial else MARGIN_CALL


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
