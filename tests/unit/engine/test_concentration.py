"""The concentration charge and governed collateral factors: brackets by hand, who is charged, what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from engine_worlds import CONCENTRATION, coins, event
from test_risk import Story, margins_of

from schemas.risk_parameters import (
    CollateralFactor,
    Concentration,
    ConcentrationTier,
    RiskParameters,
    parameters_document,
    parse_parameters,
)


def tiers(*pairs: tuple[int, int]) -> tuple[ConcentrationTier, ...]:
    return tuple(ConcentrationTier(above_usd6=above * 10**6, rate_e6=rate) for above, rate in pairs)


def add_ons_usd6(**parameters: Any) -> int:
    """Of one account with 1 X-PERP (100 USD)."""
    story = Story(cash_usd=1_000, gross_notional_charge_e6=0, **parameters)
    story.block([100.0])
    return int(margins_of(story.run())[0, "a"]["add_ons_usd6"])


@pytest.mark.parametrize(
    ("brackets", "expected"),
    [
        ([(0, 10_000)], 1_000_000),
        ([(40, 10_000)], 600_000),
        ([(40, 10_000), (90, 50_000)], 500_000 + 500_000),
        ([(100, 10_000)], 0),
        ([(0, 1), (99, 1_000_000)], 1_000_099),
    ],
)
def test_brackets_are_marginal(brackets: list[tuple[int, int]], expected: int) -> None:
    assert add_ons_usd6(concentration=(Concentration(underlying="X", tiers=tiers(*brackets)),)) == expected


def test_only_the_named_underlying_and_scope_is_charged() -> None:
    for rule in (
        Concentration(underlying="Y", tiers=tiers((0, 10_000))),
        Concentration(underlying="X", scope="collateral", tiers=tiers((0, 10_000))),
        Concentration(underlying="unlisted", tiers=tiers((0, 10_000))),
    ):
        assert add_ons_usd6(concentration=(rule,)) == 0


def test_a_collateral_factor_changes_with_the_document_and_back() -> None:
    story = Story(cash_usd=0)
    story.block([100.0], [coins("coins", 1, "b", "X", 200, "set")])
    for number, given in ((1, (CollateralFactor(instrument="X", factor_e6=500_000),)), (2, ())):
        document = parameters_document(RiskParameters(version=1 + number, collateral_factors=given))
        story.list(event("parameters", f"p{number}", document=document))
        story.block([100.0])
    rows = margins_of(story.run())
    listed, halved, again = (rows[number, "b"] for number in (1, 2, 3))
    assert halved["nlv_usd6"] == halved["equity_usd6"] // 2
    assert (listed["nlv_usd6"], listed["initial_margin_usd6"]) == (again["nlv_usd6"], again["initial_margin_usd6"])
    assert halved["expected_shortfall_usd6"] < listed["expected_shortfall_usd6"]  # coins count less on the way down too


def rule(*brackets: tuple[int, int]) -> dict[str, Any]:
    return {"underlying": "X", "tiers": [{"above_usd6": above, "rate_e6": rate} for above, rate in brackets]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("concentration", [rule((5, 1), (5, 2))]),
        ("concentration", [rule((1, 3), (5, 2))]),
        ("concentration", [rule()]),
        ("concentration", [rule((0, 1))] * 2),
        ("concentration", [rule((0, 1)) | {"scope": "all"}]),
        ("collateral_factors", [{"instrument": "X", "factor_e6": 1_000_001}]),
        ("collateral_factors", [{"instrument": "X", "factor_e6": 1}] * 2),
    ],
)  # fmt: skip
def test_documents_that_make_no_sense_are_refused_by_field(field: str, value: list[dict[str, Any]]) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        parse_parameters({field: value})


def test_the_rules_survive_a_document() -> None:
    parameters = RiskParameters(concentration=CONCENTRATION)
    assert parse_parameters(parameters_document(parameters)) == parameters
    assert np.array([len(rule.tiers) for rule in parameters.concentration]).tolist() == [2, 2, 2]
