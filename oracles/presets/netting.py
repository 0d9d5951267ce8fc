"""Which legs net against each other, and what their rows multiply: shared by the twin and the integer path."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from oracles.presets.case import Case, CaseError
from oracles.presets.document import Parameters, PresetDocument
from oracles.presets.repricing import (
    LinearLeg,
    OptionLeg,
    in_scope,
    linear_legs,
    option_legs,
    shocked_values,
    static_discounts,
)
from oracles.presets.scenarios import SKEW_SHOCKS, FloatArray, Shocks, rules_for, shocks_for

NOT_DISCOUNTED = (1.0, 1.0)


class ValuedExpiry(NamedTuple):
    """Options of one expiry that net, their shocked values of one unit f64[L,S], and their static discounts."""

    legs: list[OptionLeg]
    values: FloatArray
    discounts: tuple[float, float]


class NettingSet(NamedTuple):
    """Legs whose P&L in a row adds up before the worst row is sought."""

    expiries: list[ValuedExpiry]
    linear: list[LinearLeg]


class Rows(NamedTuple):
    """What the rows of a group do to every leg, arrays [S]: spot multiplier, weight, what divides a value (coins: the
    multiplier), whether P&L counts as minus its size, whether linear legs move."""

    shocks: Shocks
    divisor: FloatArray
    unsigned: np.ndarray
    moves_linear: np.ndarray


class Valued(NamedTuple):
    """A case under a document: legs, parameters, and for each group its rows and netting sets."""

    case: Case
    document: PresetDocument
    parameters: Parameters
    options: list[OptionLeg]
    linear: list[LinearLeg]
    groups: list[tuple[Rows, list[NettingSet]]]


def valued(case: Case, document: PresetDocument) -> Valued:
    """Reprice a case.

    Raises:
        DocumentError: the case's own rows name a rule that is not there.
        CaseError: a value is not finite: parameters are out of any use.
    """
    p, options, linear = rules_for(case, document), option_legs(case), linear_legs(case, document)
    groups = []
    for shocks in shocks_for(case, document):
        values = [shocked_values(leg, shocks, document, p) for leg in options]
        _check_finite(case, options, values, shocks)
        groups.append((_rows(shocks, document), _sets(options, values, linear, document, p)))
    return Valued(case, document, p, options, linear, groups)


def _check_finite(case: Case, options: list[OptionLeg], values: list[FloatArray], shocks: Shocks) -> None:
    for place, (leg, shocked) in enumerate(zip(options, values, strict=True)):
        finite = np.isfinite(shocked)
        if not (finite.all() and np.isfinite((leg.value, leg.delta, leg.vega)).all()):
            row = shocks.name(int(np.argmin(finite)))
            raise CaseError(f"case {case.id}: positions.options[{place}] has no finite value in row {row!r}")


def _rows(shocks: Shocks, document: PresetDocument) -> Rows:
    divisor = shocks.spot_multiplier if document.numeraire == "coin" else np.ones(shocks.size)
    unsigned = np.array([kind in SKEW_SHOCKS for kind in shocks.vol_shock])
    return Rows(shocks, divisor, unsigned, in_scope(shocks, "linear"))


def _sets(
    options: list[OptionLeg],
    values: list[FloatArray],
    linear: list[LinearLeg],
    document: PresetDocument,
    p: Parameters,
) -> list[NettingSet]:
    moving = [leg for leg in linear if leg.moves]
    if document.netting == "position":
        alone = [NettingSet([_expiry([leg], [values[at]], p)], []) for at, leg in enumerate(options)]
        return alone + [NettingSet([], [leg]) for leg in moving]
    expiries = []
    for expiry in dict.fromkeys(leg.expiry for leg in options):
        places = [at for at, leg in enumerate(options) if leg.expiry == expiry]
        expiries.append(_expiry([options[at] for at in places], [values[at] for at in places], p))
    return [NettingSet(expiries, moving)]


def _expiry(legs: list[OptionLeg], values: list[FloatArray], p: Parameters) -> ValuedExpiry:
    return ValuedExpiry(legs, np.array(values), static_discounts(legs[0], p) or NOT_DISCOUNTED)
