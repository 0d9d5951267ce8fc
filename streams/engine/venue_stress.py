"""What the whole venue loses in every scenario and stress row, and the insurance fund that this asks for.

An account pays its losses from its own resources; what is left over falls on the fund. Two views of the resources:

    equity   what the account has: cash, marks and collateral at its price (nothing haircut)
    margin   its maintenance margin: as if everybody stood on the line at which liquidation begins

Cover 1 and 2 are the largest uncovered loss of one account, and of two, in one and the same scenario (CPMI-IOSCO,
Principles for financial market infrastructures, principle 4, key consideration 4). Fund sizes are the weighted quantile
and expected shortfall of the venue's uncovered loss over the scenario set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from kernels.expected_shortfall import INVALID
from kernels.layout import WEIGHT_TOTAL, InstrumentTable, PnlTable, ScenarioTable, empty_pnl_table
from kernels.reprice import pnl_table
from kernels.venue_losses import NOBODY, VenueLosses, as_pnl_table, joined, venue_losses
from schemas.catalogue import Catalogue
from schemas.quantities import ONE_E6
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Legs
from streams.engine.margin import account_sums, compute, empty_margins
from streams.engine.table_rows import stress_of
from streams.engine.tables import Tables, stress_shocks_of

EQUITY, MARGIN = "equity", "margin"
RESOURCE_LIMIT = 2**61


class Group(NamedTuple):
    """Accounts of one partition: names [A], legs, and what each can pay in the two views, int64[A] micro-USD."""

    accounts: Sequence[str]
    legs: Legs
    equity_usd6: np.ndarray
    margin_usd6: np.ndarray

    def resources(self, view: str) -> np.ndarray:
        """What each account pays itself in a view."""
        return self.equity_usd6 if view == EQUITY else self.margin_usd6


class Cover(Struct, frozen=True):
    """The scenario in which `accounts` (one or two) leave most uncovered. `scenario`: an index, or a stress row."""

    uncovered_usd6: int
    scenario: str
    accounts: tuple[str, ...]


class StressedRow(Struct, frozen=True):
    """One stress row: what the venue leaves uncovered in it, at full size (a row's weight is for margins)."""

    name: str
    reason: str
    uncovered_usd6: int
    accounts: tuple[str, ...]


class View(Struct, frozen=True):
    """The venue under one view of the resources. The fund's sizes are by the scenario set, at the confidence asked for;
    `uncovered_now_usd6` is lost already, before anything moves (insolvent accounts)."""

    resources: str
    resources_usd6: int
    uncovered_now_usd6: int
    uncovered_mean_usd6: int
    fund_quantile_usd6: int
    fund_shortfall_usd6: int
    cover_1: Cover
    cover_2: Cover
    exhausted_probability_e6: int
    rows: tuple[StressedRow, ...]


def group_of(legs: Legs, accounts: Sequence[str], cash_usd6: np.ndarray, entry_usd6: np.ndarray, tables: Tables,
             parameters: RiskParameters) -> Group:  # fmt: skip
    """The accounts of a partition with their resources."""
    count = len(accounts)
    sums, margins = account_sums(legs, cash_usd6, entry_usd6, tables, parameters), empty_margins(count)
    compute(legs, np.arange(count), sums, tables, parameters, margins)
    return Group(accounts, legs, _in_range(sums.equity_usd6), _in_range(margins.maintenance_margin_usd6))


def _in_range(values_usd6: np.ndarray) -> np.ndarray:
    return np.clip(values_usd6, 1 - RESOURCE_LIMIT, RESOURCE_LIMIT - 1)


class VenueTables(NamedTuple):
    """P&L of one lot as the fund sees it (collateral without its factor): scenarios [I,S] and stress rows [I,R]."""

    instruments: InstrumentTable
    pnl: PnlTable
    stress: PnlTable


def venue_tables(tables: Tables, catalogue: Catalogue, parameters: RiskParameters) -> VenueTables:
    """Tables of the market with every collateral factor at 1: a factor is prudence, not a loss."""
    instruments = tables.instruments._replace(factor=np.ones_like(tables.instruments.factor))
    shocks = stress_shocks_of(parameters, catalogue)
    stress = stress_of(instruments, tables.market, shocks)
    return VenueTables(instruments, priced(instruments, tables, tables.scenarios), as_pnl_table(stress))


def priced(instruments: InstrumentTable, tables: Tables, scenarios: ScenarioTable) -> PnlTable:
    """P&L of one lot under any scenarios."""
    pnl = empty_pnl_table(len(instruments.kind), len(scenarios.weights))
    pnl_table(instruments, tables.market, scenarios, pnl)
    return pnl


def losses_of(groups: Sequence[Group], pnl: PnlTable, resources: str) -> tuple[VenueLosses, tuple[str, ...]]:
    """Losses of the venue beyond the resources, and the accounts left out for want of a price."""
    parts, first, left_out = [], 0, []
    for group in groups:
        found, status = venue_losses(*group.legs, pnl, group.resources(resources))
        parts.append((found, first))
        left_out += [group.accounts[a] for a in np.flatnonzero(status == INVALID).tolist()]
        first += len(group.accounts)
    return joined(parts, pnl.values.shape[1]), tuple(left_out)


def view_of(
    groups: Sequence[Group], tables: VenueTables, weights: np.ndarray, parameters: RiskParameters, resources: str,
    confidence_e6: int, fund_usd6: int,
) -> View:  # fmt: skip
    """The venue under one view. Fund sizes are at `confidence_e6`; `fund_usd6` is the fund that there is."""
    names = [name for group in groups for name in group.accounts]
    own = np.concatenate([group.resources(resources) for group in groups])
    scenarios, _ = losses_of(groups, tables.pnl, resources)
    stressed, _ = losses_of(groups, tables.stress, resources)
    quantile, shortfall = tail_of(scenarios.total_usd6, weights, confidence_e6)
    labels = [f"scenario {s}" for s in range(len(weights))] + [row.name for row in parameters.stress_rows]
    exceeded = int(weights[scenarios.total_usd6 > fund_usd6].sum(dtype=np.int64))
    mean = sum(map(_product, scenarios.total_usd6.tolist(), weights.tolist())) // WEIGHT_TOTAL
    return View(
        resources,
        sum(own.tolist()),
        sum(np.maximum(-own, 0).tolist()),
        mean,
        quantile,
        shortfall,
        _cover(scenarios, stressed, labels, names, 1),
        _cover(scenarios, stressed, labels, names, 2),
        exceeded * ONE_E6 // WEIGHT_TOTAL,
        tuple(
            StressedRow(row.name, row.reason, int(stressed.total_usd6[r]), _named(stressed, r, names, 2))
            for r, row in enumerate(parameters.stress_rows)
        ),
    )


def _product(value: int, weight: int) -> int:
    return value * weight


def tail_of(values_usd6: np.ndarray, weights: np.ndarray, confidence_e6: int) -> tuple[int, int]:
    """(smallest value not exceeded with the confidence, mean of the tail beyond it rounded up), both exact."""
    tail = WEIGHT_TOTAL - confidence_e6 * WEIGHT_TOTAL // ONE_E6
    reached, weighted, value = 0, 0, 0
    order = np.argsort(-values_usd6, kind="stable")
    for value, weight in zip(values_usd6[order].tolist(), weights[order].tolist(), strict=True):
        if reached + weight > tail:
            break
        reached += weight
        weighted += weight * value
    return int(value), -(-(weighted + (tail - reached) * value) // tail)


def _cover(
    scenarios: VenueLosses, stressed: VenueLosses, labels: Sequence[str], names: Sequence[str], count: int
) -> Cover:
    """The worst of scenarios and stress rows for the `count` accounts with the largest losses."""
    both = [np.concatenate(pair) for pair in zip(scenarios, stressed, strict=True)]
    losses = VenueLosses(*both)
    together = losses.largest_usd6 + (losses.second_usd6 if count > 1 else 0)
    worst = int(np.argmax(together))
    named = _named(losses, worst, names, count)
    return Cover(int(together[worst]), labels[worst] if named else "", named)


def _named(losses: VenueLosses, place: int, names: Sequence[str], count: int) -> tuple[str, ...]:
    found = (int(losses.largest_account[place]), int(losses.second_account[place]))[:count]
    return tuple(names[a] for a in found if a != NOBODY)
