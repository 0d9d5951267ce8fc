"""Every flaw of bars that has a name is found under it, and what is written back is what the action says."""

from __future__ import annotations

import numpy as np
import pytest

from streams.market_data.bar_checks import RawBars, clean_bars, interval_of
from streams.market_data.findings import Findings

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS


def calm(count: int = 24 * 400, seed: int = 3) -> RawBars:
    """Hourly bars of a market that moves half a per cent an hour, each opening where the last closed."""
    draw = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(draw.normal(0, 0.005, count)))
    opened = np.r_[100.0, close[:-1]]
    high = np.maximum(opened, close) * (1 + draw.uniform(0, 0.003, count))
    low = np.minimum(opened, close) * (1 - draw.uniform(0, 0.003, count))
    time_ms = START_MS + HOUR_MS * np.arange(count)
    return RawBars(time_ms, np.column_stack([opened, high, low, close, np.ones(count)]))


def found(bars: RawBars, keep_wicks: bool = False) -> tuple[RawBars, dict[str, int]]:
    findings = Findings()
    cleaned = clean_bars(bars, findings, keep_wicks)
    return cleaned, {finding.name: finding.count for finding in findings.found}


def test_calm_bars_have_no_flaw() -> None:
    bars = calm()
    cleaned, flaws = found(bars)
    assert flaws == {}
    assert np.array_equal(cleaned.ohlcv, bars.ohlcv)


def test_a_hole_is_a_gap_and_stays_one() -> None:
    bars = calm()
    kept = np.r_[0:500, 503 : len(bars.time_ms)]
    cleaned, flaws = found(bars.take(kept))
    assert flaws == {"gap": 1}
    assert len(cleaned.time_ms) == len(kept)


def test_a_jump_between_bars_is_a_splice() -> None:
    bars = calm()
    bars.ohlcv[700:, :4] *= 1.2
    assert found(bars)[1] == {"splice": 1}


@pytest.mark.parametrize("column", [1, 2], ids=["high", "low"])
def test_a_lone_wick_is_false_and_is_cut_back(column: int) -> None:
    bars = calm()
    before = bars.ohlcv[900, column]
    bars.ohlcv[900, column] *= 1.6 if column == 1 else 0.5
    cleaned, flaws = found(bars)
    assert flaws == {"false wick": 1}
    assert abs(np.log(cleaned.ohlcv[900, column] / before)) < 0.12
    assert found(bars, keep_wicks=True)[0].ohlcv[900, column] == bars.ohlcv[900, column]


def test_a_wick_that_the_next_bar_confirms_is_true() -> None:
    bars = calm()
    bars.ohlcv[900, 2] *= 0.6
    bars.ohlcv[901, 2] *= 0.65
    assert found(bars)[1] == {}


def test_a_wick_among_wild_bars_is_true() -> None:
    bars = calm()
    bars.ohlcv[880:920, 2] *= 0.9
    bars.ohlcv[900, 2] *= 0.8
    assert found(bars)[1] == {}


def test_duplicates_are_told_from_conflicting_ones() -> None:
    bars = calm()
    rows = np.r_[0:101, 100, 101:301, 300, 301 : len(bars.time_ms)]
    doubled = bars.take(rows)
    doubled.ohlcv[302, 3] *= 1.0001
    doubled.ohlcv[302, 1] *= 1.001
    cleaned, flaws = found(doubled)
    assert flaws == {"duplicate": 1, "conflicting duplicate": 1}
    assert np.array_equal(cleaned.ohlcv, bars.ohlcv)


def test_bars_out_of_order_are_sorted() -> None:
    bars = calm()
    rows = np.arange(len(bars.time_ms))
    rows[[40, 41]] = rows[[41, 40]]
    cleaned, flaws = found(bars.take(rows))
    assert flaws == {"out of order": 1}
    assert np.array_equal(cleaned.time_ms, bars.time_ms)


@pytest.mark.parametrize("price", [0.0, -1.0, np.nan])
def test_a_price_that_is_none_costs_its_bar(price: float) -> None:
    bars = calm()
    bars.ohlcv[50, 2] = price
    cleaned, flaws = found(bars)
    assert flaws == {"price not positive": 1, "gap": 1}
    assert np.isfinite(cleaned.ohlcv).all()


def test_a_bar_that_contradicts_itself_is_widened() -> None:
    bars = calm()
    bars.ohlcv[50, 1] = bars.ohlcv[50, :4].min()
    cleaned, flaws = found(bars)
    assert flaws == {"inconsistent bar": 1}
    assert cleaned.ohlcv[50, 1] == cleaned.ohlcv[50, :4].max()


def test_a_price_that_stands_still_for_a_day() -> None:
    bars = calm()
    bars.ohlcv[200:240, :4] = bars.ohlcv[200, 0]
    bars.ohlcv[240, 0] = bars.ohlcv[200, 0]
    assert found(bars)[1].get("constant price") == 1


def test_a_week_of_history_is_short() -> None:
    assert found(calm(24 * 7))[1] == {"short history": 1}


def test_one_bar_and_none() -> None:
    bars = calm()
    assert interval_of(bars.time_ms[:1]) == 0
    assert len(found(bars.take(np.arange(1)))[0].time_ms) == 1
    assert len(found(bars.take(np.arange(0)))[0].time_ms) == 0
