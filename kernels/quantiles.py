"""Inverse distribution functions, bit-identical on every machine: normal, and chi-square with five degrees of freedom.

Each is one logarithm, one division and one rational function without a branch, so that loops over them vectorise. The
coefficients are rational interpolants at Chebyshev nodes in t = (w-14)/(w+14), computed with 70-digit arithmetic and
rounded to float64; all are positive, so that the evaluation loses no digits.

* normal: N^-1(u) = q R(w) with q = 2u - 1, w = -log(4u(1-u)) in [0, 22]; relative error of R 1.6e-15. (That
  the quotient is a smooth function of w: Giles, "Approximating the erfinv function", 2010.)
* chi-square: half the quantile at probability v**(5/2) is v R(w) with w = -log(1-v) in [0, 23]; relative error of R
  9e-17. For small v the distribution function is y**(5/2) / Gamma(7/2), which makes the quotient smooth at zero.
"""

from __future__ import annotations

from kernels.compiling import inlined
from kernels.normal import fma, logarithm


@inlined
def _normal_numerator(w: float) -> float:
    """P(w) of N^-1(u) / q, degree 11."""
    y = fma(2.4121122772941168e-12, w, 3.871963046484848e-10)
    y = fma(y, w, 1.1921397326433618e-08)
    y = fma(y, w, 2.6163850964692766e-07)
    y = fma(y, w, 4.420610497792179e-06)
    y = fma(y, w, 5.80053275942964e-05)
    y = fma(y, w, 0.0005963596483250222)
    y = fma(y, w, 0.00484521074539566)
    y = fma(y, w, 0.030971512607778896)
    y = fma(y, w, 0.1503535045705918)
    y = fma(y, w, 0.5295716201649582)
    return fma(y, w, 1.2533141373155003)


@inlined
def _normal_denominator(w: float) -> float:
    """Q(w) of N^-1(u) / q, degree 11."""
    y = fma(4.450582945166265e-14, w, 2.8575178307389914e-11)
    y = fma(y, w, 1.7664777528946364e-09)
    y = fma(y, w, 4.0457606868326334e-08)
    y = fma(y, w, 8.3036281583999e-07)
    y = fma(y, w, 1.2300508032962774e-05)
    y = fma(y, w, 0.00013703902114074344)
    y = fma(y, w, 0.0014227252880443498)
    y = fma(y, w, 0.008273700437034381)
    y = fma(y, w, 0.06485168941614873)
    y = fma(y, w, 0.16073763176983294)
    return fma(y, w, 1.0)


@inlined
def _chi_square_numerator(w: float) -> float:
    """P(w) of the half quantile over v, degree 13."""
    y = fma(1.9549074343539478e-13, w, 4.030124616173698e-12)
    y = fma(y, w, 1.1275564854077324e-10)
    y = fma(y, w, 2.3310091149632046e-09)
    y = fma(y, w, 4.142775648306051e-08)
    y = fma(y, w, 6.61846995377007e-07)
    y = fma(y, w, 9.238871639344271e-06)
    y = fma(y, w, 0.00010968905157162769)
    y = fma(y, w, 0.001082169416602275)
    y = fma(y, w, 0.008613360411391784)
    y = fma(y, w, 0.05349520210202242)
    y = fma(y, w, 0.25098089426896086)
    y = fma(y, w, 0.8427387707616175)
    return fma(y, w, 1.6167038902915642)


@inlined
def _chi_square_denominator(w: float) -> float:
    """Q(w) of the half quantile over v, degree 13."""
    y = fma(4.775811469467757e-18, w, 1.9307383171962934e-13)
    y = fma(y, w, 2.925251443486564e-12)
    y = fma(y, w, 1.1360062313258195e-10)
    y = fma(y, w, 1.5279946115036124e-09)
    y = fma(y, w, 4.521226522292146e-08)
    y = fma(y, w, 3.295883648602629e-07)
    y = fma(y, w, 1.1021840453158203e-05)
    y = fma(y, w, 4.103767712505851e-05)
    y = fma(y, w, 0.0013114113213631593)
    y = fma(y, w, 0.0026964689558459697)
    y = fma(y, w, 0.06244193003234233)
    y = fma(y, w, 0.059354314452230446)
    return fma(y, w, 1.0)


@inlined
def inverse_normal(u: float) -> float:
    """Standard normal quantile N^-1(u) for u in [2**-33, 1 - 2**-33]; outside the result has no meaning."""
    q = 2.0 * u - 1.0
    w = -logarithm(4.0 * u * (1.0 - u))
    return q * (_normal_numerator(w) / _normal_denominator(w))


@inlined
def half_chi_square_5(v: float) -> float:
    """Half the chi-square quantile (5 degrees of freedom) at probability v**2.5, for v in [2**-33, 1 - 2**-33]."""
    w = -logarithm(1.0 - v)
    return v * (_chi_square_numerator(w) / _chi_square_denominator(w))
