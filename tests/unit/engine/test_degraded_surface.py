"""A surface that jumps: the last good one stays, its expiry is degraded in-band, margins rise by the gross vega."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from engine_worlds import EXPIRY_MS, cash, fill, option_name, spot, surface, time_of
from test_risk import Story, margins_of

from kernels import layout
from schemas import log_records as records
from schemas.catalogue import Catalogue
from schemas.decisions import STATES
from schemas.quantities import divide_up
from schemas.risk_parameters import Reporter, RiskParameters, SpotReporters
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
    """Rounded up once a lot, so that sums of lots are exact; of a surface by the vega, of an index by the delta."""
    kind = np.array([layout.PERPETUAL, layout.CALL, layout.CALL, layout.PUT, layout.SPOT], np.int8)
    underlying, expiry = np.array([0, 1, 0, 0, 1], np.int32), np.array([-1, 0, 1, 1, -1], np.int32)
    ones = np.ones(5)
    instruments = layout.InstrumentTable(kind, underlying, expiry, ones, ones, ones, ones > 0)
    greeks = np.array([[50, 0, 9, 0], [30, 0, 9, 0], [0, 0, 11, 0], [-8, 0, -11, 0], [9, 0, 0, 0]], np.int64)
    market, governed = RecordedMarket(), SpotReporters(reporters=(Reporter(source="a"),), degraded_move_e6=100_000)
    market.degraded, market.spot_degraded = np.array([False, True]), np.array([False, False])
    found = degraded_add_ons(instruments, market, greeks, RiskParameters())
    assert found is not None
    assert found.tolist() == [0, 0, divide_up(11, 10), divide_up(11, 10), 0]
    market.spot_degraded = np.array([False, True])
    found = degraded_add_ons(instruments, market, greeks, RiskParameters(spot_reporters=governed))
    assert found is not None
    assert found.tolist() == [0, 3, divide_up(11, 10), divide_up(11, 10), 1]
    market.degraded[:] = market.spot_degraded[:] = False
    assert degraded_add_ons(instruments, market, greeks, RiskParameters(spot_reporters=governed)) is None


# -- nobody is liquidated by it alone


def degraded_call(cash_usd: float, version: int = records.VERSION, lots: int = 200) -> dict[int, dict[str, Any]]:
    """Margins by block of an account with this cash and 2 units of a call, its surface degraded in block 3; `version`:
    of every record."""
    told = Story(
        1_000.0, [cash("cb", 0, "b", cash_usd), fill("f1", 0, "b", CALL, lots, 4.0)], degraded_volatility_e6=10**6
    )
    for n, level in enumerate(LEVELS, start=1):
        told.block(ticks=[spot(f"s{n}", "X", time_of(n) - 200, 100), surface(f"v{n}", time_of(n) - 100, level=level)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "VERSION", version)
        run = told.run()
    return {n: row for (n, account), row in margins_of(run).items() if account == "b"}


def test_who_is_below_maintenance_by_a_degraded_surface_alone_is_called_not_liquidated() -> None:
    """A microdollar below MM without the add-on it is liquidated; degraded or not."""
    rich = degraded_call(1_000.0)[3]
    add_on = rich["add_ons_usd6"] - degraded_call(1_000.0)[2]["add_ons_usd6"]
    assert add_on > 10**6
    line_usd = 1_000.0 - (rich["nlv_usd6"] - (rich["maintenance_margin_usd6"] - add_on)) / 10**6
    for cash_usd, state in ((line_usd + 1e-5, "margin_call"), (line_usd - 1e-5, "liquidatable")):
        found = degraded_call(cash_usd)[3]
        assert found["nlv_usd6"] < found["maintenance_margin_usd6"] == rich["maintenance_margin_usd6"]
        assert found["state"] == STATES.index(state)


def test_records_of_an_older_version_keep_their_rule() -> None:
    """A log from before replays as it was: then the add-on liquidated too."""
    rich = degraded_call(1_000.0)[3]
    cash_usd = 1_000.0 - (rich["nlv_usd6"] - rich["maintenance_margin_usd6"]) / 10**6 - 0.5
    states = [degraded_call(cash_usd, version)[3]["state"] for version in (2, 3)]
    assert states == [STATES.index("liquidatable"), STATES.index("margin_call")]


def test_a_whale_is_spared_as_anyone() -> None:
    """Sums beyond int64 take the other path of the decision."""
    lots = 2**33
    rich = degraded_call(10**9, lots=lots)[3]
    assert rich["wide"]
    cash_usd = 10**9 - (rich["nlv_usd6"] - rich["maintenance_margin_usd6"]) / 10**6 - 1
    assert degraded_call(cash_usd, lots=lots)[3]["state"] == STATES.index("margin_call")


def test_the_charge_is_exact_while_an_account_fits_though_all_together_do_not() -> None:
    legs = Legs(np.array([0, 2, 2, 5]), np.array([0, 1, 0, 1, 1], np.int32), np.array([3, -(2**40), 1, -2, 5]))
    column = np.array([7, 2**22 + 1], np.int64)
    charge, magnitude = _degraded_charge(legs, column)
    assert charge.tolist() == [21 + 2**40 * (2**22 + 1), 0, 7 + 7 * (2**22 + 1)]
    assert magnitude == pytest.approx(charge.astype(float))
    many = Legs(np.arange(9), np.ones(8, np.int32), np.full(8, 2**39))
    assert _degraded_charge(many, np.array([0, 2**22], np.int64))[0].tolist() == [2**61] * 8
