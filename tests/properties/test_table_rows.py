"""Rows taken over from the last tables are those that tables built anew have, to the bit, whatever happens between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
from engine_worlds import DAY_MS, EXPIRY_MS, GENESIS_MS, instrument, listings, option, scenario_set, underlying
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.catalogue import Catalogue
from schemas.log_records import EXPIRY_ROW, SPOT_ROW, Market
from schemas.risk_parameters import Crowding, RiskParameters
from streams.agents.risk import RiskFactory
from streams.engine.market import RecordedMarket
from streams.engine.tables import TableCache, Tables, build_tables

ONE = 10**9
SETS = {s.digest: s for s in (scenario_set(), scenario_set(2))}
NEAR_MS = GENESIS_MS + DAY_MS
LINEAR_ROWS = 5
"""Of the genesis: perpetuals on X and Y, a future and a coin on X, a coin of S."""


class Venue:
    """A market that changes step by step, with a cache that sees every step."""

    def __init__(self) -> None:
        self.catalogue = Catalogue.from_listings([*listings(), option(100, "call", NEAR_MS)])
        self.market, self.parameters, self.cache = RecordedMarket(), RiskParameters(), TableCache(SETS.__getitem__)
        self.digest = next(iter(SETS))
        self.market.fit_to(self.catalogue)
        self.tick({0: 100.0, 1: 10.0, 2: 1.0}, {0: 100.0, 1: 100.5}, GENESIS_MS)

    def tick(self, spot_usd: dict[int, float], forward_usd: dict[int, float], time_ms: int, level: float = 1.0) -> None:
        spots = np.array([(u, 0, round(price * ONE), 0) for u, price in spot_usd.items()], SPOT_ROW)
        smiles = [
            (e, 0, round(forward * ONE), 0, round(6e6 * level), 30_000_000, -200_000_000, 0, 200_000_000)
            for e, forward in forward_usd.items()
        ]
        self.market.record(Market(spots, np.array(smiles, EXPIRY_ROW)), time_ms)

    def later(self, milliseconds: int) -> None:
        self.market.time_ms += milliseconds

    def list(self, listing: dict) -> None:
        if self.catalogue.refusal(listing) is None:
            self.catalogue.apply(listing)
            self.market.fit_to(self.catalogue)

    def tables(self) -> Tables:
        return self.cache.get(self.catalogue, self.market, self.parameters, self.digest)

    def anew(self) -> Tables:
        scenarios = self.cache.scenarios(self.digest, self.catalogue)
        return build_tables(self.catalogue, self.market, self.parameters, scenarios)


def assert_same(found: Tables, expected: Tables) -> None:
    for field in fields(Tables):
        if field.name in ("reused", "scenarios", "inputs"):
            continue
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        if not isinstance(mine, tuple):
            mine, theirs = (mine,), (theirs,)
        for one, other in zip(mine, theirs, strict=True):
            assert np.asarray(one).dtype == np.asarray(other).dtype
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), field.name
    assert found.inputs is not None
    assert expected.inputs is not None
    assert np.array_equal(found.inputs.guarded_usd9, expected.inputs.guarded_usd9)
    assert all(np.array_equal(*columns) for columns in zip(found.inputs.shocks, expected.inputs.shocks, strict=True))
    assert found.digest == expected.digest


def change(venue: Venue, draw: st.DrawFn) -> None:
    """One of the things that may happen between two tables."""
    price = st.sampled_from([1.0, 9.5, 10.0, 101.0, 250.0])
    what = draw(st.integers(0, 11))
    if what <= 2:
        now = venue.market.time_ms + draw(st.sampled_from([0, 0, 1_000]))
        underlyings = draw(st.dictionaries(st.integers(0, 2), price, max_size=2))
        expiries = draw(st.dictionaries(st.integers(0, 1), price, max_size=1))
        venue.tick(underlyings, expiries, now, draw(st.sampled_from([1.0, 1.0, 1.3])))
    elif what == 3:
        venue.later(draw(st.sampled_from([1, 12_000, DAY_MS, EXPIRY_MS - GENESIS_MS])))
    elif what == 4:
        venue.list(option(draw(st.integers(70, 90)), draw(st.sampled_from(["call", "put"]))))
    elif what == 5:
        name = draw(st.sampled_from(["Z", "W"]))
        venue.list(underlying(name, parts={"X": 1_000_000} if name == "W" else {}))
        venue.list(instrument(f"{name}-PERP", name, "perpetual"))
        venue.tick({venue.catalogue.underlying_index[name]: draw(price)}, {}, venue.market.time_ms)
    elif what == 6:
        venue.market.settled[draw(st.integers(0, 1))] ^= True
    elif what == 7:
        venue.digest = draw(st.sampled_from(list(SETS)))
    elif what == 8:
        venue.market.collateral_usd9[draw(st.integers(0, 2))] = round(draw(price) * 0.95 * ONE)
        venue.market.factor_cut_e6[draw(st.integers(0, 2))] = draw(st.sampled_from([0, 250_000]))
    elif what == 9:
        venue.market.degraded[draw(st.integers(0, 1))] ^= True
    else:
        rows = RiskParameters().stress_rows
        venue.parameters = replace(
            venue.parameters,
            stress_rows=draw(st.sampled_from([rows, rows[:7], rows[1:8]])),
            crowding=draw(st.sampled_from([(), (Crowding(underlying="X", factor_e6=500_000),)])),
        )


@given(st.data())
@settings(max_examples=40)
def test_taken_over_is_built_anew(data: st.DataObject) -> None:
    venue = Venue()
    venue.tables()
    for _ in range(data.draw(st.integers(1, 8))):
        change(venue, data.draw)
        assert_same(venue.tables(), venue.anew())


def test_rows_of_untouched_underlyings_are_not_priced_again() -> None:
    venue = Venue()
    first = venue.tables()
    count = len(first.instruments.kind)
    assert (venue.cache.rows_priced, venue.cache.rows_reused, first.reused) == (count, 0, 0)
    venue.tick({1: 11.0}, {}, GENESIS_MS)  # Y alone, in the same millisecond
    assert venue.tables().reused == count - 1
    venue.later(1_000)  # the clock runs on: living options are priced, nothing else
    assert venue.tables().reused == LINEAR_ROWS
    venue.tick({0: 101.0}, {0: 101.0}, venue.market.time_ms)  # Y-PERP and the coin of S stand; so does the near option
    assert venue.tables().reused == 3
    venue.list(option(75, "put"))
    assert venue.tables().reused == count
    reused = (count - 1) + LINEAR_ROWS + 3 + count
    priced = 5 * count + 1 - reused
    assert RiskFactory(venue.cache).counts() == {"table_rows_priced": priced, "table_rows_reused": reused}


def test_what_has_expired_is_not_priced_again() -> None:
    venue = Venue()
    venue.later(2 * DAY_MS)  # the near option is at its payoff
    venue.tables()
    venue.later(1_000)
    assert venue.tables().reused == LINEAR_ROWS + 1


def test_nothing_is_shared_that_the_next_tables_write() -> None:
    venue = Venue()
    first = venue.tables()
    bits = first.pnl.values.tobytes(), first.stress.tobytes(), first.greeks_usd9.tobytes()
    venue.tick({0: 130.0}, {0: 131.0}, GENESIS_MS)
    venue.tables()
    assert (first.pnl.values.tobytes(), first.stress.tobytes(), first.greeks_usd9.tobytes()) == bits


def test_the_digest_of_new_tables_is_taken_aside_once() -> None:
    venue, asked = Venue(), list[Callable[[], object]]()
    venue.cache.aside = asked.append
    first = venue.tables()
    assert (venue.tables(), len(asked)) == (first, 1)
    assert asked[0]() == first.digest == venue.anew().digest
