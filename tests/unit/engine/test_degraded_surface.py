"""A surface that jumps: the last good one stays, its expiry is degraded in-band, margins rise by the gross vega."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from engine_worlds import EXPIRY_MS, fill, option_name, spot, surface, time_of
from test_risk import Story, margins_of

from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.quantities import divide_up
from schemas.risk_parameters import RiskParameters
from schemas.topics import MARKET_LOG
from streams.engine.book import Legs
from streams.engine.margin import _degraded_charge
from streams.engine.market import RecordedMarket
from streams.engine.tables import degraded_add_ons
from streams.engine.tick_state import TickState
from streams.simulate.in_process import Pipeline

CALL = option_name(100, "call")
LEVELS = (1.0, 1.1, 4.0, 4.1, 1.05)  # of the slice's a: the third doubles the volatility


def story(levels: tuple[float, ...] = LEVELS, **parameters: Any) -> Pipeline:
    """Blocks whose surface has these levels; the account is long 200 lots of a call."""
    told = Story(1_000.0, [fill("f1", 0, "a", CALL, 200, 4.0)], **parameters)
    for n, level in enumerate(levels, start=1):
        told.block(ticks=[spot(f"s{n}", "X", time_of(n) - 200, 100), surface(f"v{n}", time_of(n) - 100, level=level)])
    return told.run()


def barriers(run: Pipeline) -> list[np.ndarray]:
    """EXPIRY_ROW[n] of every barrier."""
    found = []
    for raw in run.values(MARKET_LOG):
        header = records.read_header(raw)
        if header.kind == records.BARRIER:
            found.append(records.read_barrier(raw, header).market.expiries)
    return found


def test_the_last_good_surface_stays_until_the_move_is_believed_or_gone() -> None:
    """Volatility nearly doubles: beyond one half, held once, and believed at the second print (twice one half)."""
    rows = barriers(story())
    a_e9 = [int(row[0]["a_e9"]) for row in rows]
    assert [int(row[0]["held"]) for row in rows] == [0, 0, 0, 1, 0, 0]  # back by less than one half
    assert a_e9[3] == a_e9[2]
    assert a_e9[4] == 41_000_000


def test_no_bound_takes_every_surface() -> None:
    assert [int(row[0]["held"]) for row in barriers(story(surface_move_max_e6=0))] == [0] * 6


def test_the_add_on_is_the_governed_volatility_on_the_gross_vega() -> None:
    """Only while degraded, in MM and IM alike, and gone with it; NLV stays."""
    with_, without = margins_of(story()), margins_of(story(degraded_volatility_e6=0))
    rise = {n: with_[n, "a"]["add_ons_usd6"] - without[n, "a"]["add_ons_usd6"] for n in range(6)}
    assert [n for n in rise if rise[n]] == [3]
    for field in ("initial_margin_usd6", "maintenance_margin_usd6"):
        assert with_[3, "a"][field] - without[3, "a"][field] == pytest.approx(rise[3], abs=1)
    assert with_[3, "a"]["nlv_usd6"] == without[3, "a"]["nlv_usd6"]
    # 2 units of an at-the-money call, a month: vega 100 n(d1) sqrt(1/12) = 11.4 each, times 0.10
    assert rise[3] == pytest.approx(2 * 11.4e6 * 0.10, rel=0.02)


def test_state_and_market_survive_a_checkpoint() -> None:
    catalogue, state = Catalogue(), TickState()
    state.held[0], state.surface_ms[0], state.told[0] = 2, 5, (1, 2, 3, 4, 5)
    again = TickState.from_plain(orjson.loads(orjson.dumps(state.to_plain())))
    assert (again.held, again.surface_ms, again.told) == (state.held, state.surface_ms, state.told)
    market = RecordedMarket()
    market.expiries, market.settled = np.zeros((2, 7), np.int64), np.zeros(2, np.bool_)
    market.degraded = np.array([False, True])
    plain = market.to_plain()
    assert RecordedMarket.from_plain(plain).degraded.tolist() == [False, True]
    assert RecordedMarket.from_plain(plain).digest(catalogue) != RecordedMarket().digest(catalogue)
    del plain["degraded"]  # written before there were any
    assert RecordedMarket.from_plain(plain).degraded.tolist() == [False, False]


def test_quotes_that_give_no_slice_degrade_an_expiry_that_has_one() -> None:
    catalogue, state = Catalogue(), TickState()
    catalogue.apply({"type": "underlying", "underlying": "X"})
    catalogue.apply({
        "type": "instrument", "instrument": CALL, "underlying": "X", "kind": "call", "lot_exponent": -2,
        "expiry_ms": EXPIRY_MS, "strike_usd9": 100 * 10**9,
    })  # fmt: skip
    now = time_of(1)
    assert state.absorb(spot("s", "X", now, 100), catalogue, RiskParameters()) is None
    assert state.absorb(surface("v", now), catalogue, RiskParameters()) is None
    state.fitted(catalogue, now, RiskParameters())
    good = state.surface[0]
    bad = {"type": "quote", "instrument": CALL, "time_ms": now, "mark_usd9": 101 * 10**9}  # above the forward
    assert state.absorb(bad, catalogue, RiskParameters()) is None
    state.fitted(catalogue, now, RiskParameters())
    assert (state.surface[0], state.held[0]) == (good, 1)
    assert int(state.rows(catalogue, now, RiskParameters()).expiries[0]["held"]) == 1


def test_the_add_on_of_a_lot() -> None:
    """Rounded up once a lot, so that sums of lots are exact."""
    expiry, vega = np.array([-1, 0, 1, 1], np.int32), np.array([9, 9, 11, -11], np.int64)
    found = degraded_add_ons(expiry, np.array([False, True]), vega, RiskParameters())
    assert found is not None
    assert found.tolist() == [0, 0, divide_up(11, 10), divide_up(11, 10)]
    assert degraded_add_ons(expiry, np.array([False, False]), vega, RiskParameters()) is None


def test_the_charge_is_exact_while_an_account_fits_though_all_together_do_not() -> None:
    legs = Legs(np.array([0, 2, 2, 5]), np.array([0, 1, 0, 1, 1], np.int32), np.array([3, -(2**40), 1, -2, 5]))
    column = np.array([7, 2**22 + 1], np.int64)
    charge, magnitude = _degraded_charge(legs, column)
    assert charge.tolist() == [21 + 2**40 * (2**22 + 1), 0, 7 + 7 * (2**22 + 1)]
    assert magnitude == pytest.approx(charge.astype(float))
    many = Legs(np.arange(9), np.ones(8, np.int32), np.full(8, 2**39))
    assert _degraded_charge(many, np.array([0, 2**22], np.int64))[0].tolist() == [2**61] * 8
