"""Quotes to SVI slices: recovery of a known slice, one-sided and useless quotes, the volatility level."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kernels.black76 import undiscounted_price
from kernels.svi import total_variance
from oracles.option_quotes import Quote
from oracles.surface_fit import Slice, fit_slice, volatility_level_e9
from schemas.quantities import MILLISECONDS_PER_YEAR

ONE = 10**9
DAY_MS = 86_400_000
FORWARD_USD = 100.0
KNOWN = (0.004, 0.03, -0.3, 0.02, 0.15)  # total variance of 30 days


def quotes_of(
    slice_: tuple[float, ...], strikes: list[float], years: float, rate: float = 0.0, spread: float = 0.01
) -> list[Quote]:
    """Calls and puts at every strike, priced on the slice, with a symmetric spread."""
    found = []
    for strike in strikes:
        x = math.log(FORWARD_USD / strike)
        stddev = math.sqrt(total_variance(*slice_, -x))
        for is_call in (True, False):
            price = undiscounted_price(FORWARD_USD, strike, x, stddev, is_call) * math.exp(-rate * years)
            mark = round(price * ONE)
            if mark > 0:
                half = round(mark * spread / 2)
                found.append(Quote(is_call, round(strike * ONE), mark, mark - half, mark + half))
    return found


STRIKES = [70.0, 75, 80, 85, 90, 95, 100, 105, 110, 115, 120, 130]
REMAINING_MS = 30 * DAY_MS
YEARS = REMAINING_MS / MILLISECONDS_PER_YEAR


@pytest.mark.parametrize("rate", [0.0, 0.05, -0.03])
def test_known_slice_comes_back(rate: float) -> None:
    """The variance at every quoted strike, to a basis point of volatility; in the money quotes take no part."""
    found = fit_slice(quotes_of(KNOWN, STRIKES, YEARS, rate), round(FORWARD_USD * ONE), round(rate * ONE), REMAINING_MS)
    assert found is not None
    for strike in STRIKES:
        k = math.log(strike / FORWARD_USD)
        fitted, known = (total_variance(*values, k) for values in ([v / ONE for v in found], KNOWN))
        assert math.sqrt(fitted / YEARS) == pytest.approx(math.sqrt(known / YEARS), abs=1e-4)


def test_order_of_quotes_does_not_matter() -> None:
    quotes = quotes_of(KNOWN, STRIKES, YEARS)
    rng = np.random.default_rng(1)
    shuffled = [quotes[n] for n in rng.permutation(len(quotes))]
    arguments = (round(FORWARD_USD * ONE), 0, REMAINING_MS)
    assert fit_slice(shuffled, *arguments) == fit_slice(quotes, *arguments)


@pytest.mark.parametrize("is_call", [True, False])
def test_quotes_of_one_side_only(is_call: bool) -> None:
    """Calls alone fit the call wing; the slice stays a valid one."""
    one_side = [q for q in quotes_of(KNOWN, STRIKES, YEARS) if q.is_call == is_call]
    found = fit_slice(one_side, round(FORWARD_USD * ONE), 0, REMAINING_MS)
    assert found is not None
    a, b, rho, _, sigma = (v / ONE for v in found)
    assert b >= 0
    assert abs(rho) <= 1
    assert sigma > 0
    assert a + b * sigma * math.sqrt(1 - rho * rho) >= -1e-9


def test_one_quote_gives_a_flat_slice_at_its_volatility() -> None:
    (quote,) = [q for q in quotes_of(KNOWN, [105.0], YEARS) if q.is_call]
    found = fit_slice([quote], round(FORWARD_USD * ONE), 0, REMAINING_MS)
    assert found is not None
    variance = total_variance(*KNOWN, math.log(1.05))
    assert (found[0] / ONE, found[1]) == (pytest.approx(variance, rel=1e-6), 0)


@pytest.mark.parametrize(
    "quote",
    [
        Quote(True, 90 * ONE, 11 * ONE, 0, 0),  # in the money
        Quote(True, 110 * ONE, 101 * ONE, 0, 0),  # worth more than the forward
        Quote(False, 90 * ONE, 91 * ONE, 0, 0),  # worth more than its strike
        Quote(True, 400 * ONE, 1, 0, 0),  # a boundary value of its source
        Quote(False, 0, ONE, 0, 0),
    ],
)
def test_quotes_that_say_nothing_keep_the_last_slice(quote: Quote) -> None:
    assert fit_slice([quote], round(FORWARD_USD * ONE), 0, 3_600_000) is None


def test_no_quotes_keep_the_last_slice() -> None:
    assert fit_slice([], round(FORWARD_USD * ONE), 0, REMAINING_MS) is None


@pytest.mark.parametrize(("bid", "ask"), [(0, 0), (1, 10**17), (5 * ONE, 5 * ONE), (6 * ONE, 5 * ONE)])
def test_missing_wide_locked_and_crossed_markets_are_weights_only(bid: int, ask: int) -> None:
    quotes = [q._replace(bid_usd9=bid, ask_usd9=ask) if n == 3 else q for n, q in
              enumerate(quotes_of(KNOWN, STRIKES, YEARS))]  # fmt: skip
    found = fit_slice(quotes, round(FORWARD_USD * ONE), 0, REMAINING_MS)
    assert found is not None
    level = math.sqrt(total_variance(*(v / ONE for v in found), 0.0) / YEARS)
    assert level == pytest.approx(math.sqrt(total_variance(*KNOWN, 0.0) / YEARS), abs=2e-3)


def test_level_is_that_of_the_slice_nearest_to_thirty_days() -> None:
    now = 1_700_000_000_000
    flat = [Slice(now + days * DAY_MS, round(0.09 * days / 365 * ONE * factor), 0, 0, 0, 1)
            for days, factor in ((7, 1), (28, 4), (90, 9))]  # fmt: skip
    assert volatility_level_e9(flat, now) == pytest.approx(0.6 * ONE, rel=1e-6)
    assert volatility_level_e9(flat[2:], now) == pytest.approx(0.9 * ONE, rel=1e-6)


def test_level_without_a_living_slice_is_zero() -> None:
    now = 1_700_000_000_000
    assert volatility_level_e9([], now) == 0
    assert volatility_level_e9([Slice(now, ONE, 0, 0, 0, 1), Slice(now + 1, 0, 0, 0, 0, 1)], now) == 0
