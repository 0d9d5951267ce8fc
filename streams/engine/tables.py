"""What every worker computes from a barrier's inputs alone: prices, scenario P&L, stress P&L, Greeks of one lot."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kernels.layout import CALL, SPOT, InstrumentTable, MarketTable, PnlTable, ScenarioTable, tail_mass_of_level
from kernels.stress import StressShocks, weighted_products
from oracles.scenario_set import ScenarioSet
from schemas.catalogue import Catalogue
from schemas.quantities import ONE_E6
from schemas.risk_parameters import COLLATERAL, RiskParameters, StressRow, parameters_digest
from streams.engine.market import RecordedMarket
from streams.engine.table_rows import (
    RowInputs,
    Rows,
    columns_of,
    rows_after,
    rows_of,
    rows_of_instruments,
    rows_that_hold,
)

DELTA, VEGA = 0, 2

ScenarioLookup = Callable[[str], ScenarioSet]
Aside = Callable[[Callable[[], object]], object]
"""Like an executor's `submit`: does something while whoever asked goes on."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Per-lot tables of one market; I instruments, R stress rows. `columns_usd9` int64[3,I]: mark, mark after the
    collateral factor, notional (0 for collateral coins). `greeks_usd9` int64[I,4]: delta, gamma, vega, theta.
    `concentration_rule` int32[I]: place of an instrument's rule in the parameters, -1 for none.
    `degraded_usd9` int64[I]: add-on of a lot, long or short, while its surface or index is degraded; None: none is.
    `spares_degraded`: that add-on liquidates nobody.
    `inputs`: of the rows, by which later tables find those that they may take over; None: they take none.
    `reused`: rows that were taken over themselves.
    """

    instruments: InstrumentTable
    market: MarketTable
    scenarios: ScenarioTable
    tail_mass: int
    pnl: PnlTable
    stress: np.ndarray
    stress_weight_e6: np.ndarray
    columns_usd9: np.ndarray
    greeks_usd9: np.ndarray
    option_expiry: np.ndarray
    concentration_rule: np.ndarray
    degraded_usd9: np.ndarray | None = None
    spares_degraded: bool = True
    inputs: RowInputs | None = None
    reused: int = 0

    @cached_property
    def digest(self) -> str:
        """Identity of the P&L and stress tables; computed when it is first asked for."""
        h = hashlib.blake2b(digest_size=16)
        for part in (self.pnl.values, self.pnl.exponent, self.stress):
            h.update(part.tobytes())
        return h.hexdigest()


def stress_shocks_of(parameters: RiskParameters, catalogue: Catalogue) -> StressShocks:
    """Stress rows of the parameter document as arrays over the listed underlyings."""
    rows = parameters.stress_rows
    stable = catalogue.columns().stable
    crowding = np.zeros(len(stable), np.int64)
    for given in parameters.crowding:
        if given.underlying in catalogue.underlying_index:
            crowding[catalogue.underlying_index[given.underlying]] = given.factor_e6
    is_moved = np.array([row.scope == "stable" for row in rows], np.bool_)[:, None] == stable
    spot_multiplier = np.where(is_moved, _multipliers(rows, crowding), 1.0)
    for place, underlying in enumerate(catalogue.underlyings):
        if underlying.parts:
            spot_multiplier[:, place] = weighted_products(
                spot_multiplier[:, [part for part, _ in underlying.parts]],
                np.array([weight / ONE_E6 for _, weight in underlying.parts]),
            )
    return StressShocks(
        spot_multiplier,
        np.array([(ONE_E6 + row.volatility_move_e6) / ONE_E6 for row in rows]),
        np.array([row.rate_shift_e6 / ONE_E6 for row in rows]),
        np.array([row.weight_e6 for row in rows], np.int64),
        np.array([row.skew_e6 / ONE_E6 for row in rows]),
        np.array([row.funding_e6 / ONE_E6 for row in rows]),
    )


def _multipliers(rows: Sequence[StressRow], crowding_e6: np.ndarray) -> np.ndarray:
    """What rows multiply spots by, [R,U]; a crowded fall stops at a hundredth of the price."""
    move_e6 = np.array([row.spot_move_e6 for row in rows], np.int64)[:, None]
    crowded = np.array([row.crowded for row in rows], np.bool_)[:, None]
    further_e6 = np.where(crowded, move_e6, 0) * crowding_e6 // ONE_E6
    return np.maximum(ONE_E6 + move_e6 + further_e6, ONE_E6 // 100) / ONE_E6


def build_tables(
    catalogue: Catalogue,
    market: RecordedMarket,
    parameters: RiskParameters,
    scenarios: ScenarioTable,
    chosen: np.ndarray | None = None,
    before: Tables | None = None,
) -> Tables:
    """Tables of `market`. With `chosen` (int64 instrument indices) only those rows, renumbered 0..n-1.

    `before`: tables of another market; rows whose inputs did not change are taken over from it, to the same bits.
    """
    instruments = _with_governed_factors(market.instrument_table(catalogue), catalogue, parameters, market)
    if chosen is not None:
        instruments = rows_of_instruments(instruments, chosen)
    shocks = stress_shocks_of(parameters, catalogue)
    inputs = RowInputs(instruments, market.market_table(catalogue), scenarios, shocks, market.guarded_usd9())
    rows, reused = _rows(inputs, before)
    option_expiry = np.where(instruments.kind >= CALL, instruments.expiry, -1).astype(np.int32)
    return Tables(
        instruments,
        inputs.market,
        scenarios,
        tail_mass_of_level(parameters.expected_shortfall_level_e6),
        rows.pnl,
        rows.stress,
        inputs.shocks.weight_e6,
        rows.columns_usd9,
        rows.greeks_usd9,
        option_expiry,
        rule_of_instrument(catalogue, instruments, parameters),
        degraded_add_ons(instruments, market, rows.greeks_usd9, parameters),
        market.spares_degraded,
        inputs,
        reused,
    )


def _rows(inputs: RowInputs, before: Tables | None) -> tuple[Rows, int]:
    """-> (rows, how many of them were taken over)."""
    if before is None or before.inputs is None:
        return rows_of(inputs), 0
    held = rows_that_hold(before.inputs, inputs)
    rows = Rows(before.pnl, before.stress, before.columns_usd9, before.greeks_usd9)
    return rows_after(before.inputs, rows, inputs, held), int(held.sum())


def haircut_usd9(
    catalogue: Catalogue, market: RecordedMarket, parameters: RiskParameters, chosen: np.ndarray
) -> np.ndarray:
    """int64[n]: what one lot of the chosen instruments (int64[n]) counts for in NLV where it is held."""
    instruments = _with_governed_factors(market.instrument_table(catalogue), catalogue, parameters, market)
    some = rows_of_instruments(instruments, chosen)
    return columns_of(some, market.market_table(catalogue), market.guarded_usd9())[1]


def _with_governed_factors(
    instruments: InstrumentTable, catalogue: Catalogue, parameters: RiskParameters, market: RecordedMarket
) -> InstrumentTable:
    """Collateral factors of the parameter document in place of those of the listings, less what the market cuts."""
    factor_e6 = catalogue.columns().collateral_factor_e6.copy()
    for given in parameters.collateral_factors:
        index = catalogue.instrument_index.get(given.instrument)
        if index is not None and instruments.kind[index] == SPOT:
            factor_e6[index] = given.factor_e6
    cut_e6 = np.where(instruments.kind == SPOT, market.factor_cut_e6[instruments.underlying], 0)
    return instruments._replace(factor=factor_e6 * (ONE_E6 - cut_e6) // ONE_E6 / float(ONE_E6))


def rule_of_instrument(catalogue: Catalogue, instruments: InstrumentTable, parameters: RiskParameters) -> np.ndarray:
    """int32[I]: place of each instrument's rule in `parameters.concentration`, -1 for none."""
    found = np.full(len(instruments.kind), -1, np.int32)
    is_coin = instruments.kind == SPOT
    for place, rule in enumerate(parameters.concentration):
        underlying = catalogue.underlying_index.get(rule.underlying, -1)
        found[(instruments.underlying == underlying) & (is_coin == (rule.scope == COLLATERAL))] = place
    return found


def degraded_add_ons(
    instruments: InstrumentTable, market: RecordedMarket, greeks_usd9: np.ndarray, p: RiskParameters
) -> np.ndarray | None:
    """int64[I] of one lot, rounded up: the governed volatility on the vega of options with a degraded surface, and the
    governed move on the delta of what is priced by a degraded index. greeks_usd9 int64[I,4]."""
    found = np.zeros(len(instruments.kind), np.int64)
    if market.degraded.any():
        is_held = (instruments.kind >= CALL) & market.degraded[instruments.expiry]
        found += np.where(is_held, ratio_up_usd9(np.abs(greeks_usd9[:, VEGA]), p.degraded_volatility_e6), 0)
    if market.spot_degraded.any() and p.spot_reporters:
        is_held = market.spot_degraded[instruments.underlying]
        delta_usd9 = np.abs(greeks_usd9[:, DELTA])
        found += np.where(is_held, ratio_up_usd9(delta_usd9, p.spot_reporters.degraded_move_e6), 0)
    return found if found.any() else None


def ratio_up_usd9(values_usd9: np.ndarray, ratio_e6: int) -> np.ndarray:
    """ceil(values * ratio / 1e6) without overflow: whole millions and the rest apart."""
    millions = values_usd9 // ONE_E6
    rest = values_usd9 - millions * ONE_E6
    return millions * ratio_e6 - (-(rest * ratio_e6) // ONE_E6)


def scenario_table_of(scenario_set: ScenarioSet, catalogue: Catalogue) -> ScenarioTable:
    """The set in the catalogue's order of underlyings.

    An underlying with parts moves with them. One that the set does not know yet, and that has none, stands still in it:
    the stress rows alone margin it.
    """
    names = [u.symbol for u in catalogue.underlyings]
    known = np.array([name in scenario_set.underlyings for name in names], np.bool_)
    table = scenario_set.table([name for name, is_known in zip(names, known, strict=True) if is_known])
    spot = np.zeros((len(names), scenario_set.size))
    spot[known] = table.spot_log_return
    for place, underlying in enumerate(catalogue.underlyings):
        if underlying.parts:
            spot[place] = sum(spot[part] * (weight / ONE_E6) for part, weight in underlying.parts)
    option_row = np.full(len(names), -1, np.int32)
    option_row[known] = table.option_row
    return table._replace(spot_log_return=spot, option_row=option_row)


class TableCache:
    """The last few tables, shared by the partitions of a worker: a cache of a pure function, nothing more.

    New tables take over the rows of the newest ones that still hold; `rows_priced` and `rows_reused` count them.
    `lock` keeps two partitions from computing the same tables side by side, `aside` takes the digest of new tables
    while margins are computed with them; neither changes any result.
    """

    def __init__(
        self,
        lookup: ScenarioLookup,
        lock: AbstractContextManager | None = None,
        size: int = 4,
        aside: Aside | None = None,
    ) -> None:
        self.lookup = lookup
        self.lock = lock or nullcontext()
        self.aside = aside
        self.size = size
        self.kept: OrderedDict[tuple, Tables] = OrderedDict()
        self.scenario_tables: dict[tuple[str, int], ScenarioTable] = {}
        self.rows_priced = self.rows_reused = 0

    def scenarios(self, scenario_digest: str, catalogue: Catalogue) -> ScenarioTable:
        """The kernels' table of a recorded set, over what is listed."""
        key = (scenario_digest, len(catalogue.underlyings))
        if key not in self.scenario_tables:
            self.scenario_tables = {key: scenario_table_of(self.lookup(scenario_digest), catalogue)}
        return self.scenario_tables[key]

    def get(
        self, catalogue: Catalogue, market: RecordedMarket, parameters: RiskParameters, scenario_digest: str
    ) -> Tables:
        """Tables of a market, computed once."""
        key = (market.digest(catalogue), parameters_digest(parameters), scenario_digest)
        with self.lock:
            if key not in self.kept:
                self.kept[key] = self._built(catalogue, market, parameters, scenario_digest)
                while len(self.kept) > self.size:
                    self.kept.popitem(last=False)
            self.kept.move_to_end(key)
            return self.kept[key]

    def _built(
        self, catalogue: Catalogue, market: RecordedMarket, parameters: RiskParameters, scenario_digest: str
    ) -> Tables:
        newest = next(reversed(self.kept.values()), None)
        tables = build_tables(catalogue, market, parameters, self.scenarios(scenario_digest, catalogue), before=newest)
        self.rows_reused += tables.reused
        self.rows_priced += len(tables.instruments.kind) - tables.reused
        if self.aside is not None:
            self.aside(lambda: tables.digest)
        return tables
