"""Value-at-risk and expected shortfall of unit-variance densities in closed form.

Sources: McNeil, Frey, Embrechts, "Quantitative Risk Management" (2015), section 2.3.4; Hansen (1994), eq. 10: the
skewed t is a t on each side of its mode, scaled by 1 - skew and 1 + skew, so its tails are those of the t.
"""

from __future__ import annotations

import math

from scipy import stats


def normal_tail(tail: float) -> tuple[float, float]:
    """(VaR, ES) of the standard normal as positive losses at tail probability ``tail``."""
    quantile = float(stats.norm.isf(tail))
    return quantile, float(stats.norm.pdf(quantile)) / tail


def student_t_tail(degrees: float, tail: float) -> tuple[float, float]:
    """(VaR, ES) of the t with ``degrees`` > 2, not scaled to unit variance, as positive losses."""
    quantile = float(stats.t.isf(tail, degrees))
    density = float(stats.t.pdf(quantile, degrees))
    return quantile, density / tail * (degrees + quantile * quantile) / (degrees - 1.0)


def skew_t_tails(degrees: float, skew: float, tail: float) -> tuple[float, float, float, float]:
    """(VaR, ES) of the low end and of the high end, as returns, of Hansen's skewed t of unit variance.

    Raises:
        ValueError: a tail that reaches over the mode.
    """
    if not 0.0 < tail < 0.5 * (1.0 - abs(skew)):
        raise ValueError(f"a tail of {tail:g} reaches over the mode of a skew of {skew:g}")
    log_c = math.lgamma(0.5 * (degrees + 1.0)) - math.lgamma(0.5 * degrees)
    c = math.exp(log_c - 0.5 * math.log(math.pi * (degrees - 2.0)))
    a = 4.0 * skew * c * (degrees - 2.0) / (degrees - 1.0)
    b = math.sqrt(1.0 + 3.0 * skew * skew - a * a)
    unit = math.sqrt((degrees - 2.0) / degrees)
    low, high = (student_t_tail(degrees, tail / side) for side in (1.0 - skew, 1.0 + skew))
    return (
        (-a - (1.0 - skew) * unit * low[0]) / b,
        (-a - (1.0 - skew) * unit * low[1]) / b,
        (-a + (1.0 + skew) * unit * high[0]) / b,
        (-a + (1.0 + skew) * unit * high[1]) / b,
    )
