"""Runs every kernel once on a tiny world: compiled code is then cached, and loaded in a supervisor before it forks."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles.scenario_set import FactorVolatilities, default_correlation, draw_scenario_set
from schemas.events import (
    Block,
    CashMove,
    Fill,
    ForwardTick,
    InstrumentListing,
    ParametersListing,
    QuoteTick,
    ScenarioSetListing,
    SpotTick,
    SurfaceTick,
    UnderlyingListing,
)
from schemas.risk_parameters import RiskParameters, VenueStress, parameters_document
from streams.simulate.in_process import Pipeline

GENESIS_MS = 1_700_000_000_000
EXPIRIES_MS = (GENESIS_MS + 7 * 86_400_000, GENESIS_MS + 30 * 86_400_000)
STRIKES_USD = (70, 80, 90, 100, 110, 120, 130)
HASHES = tuple("0x" + f"{n:064x}" for n in range(4))


def warm() -> None:
    """Three blocks with options, a perpetual, a coin, quotes, a market tick and a breach."""
    volatilities = FactorVolatilities(*(np.full(1, v) for v in (0.01, 0.02, 0.01, 0.001)))
    scenario_set = draw_scenario_set(
        ("X",), ("X",), volatilities, default_correlation(np.eye(1), [0]), seed=1, scenarios=64
    )
    pipeline = Pipeline({scenario_set.digest: scenario_set}, partitions=1)
    listings = _listings(scenario_set.digest)
    pipeline.push_listings(listings)
    for number in range(3):
        events, ticks = _events(number), _ticks(number)
        block = Block(
            version=1, number=number, hash=HASHES[number + 1], parent_hash=HASHES[number], time_ms=_time(number),
            event_count=len(events), tick_count=len(ticks), listing_count=len(listings),
        )  # fmt: skip
        pipeline.push_block(block, events, ticks)


def _time(number: int) -> int:
    return GENESIS_MS + 1_000 * number


def _name(kind: str, strike: int, expiry_ms: int) -> str:
    return f"{kind}{strike}-{expiry_ms}"


def _listings(digest: str) -> list:
    common: dict[str, Any] = {"version": 1, "underlying": "X", "lot_exponent": -3}
    found: list = [UnderlyingListing(version=1, id="u", underlying="X")]
    found.append(InstrumentListing(**common, id="p", instrument="perpetual", kind="perpetual"))
    found.append(InstrumentListing(**common, id="c", instrument="spot", kind="spot"))
    for expiry_ms in EXPIRIES_MS:
        for strike in STRIKES_USD:
            option = {**common, "expiry_ms": expiry_ms, "strike_usd9": strike * 10**9}
            call, put = _name("call", strike, expiry_ms), _name("put", strike, expiry_ms)
            found.append(InstrumentListing(**option, id=call, instrument=call, kind="call"))
            found.append(InstrumentListing(**option, id=put, instrument=put, kind="put"))
    # so that rows that keep a bound, and the stress of the venue, run too
    everything = parameters_document(RiskParameters(bound_accounts_min=1, venue_stress=VenueStress()))
    found.append(ParametersListing(version=1, id="r", document=everything))
    return [*found, ScenarioSetListing(version=1, id="s", digest=digest)]


def _events(number: int) -> list:
    def fill(name: str, lots: int, price_usd: float, account: str = "a") -> Fill:
        return Fill(
            version=1, id=f"{number}{name}{account}", block=number, time_ms=_time(number), account=account,
            instrument=name, lots=lots, price_usd9=round(price_usd * 1e9),
        )  # fmt: skip

    if number:
        return [fill("perpetual", 10, 100.0)]
    cash = CashMove(version=1, id="c", block=0, time_ms=_time(0), account="a", amount_usd6=60_000_000)
    near, far = EXPIRIES_MS
    wide = fill("perpetual", 2**39, 100.0, "wide")
    return [cash, fill("perpetual", 1_000, 100.0), fill(_name("call", 100, near), -500, 3.0), wide,
            fill(_name("put", 90, far), 500, 2.0)]  # fmt: skip


def _ticks(number: int) -> list:
    time_ms, price = _time(number), (100, 97, 60)[number] * 10**9
    spot = SpotTick(version=1, id=f"s{number}", source="warm", time_ms=time_ms - 300, underlying="X", price_usd9=price)
    near, far = EXPIRIES_MS
    slice_far = SurfaceTick(
        version=1, id=f"v{number}", source="warm", time_ms=time_ms, underlying="X", expiry_ms=far,
        a_e9=10_000_000 + number, b_e9=50_000_000, rho_e9=-100_000_000, m_e9=0, sigma_e9=100_000_000,
    )  # fmt: skip
    if number:
        return [spot, slice_far]
    forward = ForwardTick(
        version=1, id="f", source="warm", time_ms=time_ms, underlying="X", expiry_ms=near, price_usd9=101 * 10**9
    )
    quotes = [
        QuoteTick(
            version=1,
            id=f"q{kind}{strike}",
            source="warm",
            time_ms=time_ms,
            instrument=_name(kind, strike, near),
            mark_usd9=round(max(0.05, 3.0 - abs(strike - 101) / 10) * 10**9),
        )
        for strike in STRIKES_USD
        for kind in ("call", "put")
    ]
    return [spot, forward, slice_far, *quotes]
