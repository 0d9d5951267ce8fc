"""The gate's answers against what the engine then decides, and the rules of a call."""

from __future__ import annotations

import pytest
from engine_worlds import cash, coins, fill, listings, option_name, time_of
from test_risk import Story, feed, machine, margins_of, place_of

from schemas import log_records as records
from schemas import refusals
from schemas.decisions import Margin
from schemas.risk_parameters import RiskParameters
from schemas.topics import ACCOUNT_LOG
from streams.engine import gate as g
from streams.engine.risk import Risk
from streams.engine.tables import TableCache

ONE = 10**9


def state_of(story: Story) -> Risk:
    return story.run().risks[0]


def ask(story: Story, request: g.Request) -> g.Answer:
    return g.gate(state_of(story), request)


def excess_usd6(margin: Margin) -> int:
    return margin.nlv_usd6 - margin.initial_margin_usd6


def test_all_above_initial_margin_may_leave_and_one_micro_usd_more_may_not() -> None:
    story = Story()
    answer = ask(story, g.CashWithdrawal("a", 1))
    assert (answer.allowed, answer.reason, answer.missing_usd6) == (True, "", 0)
    assert answer.before is not None
    free = excess_usd6(answer.before)
    assert free > 0
    whole, more = (ask(story, g.CashWithdrawal("a", free + n)) for n in (0, 1))
    assert (whole.allowed, more.allowed, more.reason, more.missing_usd6) == (True, False, g.MARGIN, 1)


def test_answer_is_what_the_next_block_decides() -> None:
    """Perpetuals and coins have no time value: at the same prices the executed request has the promised numbers."""
    requests = [
        (g.Order("a", "Y-PERP", -700, 9_987_654_321), fill("e", 1, "a", "Y-PERP", -700, 9.987654321)),
        (g.CollateralWithdrawal("a", "X", 20), coins("e", 1, "a", "X", -20)),
        (g.CashWithdrawal("a", 1_234_567), cash("e", 1, "a", -1.234567)),
    ]
    for request, executed in requests:
        story = Story(extra=[coins("k", 0, "a", "X", 50)], unrealised_gain_share_e6=400_000)
        answer = ask(story, request)
        assert answer.after is not None
        story.block([], [executed])
        row = margins_of(story.run())[1, "a"]
        shown = {name: getattr(answer.after, name) for name in Margin.__struct_fields__ if name.endswith("usd6")}
        assert {name: row[name] for name in shown} == shown


def test_in_a_call_only_orders_that_reduce_risk_pass() -> None:
    margin = ask(Story(), g.CashWithdrawal("a", 1)).before
    assert margin is not None
    story = Story(cash_usd=margin.initial_margin_usd6 / 1e6 - 0.5)
    sell, buy = (g.Order("a", "X-PERP", lots, 100 * ONE) for lots in (-10, 10))
    assert margins_of(story.run())[0, "a"]["state"] == 1
    assert ask(story, sell).allowed
    assert (ask(story, buy).allowed, ask(story, buy).reason) == (False, g.IN_CALL)
    assert ask(story, g.CashWithdrawal("a", 1)).reason == g.IN_CALL
    given_away = ask(story, g.Order("a", "X-PERP", -10, 50 * ONE))
    assert (given_away.allowed, given_away.reason) == (False, g.IN_CALL)
    turned = ask(story, g.Order("a", "X-PERP", -300, 100 * ONE))
    assert (turned.allowed, turned.reason) == (False, g.IN_CALL)


def test_order_that_breaks_initial_margin_is_refused_and_a_hedge_is_not() -> None:
    story = Story()
    assert ask(story, g.Order("a", "X-PERP", 1_000, 100 * ONE)).reason == g.MARGIN
    assert ask(story, g.Order("a", "X-PERP", -100, 100 * ONE)).allowed
    assert ask(story, g.Order("a", option_name(100, "put"), 100, 5 * ONE)).allowed


def test_market_between_blocks_counts() -> None:
    """Asked after a tick that took the margin away, before any block says so."""
    story = Story()
    story.block([75.0])
    log = story.run().logs[ACCOUNT_LOG, 0]
    risk = machine()
    feed(risk, log[: place_of(log, records.MARKET, 1)])
    assert g.gate(risk, g.CashWithdrawal("a", 1)).allowed
    feed(risk, log[place_of(log, records.MARKET, 1) : place_of(log, records.BARRIER, 1)])
    answer = g.gate(risk, g.CashWithdrawal("a", 1))
    assert (answer.allowed, answer.reason, answer.block, answer.time_ms) == (False, g.IN_CALL, 0, time_of(0) + 150)


def test_requests_that_are_none() -> None:
    story = Story()
    cases = [
        (g.CashWithdrawal("a", 0), refusals.OUT_OF_RANGE),
        (g.CashWithdrawal("a", -5), refusals.OUT_OF_RANGE),
        (g.CollateralWithdrawal("a", "X-PERP", 5), refusals.WRONG_KIND),
        (g.Order("a", "Z", 5, ONE), refusals.UNKNOWN_INSTRUMENT),
        (g.CashWithdrawal("nobody", 1), g.MARGIN),
    ]
    assert [ask(story, request).reason for request, _ in cases] == [reason for _, reason in cases]


def test_no_answer_before_the_first_margin() -> None:
    risk = Risk(0, TableCache({}.__getitem__))
    risk._list(listings(RiskParameters()))
    assert g.gate(risk, g.CashWithdrawal("a", 1)).reason == g.NO_MARGIN


@pytest.mark.parametrize("lots", [-30, 250])
def test_partial_fills_of_an_allowed_order_are_allowed(lots: int) -> None:
    story = Story(cash_usd=60.0)
    assert ask(story, g.Order("a", "X-PERP", lots, 100 * ONE)).allowed
    for part in range(1, 10):
        assert ask(story, g.Order("a", "X-PERP", lots * part // 10, 100 * ONE)).allowed


def test_the_state_is_not_changed() -> None:
    risk = state_of(Story())
    before = risk.dump()
    g.gate(risk, g.Order("a", "Y-PERP", 5, 10 * ONE))
    assert risk.dump() == before
