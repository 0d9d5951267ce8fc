"""The integer path of a preset: the twin's floats, quantised once to integers, then nothing but exact arithmetic.

Values of one unit are rounded outward to nano-USD; every step after (signed quantities, discounts, weights, charges) is
an integer or a ratio of integers and is rounded against the account. Hence the balances are at most the twin's, and by
no more than `bound_usd6`:

    bound = 3 (1 + X) u + 3 X 2**-43 gross + F (3 L + 6) nano-USD + 2 micro-USD,    X = F A W G

u = sum |quantity| x table unit (1 nano-USD; a drawn group's int32 table: 2**exponent of the leg), gross = sum
|quantity| x largest value, F the larger loss factor, A = 1 + largest discount / smallest divisor, W the largest weight
of a row or factor of the basis, G groups, L legs. X 2**-44 of the gross is charged outright: it covers the float sums
of the twin (500 legs), so that "never below" needs no tolerance. Expected shortfall is the kernels' own
(`kernels.expected_shortfall`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from kernels.expected_shortfall import account_terms_wide
from kernels.layout import NANO, PnlTable, empty_pnl_table
from oracles.presets.case import Case
from oracles.presets.charges import (
    Charge,
    coin_price,
    initial_charges,
    maintenance_charges,
    option_credit,
    roll_charges,
    short_option_minimum,
)
from oracles.presets.document import PresetDocument
from oracles.presets.evaluate import moved_value
from oracles.presets.netting import NettingSet, Rows, Valued, ValuedExpiry, valued
from oracles.presets.repricing import LinearLeg, OptionLeg
from oracles.presets.scenarios import FloatArray

NANO_PER_MICRO = 1_000
OUTWARD = 2.0**-51  # of a value's size: more than the rounding of one product
SLACK_SHIFT = 44  # of gross, charged: more than the rounding of the twin's sums of 500 legs
INT32_ROOM = 2.0**31 - 4
TABLE_SLACK_UNITS = 2  # a table entry is at most this below the float it stands for

IntegerRow = npt.NDArray[np.object_]
"""Python integers, nano-USD x 10**-decimals."""


class ExactMargin(Struct, frozen=True, kw_only=True):
    """Balances of the integer path in micro-USD, rounded down, and how far below the twin they may be."""

    id: str
    initial_margin_balance_usd6: int
    maintenance_margin_balance_usd6: int
    risk_usd9: int
    bound_usd6: int


def evaluate_exactly(case: Case, document: PresetDocument) -> ExactMargin:
    """Margin of a case under a preset in integers: never above the float twin's balances.

    Raises:
        DocumentError: the case brings rows whose rule is not among its parameters.
    """
    return _Account(valued(case, document)).margin()


def decimals_of(quantities: Iterable[float]) -> int:
    """Decimals that write every quantity exactly."""
    exponents = [Decimal(repr(float(quantity))).normalize().as_tuple().exponent for quantity in quantities]
    return max([0, *(-int(exponent) for exponent in exponents)])


def outward(values: FloatArray) -> tuple[IntegerRow, IntegerRow]:
    """(largest integers below, smallest above) of USD values in nano-USD, beyond the rounding of the product."""
    nano = values * float(NANO)
    slack = np.abs(nano) * OUTWARD
    return _integers(np.floor(nano - slack)), _integers(np.ceil(nano + slack))


def _integers(values: FloatArray) -> IntegerRow:
    out = np.empty(values.size, object)
    out[:] = [int(value) for value in values.ravel().tolist()]
    return out.reshape(values.shape)


def quantised_down(pnl: FloatArray) -> PnlTable:
    """P&L of one unit, USD f64[L,S], as the kernels' int32 table: entries at most 2 units below, never above."""
    table = empty_pnl_table(*pnl.shape)
    for leg, row in enumerate(pnl * float(NANO)):
        largest, exponent = float(np.abs(row).max()), 0
        while largest * 2.0**-exponent >= INT32_ROOM:
            exponent += 1
        scaled = row * 2.0**-exponent
        table.values[leg] = np.floor(scaled - np.abs(scaled) * OUTWARD).astype(np.int32)
        table.exponent[leg] = exponent
    return table


def _times(value: int, factor: float) -> int:
    """Rounded down, exact before that."""
    over, under = factor.as_integer_ratio()
    return value * over // under


def _divided(value: int, divisor: float) -> int:
    over, under = divisor.as_integer_ratio()
    return value * under // over


class _Account:
    """One case on its way to a margin: exact quantities, and the sizes that make up the bound."""

    def __init__(self, found: Valued) -> None:
        self.found, self.case, self.p = found, found.case, found.parameters
        quantities = [leg.option.quantity for leg in found.options] + [leg.quantity for leg in found.linear]
        self.decimals = decimals_of(quantities)
        self.scale = 10**self.decimals
        self.gross_usd9 = self._gross_usd9()
        self.units_usd9 = Fraction(sum((abs(Fraction(q)) for q in quantities), Fraction(0)))

    def lots(self, quantity: float) -> int:
        """The quantity as its decimal digits say, times 10**decimals."""
        return int(Decimal(repr(float(quantity))).scaleb(self.decimals))

    def margin(self) -> ExactMargin:
        """Risk, charges, balances."""
        other, factors = self.p.other, self.p.margin
        risk = self._risk()
        roll = _sum_up(roll_charges(self.case, self.found.options, self.p))
        maintenance = _sum_up(maintenance_charges(self.case, self.found.options, self.p))
        extra = _sum_up(initial_charges(self.case, self.found.options, self.p))
        peg = max(0.0, other.peg_threshold - self.case.market.stable_price) * other.peg_factor
        asked = Fraction(risk, self.scale) + roll
        equity = self._equity_usd9() - (self.gross_usd9 >> SLACK_SHIFT)
        maintenance_usd9 = Fraction(factors.mm_loss_factor) * asked + maintenance
        initial_usd9 = Fraction(factors.im_loss_factor + peg) * asked + maintenance + extra
        return ExactMargin(
            id=self.case.id,
            initial_margin_balance_usd6=math.floor((equity - initial_usd9) / NANO_PER_MICRO),
            maintenance_margin_balance_usd6=math.floor((equity - maintenance_usd9) / NANO_PER_MICRO),
            risk_usd9=math.ceil(Fraction(risk, self.scale)),
            bound_usd6=self._bound_usd6(max(factors.mm_loss_factor, factors.im_loss_factor + peg)),
        )

    # -- risk, in nano-USD x 10**-decimals

    def _risk(self) -> int:
        groups = [self._group_risk(rows, sets) for rows, sets in self.found.groups]
        combined = sum(groups) if self.found.document.combine == "sum" else max(groups)
        minimum = _sum_up(short_option_minimum(self.case, self.found.options, self.p))
        return max(combined, -self._basis(), math.ceil(minimum * self.scale))

    def _group_risk(self, rows: Rows, sets: list[NettingSet]) -> int:
        if rows.shocks.group.draw is not None:
            return max(0, self._expected_shortfall(rows, sets[0])) if sets else 0
        return sum(max(0, -min(map(self._counted_gain, self._set_pnl(netted, rows)))) for netted in sets)

    def _counted_gain(self, pnl: int) -> int:
        if pnl <= 0:
            return pnl
        rule = self.p.add_ons
        counted = _times(pnl, rule.gain_share)
        return counted if rule.gain_limit_usd is None else min(counted, _times(NANO * self.scale, rule.gain_limit_usd))

    def _set_pnl(self, netted: NettingSet, rows: Rows) -> IntegerRow:
        """At most the P&L of the set in every row, [S]."""
        total = _integers(np.zeros(rows.shocks.size))
        for expiry in netted.expiries:
            total += self._expiry_pnl(expiry, rows)
        for leg in netted.linear:
            total += self._weighted(self._linear_pnl(leg, rows), rows)
        return np.array(
            [self._dampened(pnl, usd) for pnl, usd in zip(total, rows.shocks.dampener_usd.tolist())], object
        )

    def _dampened(self, pnl: int, dampener_usd: float) -> int:
        if pnl <= 0:
            return min(0, pnl + _times(NANO * self.scale, dampener_usd))
        return max(0, pnl + _times(-NANO * self.scale, dampener_usd))

    def _linear_pnl(self, leg: LinearLeg, rows: Rows) -> IntegerRow:
        change = leg.price * (rows.shocks.spot_multiplier - 1.0) / rows.divisor
        return self._signed(leg.quantity, *outward(np.where(rows.moves_linear, change, 0.0)))[0]

    def _expiry_pnl(self, expiry: ValuedExpiry, rows: Rows) -> IntegerRow:
        low, high = self._sum(expiry.legs, expiry.values)
        least, most = self._sum(expiry.legs, np.array([[leg.value] for leg in expiry.legs]))
        divisor = rows.divisor.tolist()
        lows = [_divided(self._discounted(v, expiry), d) - most[0] for v, d in zip(low, divisor, strict=True)]
        highs = [-_divided(-self._discounted_up(v, expiry), d) - least[0] for v, d in zip(high, divisor, strict=True)]
        unsigned = rows.unsigned.tolist()
        pnl = [-max(abs(a), abs(b)) if flat else a for a, b, flat in zip(lows, highs, unsigned, strict=True)]
        return self._weighted(np.array(pnl, object), rows)

    def _discounted(self, value: int, expiry: ValuedExpiry) -> int:
        return _times(value, expiry.discounts[0 if value >= 0 else 1])

    def _discounted_up(self, value: int, expiry: ValuedExpiry) -> int:
        return -_times(-value, expiry.discounts[0 if value >= 0 else 1])

    def _weighted(self, pnl: IntegerRow, rows: Rows) -> IntegerRow:
        weighted = [_times(value, weight) for value, weight in zip(pnl, rows.shocks.weight.tolist(), strict=True)]
        return np.array(weighted, object)

    def _sum(self, legs: list[OptionLeg], values: FloatArray) -> tuple[IntegerRow, IntegerRow]:
        """(at most, at least) the sum of quantity x value, [S]."""
        low, high = outward(values)
        below, above = _integers(np.zeros(values.shape[1])), _integers(np.zeros(values.shape[1]))
        for at, leg in enumerate(legs):
            less, more = self._signed(leg.option.quantity, low[at], high[at])
            below, above = below + less, above + more
        return below, above

    def _signed(self, quantity: float, low: IntegerRow, high: IntegerRow) -> tuple[IntegerRow, IntegerRow]:
        lots = self.lots(quantity)
        return (lots * low, lots * high) if lots >= 0 else (lots * high, lots * low)

    def _expected_shortfall(self, rows: Rows, netted: NettingSet) -> int:
        """The kernels' expected shortfall over the quantised table; shorts pay what their entries were rounded down."""
        pnl, lots = [], []
        for expiry in netted.expiries:
            for leg, values in zip(expiry.legs, expiry.values, strict=True):
                pnl.append(values / rows.divisor - leg.value)
                lots.append(self.lots(leg.option.quantity))
        for linear in netted.linear:
            pnl.append(linear.price * (rows.shocks.spot_multiplier - 1.0) / rows.divisor)
            lots.append(self.lots(linear.quantity))
        if not pnl:
            return 0
        table, legs = quantised_down(np.array(pnl)), np.arange(len(lots), dtype=np.int32)
        none = (np.zeros((len(lots), 0), np.int64), np.zeros(0, np.int64))
        held = np.array(lots, object)
        weights = rows.shocks.probability
        terms = account_terms_wide(legs, held, table, weights, rows.shocks.tail_mass, *none)
        sizes = [1 << exponent for exponent in table.exponent.tolist()]
        self.units_usd9 += Fraction(sum(abs(q) * size for q, size in zip(lots, sizes, strict=True)), self.scale)
        rounded = sum(-q * TABLE_SLACK_UNITS * size for q, size in zip(lots, sizes, strict=True) if q < 0)
        return terms.es_usd9 + rounded

    def _basis(self) -> int:
        rule, total = self.p.basis, 0
        if rule is None:
            return 0
        by_expiry: dict[int, list[OptionLeg]] = {}
        for leg in self.found.options:
            by_expiry.setdefault(leg.expiry, []).append(leg)
        for legs in by_expiry.values():
            spots = (rule.spot_up, rule.spot_down)
            moved = np.array([[moved_value(leg, spot, self.found) for spot in spots] for leg in legs])
            low, _ = self._sum(legs, moved)
            _, most = self._sum(legs, np.array([[leg.value] for leg in legs]))
            total += _times(min(0, *(low - most[0])), rule.add + rule.mult * legs[0].years)
        return total

    # -- equity and bound, in nano-USD

    def _equity_usd9(self) -> Fraction:
        """At most what the account is worth."""
        held, total = self.case.positions, Fraction(0)
        for leg in self.found.options:
            least, _ = self._sum([leg], np.array([[leg.value]]))
            total += Fraction(_times(int(least[0]), option_credit(leg, self.p)), self.scale)
        gains = (held.cash, held.perp_unrealised_pnl, held.perp_unrealised_funding)
        usd = sum((Fraction(gain) for gain in gains), Fraction(0))
        usd += sum((Fraction(future.unrealised_pnl) for future in held.futures), Fraction(0))
        usd += sum((_exact(c.quantity) * Fraction(coin_price(c, self.case)) for c in held.collateral), Fraction(0))
        return total + usd * NANO

    def _gross_usd9(self) -> int:
        """Size of everything the twin sums up, rounded up."""
        held = self.case.positions
        usd = abs(held.cash) + abs(held.perp_unrealised_pnl) + abs(held.perp_unrealised_funding)
        usd += sum(abs(future.unrealised_pnl) for future in held.futures)
        for rows, sets in self.found.groups:
            largest = float(np.abs(rows.shocks.spot_multiplier).max() * max(1.0, rows.shocks.weight.max()))
            usd += sum(abs(leg.quantity) * leg.price * (1.0 + largest) for leg in self.found.linear)
            for expiry in (expiry for netted in sets for expiry in netted.expiries):
                sizes = np.maximum(np.abs(expiry.values).max(axis=1), [leg.value for leg in expiry.legs])
                usd += float(sum(abs(leg.option.quantity) * size for leg, size in zip(expiry.legs, sizes, strict=True)))
        asked = [*maintenance_charges(self.case, self.found.options, self.p)]
        asked += initial_charges(self.case, self.found.options, self.p)
        return math.ceil((usd + sum(abs(charge.usd) for charge in asked)) * self._amplification() * NANO)

    def _amplification(self) -> float:
        """F A W G of the bound, at least 1."""
        p, factors = self.p, self.p.margin
        weight, inverse, discount = 1.0, 1.0, 1.0
        for rows, sets in self.found.groups:
            weight = max(weight, float(rows.shocks.weight.max()))
            inverse = max(inverse, float((1.0 / rows.divisor).max()))
            discount = max(discount, *(max(e.discounts) for netted in sets for e in netted.expiries), 1.0)
        if p.basis is not None:
            years = max((leg.years for leg in self.found.options), default=0.0)
            weight = max(weight, 2.0 * (p.basis.add + p.basis.mult * years))
        factor = max(1.0, factors.mm_loss_factor, factors.im_loss_factor + p.other.peg_threshold * p.other.peg_factor)
        return factor * (1.0 + discount * inverse) * weight * len(self.found.groups)

    def _bound_usd6(self, factor: float) -> int:
        """The bound of the module's head; gross carries its amplification already."""
        times = 1 + Fraction(self._amplification())
        legs = len(self.found.options) + len(self.found.linear)
        usd9 = times * 3 * self.units_usd9 + Fraction(max(1.0, factor)) * (3 * legs + 6)
        usd9 += 3 * (self.gross_usd9 >> (SLACK_SHIFT - 1)) + 2 * NANO_PER_MICRO
        return math.ceil(usd9 / NANO_PER_MICRO)


def _exact(quantity: float) -> Fraction:
    return Fraction(Decimal(repr(float(quantity))))


def _sum_up(charges: Iterable[Charge]) -> Fraction:
    """Sum of the charges in nano-USD, exact."""
    return sum((Fraction(c.quantity) * Fraction(c.price) * Fraction(c.rate) for c in charges), Fraction(0)) * NANO
