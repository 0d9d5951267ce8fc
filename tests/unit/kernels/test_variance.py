"""Variance kernels against slow, obvious twins; seasons against the calendar; rolling tails against sorting."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import variance
from kernels.rolling_tail import rolling_tails

HOUR_MS = 3_600_000
DECAYS = 0.5 ** (1.0 / np.array([3.0, 12.0, 48.0, 240.0, 1440.0]))
SETTINGS = variance.VarianceSettings(DECAYS, 25.0, 24, 240, 480, 0.95, 4.0)


@pytest.mark.parametrize("hours", range(0, 24 * 15, 5))
def test_cells_follow_the_calendar(hours: int) -> None:
    when = datetime(2024, 2, 27, tzinfo=UTC) + timedelta(hours=hours)
    expected = when.hour + (24 if when.weekday() >= 5 else 0)
    assert variance.seasonal_cell(int(when.timestamp() * 1000)) == expected


@given(st.lists(st.floats(50.0, 200.0), min_size=4, max_size=4))
def test_garman_klass_is_positive_and_sees_gaps(prices: list[float]) -> None:
    previous, one, two, close = prices
    high, low = max(one, two, close), min(one, two, close)
    found = variance.garman_klass(previous, high, low, close)
    spread = math.log(max(high, previous) / min(low, previous))
    assert found == pytest.approx(0.5 * spread**2 - (2 * math.log(2) - 1) * math.log(close / previous) ** 2, abs=1e-14)
    assert found >= 0.11 * math.log(close / previous) ** 2 - 1e-15


def market(bars: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(time_ms, high, low, close) of hourly bars with a daily season, a false wick and a gap of three hours."""
    rng = np.random.Generator(np.random.Philox(seed))
    hours = np.arange(bars) + 3 * (np.arange(bars) > bars // 2)
    moves = 0.01 * (1.0 + 0.5 * np.sin(hours % 24 / 24 * 2 * math.pi)) * rng.standard_t(4, bars)
    close = 100.0 * np.exp(np.cumsum(moves))
    high, low = close * (1 + 0.004 * rng.random(bars)), close * (1 - 0.004 * rng.random(bars))
    low[bars // 3] *= 0.5
    return hours * HOUR_MS, high, low, close


class Twin:
    """The model as prose: lists, dictionaries and sums over everything remembered."""

    def __init__(self) -> None:
        self.speeds, self.yard, self.floor, self.bars = [0.0] * 5, 0.0, 0.0, 0
        self.factors = [1.0] * 48
        self.buckets: list[list[tuple[int, float]]] = [[]]
        self.days: list[tuple[float, float]] = []

    def step(self, cell: int, span: int, move: float, garman_klass: float) -> None:
        self.bars += 1
        raw = 0.5 * (move**2 + garman_klass) / span
        if self.bars > 1 and self.yard > 0:
            self.season(cell, min(raw / self.yard, 25.0))
        cap = 25.0 * self.speeds[3] * span * self.factors[cell]
        square, spread = move**2, garman_klass
        if self.bars > 24 and cap > 0:
            square, spread = min(square, cap), min(spread, cap)
        innovation = 0.5 * (square + spread) / (span * self.factors[cell])
        gains = [max(1 - decay, 1 / self.bars) for decay in DECAYS]
        self.speeds = [s + g * (innovation - s) for s, g in zip(self.speeds, gains)]
        self.yard += gains[3] * (raw - self.yard)
        if self.bars % 24 == 0:
            self.days.append((self.speeds[3], self.speeds[4]))
            recent = self.days[-30:]
            ten, slow = sorted(day[0] for day in recent), sorted(day[1] for day in recent)
            self.floor = min(ten[max(math.ceil(0.95 * len(ten)) - 1, 0)], 4 * slow[(len(slow) - 1) // 2])

    def season(self, cell: int, relative: float) -> None:
        self.buckets[0].append((cell, relative))
        if self.bars % 240:
            return
        if self.bars >= 480:
            known = [pair for bucket in self.buckets for pair in bucket]
            mean = sum(x for _, x in known) / len(known)
            cells = [[x for c, x in known if c == wanted] for wanted in range(48)]
            raw = [sum(xs) / len(xs) if xs else mean for xs in cells]
            weekly = sum(f * (5 if c < 24 else 2) / 168 for c, f in enumerate(raw))
            self.factors = [f / weekly for f in raw]
        self.buckets = [[], *self.buckets[:12]]


def test_a_history_is_what_the_prose_says() -> None:
    time_ms, high, low, close = market(4_000)
    state, twin, n = variance.empty_state(30), Twin(), len(close)
    speeds, floor, factor, season = np.empty((n, 5)), np.empty(n), np.empty(n), np.empty((n, 2))
    horizons = np.array([1, 24])
    variance.fold(state, SETTINGS, time_ms, HOUR_MS, high, low, close, horizons, speeds, floor, factor, season)
    for t in range(1, n):
        cell, span = variance.seasonal_cell(time_ms[t]), max((time_ms[t] - time_ms[t - 1]) // HOUR_MS, 1)
        assert factor[t] == pytest.approx(twin.factors[cell], rel=1e-9)
        spread = variance.garman_klass(close[t - 1], high[t], low[t], close[t])
        twin.step(cell, int(span), math.log(close[t] / close[t - 1]), spread)
        assert speeds[t] == pytest.approx(twin.speeds, rel=1e-9)
        assert floor[t] == pytest.approx(twin.floor, rel=1e-9)
    ahead = [twin.factors[variance.seasonal_cell(time_ms[-1] + k * HOUR_MS)] for k in range(1, 25)]
    assert season[-1] == pytest.approx([ahead[0], sum(ahead)], rel=1e-9)
    assert max(twin.factors) > 1.3 > 0.8 > min(twin.factors)


def test_a_false_wick_is_capped() -> None:
    """One bar whose low is half the price moves the ten-day variance by no more than the cap allows."""
    time_ms, high, low, close = market(1_200)
    n, bad = len(close), len(close) // 3
    out = np.empty((n, 5))
    variance.fold(
        variance.empty_state(30), SETTINGS, time_ms, HOUR_MS, high, low, close, np.array([1]), out, np.empty(n),
        np.empty(n), np.empty((n, 1)),
    )  # fmt: skip
    assert out[bad, 3] / out[bad - 1, 3] < 1.0 + 25.0 * max(1 - DECAYS[3], 1 / bad)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.one_of(st.floats(-5, 5), st.just(math.nan), st.integers(-2, 2).map(float)), min_size=1, max_size=60),
    st.integers(0, 5), st.integers(1, 20), st.integers(1, 4), st.sampled_from([0.01, 0.1, 0.5]),
)  # fmt: skip
def test_rolling_tails_are_those_of_the_sorted_window(
    values: list[float], lag: int, window: int, least: int, tail: float
) -> None:
    found = rolling_tails(np.array(values), lag, window, least, np.array([tail]))
    for t in range(len(values)):
        known = sorted(x for x in values[max(t - lag - window + 1, 0) : max(t - lag + 1, 0)] if not math.isnan(x))
        if len(known) < least:
            assert np.isnan(found[t]).all()
            continue
        k = max(math.ceil(len(known) * tail - 1e-9), 1)
        low, high = known[:k], known[-k:]
        expected = [low[-1], sum(low) / k, high[0], sum(high) / k]
        assert found[t, 0] == pytest.approx(expected, abs=1e-12)
