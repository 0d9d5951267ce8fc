"""Units and exact integer rounding.

Money is int64: `*_usd6` is micro-USD, `*_usd9` nano-USD. Positions are integer lots; the lot of an instrument is
10**lot_exponent units of its underlying. Ratios carry their scale in the name (`_e6`, `_e9`). Where nothing may be
rounded `*_usd21` counts 1e-21 USD, what the smallest lot is worth at the smallest price.
"""

from __future__ import annotations

USD6_PER_USD = 1_000_000
USD9_PER_USD = 1_000_000_000
USD9_PER_USD6 = 1_000
ONE_E6 = 1_000_000
ONE_E9 = 1_000_000_000
USD21_PER_USD6 = 10**15
LOT_EXPONENT_MIN = -12
MILLISECONDS_PER_YEAR = 365 * 86_400 * 1_000

PRICE_MAX_USD9 = 10**17  # 100 million USD a unit
LOTS_MAX = 2**40
CASH_MAX_USD6 = 2**53
SHOWN_MAX = 2**62
LOT_VALUE_MAX_USD6 = 10**12  # a million USD: the lot is the smallest traded size


def saturated(value: int) -> int:
    """What is shown of a number that does not fit int64 (decisions use the number itself)."""
    return min(max(value, -SHOWN_MAX), SHOWN_MAX)


def divide_up(numerator: int, denominator: int) -> int:
    """Smallest integer not below numerator / denominator (denominator > 0): rounds against the account."""
    return -((-numerator) // denominator)


def divide_half_even(numerator: int, denominator: int) -> int:
    """Nearest integer, ties to even (denominator > 0). Odd: both sides of a trade round to opposite amounts."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        quotient += 1
    return quotient


def notional_usd6(lots: int, price_usd9: int, lot_exponent: int) -> int:
    """Value in micro-USD of `lots` at `price_usd9` per unit of underlying, rounded half-even.

    lots * 10**lot_exponent units * price_usd9 / 1000.
    """
    scale = lot_exponent - 3  # 1e-9 USD -> 1e-6 USD
    product = lots * price_usd9
    if scale >= 0:
        return product * 10**scale
    return divide_half_even(product, 10**-scale)


def notional_usd21(lots: int, price_usd9: int, lot_exponent: int) -> int:
    """The same value without any rounding (a Python integer: it may leave int64)."""
    product: int = lots * price_usd9 * 10 ** (lot_exponent - LOT_EXPONENT_MIN)
    return product
