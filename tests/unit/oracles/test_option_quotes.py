"""Bad quotes by name, one case each: what is found, whether the quote still counts, and that the slice stays sane."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smile_worlds import DAY_MS, FORWARD_USD, KNOWN, ONE, REMAINING_MS, chain

from kernels.svi import butterfly_minimum, total_variance
from oracles.option_quotes import Defect, Quote, Terms, examine
from oracles.surface_fit import Method, fit_smile, parameters_of
from schemas.quantities import MILLISECONDS_PER_YEAR

TERMS = Terms(round(FORWARD_USD * ONE), 0, REMAINING_MS)
YEARS = REMAINING_MS / MILLISECONDS_PER_YEAR


def worth(volatility: float, strike: float, remaining_ms: int = REMAINING_MS) -> int:
    """Mark of a call at a volatility, nano-USD."""
    variance = volatility**2 * remaining_ms / MILLISECONDS_PER_YEAR
    return next(q.mark_usd9 for q in chain((variance, 0.0, 0.0, 0.0, 0.1), [strike]) if q.is_call)


CALL = next(q for q in chain() if q.is_call and q.strike_usd9 == 110 * ONE)
CASES = {
    "mark zero": (CALL._replace(mark_usd9=0), Defect.MARK_NOT_POSITIVE, False),
    "mark negative": (CALL._replace(mark_usd9=-5), Defect.MARK_NOT_POSITIVE, False),
    "strike zero": (CALL._replace(strike_usd9=0), Defect.STRIKE_NOT_POSITIVE, False),
    "crossed": (CALL._replace(bid_usd9=CALL.ask_usd9, ask_usd9=CALL.bid_usd9), Defect.CROSSED, True),
    "bid only": (CALL._replace(ask_usd9=0), Defect.ONE_SIDED, True),
    "ask only": (CALL._replace(bid_usd9=0), Defect.ONE_SIDED, True),
    "mark above ask": (CALL._replace(mark_usd9=2 * CALL.mark_usd9), Defect.MARK_OUTSIDE, True),
    "volatility 1 %": (Quote(True, 100 * ONE, worth(0.01, 100.0) - 10, 0, 0), Defect.BOUNDARY_VOLATILITY, False),
    "volatility 500 %": (Quote(True, 110 * ONE, worth(5.0, 110.0) + 10, 0, 0), Defect.BOUNDARY_VOLATILITY, False),
    "above the forward": (Quote(True, 110 * ONE, 101 * ONE, 0, 0), Defect.NO_VOLATILITY, False),
}


@pytest.mark.parametrize("name", CASES)
def test_each_defect_is_named_and_its_quote_counts_or_not(name: str) -> None:
    quote, defect, counts = CASES[name]
    points, findings = examine([quote], TERMS)
    assert defect in [finding.defect for finding in findings]
    assert len(points.weight) == counts


@pytest.mark.parametrize("name", CASES)
def test_one_bad_quote_among_good_ones_moves_the_level_by_less_than_a_tenth_of_a_point(name: str) -> None:
    quotes = [q for q in chain() if (q.is_call, q.strike_usd9) != (True, CASES[name][0].strike_usd9)]
    smile = fit_smile([*quotes, CASES[name][0]], TERMS)
    assert smile.method is Method.SVI
    assert smile.slice_e9 is not None
    level = math.sqrt(total_variance(*parameters_of(smile.slice_e9).tolist(), 0.0) / YEARS)
    assert level == pytest.approx(math.sqrt(total_variance(*KNOWN, 0.0) / YEARS), abs=1e-3)


def test_a_strike_quoted_twice_counts_once() -> None:
    points, findings = examine([CALL, CALL._replace(mark_usd9=CALL.mark_usd9 + 1)], TERMS)
    assert (len(points.weight), findings[0].defect) == (1, Defect.DUPLICATE)


def test_a_tighter_market_weighs_more() -> None:
    tight, wide = (examine([CALL._replace(bid_usd9=CALL.mark_usd9 - n, ask_usd9=CALL.mark_usd9 + n)], TERMS)[0]
                   for n in (CALL.mark_usd9 // 50, CALL.mark_usd9 // 5))  # fmt: skip
    assert tight.weight[0] == pytest.approx(100 * wide.weight[0], rel=1e-6)


@pytest.mark.parametrize(("strikes", "method"), [([105.0, 110.0], Method.FLAT), ([90.0, 105.0, 110.0], Method.WING)])
def test_few_strikes_give_a_slice_above_every_quote(strikes: list[float], method: Method) -> None:
    smile = fit_smile(chain(strikes=strikes), TERMS)
    assert (smile.method, Defect.TOO_FEW_STRIKES in [f.defect for f in smile.findings]) == (method, True)
    assert smile.slice_e9 is not None
    for k, w in zip(smile.points.log_moneyness.tolist(), smile.points.total_variance.tolist(), strict=True):
        assert total_variance(*parameters_of(smile.slice_e9).tolist(), k) >= w - 2e-9


def test_minutes_to_expiry_are_flat_at_the_highest_of_the_nearest_strikes() -> None:
    minutes = Terms(TERMS.forward_usd9, 0, 10 * 60_000)
    raw = (KNOWN[0] * minutes.years / YEARS, 0.0, 0.0, 0.0, 0.1)
    smile = fit_smile(chain(raw, [99.0, 99.5, 100.0, 100.5, 101.0, 101.5]), minutes)
    assert smile.method is Method.FLAT
    assert Defect.NEAR_EXPIRY in [finding.defect for finding in smile.findings]
    assert smile.slice_e9 is not None
    assert smile.slice_e9[0] / ONE == pytest.approx(raw[0], rel=0.02)  # nano-USD prices


def test_one_wing_is_said() -> None:
    smile = fit_smile([q for q in chain() if q.is_call], TERMS)
    assert Defect.ONE_WING in [finding.defect for finding in smile.findings]


@pytest.mark.parametrize(
    ("terms", "quotes", "defect"),
    [
        (TERMS, [], Defect.NO_QUOTES),
        (TERMS._replace(forward_usd9=0), chain(), Defect.NO_FORWARD),
        (TERMS._replace(remaining_ms=0), chain(), Defect.NO_FORWARD),
    ],
)
def test_nothing_to_fit_keeps_the_last_slice(terms: Terms, quotes: list[Quote], defect: Defect) -> None:
    smile = fit_smile(quotes, terms)
    assert (smile.slice_e9, smile.method, smile.findings[-1].defect) == (None, Method.NONE, defect)


PRICE = st.integers(-(10**9), 2 * 10**11)
ANY_QUOTE = st.builds(Quote, st.booleans(), st.integers(0, 3 * 10**11), PRICE, PRICE, PRICE)


@settings(deadline=None, max_examples=100)
@given(st.lists(ANY_QUOTE, max_size=14), st.integers(1, 400 * DAY_MS))
def test_no_quotes_whatever_give_anything_but_a_sound_slice_or_none(quotes: list[Quote], remaining_ms: int) -> None:
    smile = fit_smile(quotes, Terms(100 * ONE, 0, remaining_ms))
    if smile.slice_e9 is None:
        assert smile.findings
        return
    values = parameters_of(smile.slice_e9)
    assert np.isfinite(values).all()
    assert butterfly_minimum(values)[0] >= 0.0
