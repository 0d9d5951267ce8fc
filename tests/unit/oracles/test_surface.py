"""Whole surfaces: calendar order is kept, verdicts are those of the recorded integers, jumps and consensus."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smile_worlds import DAY_MS, KNOWN, ONE, chain, e9

from kernels.svi import butterfly_minimum, total_variances
from oracles.surface import Chain, fit_surface, judge, judged
from oracles.surface_bounds import MOVE_MAX_E6, is_within, surface_move_e6
from oracles.surface_consensus import Refusal, Report, combine
from oracles.surface_fit import floor_of, parameters_of

NOW = 1_700_000_000_000
VOGT = (-0.041, 0.1331, 0.306, 0.3586, 0.4153)
FORWARD = 100 * ONE


def scaled(factor: float) -> tuple[float, ...]:
    """KNOWN with the square root of its variance times factor."""
    a, b, rho, m, sigma = KNOWN
    return a * factor**2, b * factor, rho, m * factor, sigma * factor


def test_a_cheaper_later_expiry_is_lifted_above_the_one_before() -> None:
    chains = [Chain(NOW + 60 * DAY_MS, FORWARD, 0, chain(scaled(0.9))), Chain(NOW + 30 * DAY_MS, FORWARD, 0, chain())]
    near, late = fit_surface(chains, NOW)
    assert (near.chain.expiry_ms < late.chain.expiry_ms, near.smile.repaired, late.smile.repaired) == (
        True,
        False,
        True,
    )
    assert near.verdict is not None
    assert late.verdict is not None
    assert near.verdict.free
    assert late.verdict.free
    assert near.verdict.calendar_gap == math.inf
    assert near.smile.slice_e9 is not None
    assert judge(e9(scaled(0.9)), floor_of(near.smile.slice_e9)).calendar_gap < 0


def test_verdicts_of_recorded_slices() -> None:
    """Vogt's slice as integers: the interval where g < 0, and the repaired one beside it."""
    (found,) = judged([(NOW + 365 * DAY_MS, e9(VOGT))], NOW)
    assert found.verdict is not None
    assert not found.verdict.free
    assert found.verdict.butterfly_g == pytest.approx(-0.0329, abs=1e-4)
    assert (found.verdict.negative_from, found.verdict.negative_to) == pytest.approx((0.6424, 1.2569), abs=1e-3)
    assert judge(e9(KNOWN)).free


def test_quality_of_a_slice_on_its_own_market() -> None:
    (found,) = fit_surface([Chain(NOW + 30 * DAY_MS, FORWARD, 0, chain())], NOW)
    assert found.quality.core_points < 0.01
    assert found.quality.inside_share == 1.0


def test_an_expiry_without_quotes_has_no_slice_and_holds_up_nobody() -> None:
    chains = [Chain(NOW + 10 * DAY_MS, FORWARD, 0, []), Chain(NOW + 30 * DAY_MS, FORWARD, 0, chain())]
    empty, full = fit_surface(chains, NOW)
    assert (empty.smile.slice_e9, empty.verdict, full.verdict is not None) == (None, None, True)


# -- bounds


def test_time_alone_is_no_move() -> None:
    """Half the time left, half the total variance: the same volatilities at the same standardised moneyness."""
    before, after = e9(KNOWN), e9(scaled(math.sqrt(0.5)))
    assert surface_move_e6(before, 30 * DAY_MS, after, 15 * DAY_MS) < 20
    assert surface_move_e6(before, 30 * DAY_MS, e9(scaled(1.2)), 30 * DAY_MS) == pytest.approx(200_000, abs=20)


def test_a_lasting_move_is_believed_after_a_while() -> None:
    assert not is_within(1_400_000, 500_000, 0)
    assert is_within(1_400_000, 500_000, 2)
    assert is_within(10**12, 0, 0)  # no bound
    assert surface_move_e6((0, 0, 0, 0, 1), DAY_MS, e9(KNOWN), DAY_MS) <= MOVE_MAX_E6


# -- consensus


def reports(*factors: float, weight: int = 1) -> list[Report]:
    return [Report(f"r{n}", FORWARD, e9(scaled(factor)), weight) for n, factor in enumerate(factors)]


def level(slice_e9: tuple[int, int, int, int, int]) -> float:
    out = np.empty(1)
    total_variances(parameters_of(slice_e9), np.zeros(1), out)
    return math.sqrt(out[0])


def test_three_agree_and_one_lies() -> None:
    found = combine(reports(1.0, 1.001, 0.999, 3.0), quorum=3)
    assert found.slice_e9 is not None
    assert level(found.slice_e9) == pytest.approx(level(e9(KNOWN)), rel=2e-3)
    assert found.outliers == ["r3"]


def test_equal_reports_are_returned() -> None:
    found = combine(reports(1.0, 1.0, 1.0), quorum=2)
    assert found.slice_e9 == pytest.approx(e9(KNOWN), rel=1e-4, abs=2_000)
    assert found.forward_usd9 == FORWARD


def test_no_quorum() -> None:
    assert combine(reports(1.0, 1.0), quorum=3).refused is Refusal.NO_QUORUM
    assert combine(reports(1.0, 1.0), quorum=2, total_weight=4).refused is Refusal.NO_QUORUM
    assert combine([reports(1.0)[0]] * 3, quorum=2).refused is Refusal.NO_QUORUM  # one reporter three times
    assert combine([], quorum=1).refused is Refusal.NO_QUORUM


def test_a_report_with_an_arbitrage_is_left_out() -> None:
    found = combine([*reports(1.0, 1.0, 1.0), Report("vogt", FORWARD, e9(VOGT))], quorum=3)
    assert (found.left_out, found.refused) == (["vogt"], None)


def test_another_forward_is_another_view_of_the_same_strikes() -> None:
    """A reporter whose forward is 1 % higher and whose slice is shifted accordingly says the same."""
    a, b, rho, m, sigma = KNOWN
    shifted = Report("r9", round(1.01 * FORWARD), e9((a, b, rho, m - math.log(1.01), sigma)))
    found = combine([*reports(1.0, 1.0), shifted], quorum=3)
    assert found.slice_e9 is not None
    assert level(found.slice_e9) == pytest.approx(level(e9(KNOWN)), rel=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(0.9, 1.1), min_size=3, max_size=5),
    st.lists(st.floats(0.05, 8.0), min_size=0, max_size=2),
)
def test_a_minority_cannot_move_it_beyond_the_honest(honest: list[float], liars: list[float]) -> None:
    found = combine(reports(*honest, *liars), quorum=3)
    assert found.slice_e9 is not None
    assert butterfly_minimum(parameters_of(found.slice_e9))[0] >= 0.0
    low, high = (level(e9(scaled(f(honest)))) for f in (min, max))
    assert low * 0.995 <= level(found.slice_e9) <= high * 1.005  # the refit's own error
