"""Exact integer expected shortfall and worst weighted stress loss of accounts.

    L[s] = -sum_i q_i V[i, s]                  loss of an account, q_i = lots_i << exponent_i, nano-USD
    t*   = smallest loss v with sum_{L > v} w <= P          P the tail mass
    ES   = t* + ceil( sum_s w_s max(L[s] - t*, 0) / P )     Rockafellar and Uryasev (2000), eq. 7 at its minimum
    stress = max(0, max_r ceil(weight_r * loss_r))          kernels.worst_stress

Every sum is a sum of integers, so a result depends on no order of summation, vector width, thread count or library.
Rounding is by ceiling, against the account.

Range of the fast path: every abs(q) < 2**31, sum_i abs(q_i) * absolute_maximum_i < 2**61 (2.3 billion USD gross), and
the same for the stress rows with lots. An account outside gets status WIDE, its results are left alone, and the caller
takes two limbs (``wide_shortfall``) or ``account_terms_wide``, the same definitions in Python integers. Nothing ever
wraps silently.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.compiling import borrows, compiled
from kernels.layout import FloatArray, Int8Array, Int32Array, Int64Array, PnlTable
from kernels.scenario_losses import accumulate, address_room, in_loss_order
from kernels.tail_selection import expected_shortfall
from kernels.worst_stress import worst_stresses

FAST, WIDE, INVALID = 0, 1, 2
"""Status of an account: exact on the fast path; out of its range; holds an instrument that could not be priced."""

NO_TAIL_THRESHOLD = -(2**63)
"""Warm-start value of an account that has none yet (any other value is valid too, and only changes the speed)."""

_MILLION = 1_000_000
_GROSS_LIMIT = 2.0**61
_GROSS_SLACK = 1.0 + 1e-9  # outward, for the rounding of the float sum (legs * 2**-53)


@borrows
def account_status(instruments, lots, pnl, stress_maximum, shifted) -> int:  # type: ignore[no-untyped-def]
    """Range check of one account; fills ``shifted`` with lots << exponent where the fast path applies."""
    gross, stress_gross = 0.0, 0.0
    wide = False
    for j in range(instruments.shape[0]):
        i = instruments[j]
        exponent = np.int64(pnl.exponent[i])
        if exponent < 0:
            return INVALID
        if abs(lots[j]) >= np.int64(2147483648) >> exponent or lots[j] < -2147483647:
            wide = True
            continue
        shifted[j] = np.int32(lots[j] << exponent)
        gross += abs(np.float64(shifted[j])) * np.float64(pnl.absolute_maximum[i])
        stress_gross += abs(np.float64(lots[j])) * stress_maximum[i]
    in_range = gross * _GROSS_SLACK < _GROSS_LIMIT and stress_gross * _GROSS_SLACK < _GROSS_LIMIT
    return FAST if in_range and not wide else WIDE


@compiled
def stress_maxima(stress):  # type: ignore[no-untyped-def]
    """Largest magnitude of each instrument's stress rows, float64[I]: once a block, not once a leg."""
    out = np.zeros(stress.shape[0])
    for i in range(stress.shape[0]):
        for r in range(stress.shape[1]):
            out[i] = max(out[i], abs(np.float64(stress[i, r])))
    return out


class Workspace(NamedTuple):
    """Scratch of a call: for one account after the other. `weights`: those of the scenarios, in loss order."""

    losses: Int64Array
    weights: Int32Array
    candidates: Int64Array
    candidate_weights: Int32Array
    stress_maximum: FloatArray
    shifted: Int32Array
    addresses: npt.NDArray[np.uint64]


@compiled
def workspace(account_ptr, accounts, weights, stress):  # type: ignore[no-untyped-def]
    """Scratch for these accounts."""
    size, most = weights.shape[0], np.int64(0)
    for a in accounts:
        most = max(most, account_ptr[a + 1] - account_ptr[a])
    return Workspace(
        np.empty(size, np.int64), in_loss_order(weights), np.empty(size, np.int64), np.empty(size, np.int32),
        stress_maxima(stress), np.empty(most, np.int32), address_room(most),
    )  # fmt: skip


@borrows
def take_losses(legs, lots, pnl, work) -> int:  # type: ignore[no-untyped-def]
    """Status of an account; where it is FAST its losses are in the workspace."""
    status = account_status(legs, lots, pnl, work.stress_maximum, work.shifted)
    if status == FAST:
        accumulate(pnl.values, legs, work.shifted, work.addresses, work.losses)
    return status


@borrows
def shortfall_of(work, tail_mass, warm_threshold, warm_es):  # type: ignore[no-untyped-def]
    """(ES, t*) of the losses in the workspace; the warm values are the last block's."""
    return expected_shortfall(
        work.losses, work.weights, tail_mass, warm_threshold, warm_es - warm_threshold, work.candidates,
        work.candidate_weights,
    )  # fmt: skip


@borrows
def _shortfalls(  # type: ignore[no-untyped-def]
    account_ptr, leg_instrument, leg_lots, accounts, pnl, work, tail_mass, stress_usd9, stress_row,
    out_es_usd9, out_stress_usd9, out_stress_row, out_tail_threshold, out_status,
) -> None:  # fmt: skip
    for n in range(accounts.shape[0]):
        a = accounts[n]
        legs = leg_instrument[account_ptr[a] : account_ptr[a + 1]]
        lots = leg_lots[account_ptr[a] : account_ptr[a + 1]]
        out_status[a] = take_losses(legs, lots, pnl, work)
        if out_status[a] == FAST:
            out_es_usd9[a], out_tail_threshold[a] = shortfall_of(work, tail_mass, out_tail_threshold[a], out_es_usd9[a])
            out_stress_usd9[a], out_stress_row[a] = stress_usd9[n], stress_row[n]


@compiled
def _account_terms(  # type: ignore[no-untyped-def]
    account_ptr, leg_instrument, leg_lots, accounts, pnl, weights, tail_mass, stress, stress_weight_e6,
    out_es_usd9, out_stress_usd9, out_stress_row, out_tail_threshold, out_status,
) -> None:  # fmt: skip
    worst_usd9, worst_row = worst_stresses(account_ptr, leg_instrument, leg_lots, accounts, stress, stress_weight_e6)
    _shortfalls(
        account_ptr, leg_instrument, leg_lots, accounts, pnl, workspace(account_ptr, accounts, weights, stress),
        tail_mass, worst_usd9, worst_row, out_es_usd9, out_stress_usd9, out_stress_row, out_tail_threshold, out_status,
    )  # fmt: skip


def account_terms(
    account_ptr: Int64Array,
    leg_instrument: Int32Array,
    leg_lots: Int64Array,
    accounts: Int64Array,
    pnl: PnlTable,
    weights: Int32Array,
    tail_mass: int,
    stress: Int64Array,
    stress_weight_e6: Int64Array,
    out_es_usd9: Int64Array,
    out_stress_usd9: Int64Array,
    out_stress_row: Int32Array,
    out_tail_threshold: Int64Array,
    out_status: Int8Array,
) -> None:
    """Expected shortfall and worst weighted stress loss of the given accounts, in nano-USD.

    Args:
        accounts: int64 account indices to compute; all other entries of the outputs are left alone.
        stress: int64[I,R] stress P&L per lot; ``stress_weight_e6`` int64[R] within 0..1_000_000.
        out_es_usd9: [A] ceiling of the expected shortfall (negative if the account gains in its whole tail). Its value
            on entry is only a hint for the warm start.
        out_stress_usd9: [A] worst weighted stress loss, at least 0. ``out_stress_row``: [A] its row, -1 for none.
        out_tail_threshold: [A] t*; on entry the last block's or NO_TAIL_THRESHOLD: it never changes a result.
        out_status: [A] FAST, or WIDE or INVALID with the other outputs left alone.

    An account without legs has zeros everywhere.
    """
    _account_terms(
        account_ptr, leg_instrument, leg_lots, accounts, pnl, weights, np.int64(tail_mass), stress, stress_weight_e6,
        out_es_usd9, out_stress_usd9, out_stress_row, out_tail_threshold, out_status,
    )  # fmt: skip


class AccountTerms(NamedTuple):
    """Terms of one account as Python integers of any size."""

    es_usd9: int
    stress_usd9: int
    stress_row: int
    tail_threshold_usd9: int


def account_losses(leg_instrument: Int32Array, leg_lots: Int64Array, pnl: PnlTable) -> npt.NDArray[np.object_]:
    """Exact loss of one account in every scenario, nano-USD, [S] Python integers (any range).

    Raises:
        ValueError: a leg's row is invalid.
    """
    losses = np.zeros(pnl.values.shape[1], dtype=object)
    for i, lots in zip(leg_instrument.tolist(), leg_lots.tolist()):
        if pnl.exponent[i] < 0:
            raise ValueError(f"instrument row {i} has no valid scenario P&L")
        losses -= pnl.values[i].astype(object) * (lots << int(pnl.exponent[i]))
    return losses


def tail_scenarios(
    losses: npt.NDArray[np.object_], weights: Int32Array, tail_mass: int
) -> tuple[Int64Array, Int64Array]:
    """(scenarios, their tail weights) that the expected shortfall averages, largest loss first.

    The weights sum to the tail mass: whole weights above t*, the rest spread over the losses equal to t* in scenario
    order. ``sum(weight * loss) / tail_mass``, rounded up, is the expected shortfall; the same weights applied to the
    P&L of one leg give that leg's Euler contribution.
    """
    order = sorted(range(len(losses)), key=lambda s: (-losses[s], s))
    chosen: list[int] = []
    tail_weights: list[int] = []
    left = int(tail_mass)
    for s in order:
        if left == 0:
            break
        taken = min(int(weights[s]), left)
        if taken > 0:
            chosen.append(s)
            tail_weights.append(taken)
            left -= taken
    return np.array(chosen, np.int64), np.array(tail_weights, np.int64)


def account_terms_wide(
    leg_instrument: Int32Array,
    leg_lots: Int64Array,
    pnl: PnlTable,
    weights: Int32Array,
    tail_mass: int,
    stress: Int64Array,
    stress_weight_e6: Int64Array,
) -> AccountTerms:
    """The terms of one account of any size, in Python integers; equal to ``account_terms`` where both apply.

    Raises:
        ValueError: a leg's row is invalid.
    """
    losses = account_losses(leg_instrument, leg_lots, pnl)
    threshold, shortfall = _wide_shortfall(losses, weights, int(tail_mass))
    worst, worst_row = 0, -1
    row_losses = np.zeros(stress.shape[1], dtype=object)
    for i, lots in zip(leg_instrument.tolist(), leg_lots.tolist()):
        row_losses -= stress[i].astype(object) * lots
    for r, loss in enumerate(row_losses):
        weighted = -(-int(loss) * int(stress_weight_e6[r]) // _MILLION)
        if weighted > worst:
            worst, worst_row = weighted, r
    return AccountTerms(shortfall, worst, worst_row, threshold)


def _wide_shortfall(losses: npt.NDArray[np.object_], weights: Int32Array, tail_mass: int) -> tuple[int, int]:
    """(t*, ES): walk down the sorted losses until the weight above the next value would exceed the tail mass."""
    order = sorted(range(len(losses)), key=lambda s: -losses[s])
    reached, weighted = 0, 0
    for s in order:
        threshold = int(losses[s])
        if reached + int(weights[s]) > tail_mass:
            break
        reached += int(weights[s])
        weighted += int(weights[s]) * threshold
    excess = weighted - reached * threshold  # sum of w (L - t*)+
    return threshold, threshold + -(-excess // tail_mass)
