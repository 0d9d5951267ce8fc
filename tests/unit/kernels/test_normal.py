"""kernels.normal against 60-digit decimal arithmetic, at its limits, and for identical bits on every machine."""

import hashlib
import math
import os
import subprocess
import sys
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from kernels import normal

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
INFINITY = math.inf
SMALLEST_NORMAL = sys.float_info.min

# Digest of every function here on a fixed grid: any change of the last bit of any value changes it.
GOLDEN_DIGEST = "90928701ec4678e3cba6ea7b21abc47a88cdbc5b6bfa2437adf77f647aa1b18a"


def ulps(value: float, exact: Decimal) -> float:
    return float(abs(Decimal(value) - exact) / Decimal(math.ulp(float(exact))))


def exact_tail(x: float) -> Decimal:
    """1 - N(x) for x >= 0: power series of N around 0 below 4, Laplace's continued fraction above."""
    with localcontext() as context:
        context.prec = 70
        argument = Decimal(x)
        density = (-argument * argument / 2).exp() / (2 * PI).sqrt()
        if argument < 4:
            term = total = argument
            for odd in range(3, 400, 2):
                term *= argument * argument / odd
                total += term
            return Decimal("0.5") - density * total
        fraction = argument
        for n in range(400, 0, -1):
            fraction = argument + n / fraction
        return density / fraction


@njit
def fused(a, b, c):  # type: ignore[no-untyped-def]
    return normal.fma(a, b, c)


@njit
def every_function(x, out):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        out[i, 0] = normal.exponential(x[i])
        out[i, 1] = normal.logarithm(abs(x[i]))
        out[i, 2] = normal.normal_density(x[i])
        out[i, 3] = normal.normal_cdf(x[i])
        out[i, 4] = normal.scaled_tail(abs(x[i]))


def grid_digest() -> str:
    """SHA-256 of ``every_function`` on 20001 binary fractions between -800 and 800 (exact on every machine)."""
    x = (np.arange(-10_000, 10_001) * 82_471 % 13_107_200 - 6_553_600) / 8192.0
    out = np.empty((x.shape[0], 5))
    every_function(x, out)
    return hashlib.sha256(out.tobytes()).hexdigest()


def test_fma_rounds_once() -> None:
    factor = 1.0 + 2.0**-30
    assert fused(factor, factor, -(1.0 + 2.0**-29)) == 2.0**-60
    assert factor * factor - (1.0 + 2.0**-29) == 0.0


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (-40.0, 40.0), (-708.0, 709.7)])
def test_exponential_is_within_one_ulp(bounds: tuple[float, float]) -> None:
    points = np.random.default_rng(1).uniform(*bounds, 400)
    with localcontext() as context:
        context.prec = 60
        assert max(ulps(normal.exponential(x), Decimal(x).exp()) for x in points.tolist()) < 1.0


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (0.0, 1.0),
        (-0.0, 1.0),
        (-708.4, 0.0),
        (-1e308, 0.0),
        (-INFINITY, 0.0),
        (709.8, INFINITY),
        (1e308, INFINITY),
        (INFINITY, INFINITY),
    ],
)
def test_exponential_limits(x: float, expected: float) -> None:
    assert normal.exponential(x) == expected


def test_exponential_near_its_limits_is_finite_and_not_zero() -> None:
    assert normal.exponential(709.782712893384) == pytest.approx(sys.float_info.max, rel=1e-12)
    assert normal.exponential(-708.396418532264) == pytest.approx(SMALLEST_NORMAL, rel=1e-12)


@pytest.mark.parametrize("exponent_bounds", [(-0.5, 0.5), (-5.0, 5.0), (-1020.0, 1020.0)])
def test_logarithm_is_within_one_ulp(exponent_bounds: tuple[float, float]) -> None:
    points = np.exp2(np.random.default_rng(2).uniform(*exponent_bounds, 400))
    with localcontext() as context:
        context.prec = 60
        assert max(ulps(normal.logarithm(x), Decimal(x).ln()) for x in points.tolist()) < 1.0


@pytest.mark.parametrize(
    ("x", "expected"),
    [(1.0, 0.0), (0.0, -INFINITY), (-0.0, -INFINITY), (INFINITY, INFINITY), (5e-324, -744.4400719213812)],
)
def test_logarithm_limits(x: float, expected: float) -> None:
    assert normal.logarithm(x) == expected


@pytest.mark.parametrize("x", [-1.0, -INFINITY, -5e-324, math.nan])
def test_logarithm_of_negative_is_nan(x: float) -> None:
    assert math.isnan(normal.logarithm(x))


@pytest.mark.parametrize("function", [normal.exponential, normal.normal_density, normal.normal_cdf])
def test_nan_in_gives_nan_out(function) -> None:  # type: ignore[no-untyped-def]
    assert math.isnan(function(math.nan))


@settings(deadline=None)  # the first call compiles
@given(st.floats(-690.0, 690.0))
def test_logarithm_inverts_exponential(x: float) -> None:
    assert normal.logarithm(normal.exponential(x)) == pytest.approx(x, rel=1e-15, abs=3e-16)


@pytest.mark.parametrize("x", [0.0, 0.3, 0.75, 1.0, 2.5, 3.999, 4.001, 6.0, 8.3, 12.0, 20.0, 30.0, 37.4])
def test_tail_keeps_relative_accuracy(x: float) -> None:
    tail = exact_tail(x)
    assert abs(Decimal(normal.normal_cdf(-x)) / tail - 1) < Decimal("2e-15")
    assert abs(Decimal(normal.normal_cdf(x)) - (1 - tail)) < Decimal("3e-16")


@pytest.mark.parametrize("x", [0.0, 1e-9, 0.01, 0.5, 1.0, 3.0, 8.0, 37.0, 1e3])
def test_scaled_tail(x: float) -> None:
    with localcontext() as context:
        context.prec = 70
        exact = exact_tail(x) * (Decimal(x) ** 2 / 2).exp()
        assert abs(Decimal(normal.scaled_tail(x)) / exact - 1) < Decimal("2e-15")


def test_scaled_tail_at_its_ends() -> None:
    assert normal.scaled_tail(0.0) == 0.5
    assert normal.scaled_tail(1e25) == pytest.approx(1e-25 / math.sqrt(2.0 * math.pi))


def test_density_and_tail_end_at_the_limit() -> None:
    beyond = math.nextafter(normal.DENSITY_ARGUMENT_LIMIT, INFINITY)
    for x in (beyond, 1e300, INFINITY):
        assert normal.normal_density(x) == normal.normal_density(-x) == 0.0
        assert normal.normal_cdf(-x) == 0.0
        assert normal.normal_cdf(x) == 1.0
    assert normal.normal_density(normal.DENSITY_ARGUMENT_LIMIT) > SMALLEST_NORMAL


@settings(deadline=None)  # the first call compiles
@given(st.floats(-40.0, 40.0), st.floats(0.0, 5.0))
def test_cdf_is_monotone_and_symmetric_to_rounding(x: float, step: float) -> None:
    assert normal.normal_cdf(x + step) >= normal.normal_cdf(x) - 3e-16
    assert normal.normal_cdf(x) + normal.normal_cdf(-x) == pytest.approx(1.0, abs=3e-16)


@settings(deadline=None)  # the first call compiles
@given(st.floats(-36.0, 36.0))
def test_agrees_with_the_library_functions(x: float) -> None:
    assert normal.normal_cdf(x) == pytest.approx(0.5 * math.erfc(-x / math.sqrt(2.0)), rel=1e-13)
    assert normal.normal_density(x) == pytest.approx(math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi), rel=1e-12)


def test_bits_are_the_recorded_ones() -> None:
    assert grid_digest() == GOLDEN_DIGEST


def test_vectorised_loop_and_scalar_calls_give_the_same_bits() -> None:
    x = np.linspace(-45.0, 45.0, 997)
    out = np.empty((x.shape[0], 5))
    every_function(x, out)
    scalar = [
        (
            normal.exponential(v),
            normal.logarithm(abs(v)),
            normal.normal_density(v),
            normal.normal_cdf(v),
            normal.scaled_tail(abs(v)),
        )
        for v in x.tolist()
    ]
    assert np.array_equal(out.view(np.int64), np.array(scalar).view(np.int64))


@pytest.mark.parametrize("settings", [{"NUMBA_CPU_NAME": "haswell"}, {"NUMBA_LOOP_VECTORIZE": "0"}])
def test_bits_do_not_depend_on_the_processor_or_the_vector_width(settings: dict[str, str], tmp_path) -> None:  # type: ignore[no-untyped-def]
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("the processor names are those of x86-64")
    features = {"NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2"} if "NUMBA_CPU_NAME" in settings else {}
    environment = {**os.environ, **settings, **features, "NUMBA_CACHE_DIR": str(tmp_path)}
    program = "import runpy, sys; print(runpy.run_path(sys.argv[1])['grid_digest']())"
    command = [sys.executable, "-c", program, __file__]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.strip() == GOLDEN_DIGEST
