"""What collateral may count at: an average price against wicks, and a stablecoin's steps away from its peg."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from engine_worlds import cash, coins, fill, instrument, spot, time_of, underlying
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from test_risk import Story, events_of, margins_of

from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.risk_parameters import Depeg, DepegStep, PegTo, RiskParameters
from schemas.topics import ACCOUNT_LOG, MARGIN_WARNINGS, MARKET_LOG
from streams.engine import gate as g
from streams.engine.collateral_guard import BUCKETS, Average, Peg
from streams.engine.market import RecordedMarket
from streams.engine.risk import Risk
from streams.engine.tick_state import TickState
from streams.engine.warn import exact_now
from streams.simulate.in_process import Pipeline

USD = 10**9


def collateral_of(run: Pipeline) -> list[np.ndarray]:
    """COLLATERAL_ROW[n] of every barrier."""
    heads = [(raw, records.read_header(raw)) for raw in run.values(MARKET_LOG)]
    return [records.read_barrier(raw, head).market.collateral for raw, head in heads if head.kind == records.BARRIER]


# -- the average


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 10**18)), min_size=1, max_size=20), st.integers(1, 9))
def test_the_average_is_that_of_every_millisecond_since_the_oldest_bucket(
    stood: list[tuple[int, int]], width_ms: int
) -> None:
    average, at_ms, prices = Average(width_ms), 1_000, dict[int, int]()
    for lasted_ms, price in stood:
        average = average.counting(price, at_ms, at_ms + lasted_ms)
        prices |= dict.fromkeys(range(at_ms, at_ms + lasted_ms), price)
        at_ms += lasted_ms
        oldest = (at_ms // width_ms - BUCKETS) * width_ms
        known = [p for ms, p in prices.items() if ms >= oldest]
        assert average.price_usd9(0) == sum(known) // len(known)
        assert at_ms - oldest >= BUCKETS * width_ms


def test_without_history_the_price_itself_counts() -> None:
    assert Average(7).price_usd9(42) == 42


def wicked(window_ms: int) -> Pipeline:
    """X stands at 100 for a minute of blocks; before the last close somebody lifts it to 300 for half a second."""
    story = Story(1_000.0, [coins("k0", 0, "b", "X", 5_000)], collateral_average_window_ms=window_ms)
    for n in range(1, 6):
        story.block(ticks=[spot(f"s{n}", "X", time_of(n) - 10, 100)])
    story.block(ticks=[spot("wick", "X", time_of(6) - 500, 300)])
    story.block(ticks=[spot("back", "X", time_of(7) - 500, 100)])
    return story.run()


def test_a_manipulated_wick_lends_nothing() -> None:
    """Lifting the price of one's collateral for a moment raises NLV by what the moment is of the window, no more."""
    trusting, guarded = margins_of(wicked(0)), margins_of(wicked(600_000))
    value = 50 * 100 * 10**6 * 9 // 10  # 50 coins at a factor of 0.9
    assert [trusting[n, "b"]["nlv_usd6"] for n in (5, 6, 7)] == [value, 3 * value, value]
    assert [guarded[n, "b"]["nlv_usd6"] for n in (5, 7)] == [value, value]
    known_ms = 500 + 6_000
    average_usd9 = (100 * USD * (known_ms - 500) + 300 * USD * 500) // known_ms
    assert guarded[6, "b"]["nlv_usd6"] == 5_000 * (2_700_000_000 * average_usd9 // (300 * USD)) // 1_000
    assert guarded[6, "b"]["equity_usd6"] == trusting[6, "b"]["equity_usd6"]
    for field in ("initial_margin_usd6", "maintenance_margin_usd6"):
        assert guarded[6, "b"][field] == trusting[6, "b"][field]  # risk is that of the price


def test_a_fall_counts_at_once() -> None:
    """The lower of the two: an average above the price helps nobody."""
    for window_ms in (0, 600_000):
        story = Story(1_000.0, [coins("k0", 0, "b", "X", 5_000)], collateral_average_window_ms=window_ms)
        story.block(ticks=[spot("fall", "X", time_of(1) - 10, 50)])
        assert margins_of(story.run())[1, "b"]["nlv_usd6"] == 50 * 50 * 10**6 * 9 // 10


def test_nothing_is_recorded_where_nothing_is_guarded() -> None:
    assert not any(len(rows) for rows in collateral_of(wicked(0)))
    assert [len(rows) for rows in collateral_of(wicked(1_000))] == [2] * 8  # X and S


# -- the peg

DEPEG = Depeg(
    steps=(
        DepegStep(below_usd6=990_000, factor_share_e6=800_000),
        DepegStep(below_usd6=970_000, factor_share_e6=500_000, halted=True),
        DepegStep(below_usd6=900_000, factor_share_e6=0, halted=True),
    ),
    hysteresis_usd6=2_000, fall_after_ms=1_000, recover_after_ms=10_000,
)  # fmt: skip


def levels(path: list[tuple[int, float]], until_ms: int, depeg: Depeg = DEPEG) -> list[int]:
    """Level at every half second of a path of (ms, USD), seen by ticks alone."""
    found, peg, price, at = [], Peg(), 0, iter([*path, (10**9, 0.0)])
    next_ms, next_usd = next(at)
    for now_ms in range(0, until_ms, 500):
        while next_ms <= now_ms:
            peg = peg.at(price, next_ms, depeg).seeing(round(next_usd * USD), next_ms, depeg)
            price = round(next_usd * USD)
            next_ms, next_usd = next(at)
        found.append(peg.at(price, now_ms, depeg).level)
    return found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([(0, 1.0)], [0] * 8),
        ([(0, 0.985)], [0, 0, 1, 1, 1, 1, 1, 1]),  # after a second
        ([(0, 0.5)], [0, 0, 1, 1, 2, 2, 3, 3]),  # a step a second
        ([(0, 1.0), (500, 0.1), (1_400, 1.0)], [0] * 8),  # a wick
        ([(0, 0.985), (500, 1.0), (600, 0.985)], [0, 0, 0, 0, 1, 1, 1, 1]),  # again from the start
    ],
)
def test_a_price_that_stays_below_goes_down_step_by_step(path: list[tuple[int, float]], expected: list[int]) -> None:
    assert levels(path, 4_000) == expected


def test_recovery_is_slow_and_needs_more_than_the_line() -> None:
    path = [(0, 0.96), (2_000, 0.991), (30_000, 0.993)]  # 0.991 is above the second step's line, not the first's
    found = levels(path, 60_000)
    assert [found.index(2), found.index(2) + found.count(2)] == [4, 2 * 12]  # down at 2 s, one back at 12 s
    assert found[2 * 30] == 1
    assert found.index(0, 4) == 2 * 40


def test_without_delays_a_price_finds_its_step_at_once() -> None:
    at_once = Depeg(steps=DEPEG.steps, hysteresis_usd6=0, fall_after_ms=0, recover_after_ms=0)
    assert levels([(0, 0.5), (500, 0.98), (1_000, 1.0)], 2_000, at_once) == [3, 1, 0, 0]


def test_it_does_not_matter_how_often_the_peg_is_looked_at() -> None:
    seen = Peg().seeing(USD // 2, 0, DEPEG)
    often = seen
    for now_ms in range(0, 2_500, 7):
        often = often.at(USD // 2, now_ms, DEPEG)
    assert often == seen.at(USD // 2, 2_499, DEPEG)


def test_fewer_steps_are_no_further_than_the_last() -> None:
    assert Peg(3).at(USD // 2, 0, Depeg(steps=DEPEG.steps[:1], fall_after_ms=1)).level == 1


def depegged(**parameters: Any) -> Story:
    """b has 1,000 S; S falls to 0.96 at 1.5 s, which is two steps by block 4, and comes back at 5.5 s."""
    story = Story(1_000.0, [coins("k0", 0, "b", "S", 1_000), cash("cb", 0, "b", 10)], depeg=DEPEG, **parameters)
    prices = {2: 0.96, 6: 1.0}
    for n in range(1, 30):
        story.block(ticks=[spot(f"d{n}", "S", time_of(n) - 500, prices[n])] if n in prices else [])
    return story


def test_the_factor_falls_by_steps_and_comes_back_slowly() -> None:
    run = depegged().run()
    of_coin = [rows[rows["underlying"] == 2][0] for rows in collateral_of(run)]
    cuts = [int(row["factor_cut_e6"]) for row in of_coin]
    assert cuts == [0] * 3 + [200_000] + [500_000] * 12 + [200_000] * 10 + [0] * 4
    assert [bool(row["halted"]) for row in of_coin] == [cut == 500_000 for cut in cuts]
    nlv = {n: margins_of(run)[n, "b"]["nlv_usd6"] for n in (1, 2, 3, 5, 29)}
    factors = {1: 980_000, 2: 980_000, 3: 784_000, 5: 490_000, 29: 980_000}
    prices = {1: 100, 2: 96, 3: 96, 5: 96, 29: 100}
    assert nlv == {n: 10_000_000 + 10 * factors[n] * prices[n] for n in nlv}
    assert margins_of(run)[5, "b"]["equity_usd6"] == 10_000_000 + 960_000_000


def test_past_the_halt_nothing_new_leans_on_the_coin() -> None:
    """b's cash is its own; what the coin would still lend is neither withdrawn nor traded on."""
    for blocks, halted in ((2, False), (5, True)):
        story = Story(1_000.0, [coins("k0", 0, "b", "S", 1_000), cash("cb", 0, "b", 10)], depeg=DEPEG)
        for n in range(1, blocks + 1):
            story.block(ticks=[spot(f"d{n}", "S", time_of(n) - 500, 0.96)])
        state = story.run().risks[0]
        borrow = g.gate(state, g.CashWithdrawal("b", 11_000_000))
        order = g.gate(state, g.Order("b", "X-PERP", 500, 100 * USD))
        assert [borrow.allowed, order.allowed] == [not halted] * 2
        assert [borrow.reason, order.reason] == ["collateral_halted" if halted else ""] * 2
        assert (borrow.missing_usd6 > 0) is halted


def test_a_trade_that_reduces_risk_is_taken_past_the_halt() -> None:
    story = Story(0.0, [coins("k0", 0, "a", "S", 1_000)], depeg=DEPEG)
    for n in range(1, 6):
        story.block(ticks=[spot(f"d{n}", "S", time_of(n) - 500, 0.96)])
    state = story.run().risks[0]
    assert g.gate(state, g.Order("a", "X-PERP", -50, 100 * USD)).allowed
    assert g.gate(state, g.Order("a", "X-PERP", 50, 100 * USD)).reason == "collateral_halted"


# -- pegs to another underlying


def staked(pegs: tuple[PegTo, ...], path: dict[int, dict[str, float]], **depeg: Any) -> list[tuple[int, bool]]:
    """(cut of the factor, halted) of X's coin at every barrier, X pegged to ten Y; prices by block in `path`."""
    governed = structs.replace(DEPEG, pegs=pegs, **depeg)
    story = Story(1_000.0, [coins("k0", 0, "b", "X", 1_000), cash("cb", 0, "b", 10)], depeg=governed)
    for n in range(1, 10):
        told = path.get(n, {})
        story.block(ticks=[spot(f"{of}{n}", of, time_of(n) - 500, usd) for of, usd in told.items()])
    rows = [rows[rows["underlying"] == 0] for rows in collateral_of(story.run())]
    return [(int(row[0]["factor_cut_e6"]), bool(row[0]["halted"])) if len(row) else (0, False) for row in rows]


TEN_Y = PegTo(underlying="X", to="Y", worth_e6=10_000_000)


def test_a_staked_coin_steps_down_by_its_price_in_what_it_is_pegged_to() -> None:
    """Both fall by a half: nothing. Then X alone: a step a second; then Y after it: the peg holds again, and the way
    back is slow."""
    both = staked((TEN_Y,), {2: {"X": 50.0, "Y": 5.0}})
    assert both == [(0, False)] * 10
    alone = staked((TEN_Y,), {2: {"X": 48.0, "Y": 5.0}})
    assert alone == [(0, False)] * 3 + [(200_000, False)] + [(500_000, True)] * 6
    followed = staked((TEN_Y,), {2: {"X": 48.0, "Y": 5.0}, 3: {"Y": 4.8}})
    assert followed == [(0, False)] * 3 + [(200_000, False)] * 7


def test_the_peg_alone_may_move_and_a_moment_between_two_ticks_moves_nothing() -> None:
    """A rise of Y takes X off its peg as well; a rise that X follows within `fall_after_ms` does not."""
    assert staked((TEN_Y,), {2: {"Y": 10.2}})[-1] == (200_000, False)
    assert staked((TEN_Y,), {2: {"Y": 12.0}, 3: {"X": 120.0}})[2:5] == [(0, False), (200_000, False), (200_000, False)]
    late = structs.replace(TEN_Y)
    assert staked((late,), {2: {"Y": 12.0}, 3: {"X": 120.0}}, fall_after_ms=1_001) == [(0, False)] * 10


def test_a_peg_has_steps_of_its_own_where_it_names_them() -> None:
    own = structs.replace(TEN_Y, steps=(DepegStep(below_usd6=500_000, factor_share_e6=0, halted=True),))
    assert staked((own,), {2: {"X": 51.0}})[-1] == (0, False)
    assert staked((own,), {2: {"X": 49.0}})[-1] == (1_000_000, True)
    assert staked((own,), {2: {"X": 49.0}}, steps=())[-1] == (1_000_000, True)  # nobody else has any


def test_without_a_price_of_its_peg_a_coin_stands_where_it_stood() -> None:
    nowhere = structs.replace(TEN_Y, to="EUR")
    assert staked((nowhere,), {2: {"X": 1.0}}) == [(0, False)] * 10


def test_a_named_peg_replaces_the_dollar_of_a_stablecoin() -> None:
    """S is a stablecoin of another currency: a tenth of Y."""
    peg = PegTo(underlying="S", to="Y", worth_e6=100_000)
    story = Story(1_000.0, [coins("k0", 0, "b", "S", 1_000)], depeg=structs.replace(DEPEG, pegs=(peg,)))
    for n in range(1, 8):
        prices = {"S": 0.8, "Y": 8.0} if n == 2 else {"Y": 8.4} if n == 4 else {}
        story.block(ticks=[spot(f"{of}{n}", of, time_of(n) - 500, usd) for of, usd in prices.items()])
    cuts = [int(rows[rows["underlying"] == 2][0]["factor_cut_e6"]) for rows in collateral_of(story.run())]
    assert cuts == [0] * 5 + [200_000, 500_000, 500_000]


def test_a_coin_is_not_its_own_peg() -> None:
    with pytest.raises(ValueError, match="X is pegged to itself"):
        PegTo(underlying="X", to="X")
    with pytest.raises(ValueError, match="depeg: X is named twice"):
        Depeg(pegs=(TEN_Y, TEN_Y))


# -- between blocks


def looked(prices: list[float], **parameters: Any) -> tuple[float, float, int]:
    """(estimate, estimate by Greeks alone, exact NLV) of b, which has coins of X and S, at the last tick of a path of X
    while S leaves its peg."""
    held = [coins("k0", 0, "b", "X", 5_000), coins("k1", 0, "b", "S", 700), cash("cb", 0, "b", 10)]
    story = Story(1_000.0, held, **parameters)
    for n in range(1, 5):
        story.block(ticks=[spot(f"x{n}", "X", time_of(n) - 900, 100 + n), spot(f"d{n}", "S", time_of(n) - 500, 0.996)])
    path = [spot(f"y{n}", "X", time_of(4) + 150 * (n + 1), usd) for n, usd in enumerate(prices)]
    depegged = [spot(f"e{n}", "S", time_of(4) + 150 * (n + 1), 0.96 - n / 100) for n in range(len(prices))]
    story.block(ticks=[*path, *depegged])
    run = story.run()
    state = Risk(0, run.risks[0].cache)
    for offset, raw in enumerate(run.logs[ACCOUNT_LOG, 0]):
        header = records.read_header(raw)
        if header.kind == records.BARRIER and header.block == 5:
            break
        list(state.steps(ACCOUNT_LOG, 0, offset, raw))
    row = state.book.row_of["b"]
    at = (row, state.book, state.market, state.keyframe)
    estimate, by_greeks = state.lines.estimate(*at, state.guard_usd9()), state.lines.estimate(*at)
    return estimate, by_greeks, int(exact_now(state, np.array([row])).nlv_usd6[0])


GUARDS: dict[str, Any] = {
    "collateral_average_window_ms": 600_000,
    "depeg": structs.replace(DEPEG, fall_after_ms=100),
    "market_tick_interval_ms": 100,
}


@given(st.lists(st.floats(1.0, 500.0), min_size=1, max_size=5))
@settings(deadline=None, max_examples=25)
def test_guards_are_in_the_estimate(prices: list[float]) -> None:
    """A price that rises above its average, and a step from the peg, are in the estimate as they are at a barrier: it
    is never above what a barrier would say, but for what rounding down takes of each coin."""
    estimate, _, exact = looked(prices, **GUARDS)
    assert exact - 1 <= estimate <= exact + 10


def test_greeks_alone_would_have_been_far_above() -> None:
    """The unsafe side: a price above its average, and a step down, would have been missed until the block."""
    estimate, by_greeks, exact = looked([150.0, 300.0], **GUARDS)
    assert by_greeks > 1.5 * exact
    assert estimate == pytest.approx(exact, abs=10)


def test_without_guards_the_estimate_of_coins_is_exact_too() -> None:
    estimate, by_greeks, exact = looked([90.0, 140.0])
    assert estimate == by_greeks == pytest.approx(exact, abs=10)


def test_a_step_from_the_peg_between_blocks_is_warned_of_there_and_then() -> None:
    """b leans on S with a position of X; the price of S stays, its factor falls: no Greek sees it."""

    held = [coins("k0", 0, "b", "S", 18), fill("fb", 0, "b", "X-PERP", 200, 100)]
    story = Story(1_000.0, held, depeg=structs.replace(DEPEG, fall_after_ms=700))
    story.block(ticks=[spot("d1", "S", time_of(1) - 100, 0.965)])
    story.block(ticks=[spot("x1", "X", time_of(1) + 500, 100.01), spot("x2", "X", time_of(1) + 650, 100.02)])
    run = story.run()
    before, after = (margins_of(run)[n, "b"] for n in (1, 2))
    assert before["state"] == 0
    assert after["nlv_usd6"] < 0.85 * before["nlv_usd6"]
    found = [w for w in events_of(run, MARGIN_WARNINGS) if w["account"] == "b"]
    assert [(w["block"], w["trigger"], w["time_ms"]) for w in found] == [(2, "tick", time_of(1) + 650)]


# -- replayable


def test_averages_and_pegs_survive_a_checkpoint_at_any_tick() -> None:
    catalogue, p = Catalogue(), RiskParameters(collateral_average_window_ms=60_000, depeg=DEPEG)
    for listing in (underlying("S", stable=True), instrument("S", "S", "spot", 0)):
        catalogue.apply(listing)
    straight = restarted = TickState()
    for n in range(40):
        tick = spot(f"s{n:02}", "S", 700 * n, (1.0, 0.985, 0.96, 0.95, 0.999)[n // 3 % 5])
        straight.absorb(tick, catalogue, p)
        restarted = TickState.from_plain(orjson.loads(orjson.dumps(restarted.copy().to_plain())))
        restarted.absorb(tick, catalogue, p)
        rows = [state.rows(catalogue, 700 * n + 300, p).collateral for state in (straight, restarted)]
        assert rows[0].tolist() == rows[1].tolist()


def test_the_recorded_guards_survive_a_checkpoint_and_end_with_the_first_record_without_them() -> None:
    catalogue, market = Catalogue(), RecordedMarket()
    catalogue.apply(underlying("S", stable=True))
    market.fit_to(catalogue)
    spots, none = np.array([(0, 0, USD, 0)], records.SPOT_ROW), np.zeros(0, records.EXPIRY_ROW)
    market.record(records.Market(spots, none, np.array([(0, 1, USD - 1, 7)], records.COLLATERAL_ROW)), 1)
    again = RecordedMarket.from_plain(market.to_plain())
    assert (again.collateral_usd9.tolist(), again.factor_cut_e6.tolist(), again.halted.tolist()) == (
        [USD - 1], [7], [True],
    )  # fmt: skip
    guarded = again.digest(catalogue)
    again.record(records.Market(spots, none), 1)
    assert (again.factor_cut_e6.tolist(), again.halted.tolist()) == ([0], [False])
    assert again.digest(catalogue) != guarded
    plain = market.to_plain()
    for name in ("collateral_usd9", "factor_cut_e6", "halted"):
        del plain[name]  # written before there were any
    assert RecordedMarket.from_plain(plain).halted.tolist() == [False]


@pytest.mark.parametrize(
    "steps",
    [
        (DepegStep(below_usd6=9, factor_share_e6=5), DepegStep(below_usd6=9, factor_share_e6=4)),
        (DepegStep(below_usd6=9, factor_share_e6=5), DepegStep(below_usd6=8, factor_share_e6=6)),
        (DepegStep(below_usd6=9, factor_share_e6=5, halted=True), DepegStep(below_usd6=8, factor_share_e6=5)),
    ],
)
def test_steps_must_fall(steps: tuple[DepegStep, ...]) -> None:
    with pytest.raises(ValueError, match="depeg: steps must fall"):
        Depeg(steps=steps)
