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
GOLDEN_DIGEST = "89a83a0fdba4a8d2d916a67db414c3a81d75b281a923a6a4218c8704733c02c1"


def ulps(value: float, exact: Decimal) -> float:
    return float(abs(Decimal(value) - exact) / Decimal(math.ulp(float(exact))))


# The plain form of the polynomials that the kernel has in Eve's form, the constant last, in 2x.
MILLS_P = (
    "1", "50.7867926393973689390497", "1275.54628214980547921458", "20414.3759119853945731754",
    "227277.249063547868708549", "1816939.33832931003219451", "10421395.9550264858775851",
    "41482869.6309335671827080", "104868363.739635265674306", "130652349.961007487758072",
)  # fmt: skip
MILLS_Q = (
    "1", "50.7867926393960083442586", "1279.54628215115610946928", "20617.5230820836920588513",
    "232347.434270342877918547", "1896971.65668594129266482", "11290328.0002003834567416",
    "48129845.4989949118247347", "140079354.038101461256476", "250521565.980489075520537",
    "208490985.733001443949087",
)  # fmt: skip


def horner(coefficients: tuple[str, ...], x: Decimal) -> Decimal:
    total = Decimal(0)
    for coefficient in coefficients:
        total = total * x + Decimal(coefficient)
    return total


def exact_half_mills(x: float) -> Decimal:
    """(1 - N(x)) / (2 n(x)) for x >= 0: power series of N around 0 below 4, Laplace's continued fraction above."""
    argument = Decimal(x)
    if argument < 4:
        term = total = argument
        for odd in range(3, 400, 2):
            term *= argument * argument / odd
            total += term
        return ((2 * PI).sqrt() * (argument * argument / 2).exp() / 2 - total) / 2
    fraction = argument
    for n in range(200, 0, -1):
        fraction = argument + n / fraction
    return 1 / (2 * fraction)


@njit
def fused(a, b, c):  # type: ignore[no-untyped-def]
    return normal.fma(a, b, c)


@njit
def every_function(x, out):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        out[i, 0] = normal.exponential(x[i])
        out[i, 1] = normal.logarithm(abs(x[i]))
        out[i, 2] = normal.doubled_density(x[i])
        out[i, 3], out[i, 4] = normal.mills_fraction(abs(x[i]))


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


@pytest.mark.parametrize("function", [normal.exponential, normal.doubled_density])
def test_nan_in_gives_nan_out(function) -> None:  # type: ignore[no-untyped-def]
    assert math.isnan(function(math.nan))


@settings(deadline=None)  # the first call compiles
@given(st.floats(-690.0, 690.0))
def test_logarithm_inverts_exponential(x: float) -> None:
    assert normal.logarithm(normal.exponential(x)) == pytest.approx(x, rel=1e-15, abs=3e-16)


@pytest.mark.parametrize(("limit", "bound"), [(1.0, "4e-16"), (3.0, "1e-15"), (10.0, "6e-15"), (37.5, "9e-14")])
def test_density_is_accurate(limit: float, bound: str) -> None:
    with localcontext() as context:
        context.prec = 40
        for x in np.random.default_rng(3).uniform(-limit, limit, 400).tolist():
            exact = 2 * (-(Decimal(x) ** 2) / 2).exp() / (2 * PI).sqrt()
            assert abs(Decimal(normal.doubled_density(2.0 * x)) / exact - 1) < Decimal(bound)


def test_density_ends_at_the_limit() -> None:
    limit = 2.0 * normal.DENSITY_ARGUMENT_LIMIT
    for doubled in (math.nextafter(limit, INFINITY), 150.0, 2000.0):
        assert normal.doubled_density(doubled) == normal.doubled_density(-doubled) == 0.0
    assert normal.doubled_density(limit) > SMALLEST_NORMAL


def test_mills_ratio_is_the_best_of_its_degrees() -> None:
    """Chebyshev's condition: 19 errors of alternating sign and of one size, for 18 coefficients that are free."""
    t = np.linspace(-1.0, 1.0, 801)[1:-1]
    errors = []
    with localcontext() as context:
        context.prec = 60
        for x in (4.0 * (1.0 + t) / (1.0 - t)).tolist():
            doubled = 2 * Decimal(x)
            errors.append(float(horner(MILLS_P, doubled) / horner(MILLS_Q, doubled) / exact_half_mills(x) - 1))
    runs = np.split(np.array(errors), np.flatnonzero(np.diff(np.sign(errors))) + 1)
    extremes = [float(abs(run).max()) for run in runs]
    assert len(extremes) == 19
    assert 4.1e-16 < min(extremes) <= max(extremes) < 4.3e-16


@pytest.mark.parametrize("scale", [2.0, 10.0, 1e3, 1e25])
def test_mills_fraction_is_accurate(scale: float) -> None:
    """In rounding, too: the polynomials against their plain form, their quotient against the exact ratio."""
    with localcontext() as context:
        context.prec = 60
        for x in np.random.default_rng(4).uniform(0.0, scale, 200).tolist():
            p, q = (Decimal(value) for value in normal.mills_fraction(2.0 * x))
            assert abs(p / horner(MILLS_P, 2 * Decimal(x)) - 1) < Decimal("1.6e-15")
            assert abs(q / horner(MILLS_Q, 2 * Decimal(x)) - 1) < Decimal("1.6e-15")
            assert abs(p / q / exact_half_mills(x) - 1) < Decimal("1.5e-15")


def test_half_of_the_distribution_is_exact() -> None:
    p, q = normal.mills_fraction(0.0)
    assert normal.doubled_density(0.0) * (p / q) == normal.doubled_density(0.0) * p * q / (q * q) == 0.5


def test_mills_fraction_of_nan_is_nan() -> None:
    assert all(math.isnan(value) for value in normal.mills_fraction(math.nan))


@settings(deadline=None)  # the first call compiles
@given(st.floats(0.0, 37.0))
def test_agrees_with_the_library_functions(x: float) -> None:
    p, q = normal.mills_fraction(2.0 * x)
    density = normal.doubled_density(2.0 * x)
    assert density * (p / q) == pytest.approx(0.5 * math.erfc(x / math.sqrt(2.0)), rel=1e-13)
    assert density == pytest.approx(2.0 * math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi), rel=1e-12)


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
            normal.doubled_density(v),
            *normal.mills_fraction(abs(v)),
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
