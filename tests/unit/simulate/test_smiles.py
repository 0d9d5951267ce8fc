"""Smiles of the demo world against the quotes they come from."""

from __future__ import annotations

import csv
import gzip
import math

import numpy as np
import pytest

from kernels.implied_vol import CONVERGED, implied_vol
from kernels.svi import durrleman_minimum, total_variance
from schemas.quantities import MILLISECONDS_PER_YEAR, ONE_E9
from streams.simulate.smiles import RECORDED, recorded_chain, scaled

RATIOS = (0.793, 1.0, 1.646)


def variance(slice_e9: tuple[int, ...], log_moneyness: float) -> float:
    a, b, rho, m, sigma = (value / ONE_E9 for value in slice_e9)
    return float(total_variance(a, b, rho, m, sigma, log_moneyness))


@pytest.mark.parametrize("place", range(4))
def test_fitted_smiles_reprice_the_recorded_marks(place: int) -> None:
    """Near the money: within two volatility points everywhere, one on average (the recorded smiles are no SVI)."""
    chain = recorded_chain()
    smile = chain.smiles[place]
    years = (smile.expiry_ms - chain.time_ms) / MILLISECONDS_PER_YEAR
    errors = []
    with gzip.open(RECORDED, "rt", encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["expire_date"] == smile.name]
    for row in rows:
        forward, strike = float(row["underlying_price"]), float(row["strike_price"])
        is_call = row["option_type"] == "C"
        if abs(math.log(strike / forward)) > 0.15 or is_call != (strike >= forward):
            continue
        recorded, status = implied_vol(float(row["mark_price"]) * forward, forward, strike, years, is_call)
        assert status == CONVERGED
        fitted = math.sqrt(variance(smile.slice_e9, math.log(strike / forward)) / years)
        errors.append(abs(fitted - recorded))
    assert len(errors) >= 5
    assert max(errors) < 0.02
    assert sum(errors) / len(errors) < 0.01


@pytest.mark.parametrize("factor", [0.5, 0.793, 1.0, 2.1])
def test_scaling_keeps_standardised_moneyness(factor: float) -> None:
    for smile in recorded_chain().smiles:
        for log_moneyness in (-0.4, -0.05, 0.0, 0.1, 0.5):
            found = variance(scaled(smile.slice_e9, factor), factor * log_moneyness)
            assert found == pytest.approx(factor**2 * variance(smile.slice_e9, log_moneyness), rel=1e-5)


@pytest.mark.parametrize("ratio", RATIOS)
def test_scaled_smiles_have_no_butterfly_arbitrage(ratio: float) -> None:
    for smile in recorded_chain().smiles:
        parameters = np.array([value / ONE_E9 for value in scaled(smile.slice_e9, ratio)])
        assert durrleman_minimum(parameters, -0.7, 0.7, 141)[0] > 0.0
