"""Settlement averages, funding, transfers and the share of open gains: hand-made cases with their numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import orjson
import pytest
from engine_worlds import DAY_MS, cash, coins, fill, funding, instrument, spot, time_of, transfer
from hypothesis import assume, given
from hypothesis import strategies as st
from test_risk import Story, done_of, margins_of

from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.quantities import ONE_E6, divide_half_even, notional_usd6
from schemas.risk_parameters import RiskParameters
from schemas.topics import ACCOUNT_LOG, QUARANTINE
from streams.engine.book import Book
from streams.engine.sequence import partition_of
from streams.engine.settlement import Window
from streams.engine.tick_state import TickState

USD = 10**9

# -- settlement


def price_at(expiry_ms: int, window_ms: int, ticks: list[tuple[int, float]]) -> int:
    """Settlement price, nano-USD, of an expiry of one underlying after these (time, USD) ticks."""
    catalogue, state = Catalogue(), TickState()
    parameters = RiskParameters(settlement_window_ms=window_ms)
    catalogue.apply({"type": "underlying", "underlying": "X"})
    catalogue.apply(instrument("F", "X", "future", expiry_ms=expiry_ms))
    for n, (time_ms, price) in enumerate(ticks):
        assert state.absorb(spot(f"{n:04}", "X", time_ms, price), catalogue, parameters) is None
        state = TickState.from_plain(orjson.loads(orjson.dumps(state.copy().to_plain())))
    (row,) = state.settlements(catalogue, expiry_ms + 60_000, window_ms)
    state.settle(np.array([row]))
    assert not state.windows
    return int(row["price_usd9"])


@pytest.mark.parametrize(
    ("window_ms", "ticks", "expected_usd"),
    [
        (1_000, [(0, 100)], 100),  # the last tick stands, however old
        (1_000, [(0, 100), (9_500, 200)], 150),  # half the window each
        (1_000, [(0, 50), (9_000, 100), (10_000, 900)], 100),  # a tick at the expiry has no time left
        (1_000, [(0, 50), (9_000, 100), (12_000, 900)], 100),  # nor has one behind it
        (1_000, [(9_750, 100), (9_875, 200)], 150),  # none before the window: from its first tick on
        (1_000, [(9_200, 100), (9_600, 200), (9_600, 300)], 200),  # of two at one time the last counts
        (1_000, [(10_000, 70), (11_000, 80)], 70),  # the first tick comes with the expiry: nothing to average
        (1_000, [(11_000, 80)], 80),  # nothing until the expiry: the first one after it
        (0, [(0, 100), (9_999, 200), (10_001, 300)], 200),  # window 0: last recorded index
        (0, [(0, 100), (10_000, 250), (10_001, 300)], 250),
        (20_000, [(0, 100), (5_000, 300)], 200),  # longer than what is known
    ],
)
def test_settlement_price(window_ms: int, ticks: list[tuple[int, float]], expected_usd: float) -> None:
    assert price_at(10_000, window_ms, ticks) == expected_usd * USD


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 10**15)), min_size=1, max_size=12), st.integers(0, 900))
def test_average_is_the_mean_of_the_price_in_every_millisecond(steps: list[tuple[int, int]], window_ms: int) -> None:
    """The slow twin looks at each millisecond of the window."""
    expiry_ms, time_ms, ticks = 1_000, 0, []
    for gap, price_usd9 in steps:
        time_ms += gap
        ticks.append((time_ms, price_usd9))
    window = Window()
    for (since, price), until in zip(ticks, [t for t, _ in ticks[1:]] + [max(time_ms, expiry_ms)], strict=True):
        window = window.counting(price, (since, until), expiry_ms, window_ms)
    seen = [
        max((t, n) for n, (t, _) in enumerate(ticks) if t <= ms)[1]
        for ms in range(expiry_ms - window_ms, expiry_ms)
        if ticks[0][0] <= ms
    ]
    expected = divide_half_even(sum(ticks[n][1] for n in seen), len(seen)) if seen else -1
    assert window.average_usd9(-1) == expected


def test_the_window_is_governed_and_the_log_has_the_price() -> None:
    """Of the second before the expiry, which began in the block before, half was at 100, half at 140."""
    expiry_ms = time_of(2) - 400
    story = Story(settlement_window_ms=1_000)
    story.list(instrument("X-NEAR", "X", "future", expiry_ms=expiry_ms))
    story.block([100.0], [fill("n1", 1, "b", "X-NEAR", 300, 100), fill("n2", 1, "c", "X-NEAR", -300, 100)])
    story.block([], [], [spot("e1", "X", time_of(2) - 900, 140), spot("e2", "X", time_of(2) - 300, 500)])
    run = story.run()
    barrier = [raw for raw in run.logs[ACCOUNT_LOG, 0] if raw[1] == records.BARRIER][-1]
    (row,) = records.read_barrier(barrier, records.read_header(barrier)).settlements
    assert int(row["price_usd9"]) == 120 * USD
    rows = margins_of(run)
    assert [rows[2, a]["nlv_usd6"] for a in "bc"] == [60_000_000, -60_000_000]


# -- funding


def test_longs_pay_shorts_and_the_residue_has_what_rounding_took() -> None:
    """0.0000015 a unit on 0.01 units a lot: 3 lots pay 0.045 micro-USD, rounded to nothing; 700 receive 10.5 -> 10."""
    story = Story()
    events = [
        *(fill(f"f{a}", 1, a, "Y-PERP", lots, 10) for a, lots in (("l", 697), ("m", 3), ("s", -700))),
        funding("n", 1, "Y-PERP", 0.0000015),
    ]
    story.block([], events)
    run = story.run()
    book = run.risks[0].book
    assert {a: int(book.cash()[book.row_of[a]]) for a in "lms"} == {"l": -10, "m": 0, "s": 10}
    assert book.residue_usd21 == 0
    assert [(d["events"], d["halted"]) for d in done_of(run)][-1] == (4, "")


def test_funding_stands_in_the_order_of_fills() -> None:
    """Who buys before it pays, who buys after it does not; a closed position pays nothing."""
    story = Story()
    at = {name: time_of(0) + ms for name, ms in (("before", 100), ("funding", 200), ("after", 300))}
    events = [
        fill("f1", 1, "before", "Y-PERP", 100, 10, time_ms=at["before"]),
        fill("f2", 1, "closed", "Y-PERP", 100, 10, time_ms=at["before"]),
        fill("f3", 1, "closed", "Y-PERP", -100, 10, time_ms=at["before"] + 1),
        funding("n", 1, "Y-PERP", 0.5, time_ms=at["funding"]),
        fill("f4", 1, "after", "Y-PERP", 100, 10, time_ms=at["after"]),
    ]
    story.block([], events)
    book = story.run().risks[0].book
    assert {a: int(book.cash()[book.row_of[a]]) for a in ("before", "closed", "after")} == {
        "before": -500_000, "closed": 0, "after": 0,
    }  # fmt: skip


def test_funding_reaches_every_partition_once_and_a_repeat_nobody() -> None:
    story = Story()
    accounts = [f"h{n}" for n in range(8)]
    story.block([], [fill(f"f{a}", 1, a, "Y-PERP", 100, 10) for a in accounts])
    paid = funding("n", 2, "Y-PERP", 0.25)
    story.block([], [paid])
    story.inputs.add("account.fills", paid, 1)
    story.block([])
    run = story.run(4)
    assert run.values(QUARANTINE) == []
    assert [d["events"] for d in done_of(run) if d["block"] == 2] == [1, 1, 1, 1]
    for risk in run.risks:
        assert set(risk.book.cash()[[risk.book.row_of[a] for a in accounts if a in risk.book.row_of]]) <= {-250_000}
    assert run.sequencer.intake.repeats == 1


def test_funding_can_trigger_a_warning() -> None:
    """It takes 9 of the 30 USD of margin of one who was not named by any event."""
    story = Story()
    story.block([100.0], [funding("n", 1, "X-PERP", 9.9, time_ms=time_of(0) + 50)])
    story.block([100.0], [funding("m", 2, "X-PERP", 9.9, time_ms=time_of(1) + 50)])
    story.block([100.0], [funding("o", 3, "X-PERP", 9.9, time_ms=time_of(2) + 50)])
    found = [e for v in story.run().values("margin.warnings") for e in orjson.loads(v)["events"]]
    assert [(w["account"], w["trigger"], w["margin"]["nlv_usd6"]) for w in found] == [("a", "fill", 300_000)]


@given(
    st.lists(st.integers(-(2**50), 2**50) | st.integers(-2_000, 2_000), max_size=8),
    st.integers(-(10**14), 10**14) | st.integers(-999, 999).map(lambda n: 500 * n),
    st.integers(-12, 6),
)
def test_funding_of_many_is_that_of_each(lots: list[int], amount_usd9: int, exponent: int) -> None:
    """Arrays or Python integers: the same money and the same residue."""
    many, each = Book(), Book()
    paid = [notional_usd6(n, amount_usd9, exponent) for n in lots]
    assume(all(abs(p) < 2**62 for p in paid))
    assert many._paid_each_usd6(np.array(lots, np.int64), amount_usd9, exponent).tolist() == paid
    assert [each._paid_usd6(n, amount_usd9, exponent) for n in lots] == paid
    exact = sum(Fraction(n * amount_usd9) * Fraction(10) ** (exponent + 12) for n in lots)
    assert many.residue_usd21 == each.residue_usd21 == sum(paid) * 10**15 - exact


# -- transfers


def test_transfers_move_cash_coins_and_positions_between_partitions() -> None:
    """Both sides in one block, whole; a position moves at its price and takes no profit along."""
    sub = next(f"a/{n}" for n in range(99) if partition_of(f"a/{n}", 4) != partition_of("a", 4))
    story = Story(extra=[coins("k", 0, "a", "X", 50)])
    events = [
        transfer("m1", 1, "a", sub, amount_usd6=7_000_000),
        transfer("m2", 1, "a", sub, instrument="X", lots=20),
        transfer("m3", 1, "a", sub, instrument="X-PERP", lots=40, price_usd9=110 * USD),
    ]
    story.block([110.0], events)
    story.inputs.add("account.fills", events[2], 2)  # a repeat
    story.block([])
    run = story.run(4)
    rows = margins_of(run)
    assert sum(d["events"] for d in done_of(run) if d["block"] == 1) == 6
    # a: 30 + 100 lots from 100 -> 40 closed at 110: +4 cash, 60 lots +6 open, 30 coins at 110 x 0.9
    assert rows[1, "a"]["nlv_usd6"] == 30_000_000 - 7_000_000 + 4_000_000 + 6_000_000 + 29_700_000
    assert rows[1, sub]["nlv_usd6"] == 7_000_000 + 19_800_000
    total = sum(rows[1, account]["equity_usd6"] for account in ("a", sub))
    assert total == 30_000_000 + 10_000_000 + 55_000_000
    assert {key: row for key, row in rows.items() if key[0] == 2}.keys() == {(2, "a"), (2, sub)}
    assert all(rows[2, a]["nlv_usd6"] == rows[1, a]["nlv_usd6"] for a in ("a", sub))


def test_each_subaccount_is_margined_alone() -> None:
    """A hedge in another subaccount is no hedge."""
    story = Story(cash_usd=1_000)
    story.block([], [fill("f1", 1, "a/hedge", "X-PERP", -100, 100), fill("f2", 1, "b", "X-PERP", 1, 100)])
    rows = margins_of(story.run())
    assert min(rows[1, a]["initial_margin_usd6"] for a in ("a", "a/hedge")) > 5_000_000


# -- gains


@pytest.mark.parametrize(("share_e6", "counted"), [(ONE_E6, 10_000_000), (250_000, 2_500_000), (0, 0)])
def test_open_gains_count_by_their_share(share_e6: int, counted: int) -> None:
    story = Story(unrealised_gain_share_e6=share_e6)
    story.block([110.0])
    row = margins_of(story.run())[1, "a"]
    assert (row["nlv_usd6"], row["equity_usd6"]) == (30_000_000 + counted, 40_000_000)


def test_losses_count_in_full_and_legs_are_netted_first() -> None:
    """a loses 10 on X; b gains 10 on X and loses 10 on Y; c gains 10 on X and loses 4 on Y: half of 6 counts."""
    extra = [
        fill("b1", 0, "b", "X-PERP", -100, 100), fill("b2", 0, "b", "Y-PERP", 1_000, 11),
        fill("c1", 0, "c", "X-PERP", -100, 100), fill("c2", 0, "c", "Y-PERP", 400, 11),
    ]  # fmt: skip
    story = Story(extra=extra, unrealised_gain_share_e6=500_000)
    story.block([90.0])
    rows = margins_of(story.run())
    assert [rows[1, a]["nlv_usd6"] for a in "abc"] == [20_000_000, 0, 3_000_000]
    assert rows[1, "c"]["equity_usd6"] == 6_000_000


def test_realised_gains_and_options_are_no_open_gains() -> None:
    story = Story(extra=[coins("k", 0, "d", "X", 100)], unrealised_gain_share_e6=0)
    story.block([110.0], [fill("close", 1, "a", "X-PERP", -100, 110)])
    rows = margins_of(story.run())
    assert rows[1, "a"]["nlv_usd6"] == 40_000_000
    assert rows[1, "d"]["nlv_usd6"] == 99_000_000


def test_wide_accounts_have_the_same_share() -> None:
    extra = [fill("w", 0, "whale", "X-PERP", 2**31 + 7, 100), cash("cw", 0, "whale", 5 * 10**8)]
    rows = {}
    for share_e6 in (ONE_E6, 300_000):
        story = Story(extra=extra, unrealised_gain_share_e6=share_e6)
        story.block([110.0])
        rows[share_e6] = margins_of(story.run())[1, "whale"]
    gain = (2**31 + 7) * 100_000
    assert rows[ONE_E6]["wide"]
    assert rows[ONE_E6]["nlv_usd6"] - rows[300_000]["nlv_usd6"] == gain * 7 // 10 + (gain * 7 % 10 > 0)


def test_a_day_is_the_longest_window() -> None:
    assert Story(settlement_window_ms=DAY_MS).run().values(QUARANTINE) == []
    assert len(Story(settlement_window_ms=DAY_MS + 1).run().values(QUARANTINE)) == 1
