"""GARCH against published estimates: the FCP benchmark on DEM/GBP, and QuantLib's filter."""

import json
from pathlib import Path

import numpy as np
import pytest

from kernels.garch import ALPHA, BETA, KIND_NORMAL, MU, OMEGA, PARAMETERS, fit, log_likelihood, variance_path

VECTORS = Path(__file__).parent / "vectors"
FCP = json.loads((VECTORS / "garch_dem_gbp_fcp.json").read_text(encoding="utf-8"))
FILTER = json.loads((VECTORS / "quantlib_garch_filter.json").read_text(encoding="utf-8"))
RETURNS = np.array(FCP["returns_percent"])


def five_digits(value: float) -> str:
    return f"{value:.4e}"


def test_the_benchmark_to_five_digits() -> None:
    theta, likelihood, _ = fit(RETURNS, KIND_NORMAL, True, False)
    expected = FCP["expected"]
    for index, name in ((MU, "mu"), (OMEGA, "omega"), (ALPHA, "alpha"), (BETA, "beta")):
        assert float(five_digits(theta[index])) == pytest.approx(float(five_digits(expected[name])), rel=1.01e-5)
    assert likelihood == pytest.approx(expected["log_likelihood"], abs=5e-6)


def test_the_likelihood_at_the_benchmark() -> None:
    expected = FCP["expected"]
    theta = np.zeros(PARAMETERS)
    theta[[MU, OMEGA, ALPHA, BETA]] = [expected[name] for name in ("mu", "omega", "alpha", "beta")]
    found = log_likelihood(RETURNS, theta, KIND_NORMAL)
    assert found == pytest.approx(FCP["independent_check"]["log_likelihood_at_benchmark"], abs=1e-9)


def test_the_filter_of_quantlib() -> None:
    """Its third argument is the long-run variance: omega = vl (1 - alpha - beta)."""
    alpha, beta, returns = FILTER["alpha"], FILTER["beta"], np.array(FILTER["returns"])
    theta = np.zeros(PARAMETERS)
    theta[[ALPHA, BETA]] = alpha, beta
    theta[OMEGA] = FILTER["long_run_variance_arg"] * (1.0 - alpha - beta)
    found = np.sqrt(variance_path(returns, theta, returns[0] ** 2))
    assert found == pytest.approx(FILTER["expected"], abs=FILTER["tolerance"])
