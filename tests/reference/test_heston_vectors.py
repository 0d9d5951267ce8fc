"""Heston's model as a reference: published prices, and what it says of our inversion to volatilities and our SVI fits.

No product code prices by Heston: the pricer here is a test's, by Lewis' integral of the characteristic function, and is
itself held against the published values (Lewis; Kahl and Jaeckel; Wilmott; in QuantLib's test suite).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.integrate import quad

from kernels.implied_vol import CONVERGED, implied_vol
from kernels.svi import butterfly_minimum, total_variances
from kernels.svi_fit import FITTED, fit_free_slice

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "heston_reference.json").read_text(encoding="utf-8")
)
CASES: list[dict[str, Any]] = DOCUMENT["cases"]
NONE = np.empty(0)


class Heston(NamedTuple):
    """Variance now, mean reversion, its mean, volatility of variance, correlation."""

    v0: float
    kappa: float
    theta: float
    sigma: float
    rho: float


def characteristic(u: complex, years: float, model: Heston) -> complex:
    """E[exp(i u x)] of the log return x under the forward measure (Heston, 1993; form of Albrecher et al., 2007)."""
    v0, kappa, theta, sigma, rho = model
    xi = kappa - sigma * rho * 1j * u
    d = np.sqrt(xi * xi + sigma * sigma * (u * u + 1j * u))
    g = (xi - d) / (xi + d)
    decay = np.exp(-d * years)
    level = kappa * theta / sigma**2 * ((xi - d) * years - 2 * np.log((1 - g * decay) / (1 - g)))
    return complex(np.exp(level + v0 / sigma**2 * (xi - d) * (1 - decay) / (1 - g * decay)))


def undiscounted_call(forward: float, strike: float, years: float, model: Heston) -> float:
    """Lewis (2001): F - sqrt(F K) / pi times the integral of Re[exp(-i u k) phi(u - i/2)] / (u² + 1/4), k = ln(K/F)."""
    k = math.log(strike / forward)

    def integrand(u: float) -> float:
        value = np.exp(-1j * u * k) * characteristic(u - 0.5j, years, model)
        return float(value.real) / (u * u + 0.25)

    area, _ = quad(integrand, 0, np.inf, epsabs=1e-13, epsrel=1e-12, limit=500)
    return forward - math.sqrt(forward * strike) / math.pi * area


def model_of(case: dict[str, Any]) -> Heston:
    return Heston(*(float(case[name]) for name in Heston._fields))


def undiscounted(case: dict[str, Any]) -> tuple[float, float, float]:
    """(published price of the call or put without its discount, forward, discount)."""
    growth = math.exp((case["rate"] - case["dividend_yield"]) * case["years"])
    discount = math.exp(-case["rate"] * case["years"])
    return case["expected_price"] / discount, case["spot"] * growth, discount


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_published_prices(case: dict[str, Any]) -> None:
    _, forward, discount = undiscounted(case)
    value = discount * undiscounted_call(forward, case["strike"], case["years"], model_of(case))
    if case["type"] == "put":
        value -= discount * (forward - case["strike"])
    within = case.get("tolerance_absolute", case["expected_price"] * case.get("tolerance_relative", 0.0) * 1_000)
    assert value == pytest.approx(case["expected_price"], rel=0.0, abs=within)


def test_puts_and_calls_of_a_strike_have_one_volatility() -> None:
    """Lewis' prices of both kinds, inverted by the kernel: they agree to the digits that are printed."""
    found: dict[float, list[float]] = {}
    for case in (case for case in CASES if case["id"].startswith("lewis")):
        price, forward, _ = undiscounted(case)
        vol, status = implied_vol(price, forward, case["strike"], case["years"], case["type"] == "call")
        assert status == CONVERGED
        found.setdefault(case["strike"], []).append(vol)
    assert len(found) == 5
    assert all(put == pytest.approx(call, rel=1e-12) for put, call in found.values())
    smile = [found[strike][0] for strike in sorted(found)]
    assert smile == sorted(smile, reverse=True)  # rho is negative


def test_the_grid_of_volatilities_comes_out_of_the_pricer() -> None:
    """To 1e-10, so that strikes are what they are called (the outer ones were recorded as 60 and 140 before they were
    held against the pricer); not where the price is too small to carry a volatility."""
    grid, compared = DOCUMENT["implied_vol_grid"], 0
    for years, expected in zip(grid["terms"], grid["implied_vols"], strict=True):
        for strike, vol in zip(grid["strikes"], expected, strict=True):
            call = undiscounted_call(grid["forward"], strike, years, model_of(grid))
            price, is_call = (call, True) if strike >= grid["forward"] else (call - grid["forward"] + strike, False)
            if price > 1e-4:
                found, _ = implied_vol(price, grid["forward"], strike, years, is_call)
                assert found == pytest.approx(vol, abs=1e-10)
                compared += 1
    assert compared == 26


def test_long_smiles_are_the_svi_that_theory_says() -> None:
    """Gatheral and Jacquier (2011): for long times w(k) T-scaled is SVI with w1, w2 of Heston's parameters."""
    model, years = Heston(v0=0.04, kappa=1.15, theta=0.04, sigma=0.2, rho=-0.4), 40.0
    reduced = 2 * model.kappa - model.rho * model.sigma
    root = math.sqrt(reduced**2 + model.sigma**2 * (1 - model.rho**2))
    w1 = 4 * model.kappa * model.theta / (model.sigma**2 * (1 - model.rho**2)) * (root - reduced)
    w2 = model.sigma / (model.kappa * model.theta)
    k = np.linspace(-1.5, 1.5, 31)
    x = k / years
    limit = years * w1 / 2 * (1 + w2 * model.rho * x + np.sqrt((w2 * x + model.rho) ** 2 + 1 - model.rho**2))
    quoted = np.empty(len(k))
    for place, moneyness in enumerate(k):
        strike = math.exp(moneyness)
        call = undiscounted_call(1.0, strike, years, model)
        is_call = strike >= 1.0
        vol, status = implied_vol(call if is_call else call - 1.0 + strike, 1.0, strike, years, is_call)
        assert status == CONVERGED
        quoted[place] = vol * vol * years
    assert quoted == pytest.approx(limit, rel=0.02)  # the limit is of order 1 / T away
    raw, _, status, _ = fit_free_slice(k, quoted, np.ones(len(k)), NONE, NONE)
    assert status == FITTED
    fitted = np.empty(len(k))
    total_variances(raw, k, fitted)
    assert np.abs(np.sqrt(fitted / years) - np.sqrt(quoted / years)).max() < 1e-4  # a hundredth of a vol point
    assert butterfly_minimum(raw)[0] >= 0.0
