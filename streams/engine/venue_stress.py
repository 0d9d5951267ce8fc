"""What the whole venue loses in every scenario and stress row, and the insurance fund that this asks for.

An account pays its losses from its own resources; what is left over falls on the fund. Two views of the resources:

    equity   what the account has: cash, marks and collateral at its price (nothing haircut)
    margin   its maintenance margin: as if everybody stood on the line at which liquidation begins

Cover 1 and 2 are the largest uncovered loss of one account, and of two, in one and the same scenario (CPMI-IOSCO,
Principles for financial market infrastructures, principle 4, key consideration 4). Fund sizes are the weighted quantile
and expected shortfall of the venue's uncovered loss over the scenario set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels.expected_shortfall import INVALID
from kernels.layout import WEIGHT_TOTAL, InstrumentTable, PnlTable, ScenarioTable, empty_pnl_table
from kernels.reprice import pnl_table
from kernels.venue_losses import NOBODY, VenueLosses, as_pnl_table, joined, venue_losses
from schemas.catalogue import Catalogue
from schemas.quantities import ONE_E6
from schemas.risk_parameters import RiskParameters
from schemas.venue import Cover, StressedRow, VenueRow, View
from streams.engine.book import Legs
from streams.engine.margin import account_sums, compute, empty_margins
from streams.engine.table_rows import rows_of_instruments, stress_of
from streams.engine.tables import Tables, stress_shocks_of

EQUITY, MARGIN = "equity", "margin"
VIEWS = (EQUITY, MARGIN)
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


class Uncovered(NamedTuple):
    """Losses of the whole venue beyond one kind of resources; accounts are places in `names`."""

    scenarios: VenueLosses
    stressed: VenueLosses
    names: Sequence[str]
    resources_usd6: int
    uncovered_now_usd6: int


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
    """Tables of the market with every collateral factor at 1: a factor is prudence, not a loss.

    Only coins with a factor differ from the margins' own rows."""
    instruments = tables.instruments._replace(factor=np.ones_like(tables.instruments.factor))
    shocks = stress_shocks_of(parameters, catalogue)
    changed = np.flatnonzero(tables.instruments.factor != 1.0)
    some = rows_of_instruments(instruments, changed)
    fresh, stress = priced(some, tables, tables.scenarios), tables.stress.copy()
    columns: list[Any] = [column.copy() for column in tables.pnl]
    for column, values in zip(columns, fresh, strict=True):
        column[changed] = values
    stress[changed] = stress_of(some, tables.market, shocks)
    return VenueTables(instruments, PnlTable(*columns), as_pnl_table(stress))


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


def uncovered(groups: Sequence[Group], tables: VenueTables, resources: str) -> Uncovered:
    """Losses of all groups under one view of the resources."""
    own = [int(value) for group in groups for value in group.resources(resources)]
    scenarios, _ = losses_of(groups, tables.pnl, resources)
    stressed, _ = losses_of(groups, tables.stress, resources)
    names = [name for group in groups for name in group.accounts]
    return Uncovered(scenarios, stressed, names, sum(own), sum(max(-value, 0) for value in own))


def view_of(
    found: Uncovered, weights: np.ndarray, rows: Sequence[VenueRow], resources: str, confidence_e6: int, fund_usd6: int
) -> View:
    """The venue under one view. Fund sizes are at `confidence_e6`; `fund_usd6` is the fund that there is."""
    scenarios, stressed, names, own_usd6, now_usd6 = found
    quantile, shortfall = tail_of(scenarios.total_usd6, weights, confidence_e6)
    labels = [f"scenario {s}" for s in range(len(weights))] + [row.name for row in rows]
    exceeded = int(weights[scenarios.total_usd6 > fund_usd6].sum(dtype=np.int64))
    mean = sum(map(_product, scenarios.total_usd6.tolist(), weights.tolist())) // WEIGHT_TOTAL
    return View(
        resources,
        own_usd6,
        now_usd6,
        mean,
        quantile,
        shortfall,
        _cover(scenarios, stressed, labels, names, 1),
        _cover(scenarios, stressed, labels, names, 2),
        exceeded * ONE_E6 // WEIGHT_TOTAL,
        tuple(
            StressedRow(row.name, row.reason, int(stressed.total_usd6[r]), _named(stressed, r, names, 2))
            for r, row in enumerate(rows)
        ),
    )


def views_of(
    found: Mapping[str, Uncovered], weights: np.ndarray, rows: Sequence[VenueRow], confidence_e6: int,
    fund_usd6: int | None,
) -> tuple[tuple[View, ...], int]:  # fmt: skip
    """Every view, and the fund: without one it is what cover 2 beyond equity asks for."""
    if fund_usd6 is None:
        fund_usd6 = view_of(found[EQUITY], weights, rows, EQUITY, confidence_e6, 0).cover_2.uncovered_usd6
    views = (view_of(found[name], weights, rows, name, confidence_e6, fund_usd6) for name in found)
    return tuple(views), fund_usd6


def rows_named(parameters: RiskParameters) -> tuple[VenueRow, ...]:
    """The stress rows of a document."""
    return tuple(VenueRow(row.name, row.reason) for row in parameters.stress_rows)


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
