"""SVI fits against others': slices of a recorded chain's own author, and Heston smiles (QuantLib's reference values).

The author's file fits mid volatilities weighted by vega; ours minimises the same error and must not be larger.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.svi import butterfly_minimum, total_variances
from kernels.svi_fit import FITTED, fit_free_slice

FOLDER = Path(__file__).parent / "vectors"
AUTHOR: dict[str, Any] = json.loads((FOLDER / "svi_author_fits_btc.json").read_text(encoding="utf-8"))
HESTON: dict[str, Any] = json.loads((FOLDER / "heston_reference.json").read_text(encoding="utf-8"))["implied_vol_grid"]
NONE = np.empty(0)


def volatilities(raw: np.ndarray, k: np.ndarray, years: float) -> np.ndarray:
    out = np.empty(len(k))
    total_variances(raw, k, out)
    return 100 * np.sqrt(out / years)


def vega_error(fitted: np.ndarray, quoted: np.ndarray, vega: np.ndarray) -> float:
    """Root mean square in vol points, weighted by squared vega."""
    return math.sqrt(float((vega**2 * (fitted - quoted) ** 2).sum() / (vega**2).sum()))


@pytest.mark.parametrize("case", AUTHOR["expiries"], ids=lambda case: case["expiry"])
def test_author_fits_of_the_recorded_btc_chain(case: dict[str, Any]) -> None:
    strike, quoted, vega, _, _, theirs = (np.array(c, np.float64) for c in zip(*case["points"], strict=True))
    years, k = case["years"], np.log(strike / case["forward"])
    assert volatilities(np.array(case["raw"]), k, years) == pytest.approx(theirs, abs=2e-3)  # the parameters' meaning
    variance = (quoted / 100) ** 2 * years
    weight = (vega / (2 * quoted * years)) ** 2
    raw, _, status, _ = fit_free_slice(k, variance, weight / weight.max(), NONE, NONE)
    assert status == FITTED
    ours = volatilities(raw, k, years)
    assert vega_error(ours, quoted, vega) <= vega_error(theirs, quoted, vega) * 1.0001
    core = np.abs(k) <= 1.5 * np.interp(0.0, k, quoted / 100) * math.sqrt(years)
    assert np.abs(ours - theirs)[core].max() < 0.3
    assert butterfly_minimum(raw)[0] >= 0.0


@pytest.mark.parametrize("row", range(len(HESTON["terms"])), ids=lambda row: f"{HESTON['terms'][row]}y")
def test_heston_smiles_are_svi_within_a_tenth_of_a_vol_point(row: int) -> None:
    """Seven strikes from 50 to 150. SVI is Heston's limit for long times (Gatheral and Jacquier, 2011), but with a
    sigma wider than quotes so near each other can tell (kernels/svi_fit.py)."""
    years, quoted = HESTON["terms"][row], np.array(HESTON["implied_vols"][row])
    k = np.log(np.array(HESTON["strikes"]) / HESTON["forward"])
    raw, _, status, _ = fit_free_slice(k, quoted**2 * years, np.ones(len(k)), NONE, NONE)
    assert status == FITTED
    assert butterfly_minimum(raw)[0] >= 0.0
    worst = np.abs(volatilities(raw, k, years) - 100 * quoted).max()
    assert worst < (0.15 if years < 1 else 0.1)
