"""Spread and option books on simulated markets of which the answer is known, and option values against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from oracles.backtest import option_books, options, rules, spreads
from oracles.backtest.capital import at_equal_coverage, of_units
from oracles.backtest.evaluation import aligned, evaluate
from oracles.risk_model.bars import Bars
from oracles.risk_model.forecasts import MODELS
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
    assert options.call(1.1, 1.0, 0.25, 0.8) == pytest.approx(expected, rel=1e-13)


def test_nothing_happens_and_nothing_is_lost() -> None:
    table = options.instruments()
    still = options.revalue(0.6, table, np.zeros(1), np.zeros(1), 0.0)
    assert np.abs(still).max() < 1e-15
    assert (options.revalue(0.6, table, np.zeros(1), np.zeros(1), 1 / 365) < 1e-15).all()
    assert (options.revalue(0.6, table, np.zeros(1), np.ones(1) * 0.1, 0.0) > 0).all()


def test_hedged_books_have_no_delta() -> None:
    delta = np.linspace(0.9, 0.1, len(options.instruments().expiry))
    books = option_books.books(delta, 1)
    assert len(books) == 22
    for name, weights in books.items():
        if "hedged" in name or "maker" in name:
            assert abs(weights @ option_books.deltas(delta)) < 1e-12


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
    capital = {(one.kind, one.rule): one for one in run.capital}
    assert len(capital) == 4 * len(rules.RULES)
    assert capital[option_books.MAKERS, rules.LEGS].ratio > 10  # their legs offset each other
    assert capital[option_books.SPREADS, rules.ALONE].ratio > 5
    assert capital[option_books.MAKERS, "deribit-pm"].as_asked > 0.005  # hedged books lose beyond its rows
    assert len({one.factor for one in run.capital}) == len(rules.RULES)  # one for all books


def test_equal_coverage_is_what_it_says() -> None:
    """A rule that asks twice as much needs half of it; one that asks the same of calm and storm needs the storm's."""
    draw = np.random.default_rng(7)
    model = np.where(np.arange(20_000) % 2, 1.0, 4.0)
    losses = model * draw.standard_normal(20_000) / 2.3
    [twice] = at_equal_coverage("twice", ["a"], [losses], [model], [2 * model])
    assert (twice.factor, twice.ratio) == pytest.approx((0.5, 1.0), rel=0.05)
    assert twice.as_asked < twice.exceeded == pytest.approx(0.01, abs=0.003)
    [flat] = at_equal_coverage("flat", ["a"], [losses], [model], [np.ones(20_000)])
    assert (losses > flat.factor * np.ones(20_000)).mean() <= flat.exceeded
    assert flat.ratio == flat.tuned_ratio > 1.2


def test_one_factor_for_all_books_and_one_for_each_kind() -> None:
    """The rule asks the same of a calm and of a wild book: with one factor the calm one pays for the wild one."""
    draw = np.random.default_rng(9)
    calm, wild = draw.standard_normal(20_000), 10 * draw.standard_normal(20_000)
    model, flat = [np.full(20_000, 2.33), np.full(20_000, 23.3)], [np.ones(20_000)] * 2
    first, second = at_equal_coverage("flat", ["calm", "wild"], [calm, wild], model, flat)
    assert first.factor == second.factor > 15
    assert first.ratio > 7 > 1.2 > second.ratio
    assert (first.tuned_ratio, second.tuned_ratio) == pytest.approx((1, 1), rel=0.1)


def test_units_are_compared_with_every_other_model_and_a_fixed_ratio() -> None:
    bars = daily("A", np.random.default_rng(8).normal(0, 0.03, DAYS))
    forecasts = [MODELS[name](bars, 1, walk_forward(DAY_MS)) for name in ("ewma", "historical")]
    found = of_units({"A": aligned(forecasts)}, "historical")
    assert [one.rule for one in found] == ["ewma", "fixed ratio"]
    assert all(0.7 < one.ratio < 1.4 for one in found)


def test_rules_on_books_known_by_hand() -> None:
    table, level = options.instruments(), 0.6
    count = len(table.expiry)
    strikes, calls = table.strikes(level), table.values(level)
    puts = options.put_values(calls, strikes)
    assert puts == pytest.approx([options.call(k, 1.0, t, options.smile(level, x)) for k, t, x in zip(
        strikes, table.expiry, table.moneyness)], abs=1e-12)  # a put is a call on the strike in coins  # fmt: skip
    long, short = rules.isolated(level, table)
    assert long[:count] == pytest.approx(calls)
    assert (short[:-1] > 0.05).all()
    assert (long[-1], short[-1]) == pytest.approx((0.1, 0.1))
    spot = np.zeros((2, 2 * count + 1))
    spot[:, -1] = 1.0, -1.0
    assert rules.grid("deribit-pm", level, table, spot) == pytest.approx([-0.16, -0.16])  # without far moves
    assert rules.grid("derive-pm2", level, table, spot) == pytest.approx([-0.18, -0.18])


def test_an_index_that_shares_too_little_is_named() -> None:
    spot = daily("BTC", np.random.default_rng(3).normal(0, 0.03, 300))
    index = daily("DVOL", np.random.default_rng(4).normal(0, 0.03, 100), 60.0)
    with pytest.raises(ValueError, match="BTC"):
        option_books.walk(spot, index, 1, walk_forward(DAY_MS), lambda share: None)
