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
* density: exp is a quotient of r coth(r/16) -+ r; r coth(r/16) = 16 + t (five terms in t = r*r), interpolated at
  Chebyshev nodes for |r| <= 4 ln2, relative error of the quotient 1.1e-18.
* Mills ratio: minimax P9/Q10 of relative error 4.2e-16 on [0, infinity] by Remez's exchange in (x-4)/(x+4), with the
  errors at 0 and at infinity held at none (18 free coefficients, 19 equal errors of alternating sign: the tests find
  them). Both are then rewritten in Eve's form: Knuth, The Art of Computer Programming 2, section 4.6.4, theorem E. A
  polynomial u(w) is divided by w*w + alpha with -alpha a root of its odd part, which leaves a number as the remainder,
  and again the quotient; the roots are real because all zeros lie left of the imaginary axis. Of the orders of the
  roots the one with the smallest intermediate numbers is taken, and w = 2x + 4 because there cancellation costs a
  factor of 4 at most (in 2x it would cost 80). The last constants are moved by some 1e-16 of P and Q so that in float64
  P/Q at 0 gives N(0) = 1/2 exactly.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.compiling import inlined

DENSITY_ARGUMENT_LIMIT = 37.5
"""|x| beyond which the normal density is taken as zero (n(37.5) = 4e-306, just above the smallest normal number)."""

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
_FOUR_LOG_HALF_PI = 1.8063308211578195
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
def exponential(x: float) -> float:
    """exp(x) for every x: 0 below ln(smallest normal number), infinity above ln(largest number), NaN for NaN.

    Error below 1 unit in the last place. x = n ln2 + r with |r| <= ln2/2; the polynomial in r is scaled by adding n to
    its binary exponent.
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
    y = float_of_bits(bits_of_float(y) + (bits_of_float(shifted) << 52))
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
def doubled_density(doubled: float) -> float:
    """2 n(x), n the normal density, of ``doubled`` = 2 x, |x| <= 1000; 0 where |x| > ``DENSITY_ARGUMENT_LIMIT``.

    With s = (2x)**2 + 4 ln(pi/2) it is exp(-s/8) = 2**n (g - r)/(g + r), s + 8 n ln2 = r, g = r coth(r/16).
    The rounding of s makes the relative error grow to 1.2e-13 at the limit (measured: see the tests).
    """
    square = fma(doubled, doubled, _FOUR_LOG_HALF_PI)
    shifted = fma(square, -0.125 * _LOG2_E, _ROUND_TO_INTEGER)
    r = fma(shifted - _ROUND_TO_INTEGER, 8.0 * _LN2_HIGH, square)
    t = r * r
    g = fma(3.087350210857639e-16, t, -7.884054250501895e-13)
    g = fma(g, t, 2.018358298245504e-09)
    g = fma(g, t, -5.425347222180574e-06)
    g = fma(g, t, 0.020833333333333325)
    g = fma(g, t, 16.0)
    y = float_of_bits(bits_of_float(g - r) + (bits_of_float(shifted) << 52)) / (g + r)
    return 0.0 if abs(doubled) > 2.0 * DENSITY_ARGUMENT_LIMIT else y


@inlined
def mills_fraction(doubled: float) -> tuple[float, float]:
    """(P, Q) with P/Q = (1 - N(x)) / (2 n(x)), half the Mills ratio, of ``doubled`` = 2 x, 0 <= x <= 1e25.

    P and Q are monic of degrees 9 and 10, in Eve's form in w = 2x + 4: w is squared once, then two degrees cost one
    multiplication and one addition. Multiplications are what a loop over prices is bound by; additions run beside them.
    """
    w = doubled + 4.0
    y = w * w
    p = fma(w + 14.786792639397369, y + 120.89709701789498, -1271.7071316325175)
    p = fma(p, y + 54.37169965423877, -10009.496055149802)
    p = fma(p, y + 20.024682519358677, -151947.25200486183)
    p = fma(p, y + 31.075438497597258, -382052.78813298803)
    q = y + fma(10.786792639396008, w, 55.78107304495122)
    q = fma(q, y + 64.37925510828818, -1342.5092477592375)
    q = fma(q, y + 33.37936202834249, -25369.612457075327)
    q = fma(q, y + 14.211872277940186, -259076.27059656428)
    return p, fma(q, y + 3.4701846733777337, -873153.2206184808)
