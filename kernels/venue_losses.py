"""What a venue's fund would have to pay in every scenario: losses beyond each account's own resources, exact.

    uncovered[a, s] = max(0, ceil((L[a, s] - resources[a]) / 1000))          micro-USD, L in nano-USD
    total[s] = sum_a uncovered[a, s],  largest and second largest uncovered[., s] with their accounts

Cover 1 and cover 2 (CPMI-IOSCO, Principles for financial market infrastructures, principle 4) are the maxima over s of
largest and of largest + second. Integer sums: no result depends on their order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.compiling import compiled
from kernels.expected_shortfall import FAST, account_losses, account_status
from kernels.layout import Int8Array, Int32Array, Int64Array, PnlTable

NANO_PER_MICRO = 1_000
NOBODY = -1
_UNCOVERED_MAX = 2**62


class VenueLosses(NamedTuple):
    """Per scenario, int64[S] micro-USD; the accounts are indices, NOBODY where nothing is uncovered."""

    total_usd6: Int64Array
    largest_usd6: Int64Array
    largest_account: Int64Array
    second_usd6: Int64Array
    second_account: Int64Array


def no_losses(size: int) -> VenueLosses:
    """The losses of a venue without accounts."""
    zeros = [np.zeros(size, np.int64) for _ in range(3)]
    nobody = [np.full(size, NOBODY, np.int64) for _ in range(2)]
    return VenueLosses(zeros[0], zeros[1], nobody[0], zeros[2], nobody[1])


@compiled
def _take(a, uncovered_usd6, out) -> None:  # type: ignore[no-untyped-def]
    """Add what account ``a`` leaves uncovered, [S]; the first account wins a tie."""
    for s in range(uncovered_usd6.shape[0]):
        value = uncovered_usd6[s]
        if value <= 0:
            continue
        out.total_usd6[s] += value
        if value > out.largest_usd6[s]:
            out.second_usd6[s], out.second_account[s] = out.largest_usd6[s], out.largest_account[s]
            out.largest_usd6[s], out.largest_account[s] = value, a
        elif value > out.second_usd6[s]:
            out.second_usd6[s], out.second_account[s] = value, a


@compiled
def _venue_losses(account_ptr, leg_instrument, leg_lots, pnl, resources_usd6, no_stress, out, status) -> None:  # type: ignore[no-untyped-def]
    losses, shifted = np.empty(out.total_usd6.shape[0], np.int64), np.empty(pnl.exponent.shape[0], np.int32)
    for a in range(resources_usd6.shape[0]):
        legs = leg_instrument[account_ptr[a] : account_ptr[a + 1]]
        lots = leg_lots[account_ptr[a] : account_ptr[a + 1]]
        status[a] = account_status(legs, lots, pnl, no_stress, shifted)
        if status[a] != FAST:
            continue
        losses[:] = 0
        for j in range(legs.shape[0]):
            q, row = np.int64(shifted[j]), pnl.values[legs[j]]
            for s in range(losses.shape[0]):
                losses[s] -= q * np.int64(row[s])
        for s in range(losses.shape[0]):
            losses[s] = -(-losses[s] // NANO_PER_MICRO) - resources_usd6[a]
        _take(a, losses, out)


def venue_losses(
    account_ptr: Int64Array,
    leg_instrument: Int32Array,
    leg_lots: Int64Array,
    pnl: PnlTable,
    resources_usd6: Int64Array,
) -> tuple[VenueLosses, Int8Array]:
    """Uncovered losses of all accounts in all scenarios.

    Args:
        pnl: P&L of one lot; the SPOT rows of a fund's view have no collateral factor (their factor is 1).
        resources_usd6: int64[A], what each account pays itself, below 2**61 in magnitude.

    Returns:
        The losses, and the status of each account (``expected_shortfall``): those out of the fast range are computed
        in Python integers (saturated at 2**62); one INVALID holds an instrument without a price and counts nothing.
    """
    out = no_losses(pnl.values.shape[1])
    status = np.zeros(len(resources_usd6), np.int8)
    _venue_losses(
        account_ptr, leg_instrument, leg_lots, pnl, resources_usd6, np.zeros(len(pnl.exponent)), out, status
    )  # fmt: skip
    for a in np.flatnonzero(status == 1).tolist():
        leg = slice(int(account_ptr[a]), int(account_ptr[a + 1]))
        losses = account_losses(leg_instrument[leg], leg_lots[leg], pnl)
        uncovered = [min(_UNCOVERED_MAX, -(-int(loss) // NANO_PER_MICRO) - int(resources_usd6[a])) for loss in losses]
        _take(a, np.array([max(0, value) for value in uncovered], np.int64), out)
    return out, status


def joined(parts: list[tuple[VenueLosses, int]], size: int) -> VenueLosses:
    """One venue of several groups of accounts; with each its first account's index in the whole."""
    out = no_losses(size)
    for part, first in parts:
        out.total_usd6[:] += part.total_usd6
        for value, account in (
            (part.largest_usd6, part.largest_account),
            (part.second_usd6, part.second_account),
        ):
            _rank(value, account + first, out)
    return out


def _rank(value: Int64Array, account: Int64Array, out: VenueLosses) -> None:
    leads = value > out.largest_usd6
    out.second_usd6[leads], out.second_account[leads] = out.largest_usd6[leads], out.largest_account[leads]
    out.largest_usd6[leads], out.largest_account[leads] = value[leads], account[leads]
    follows = ~leads & (value > out.second_usd6)
    out.second_usd6[follows], out.second_account[follows] = value[follows], account[follows]


def as_pnl_table(values_usd9: Int64Array) -> PnlTable:
    """Exact P&L of one lot, int64[I,S] nano-USD (stress rows), as a table of exponent 0."""
    largest = np.abs(values_usd9).max(axis=1, initial=0)
    return PnlTable(
        values_usd9,  # type: ignore[arg-type]
        np.zeros(len(values_usd9), np.int8),
        values_usd9.min(axis=1, initial=0),
        values_usd9.max(axis=1, initial=0),
        largest,
    )
