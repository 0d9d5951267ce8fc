"""Black-76 and implied volatility against published values: Haug, Jaeckel's C code, Derive's Solidity library."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kernels import black76
from kernels.implied_vol import CONVERGED, implied_vol

VECTORS = Path(__file__).parent / "vectors"


def vectors(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    return document


HAUG = vectors("haug_bsm_prices_greeks.json")
JAECKEL = vectors("lets_be_rational_1000.json")
DERIVE = vectors("black76_lyra_utils.json")


def haug_forward_option(case: dict[str, Any]) -> tuple[float, float, float, float, float, bool]:
    """Generalised Black-Scholes-Merton as Black-76: forward = spot * exp((rate - dividend_yield) * years)."""
    forward = case["spot"] * math.exp((case["rate"] - case["dividend_yield"]) * case["years"])
    return forward, case["strike"], case["vol"], case["years"], case["rate"], case["type"] == "call"


def spot_greek(case: dict[str, Any]) -> float:
    """Haug's Greek by the spot, from ours by the forward (dF/dS = carry, F moves with time, rate and dividend)."""
    option = haug_forward_option(case)
    forward, _, _, years, rate, _ = option
    price, delta, gamma, vega, theta, rho = black76.greeks(*option)
    carry = forward / case["spot"]
    spot_theta = theta - (rate - case["dividend_yield"]) * forward * delta
    return {
        "delta": delta * carry,
        "elasticity": delta * carry * case["spot"] / price,
        "gamma": gamma * carry * carry,
        "vega": vega,
        "theta": spot_theta,
        "theta per day": spot_theta / 365.0,
        "rho": rho + years * forward * delta,
        "dividendRho": -years * forward * delta,
    }[case["greek"]]


@pytest.mark.parametrize("case", HAUG["prices"], ids=lambda case: f"{case['type']}-{case['spot']}-{case['strike']}")
def test_haug_price(case: dict[str, Any]) -> None:
    assert black76.price(*haug_forward_option(case)) == pytest.approx(case["expected_price"], abs=case["tolerance"])


@pytest.mark.parametrize("case", HAUG["greeks"], ids=lambda case: f"{case['type']}-{case['greek']}")
def test_haug_greek(case: dict[str, Any]) -> None:
    assert spot_greek(case) == pytest.approx(case["expected"], abs=case["tolerance"])


def test_jaeckel_prices() -> None:
    """All 995 cases, from 1e-154 (a 3.4 sigma-year wing) to the intrinsic value; we reach 6e-14 relative."""
    assert len(JAECKEL["cases"]) == 995
    for forward, strike, vol, years, sign, expected, _ in JAECKEL["cases"]:
        value = black76.price(float(forward), float(strike), vol, years, 0.0, sign == 1)
        assert value == pytest.approx(expected, rel=JAECKEL["tolerance"], abs=0.0)


def test_jaeckel_implied_vols() -> None:
    """To 1e-13. The recorded volatility is what the price carries: in the money not always the one that made it."""
    for forward, strike, _, years, sign, value, expected in JAECKEL["cases"]:
        vol, status = implied_vol(float(value), float(forward), float(strike), years, sign == 1)
        assert status == CONVERGED
        assert vol == pytest.approx(expected, rel=1e-13, abs=0.0)


@pytest.mark.parametrize("case", DERIVE["cases"], ids=lambda case: f"{case[0]}s-vol{case[1]}")
def test_derive_price_and_delta(case: list[float]) -> None:
    seconds, vol, forward, strike, discount, call, put, call_delta = (float(value) for value in case)
    years = seconds / DERIVE["year_seconds"]
    rate = -math.log(discount) / years
    for is_call, expected in ((True, call), (False, put)):
        value = black76.price(forward, strike, vol, years, rate, is_call)
        assert value == pytest.approx(expected, rel=0.0, abs=DERIVE["tolerance_abs"])
    delta = black76.greeks(forward, strike, vol, years, 0.0, True)[1]
    assert delta == pytest.approx(call_delta, rel=0.0, abs=DERIVE["tolerance_abs"])


def test_scalar_checks_of_jaeckel() -> None:
    """The normalised prices of his test program: forward exp(x/2), strike exp(-x/2)."""
    first, normalised = JAECKEL["scalar_checks"][:2]
    value = black76.price(float(first["F"]), float(first["K"]), first["sigma"], first["T"], 0.0, True)
    assert value == pytest.approx(first["black"], rel=1e-14)
    x = math.log(normalised["F"] / normalised["K"])
    stddev = normalised["sigma"] * math.sqrt(normalised["T"])
    for is_call, name in ((True, "call"), (False, "put")):
        value = black76.undiscounted_price(math.exp(0.5 * x), math.exp(-0.5 * x), x, stddev, is_call)
        assert value == pytest.approx(normalised[name], rel=1e-13)
