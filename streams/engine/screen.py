"""Who is computed at a barrier, in which order, and who may keep a certified bound (infra/docs/screening.md).

Sup bound: an account's expected shortfall, and its worst weighted stress loss, have grown since the last barrier by at
most what its lots can make of the extremes of the changes of its rows. Short-option minimum, add-ons, NLV and equity
need no scenario and are exact. The decision at these bounds bounds the decision: who is healthy there is healthy. Who
has traded since: the same, after what the traded lots alone can owe in their worst scenario is added.

Normally everyone is computed exactly, first those whom the bound does not clear. Where `bound_accounts_min` allows, who
is certain to be healthy keeps the bound instead; the others are tried with the hinge bound before the exact selection;
and each account is exact at least every `exact_interval_blocks`: usually after half of that, staggered by row, but not
while the market jumps (more than an eighth of the accounts not cleared), when exact margins are needed elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kernels.decision import BOUND_LIMIT, clear_by_bounds, keep_bounds
from kernels.reprice import pnl_change_bounds
from kernels.screening import SATURATED_USD9, add_traded_lots, change_bounds, stress_change_bounds, sup_bounds
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Legs
from streams.engine.held import Holdings
from streams.engine.margin import HEALTHY, NEVER, Margins, Spread, Sums, for_all, plain_terms, serially
from streams.engine.tables import Tables

JUMP_SHARE = 8  # one account in so many not cleared: the market jumps
STAGES = (
    "cleared_sup",  # certain to be healthy by the sup bound; exact all the same, after the others
    "bound_sup",  # the same, and keeps the bound
    "bound_traded",  # its lots changed, certain to be healthy by the sup bound and that of the traded lots: keeps it
    "cleared_hinge",  # certain to be healthy by the hinge bound, and keeps that
    "exact_wide",  # sums beyond int64, now or last time
    "exact_not_healthy",  # its state may change either way
    "exact_new_account",  # no margin yet
    "exact_new_set",  # other scenarios, parameters or instruments: no earlier margin bounds this one
    "exact_traded",  # its lots changed
    "exact_due",  # its last exact margin is old enough
    "exact_bound_reached",  # no bound clears it
)
KEEP_A_BOUND = ("bound_sup", "bound_traded", "cleared_hinge")
(
    CLEARED_SUP, BOUND_SUP, BOUND_TRADED, CLEARED_HINGE, WIDE, NOT_HEALTHY, NEW_ACCOUNT, NEW_SET, TRADED, DUE,
    BOUND_REACHED,
) = range(len(STAGES))  # fmt: skip


class Touched(NamedTuple):
    """`traded` bool[A]: lots may have changed since the last barrier. `held`: what some of these held there."""

    traded: np.ndarray
    held: Holdings


class Plan(NamedTuple):
    """bool[A]: whom to compute `first`, where the hinge `may_bound`, and the `rest` that is exact afterwards. int8[A]
    `stage`: index into STAGES, before the hinge was tried. `block`: the barrier's."""

    first: np.ndarray
    may_bound: np.ndarray
    rest: np.ndarray
    stage: np.ndarray
    block: int

    def stages(self, margins: Margins) -> dict[str, int]:
        """Accounts by stage once everything is computed; stages without any are left out."""
        by_hinge = self.may_bound & (margins.keyframe_block != self.block)
        counts = np.bincount(np.where(by_hinge, CLEARED_HINGE, self.stage), minlength=len(STAGES))
        return {name: int(count) for name, count in zip(STAGES, counts, strict=True) if count}


def screen(
    legs: Legs,
    sums: Sums,
    margins: Margins,
    touched: Touched,
    before: Tables | None,
    now: Tables,
    p: RiskParameters,
    block: int,
    spread: Spread = serially,
) -> Plan:
    """The plan of one barrier; accounts that keep a sup bound have it in `margins` afterwards.

    `margins` are those of the last barrier, of which `before` are the tables (None: no sup bound can be had).
    """
    count = len(sums.nlv_usd6)
    keeps_bounds = 0 < p.bound_accounts_min <= count
    blocked = _why_not(sums, margins, touched.traded, before)
    cleared, bounds = np.zeros(count, np.bool_), np.empty((2, count), np.int64)
    plain, multiplier = plain_terms(sums), p.initial_margin_multiplier_e6
    if before is not None:
        may_clear, held = blocked == BOUND_REACHED, touched.held
        rows = held.rows[blocked[held.rows] == TRADED] if keeps_bounds else held.rows[:0]
        may_clear[rows] = True
        fill_increases = _increases(legs, held, rows, before, now)

        def clear(begin: int, end: int) -> None:
            fill_increases(begin, end, bounds)
            clear_by_bounds(begin, end, may_clear, bounds, plain, multiplier, margins, cleared)

        for_all(count, clear, spread)
    stage = np.where(cleared, CLEARED_SUP, blocked).astype(np.int8)
    if not keeps_bounds:
        return Plan(~cleared, np.zeros(count, np.bool_), cleared, stage, block)
    due = is_due(margins.keyframe_block, cleared, touched.traded, p.exact_interval_blocks, block)
    kept = cleared & ~due
    for_all(count, lambda begin, end: keep_bounds(begin, end, kept, bounds, plain, multiplier, margins), spread)
    stage[kept] = np.where(blocked[kept] == TRADED, BOUND_TRADED, BOUND_SUP)
    stage[due & ((stage == CLEARED_SUP) | (stage == BOUND_REACHED))] = DUE
    hinge = (stage == NEW_SET) | (stage == TRADED) | (stage == BOUND_REACHED)
    return Plan(~cleared, hinge & ~due, cleared & due, stage, block)


def _increases(
    legs: Legs, held: Holdings, traded: np.ndarray, before: Tables, now: Tables
) -> Callable[[int, int, np.ndarray], None]:
    """Fills the sup bounds of the increases of both terms (int64[2,A]) of the accounts from one to another, with what
    the trades of the rows `traded` may add."""
    changes = change_bounds(
        pnl_change_bounds(now.pnl, before.pnl),
        stress_change_bounds(now.stress, before.stress, now.stress_weight_e6),
    )
    one_lot = one_lot_bounds(before) if len(traded) else np.zeros((2, 2, 0), np.int64)

    def fill(begin: int, end: int, out: np.ndarray) -> None:
        sup_bounds(begin, end, *legs, changes, out)
        rows = traded[slice(*np.searchsorted(traded, (begin, end)))]
        if len(rows):
            add_traded_lots(rows, *legs, held.keys, held.lots, one_lot, now.pnl.exponent, out)

    return fill


def one_lot_bounds(tables: Tables) -> np.ndarray:
    """Most that one lot can owe in any scenario, in any weighted stress row; long and short: int64[2,2,I] nano-USD.

    The worst scenario is not below the expected shortfall, and it is at hand: of accounts that trade as much as they
    hold it clears 997 of the 999 in a thousand that the expected shortfalls of the lots would.
    """
    pnl, is_priced = tables.pnl, tables.pnl.exponent >= 0
    low, high = stress_change_bounds(tables.stress, np.zeros_like(tables.stress), tables.stress_weight_e6)
    shortfall = np.where(is_priced, np.stack([-pnl.minimum_usd9, pnl.maximum_usd9]), SATURATED_USD9)
    return np.stack([shortfall, np.maximum(0, np.stack([-low, high]))])


def _why_not(sums: Sums, margins: Margins, traded: np.ndarray, before: Tables | None) -> np.ndarray:
    """Stage of each account that no bound may clear, the first reason that holds; BOUND_REACHED where one may."""
    wide = sums.wide | margins.wide | (margins.es_usd9 >= BOUND_LIMIT)
    reasons = [
        (wide, WIDE),
        ((margins.state != HEALTHY) | (sums.equity_usd6 < 0), NOT_HEALTHY),
        (margins.keyframe_block == NEVER, NEW_ACCOUNT),
        (np.full(len(wide), before is None), NEW_SET),
        (traded, TRADED),
    ]
    return np.select([holds for holds, _ in reasons], [code for _, code in reasons], BOUND_REACHED).astype(np.int8)


def is_due(
    keyframe_block: np.ndarray, cleared: np.ndarray, traded: np.ndarray, interval: int, block: int
) -> np.ndarray:
    """bool[A]: exact in this block whatever the bounds say. Those who traded do not say whether the market jumps."""
    still = ~traded
    old = block - keyframe_block >= interval
    if int((cleared & still).sum()) * JUMP_SHARE < int(still.sum()) * (JUMP_SHARE - 1):
        return old
    turn = max(1, interval // 2)
    old[block % turn :: turn] = True
    return old
