"""Chains priced on known slices: what fits, forwards and consensus are tested on."""

from __future__ import annotations

import math

from kernels.black76 import undiscounted_price
from kernels.svi import total_variance
from oracles.option_quotes import Quote

ONE = 10**9
DAY_MS = 86_400_000
FORWARD_USD = 100.0
KNOWN = (0.004, 0.03, -0.3, 0.02, 0.15)  # total variance of 30 days
STRIKES = [70.0, 75, 80, 85, 90, 95, 100, 105, 110, 115, 120, 130]
REMAINING_MS = 30 * DAY_MS


def chain(
    raw: tuple[float, ...] = KNOWN,
    strikes: list[float] = STRIKES,
    spread: float = 0.01,
    forward: float = FORWARD_USD,
) -> list[Quote]:
    """Calls and puts at every strike, priced on the slice, with a symmetric spread."""
    found = []
    for strike in strikes:
        x = math.log(forward / strike)
        stddev = math.sqrt(total_variance(*raw, -x))
        for is_call in (True, False):
            mark = round(undiscounted_price(forward, strike, x, stddev, is_call) * ONE)
            if mark > 0:
                half = round(mark * spread / 2)
                found.append(Quote(is_call, round(strike * ONE), mark, mark - half, mark + half))
    return found


def e9(raw: tuple[float, ...]) -> tuple[int, int, int, int, int]:
    a, b, rho, m, sigma = (round(value * ONE) for value in raw)
    return a, b, rho, m, sigma
