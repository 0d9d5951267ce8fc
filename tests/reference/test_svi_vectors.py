"""SVI slices against published values: Vogt's example in Gatheral and Jacquier (2014), Derive's Solidity library."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels import svi

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "svi_arbitrage.json").read_text(encoding="utf-8")
)
VOGT = DOCUMENT["vogt"]
RAW = tuple(float(VOGT["raw"][name]) for name in ("a", "b", "rho", "m", "sigma"))


def jump_wings(raw: tuple[float, ...], years: float) -> dict[str, float]:
    """Gatheral and Jacquier, eq. 3.5: the at-the-money variance and skew, wing slopes and minimum variance."""
    a, b, rho, m, sigma = raw
    variance = svi.raw_total_variance(*raw, 0.0) / years
    root = math.sqrt(variance * years)
    return {
        "v": variance,
        "psi": b / (2 * root) * (rho - m / math.sqrt(m * m + sigma * sigma)),
        "p": b * (1 - rho) / root,
        "c": b * (1 + rho) / root,
        "v_tilde": (a + b * sigma * math.sqrt(1 - rho * rho)) / years,
    }


def test_jump_wings_of_vogts_slice() -> None:
    ours = jump_wings(RAW, VOGT["raw"]["t"])
    assert ours == pytest.approx(VOGT["jump_wings_computed"], rel=1e-13)
    assert ours == pytest.approx(VOGT["jump_wings_published"], rel=1e-6)


def test_vogts_slice_has_the_known_butterfly_arbitrage() -> None:
    expected = VOGT["expected"]
    smallest, where = svi.durrleman_minimum(np.array(RAW), -1.5, 1.5, 300_001)
    assert smallest == pytest.approx(expected["g_min"], rel=1e-9)
    assert where == pytest.approx(expected["g_argmin"], abs=1e-5)
    start, end = expected["g_negative_interval"]
    for k, negative in ((start - 2e-5, False), (start + 2e-5, True), (end - 2e-5, True), (end + 2e-5, False)):
        assert (svi.durrleman_g(*RAW, k) < 0.0) == negative


@pytest.mark.parametrize("name", ["repaired_parameter_free", "repaired_optimised"])
def test_repaired_slices_are_free_of_arbitrage(name: str) -> None:
    case = DOCUMENT[name]
    smallest, _ = svi.durrleman_minimum(np.array(case["raw_computed"]), -1.5, 1.5, 3001)
    assert smallest == pytest.approx(case["g_min"], rel=1e-3)
    assert smallest > 0.0


@pytest.mark.parametrize("case", DOCUMENT["lyra_svi_vol"]["cases"], ids=lambda case: f"tau{case['tau']:.3f}")
def test_derive_vols(case: dict[str, Any]) -> None:
    """Their library moves k to within +-4*sqrt(a + b*sigma); inside that range the slices are the same."""
    raw = tuple(case[name] for name in ("a", "b", "rho", "m", "sigma"))
    limit = 4.0 * math.sqrt(case["a"] + case["b"] * case["sigma"])
    for strike, expected in case["vols"].items():
        k = max(-limit, min(limit, math.log(float(strike) / case["forward"])))
        vol = math.sqrt(svi.total_variance(*raw, k) / case["tau"])
        assert vol == pytest.approx(expected, rel=0.0, abs=DOCUMENT["lyra_svi_vol"]["tolerance"])
