"""Spread and option books on simulated markets of which the answer is known, and option values against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from oracles.backtest import option_books, spreads
from oracles.backtest.evaluation import evaluate
from oracles.risk_model.bars import Bars
from streams.backtest.inputs import walk_forward

DAY_MS = 86_400_000
DAYS = 1_000


def daily(asset: str, moves: np.ndarray, start: float = 100.0) -> Bars:
    """Bars of log moves; ranges are the moves themselves."""
    close = start * np.exp(np.cumsum(moves))
    opened = np.r_[start, close[:-1]]
    time_ms = DAY_MS * (18_000 + np.arange(len(close)))
    high, low = np.maximum(opened, close) * 1.005, np.minimum(opened, close) * 0.995
    return Bars(asset, DAY_MS, time_ms, opened, high, low, close, np.ones(len(close)))


def test_a_spread_of_correlated_assets_needs_less_than_its_legs() -> None:
    draw = np.random.default_rng(1)
    common = draw.normal(0, 0.03, DAYS)
    left, right = (daily(name, common + draw.normal(0, 0.006, DAYS)) for name in ("A", "B"))
    heard: list[float] = []
    found = spreads.walk([left, right], 1, spreads.books_of(["A", "B"]), walk_forward(DAY_MS), heard.append)
    assert list(found) == ["all long", "A - B"]
    assert heard[-1] > 0.99
    together, apart = (found[name][0].lower_es[:, 1].mean() for name in ("all long", "A - B"))
    assert apart < 0.6 * together
    tested = evaluate(found, 1)
    assert tested.summary(spreads.JOINT).kupiec_passed >= 7
    assert abs(tested.summary(spreads.JOINT).rate - 0.01) < 0.006


def test_spreads_want_two_assets_with_enough_in_common() -> None:
    one, other = daily("A", np.zeros(100) + 0.01), daily("B", np.zeros(100) + 0.01)
    with pytest.raises(ValueError, match="two assets"):
        spreads.walk([one], 1, {}, walk_forward(DAY_MS), lambda share: None)
    with pytest.raises(ValueError, match="too short a history"):
        spreads.walk([one, other], 1, spreads.books_of(["A", "B"]), walk_forward(DAY_MS), lambda share: None)


def test_books_of_three() -> None:
    books = spreads.books_of(["A", "B", "C"])
    assert set(books) == {"all long", "A - B", "A - C", "B - C", "dispersion (A short)"}
    assert all(abs(weights.sum()) < 1e-12 for name, weights in books.items() if name != "all long")


def test_calls_are_black_76() -> None:
    d1 = (math.log(1.1 / 1.0) + 0.5 * 0.64 * 0.25) / (0.8 * 0.5)
    expected = 1.1 * stats.norm.cdf(d1) - stats.norm.cdf(d1 - 0.4)
    assert option_books.call(1.1, 1.0, 0.25, 0.8) == pytest.approx(expected, rel=1e-13)


def test_nothing_happens_and_nothing_is_lost() -> None:
    table = option_books.instruments()
    still = option_books.revalue(0.6, table, np.zeros(1), np.zeros(1), 0.0)
    assert np.abs(still).max() < 1e-15
    assert (option_books.revalue(0.6, table, np.zeros(1), np.zeros(1), 1 / 365) < 1e-15).all()
    assert (option_books.revalue(0.6, table, np.zeros(1), np.ones(1) * 0.1, 0.0) > 0).all()


def test_hedged_books_have_no_delta() -> None:
    delta = np.linspace(0.9, 0.1, len(option_books.instruments().expiry))
    books = option_books.books(delta, 1)
    assert len(books) == 22
    for name, weights in books.items():
        if "hedged" in name or "maker" in name:
            assert abs(weights[:-1] @ delta + weights[-1]) < 1e-12


def test_option_books_of_a_simulated_market() -> None:
    draw = np.random.default_rng(2)
    spot = daily("BTC", draw.normal(0, 0.03, DAYS))
    index = daily("DVOL", np.diff(draw.normal(0, 0.05, DAYS), prepend=0.0), 60.0)  # noise about a level
    run = option_books.walk(spot, index, 1, walk_forward(DAY_MS), lambda share: None)
    tested = evaluate(run.forecasts, 1)
    joint, gaussian = tested.summary(option_books.JOINT), tested.summary(option_books.GAUSSIAN)
    assert joint.rate == pytest.approx(0.01, abs=0.006)
    assert joint.kupiec_passed > gaussian.kupiec_passed / 2
    assert run.attributions["long call 30 d"].zone == "green"


def test_an_index_that_shares_too_little_is_named() -> None:
    spot = daily("BTC", np.random.default_rng(3).normal(0, 0.03, 300))
    index = daily("DVOL", np.random.default_rng(4).normal(0, 0.03, 100), 60.0)
    with pytest.raises(ValueError, match="BTC"):
        option_books.walk(spot, index, 1, walk_forward(DAY_MS), lambda share: None)
