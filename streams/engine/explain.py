"""Why a margin is what it is: rows that sum to it exactly, the tail it averages, what one more lot would ask.

The binding risk term is a sum over legs (Euler's theorem for functions of degree one; Tasche 1999, section 5):

    expected shortfall   leg i contributes sum_s lambda_s L_i[s] / P, L_i[s] its loss in tail scenario s, lambda the
                         tail weights (kernels.expected_shortfall.tail_scenarios), P their sum
    stress               weight x the loss of leg i in the worst row
    short-option minimum an expiry contributes ratio x its net short notional

Each contribution is a rational number and is shown rounded half-even to the micro-USD, times the multiplier for the
initial margin; add-ons are one row; what rounding leaves is the last row. Their sum is the margin of the decision.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from kernels.expected_shortfall import account_losses, tail_scenarios
from kernels.layout import ScenarioTable
from schemas.catalogue import Catalogue
from schemas.quantities import ONE_E6, USD9_PER_USD6, divide_half_even, divide_up, saturated
from schemas.risk_parameters import RiskParameters
from streams.engine.book import Book, Legs
from streams.engine.concentration import concentration_of
from streams.engine.margin import EXPECTED_SHORTFALL, STRESS, Margins, degraded_charge_of
from streams.engine.portfolio import Assessment, alone, assessment_of, margins_of, sums_of
from streams.engine.tables import Tables

LEG, EXPIRY, ADD_ON, ROUNDING, SATURATION = "leg", "expiry", "add_on", "rounding", "saturation"
CASH = "cash"


class Contribution(Struct, frozen=True):
    """One row of a margin. `kind`: leg (of the binding term), expiry (of the short-option minimum), add_on, rounding;
    saturation only where a margin is too large to be shown as it is."""

    kind: str
    name: str
    maintenance_usd6: int
    initial_usd6: int


class Holding(Struct, frozen=True):
    """What a part adds to equity and NLV: `kind` cash, spot, perpetual, future, call, put, or rounding.

    `mark_usd9` is per lot, `entry_usd6` what perpetuals and futures were entered at (their value is profit since).
    """

    kind: str
    name: str
    lots: int
    lot_exponent: int
    mark_usd9: int
    entry_usd6: int
    equity_usd6: int
    nlv_usd6: int


class TailScenario(Struct, frozen=True):
    """A scenario of the tail that expected shortfall averages: its weight there (of `tail_mass`), the account's loss,
    and what happens to the underlyings it holds, by symbol: logarithms of spot and volatility multipliers; where the
    set has them, the other factors of the surface (skew, curvature, term, rate) as they are recorded, at 30 days."""

    scenario: int
    weight: int
    loss_usd6: int
    spot_log_return: dict[str, float]
    volatility_log: dict[str, float]
    surface: dict[str, dict[str, float]]


class WorstStress(Struct, frozen=True):
    """The stress row with the largest weighted loss; `loss_usd6` is before its weight."""

    name: str
    reason: str
    weight_e6: int
    loss_usd6: int


class OneMoreLot(Struct, frozen=True):
    """What margins rise by (or fall) with one more lot, long and short; cash and NLV aside."""

    instrument: str
    held_lots: int
    maintenance_long_usd6: int
    maintenance_short_usd6: int
    initial_long_usd6: int
    initial_short_usd6: int


class Explanation(Struct, frozen=True):
    """Everything about one margin. `contributions` sum to maintenance and initial margin, `holdings` to equity and NLV.

    `collateral_maintenance_usd6`: the collateral coins' share of the binding term, within the rows above.
    """

    account: str
    assessment: Assessment
    contributions: tuple[Contribution, ...]
    holdings: tuple[Holding, ...]
    tail: tuple[TailScenario, ...]
    tail_mass: int
    stress: WorstStress | None
    one_more_lot: tuple[OneMoreLot, ...]
    collateral_maintenance_usd6: int


class _Part(NamedTuple):
    """A contribution to the binding term: numerator / denominator nano-USD."""

    kind: str
    name: str
    numerator: int
    denominator: int


def explain(
    account: Book, catalogue: Catalogue, tables: Tables, p: RiskParameters, also: Iterable[int] = ()
) -> Explanation:
    """Explain the margin of an account (a book of one row: `portfolio.alone`) at the market of `tables`.

    `also` names instruments beside the held ones whose one more lot is wanted.

    Raises:
        Fault: the account, or `also`, has an instrument that cannot be priced.
    """
    margins = margins_of([account], tables, p)
    assessment = assessment_of(margins, 0, p)
    tail, weights, losses = _tail(account, tables, margins)
    parts = _parts(account, catalogue, tables, p, margins, (tail, weights))
    rows = _contributions(account, tables, p, assessment, parts)
    spot = {listed.symbol for listed in catalogue.instruments if listed.kind == "spot"}
    return Explanation(
        account=account.accounts[0],
        assessment=assessment,
        contributions=rows,
        holdings=_holdings(account, catalogue, tables, assessment),
        tail=_tail_scenarios(account, catalogue, tables, tail, weights, losses),
        tail_mass=int(tables.tail_mass),
        stress=_worst_stress(account, tables, p, int(margins.stress_row[0])),
        one_more_lot=one_more_lot(account, catalogue, tables, p, also),
        collateral_maintenance_usd6=sum(row.maintenance_usd6 for row in rows if row.kind == LEG and row.name in spot),
    )


# -- the binding term


def _tail(account: Book, tables: Tables, margins: Margins) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tail scenarios, their tail weights, loss of every scenario in nano-USD); no tail without positions."""
    instruments = account.keys.astype(np.int32)
    if not len(instruments):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, object)
    if margins.wide[0]:
        losses = account_losses(instruments, account.lots, tables.pnl)
        return *tail_scenarios(losses, tables.scenarios.weights, tables.tail_mass), losses
    losses = np.zeros(len(tables.scenarios.weights), np.int64)  # in range: the fast path has checked it
    for i, lots in zip(instruments.tolist(), account.lots.tolist(), strict=True):
        losses -= tables.pnl.values[i] * np.int64(lots << int(tables.pnl.exponent[i]))
    near = np.flatnonzero(losses >= margins.tail_threshold[0])  # all of the tail is there, and in scenario order
    tail, weights = tail_scenarios(losses[near].astype(object), tables.scenarios.weights[near], tables.tail_mass)
    return near[tail], weights, losses


def _parts(
    account: Book,
    catalogue: Catalogue,
    tables: Tables,
    p: RiskParameters,
    margins: Margins,
    tail: tuple[np.ndarray, np.ndarray],
) -> list[_Part]:
    """The binding term by legs, or by expiries. A term that is floored at zero has nothing to share out."""
    legs = list(zip(account.keys.tolist(), account.lots.tolist(), strict=True))
    names = {i: catalogue.instruments[i].symbol for i, _ in legs}
    row = int(margins.stress_row[0])
    if margins.binding[0] == EXPECTED_SHORTFALL:
        mass = int(tables.tail_mass)
        return [_Part(LEG, names[i], _tail_sum(tables, i, lots, *tail), mass) for i, lots in legs]
    if margins.binding[0] == STRESS:
        weight = int(tables.stress_weight_e6[row]) if row >= 0 else 0
        return [_Part(LEG, names[i], -lots * int(tables.stress[i, row]) * weight, ONE_E6) for i, lots in legs]
    return _short_option_parts(legs, catalogue, tables, p)


def _tail_sum(tables: Tables, index: int, lots: int, tail: np.ndarray, weights: np.ndarray) -> int:
    """sum lambda_s L_i[s] in nano-USD; |sum lambda V| < 2**30 * 2**31 fits int64."""
    per_lot = int((tables.pnl.values[index, tail].astype(np.int64) * weights).sum())
    return -lots * (per_lot << int(tables.pnl.exponent[index]))


def _short_option_parts(
    legs: list[tuple[int, int]], catalogue: Catalogue, tables: Tables, p: RiskParameters
) -> list[_Part]:
    net: dict[int, int] = {}
    for i, lots in legs:
        expiry = int(tables.option_expiry[i])
        if expiry >= 0:
            net[expiry] = net.get(expiry, 0) + lots * int(tables.columns_usd9[2, i])
    ratio = p.short_option_minimum_e6
    return [
        _Part(EXPIRY, _expiry_name(catalogue, expiry), -value * ratio, ONE_E6)
        for expiry, value in net.items()
        if value < 0
    ]


def _expiry_name(catalogue: Catalogue, expiry: int) -> str:
    """The underlying and the time of an expiry, e.g. BTC 1706256000000."""
    listed = catalogue.expiries[expiry]
    return f"{catalogue.underlyings[listed.underlying].symbol} {listed.expiry_ms}"


# -- rows that sum exactly


def _contributions(
    account: Book, tables: Tables, p: RiskParameters, assessment: Assessment, parts: list[_Part]
) -> tuple[Contribution, ...]:
    legs, sums = sums_of([account], tables, p)
    add_ons = sums.exact[0][3] if 0 in sums.exact else int(sums.add_ons_usd9[0])
    rows = [_row(part, p.initial_margin_multiplier_e6) for part in parts]
    rows += _add_on_rows(legs, add_ons, tables, p)
    maintenance, initial = _unsaturated(parts, add_ons, p)
    rest = (maintenance - sum(r.maintenance_usd6 for r in rows), initial - sum(r.initial_usd6 for r in rows))
    rows.append(Contribution(ROUNDING, "rounding, against the account", *rest))
    margin = assessment.margin
    beyond = (margin.maintenance_margin_usd6 - maintenance, margin.initial_margin_usd6 - initial)
    if any(beyond):
        rows.append(Contribution(SATURATION, "beyond what can be shown", *beyond))
    return tuple(rows)


def _add_on_rows(legs: Legs, add_ons_usd9: int, tables: Tables, p: RiskParameters) -> list[Contribution]:
    """The charge on gross notional, and every other add-on that asks for something."""
    others = [
        (f"concentration: {rule.underlying} {rule.scope}", usd9) for rule, usd9 in concentration_of(legs, 0, tables, p)
    ]
    others.append(("degraded oracle", degraded_charge_of(legs, 0, tables)))
    rows = [("charge on gross notional", add_ons_usd9 - sum(usd9 for _, usd9 in others))]
    rows += [(name, usd9) for name, usd9 in others if usd9]
    return [Contribution(ADD_ON, name, *[divide_up(usd9, USD9_PER_USD6)] * 2) for name, usd9 in rows]


def _row(part: _Part, multiplier_e6: int) -> Contribution:
    denominator = part.denominator * USD9_PER_USD6
    return Contribution(
        part.kind,
        part.name,
        divide_half_even(part.numerator, denominator),
        divide_half_even(part.numerator * multiplier_e6, denominator * ONE_E6),
    )


def _unsaturated(parts: list[_Part], add_ons_usd9: int, p: RiskParameters) -> tuple[int, int]:
    """Maintenance and initial margin of the decision as integers of any size."""
    risk = divide_up(sum(part.numerator for part in parts), parts[0].denominator) if parts else 0
    initial_risk = divide_up(risk * p.initial_margin_multiplier_e6, ONE_E6)
    return divide_up(risk + add_ons_usd9, USD9_PER_USD6), divide_up(initial_risk + add_ons_usd9, USD9_PER_USD6)


def _holdings(account: Book, catalogue: Catalogue, tables: Tables, assessment: Assessment) -> tuple[Holding, ...]:
    """Cash and every leg at its mark; the last row is what rounding down leaves."""
    cash = int(account.cash_usd6[0])
    rows = [Holding(CASH, "cash", 0, 0, 0, 0, cash, cash)]
    for at, i in enumerate(account.keys.tolist()):
        lots, listed = int(account.lots[at]), catalogue.instruments[i]
        mark, haircut = int(tables.columns_usd9[0, i]), int(tables.columns_usd9[1, i])
        values = (account.value_usd6(at, mark), account.value_usd6(at, haircut if lots > 0 else mark))
        entry = int(account.entry_usd6[at])
        rows.append(Holding(listed.kind, listed.symbol, lots, listed.lot_exponent, mark, entry, *values))
    margin = assessment.margin
    rest = (
        margin.equity_usd6 - sum(row.equity_usd6 for row in rows),
        margin.nlv_usd6 - sum(row.nlv_usd6 for row in rows),
    )
    return (*rows, Holding(ROUNDING, "rounding, against the account", 0, 0, 0, 0, *rest))


# -- beside the rows


def _tail_scenarios(
    account: Book, catalogue: Catalogue, tables: Tables, tail: np.ndarray, weights: np.ndarray, losses: np.ndarray
) -> tuple[TailScenario, ...]:
    scenarios = tables.scenarios
    held = np.unique(tables.instruments.underlying[account.keys]).tolist()
    symbols = {u: catalogue.underlyings[u].symbol for u in held}
    found = []
    for s, weight in zip(tail.tolist(), weights.tolist(), strict=True):
        spot = {symbols[u]: float(scenarios.spot_log_return[u, s]) for u in held}
        rows = {symbols[u]: int(scenarios.option_row[u]) for u in held}
        volatility = {name: float(scenarios.level_log[row, s]) for name, row in rows.items() if row >= 0}
        surface = {name: _surface_moves(scenarios, row, s) for name, row in rows.items() if row >= 0}
        loss = saturated(divide_half_even(int(losses[s]), USD9_PER_USD6))
        found.append(TailScenario(s, weight, loss, spot, volatility, surface))
    return tuple(found)


def _surface_moves(scenarios: ScenarioTable, row: int, s: int) -> dict[str, float]:
    columns = {"skew": scenarios.skew, "curvature": scenarios.curvature, "term": scenarios.term}
    moves = {kind: float(column[row, s]) for kind, column in columns.items() if column.size}
    return moves | {"rate": float(scenarios.rate_shift[row, s])}


def _worst_stress(account: Book, tables: Tables, p: RiskParameters, row: int) -> WorstStress | None:
    if row < 0:
        return None
    loss = -sum(lots * int(tables.stress[i, row]) for i, lots in zip(account.keys.tolist(), account.lots.tolist()))
    stress = p.stress_rows[row]
    return WorstStress(stress.name, stress.reason, stress.weight_e6, saturated(divide_half_even(loss, USD9_PER_USD6)))


def one_more_lot(
    account: Book, catalogue: Catalogue, tables: Tables, p: RiskParameters, also: Iterable[int] = ()
) -> tuple[OneMoreLot, ...]:
    """Exact margins with one more lot, long and short, of every held instrument and of `also`, less those without."""
    indices = sorted({*account.keys.tolist(), *also})
    books = [account, *(_with_lots(account, i, lots) for i in indices for lots in (1, -1))]
    margins = margins_of(books, tables, p)
    held = dict(zip(account.keys.tolist(), account.lots.tolist(), strict=True))
    maintenance = [int(v) - int(margins.maintenance_margin_usd6[0]) for v in margins.maintenance_margin_usd6[1:]]
    initial = [int(v) - int(margins.initial_margin_usd6[0]) for v in margins.initial_margin_usd6[1:]]
    return tuple(
        OneMoreLot(
            catalogue.instruments[i].symbol, held.get(i, 0), maintenance[2 * n], maintenance[2 * n + 1],
            initial[2 * n], initial[2 * n + 1],
        )
        for n, i in enumerate(indices)
    )  # fmt: skip


def _with_lots(account: Book, index: int, lots: int) -> Book:
    """The account with more lots of an instrument, nothing paid."""
    found = alone(account, 0)
    at = int(np.searchsorted(found.keys, index))
    if at == len(found.keys) or found.keys[at] != index:
        found.keys, found.lots = np.insert(found.keys, at, index), np.insert(found.lots, at, 0)
        found.entry_usd6 = np.insert(found.entry_usd6, at, 0)
    found.lots[at] += lots
    found.drop_closed()
    return found
