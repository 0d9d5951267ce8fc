"""Exponential, logarithm and normal distribution, bit-identical on every IEEE-754 machine with fused multiply-add.

The mathematical library of a platform may differ in the last bit from the next one's, and a compiler may or may not
contract a*b+c. Everything here is therefore plain IEEE arithmetic in a written-out order, with explicit fused
multiply-adds (``llvm.fma``, one rounding by definition). Square roots need no function of our own: IEEE 754 requires
them correctly rounded, so ``numpy.sqrt`` is used by the callers.

Every function is a scalar float64 function compiled by numba and inlined into its caller; all branches are selects,
so that a loop over them vectorises and gives the same bits in every vector width. NaN in gives NaN out.

Origin of the coefficients (all computed with 60-digit arithmetic, then rounded to float64):

* exponential: degree-11 near-minimax polynomial of exp on [-ln2/2, ln2/2], relative error 4.3e-18; argument
  reduction of Cody and Waite (1980).
* logarithm: argument reduction and polynomial form of FreeBSD msun ``e_log.c`` (Sun Microsystems, 1993).
* scaled tail: rational interpolant P9/Q10 of exp(x*x/2) (1-N(x)) at Chebyshev extrema in t = (x-4)/(x+4) on [0, inf),
  relative error 7.3e-16, exact at 0; all coefficients positive, so that its evaluation loses no digits.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiling import inlined

DENSITY_ARGUMENT_LIMIT = 37.5
"""|x| beyond which density and tail are taken as zero (n(37.5) = 4e-306, just above the smallest normal number)."""

_EXPONENTIAL_UNDERFLOW = -708.396418532264
_EXPONENTIAL_OVERFLOW = 709.782712893384
_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.6931471805599453
_LN2_LOW = 2.3190468138462996e-17
_ROUND_TO_INTEGER = 6755399441055744.0  # 1.5 * 2**52: adding it leaves the rounded integer in the low mantissa bits
_SQRT_HALF_BITS = 4604544271217802189
_LN2_HIGH_SHORT = 6.93147180369123816490e-01  # low 32 bits zero: exact when multiplied by an exponent
_LN2_LOW_SHORT = 1.90821492927058770002e-10
_SMALLEST_NORMAL = 2.2250738585072014e-308
_TWO_POWER_54 = 18014398509481984.0
INVERSE_SQRT_TWO_PI = 0.3989422804014327
_INFINITY = float("inf")
_NAN = float("nan")


def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """``a*b + c`` with a single rounding (IEEE 754 fusedMultiplyAdd); callable from compiled code only."""

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        double = ir.DoubleType()
        function_type = ir.FunctionType(double, [double, double, double])
        return builder.call(cgutils.get_or_insert_function(builder.module, function_type, "llvm.fma.f64"), arguments)

    return types.float64(types.float64, types.float64, types.float64), lower


fma: Any = intrinsic(_fma)


def _bits_of_float(typing_context: Any, value: Any) -> Any:
    """The 64 bits of a float64 as int64; callable from compiled code only."""

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), lower


bits_of_float: Any = intrinsic(_bits_of_float)


def _float_of_bits(typing_context: Any, bits: Any) -> Any:
    """The float64 with the 64 bits of an int64; callable from compiled code only."""

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), lower


float_of_bits: Any = intrinsic(_float_of_bits)


@inlined
def exponential_bounded(x: float) -> float:
    """exp(x) for -708.39 <= x <= 709.78 only; outside the result has no meaning. Error below 1 unit in the last place.

    x = n ln2 + r with |r| <= ln2/2; the polynomial in r is scaled by adding n to its binary exponent.
    """
    shifted = fma(x, _LOG2_E, _ROUND_TO_INTEGER)
    n = shifted - _ROUND_TO_INTEGER
    r = fma(n, -_LN2_LOW, fma(n, -_LN2_HIGH, x))
    y = fma(2.5110095611886237e-08, r, 2.7632715071632255e-07)
    y = fma(y, r, 2.7557240761739257e-06)
    y = fma(y, r, 2.4801485278370062e-05)
    y = fma(y, r, 0.00019841269890193705)
    y = fma(y, r, 0.0013888888952505406)
    y = fma(y, r, 0.008333333333319546)
    y = fma(y, r, 0.04166666666648738)
    y = fma(y, r, 0.1666666666666668)
    y = fma(y, r, 0.5000000000000019)
    y = fma(y, r, 1.0)
    y = fma(y, r, 1.0)
    return float_of_bits(bits_of_float(y) + (bits_of_float(shifted) << 52))


@inlined
def exponential(x: float) -> float:
    """exp(x) for every x: 0 below ln(smallest normal number), infinity above ln(largest number), NaN for NaN."""
    y = exponential_bounded(x)
    y = 0.0 if x < _EXPONENTIAL_UNDERFLOW else y
    y = _INFINITY if x > _EXPONENTIAL_OVERFLOW else y
    return x if x != x else y


@inlined
def logarithm(x: float) -> float:
    """Natural logarithm: -infinity at 0, infinity at infinity, NaN for negative x or NaN. Error below 1 ulp.

    x = 2**k m with sqrt(1/2) <= m < sqrt(2); log m = f - (f*f/2 - s*(f*f/2 + R(s*s))), f = m-1, s = f/(2+f).
    """
    subnormal = x < _SMALLEST_NORMAL
    scaled = x * _TWO_POWER_54 if subnormal else x
    bits = bits_of_float(scaled)
    k = (bits - _SQRT_HALF_BITS) >> 52
    f = float_of_bits(bits - (k << 52)) - 1.0
    s = f / (2.0 + f)
    z = s * s
    r = fma(0.14798198605116586, z, 0.15313837699209373)
    r = fma(r, z, 0.1818357216161805)
    r = fma(r, z, 0.22222198432149784)
    r = fma(r, z, 0.2857142874366239)
    r = fma(r, z, 0.3999999999940942)
    r = fma(r, z, 0.6666666666666735) * z
    exponent = float(k) - (54.0 if subnormal else 0.0)
    half_square = 0.5 * f * f
    correction = half_square - (s * (half_square + r) + exponent * _LN2_LOW_SHORT)
    y = exponent * _LN2_HIGH_SHORT - (correction - f)
    y = _INFINITY if x == _INFINITY else y
    y = -_INFINITY if x == 0.0 else y
    y = _NAN if x < 0.0 else y
    return x if x != x else y


@inlined
def half_square_exponential(x: float) -> float:
    """exp(-x*x/2); 0 where |x| > ``DENSITY_ARGUMENT_LIMIT``.

    The rounding error of x*x is carried along (fma), otherwise it costs x*x/2 units in the last place of the tail.
    """
    magnitude = abs(x)
    bounded = DENSITY_ARGUMENT_LIMIT if magnitude > DENSITY_ARGUMENT_LIMIT else magnitude
    square = bounded * bounded
    square_error = fma(bounded, bounded, -square)
    y = exponential_bounded(-0.5 * square)
    y = fma(y, -0.5 * square_error, y)
    y = 0.0 if magnitude > DENSITY_ARGUMENT_LIMIT else y
    return x if x != x else y


@inlined
def normal_density(x: float) -> float:
    """Standard normal density n(x) = exp(-x*x/2) / sqrt(2 pi); 0 where |x| > ``DENSITY_ARGUMENT_LIMIT``."""
    return INVERSE_SQRT_TWO_PI * half_square_exponential(x)


@inlined
def scaled_tail(x: float) -> float:
    """exp(x*x/2) * (1 - N(x)), the Mills ratio over sqrt(2 pi), for 0 <= x <= 1e27; NaN gives NaN."""
    p = fma(0.3989422804014311, x, 10.366103882350199)
    p = fma(p, x, 132.52227503787597)
    p = fma(p, x, 1076.4371456370457)
    p = fma(p, x, 6070.441907509264)
    p = fma(p, x, 24548.24553489624)
    p = fma(p, x, 71155.18315046954)
    p = fma(p, x, 143053.41574508479)
    p = fma(p, x, 182629.50933840923)
    p = fma(p, x, 115001.10276209807)
    q = x + 25.983969089257215
    q = fma(q, x, 333.1840816295075)
    q = fma(q, x, 2724.211754058801)
    q = fma(q, x, 15546.525417050088)
    q = fma(q, x, 64179.58572387214)
    q = fma(q, x, 192921.58154734556)
    q = fma(q, x, 414978.13179404964)
    q = fma(q, x, 608964.2121492062)
    q = fma(q, x, 548774.2274151815)
    q = fma(q, x, 230002.20552419615)
    return p / q


@inlined
def normal_cdf(x: float) -> float:
    """Standard normal distribution function N(x), full relative accuracy in the left tail down to x = -37.5.

    N(x) = exp(-x*x/2) R(-x) for x < 0 and 1 - exp(-x*x/2) R(x) otherwise, R the scaled tail; exactly 0 below -37.5.
    """
    magnitude = abs(x)
    bounded = DENSITY_ARGUMENT_LIMIT if magnitude > DENSITY_ARGUMENT_LIMIT else magnitude
    tail = half_square_exponential(x) * scaled_tail(bounded)
    return tail if x < 0.0 else 1.0 - tail
