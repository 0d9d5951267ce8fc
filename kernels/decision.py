"""The whole decision of an account: its terms, its margins, its state. Integers only.

    risk = max(expected shortfall, worst weighted stress loss, short-option minimum)
    MM   = risk + add-ons,   IM = multiplier * risk + add-ons             rounded up: against the account
    HEALTHY NLV >= IM, MARGIN_CALL MM <= NLV < IM, LIQUIDATABLE NLV < MM, INSOLVENT equity < 0

``decide`` never falls when a term rises: at upper bounds of the terms it gives upper bounds of MM and IM, and who is
HEALTHY there is HEALTHY: all that screening needs (infra/docs/screening.md). ``decisions`` tries the hinge bound
first where it may: any t bounds the expected shortfall from above (``tail_selection.tail_cost``), at the price of one
pass over losses that are there anyway.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.compiling import borrows, compiled
from kernels.expected_shortfall import FAST, shortfall_of, take_losses, workspace
from kernels.layout import BoolArray, Int8Array, Int32Array, Int64Array, PnlTable
from kernels.tail_selection import tail_cost
from kernels.worst_stress import worst_stresses

HEALTHY, MARGIN_CALL, LIQUIDATABLE, INSOLVENT = range(4)
_NANO_PER_MICRO = 1_000
_MILLION = 1_000_000
BOUND_LIMIT = 2**61
"""Bounds of terms at or above this prove nothing: the decision might not fit int64."""


class Margins(NamedTuple):
    """One entry an account, int64 micro-USD unless said otherwise. `es_usd9` and `stress_usd9` are what the next screen
    starts from (nano-USD; wide accounts: saturated). `wide`: computed on the wide path. `keyframe_block`: the block
    whose exact terms these are; if it is not the present one, expected shortfall, stress, IM and MM are certified upper
    bounds, everything else is exact, and the account is certain to be healthy. -1: never computed.
    """

    nlv_usd6: Int64Array
    equity_usd6: Int64Array
    initial_margin_usd6: Int64Array
    maintenance_margin_usd6: Int64Array
    expected_shortfall_usd6: Int64Array
    stress_loss_usd6: Int64Array
    short_option_minimum_usd6: Int64Array
    add_ons_usd6: Int64Array
    binding: Int8Array
    stress_row: Int32Array
    state: Int8Array
    wide: BoolArray
    es_usd9: Int64Array
    stress_usd9: Int64Array
    tail_threshold: Int64Array
    keyframe_block: Int64Array


class PlainTerms(NamedTuple):
    """What needs no scenario, int64[A]: NLV and equity in micro-USD, short-option minimum and add-ons in nano-USD."""

    nlv_usd6: Int64Array
    equity_usd6: Int64Array
    short_minimum_usd9: Int64Array
    add_ons_usd9: Int64Array


@borrows
def _up_usd6(value_usd9):  # type: ignore[no-untyped-def]
    return -(-value_usd9 // _NANO_PER_MICRO)


@borrows
def ratio_up(value, ratio_e6):  # type: ignore[no-untyped-def]
    """ceil(value * ratio / 1e6) without overflow: whole millions and the rest apart."""
    millions = value // _MILLION
    rest = value - millions * _MILLION
    return millions * ratio_e6 - (-(rest * ratio_e6) // _MILLION)


@compiled
def fill_plain_terms(begin, base_usd6, sums_usd9, short_e6, gross_e6, out) -> None:  # type: ignore[no-untyped-def]
    """Plain terms of the accounts from ``begin`` on into ``out``, from int64[n,4] of ``account_sums.portfolio_sums``.

    base_usd6 int64[A] is cash less entry values; short_e6, gross_e6 are what a short option and gross notional cost.
    """
    for n in range(sums_usd9.shape[0]):
        a = begin + n
        out.equity_usd6[a] = base_usd6[a] + sums_usd9[n, 0] // _NANO_PER_MICRO
        out.nlv_usd6[a] = base_usd6[a] + sums_usd9[n, 1] // _NANO_PER_MICRO
        out.add_ons_usd9[a] = ratio_up(sums_usd9[n, 2], gross_e6)
        out.short_minimum_usd9[a] = ratio_up(sums_usd9[n, 3], short_e6)


@borrows
def _state(nlv, equity, initial, maintenance) -> int:  # type: ignore[no-untyped-def]
    if equity < 0:
        return INSOLVENT
    if nlv < maintenance:
        return LIQUIDATABLE
    return HEALTHY if nlv >= initial else MARGIN_CALL


@borrows
def decide(a, es_usd9, stress_usd9, plain, multiplier_e6):  # type: ignore[no-untyped-def]
    """(binding term, IM, MM in micro-USD, state) of account ``a``: the formulas of the module's head."""
    short = plain.short_minimum_usd9[a]
    binding, risk = 0, es_usd9
    if stress_usd9 > risk:  # the first of equal terms binds
        binding, risk = 1, stress_usd9
    if short > risk:
        binding, risk = 2, short
    maintenance = _up_usd6(risk + plain.add_ons_usd9[a])
    initial = _up_usd6(ratio_up(risk, multiplier_e6) + plain.add_ons_usd9[a])
    return binding, initial, maintenance, _state(plain.nlv_usd6[a], plain.equity_usd6[a], initial, maintenance)


@borrows
def store(a, es_usd9, stress_usd9, plain, decided, into) -> None:  # type: ignore[no-untyped-def]
    """Terms and decision of account ``a`` into its row."""
    binding, initial, maintenance, state = decided
    into.nlv_usd6[a], into.equity_usd6[a] = plain.nlv_usd6[a], plain.equity_usd6[a]
    into.initial_margin_usd6[a], into.maintenance_margin_usd6[a] = initial, maintenance
    into.expected_shortfall_usd6[a] = _up_usd6(es_usd9)
    into.stress_loss_usd6[a] = _up_usd6(stress_usd9)
    into.short_option_minimum_usd6[a] = _up_usd6(plain.short_minimum_usd9[a])
    into.add_ons_usd6[a] = _up_usd6(plain.add_ons_usd9[a])
    into.binding[a], into.state[a], into.wide[a] = binding, state, False
    into.es_usd9[a], into.stress_usd9[a] = es_usd9, stress_usd9


@borrows
def _next_threshold(losses, weights, tail_mass, t, cost):  # type: ignore[no-untyped-def]
    """A t nearer the tail for the next block's hinge: one Newton step on the weight above t, at most one scale."""
    above = np.int64(0)
    for s in range(losses.shape[0]):
        above += np.int64(weights[s]) if losses[s] > t else np.int64(0)
    step = float(above - tail_mass) / float(max(above, tail_mass))
    return t + np.int64(step * float(max(cost - t, 1)))


@borrows
def _decide_all(  # type: ignore[no-untyped-def]
    account_ptr, leg_instrument, leg_lots, accounts, pnl, work, tail_mass, worst_usd9, worst_row,
    plain, multiplier_e6, may_bound, block, into, out_status,
) -> None:  # fmt: skip
    for n in range(accounts.shape[0]):
        a = accounts[n]
        legs = leg_instrument[account_ptr[a] : account_ptr[a + 1]]
        lots = leg_lots[account_ptr[a] : account_ptr[a + 1]]
        out_status[a] = take_losses(legs, lots, pnl, work)
        if out_status[a] != FAST:
            continue
        stress_usd9, into.stress_row[a] = worst_usd9[n], worst_row[n]
        t = into.tail_threshold[a]
        if may_bound[a] and -BOUND_LIMIT < t < BOUND_LIMIT:
            cost = tail_cost(work.losses, work.weights, work.losses.shape[0], t, tail_mass)
            decided = decide(a, min(cost, BOUND_LIMIT), stress_usd9, plain, multiplier_e6)
            if cost < BOUND_LIMIT and decided[3] == HEALTHY:
                store(a, cost, stress_usd9, plain, decided, into)
                into.tail_threshold[a] = _next_threshold(work.losses, work.weights, tail_mass, t, cost)
                continue
        es_usd9, into.tail_threshold[a] = shortfall_of(work, tail_mass, t, into.es_usd9[a])
        decided = decide(a, es_usd9, stress_usd9, plain, multiplier_e6)
        store(a, es_usd9, stress_usd9, plain, decided, into)
        into.keyframe_block[a] = block


@compiled
def _decisions(  # type: ignore[no-untyped-def]
    account_ptr, leg_instrument, leg_lots, accounts, pnl, weights, tail_mass, stress, stress_weight_e6,
    plain, multiplier_e6, may_bound, block, into, out_status,
) -> None:  # fmt: skip
    worst_usd9, worst_row = worst_stresses(account_ptr, leg_instrument, leg_lots, accounts, stress, stress_weight_e6)
    _decide_all(
        account_ptr, leg_instrument, leg_lots, accounts, pnl, workspace(account_ptr, accounts, weights, stress),
        tail_mass, worst_usd9, worst_row, plain, multiplier_e6, may_bound, block, into, out_status,
    )  # fmt: skip


def decisions(
    account_ptr: Int64Array,
    leg_instrument: Int32Array,
    leg_lots: Int64Array,
    accounts: Int64Array,
    pnl: PnlTable,
    weights: Int32Array,
    tail_mass: int,
    stress: Int64Array,
    stress_weight_e6: Int64Array,
    plain: PlainTerms,
    multiplier_e6: int,
    may_bound: BoolArray,
    block: int,
    into: Margins,
    out_status: Int8Array,
) -> None:
    """Margins of the given accounts at ``block``; all other entries are left alone.

    Args:
        accounts: int64 account indices. ``may_bound`` bool[A]: the hinge bound suffices where it proves HEALTHY; such a
            row keeps its ``keyframe_block``, an exact one gets ``block``.
        into: on entry ``tail_threshold`` and ``es_usd9`` are the last ones: they never change an exact result.
        out_status: [A] FAST, or WIDE or INVALID (expected_shortfall): those rows are left alone.
    """
    _decisions(
        account_ptr, leg_instrument, leg_lots, accounts, pnl, weights, np.int64(tail_mass), stress, stress_weight_e6,
        plain, np.int64(multiplier_e6), may_bound, np.int64(block), into, out_status,
    )  # fmt: skip


@compiled
def clear_by_bounds(  # type: ignore[no-untyped-def]
    begin, end, may_clear, bounds_usd9, plain, multiplier_e6, margins, out_cleared
) -> None:
    """The sup bound on the whole decision: out_cleared[a] where last terms + increases still give HEALTHY.

    ``margins`` holds the last terms (exact or bounds themselves); ``bounds_usd9`` int64[2,A] holds the increases of
    ``screening.sup_bounds`` since then and, of the cleared, afterwards the bounds of the two terms. For accounts from
    ``begin`` to ``end``; those that may not be cleared are never cleared.
    """
    for a in range(begin, end):
        out_cleared[a] = False
        if not may_clear[a] or bounds_usd9[0, a] >= BOUND_LIMIT or bounds_usd9[1, a] >= BOUND_LIMIT:
            continue
        es_usd9 = margins.es_usd9[a] + bounds_usd9[0, a]
        stress_usd9 = max(np.int64(0), margins.stress_usd9[a] + bounds_usd9[1, a])
        if not -BOUND_LIMIT < es_usd9 < BOUND_LIMIT or stress_usd9 >= BOUND_LIMIT:
            continue
        bounds_usd9[0, a], bounds_usd9[1, a] = es_usd9, stress_usd9
        out_cleared[a] = decide(a, es_usd9, stress_usd9, plain, multiplier_e6)[3] == HEALTHY


@compiled
def keep_bounds(begin, end, kept, bounds_usd9, plain, multiplier_e6, into) -> None:  # type: ignore[no-untyped-def]
    """Bounds that prove HEALTHY become the rows of the accounts ``kept`` (bool[A]); their ``keyframe_block`` stays."""
    for a in range(begin, end):
        if kept[a]:
            es_usd9, stress_usd9 = bounds_usd9[0, a], bounds_usd9[1, a]
            store(a, es_usd9, stress_usd9, plain, decide(a, es_usd9, stress_usd9, plain, multiplier_e6), into)
