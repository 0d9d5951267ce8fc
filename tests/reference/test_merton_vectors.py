"""Merton's model against Haug's table as QuantLib tests it: 135 cases, with values converged independently."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kernels import merton
from kernels.implied_vol import CONVERGED, merton_implied_vol

CASES = json.loads((Path(__file__).parent / "vectors" / "merton_jump_diffusion.json").read_text(encoding="utf-8"))[
    "cases"
]


def option(case: dict[str, Any]) -> tuple[float, float, float, float, float, bool, float, float, float]:
    """Zero-mean jumps (E[J] = 1); the jumps' share of the variance leaves the diffusion the rest."""
    forward = case["spot"] * math.exp((case["rate"] - case["dividend_yield"]) * case["years"])
    jump_variance = case["jump_share_of_variance"] * case["total_vol"] ** 2 / case["jumps_per_year"]
    vol = case["total_vol"] * math.sqrt(1.0 - case["jump_share_of_variance"])
    return (
        forward, case["strike"], vol, case["years"], case["rate"], case["type"] == "call",
        case["jumps_per_year"], -0.5 * jump_variance, math.sqrt(jump_variance),
    )  # fmt: skip


def test_there_are_135_cases() -> None:
    assert len(CASES) == 135


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_price(case: dict[str, Any]) -> None:
    """The converged value to the 8 decimals that are recorded, the book's (QuantLib's where it errs) to its cent."""
    value = merton.price(*option(case))
    assert value == pytest.approx(case["independent_converged_price"], rel=0.0, abs=6e-9)
    assert value == pytest.approx(case["expected_price"], rel=0.0, abs=case["tolerance"])


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_diffusion_comes_back_from_the_price(case: dict[str, Any]) -> None:
    forward, strike, vol, years, _, is_call, *jumps = option(case)
    undiscounted = merton.price(forward, strike, vol, years, 0.0, is_call, *jumps)
    vega = merton.greeks(forward, strike, vol, years, 0.0, is_call, *jumps)[3]
    found, status = merton_implied_vol(undiscounted, forward, strike, years, is_call, *jumps)
    assert status == CONVERGED
    assert found == pytest.approx(vol, abs=1e-12 * forward / vega)
