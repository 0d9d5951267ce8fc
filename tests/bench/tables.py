"""Tables of a block: rows of untouched underlyings taken over from the last block, against all of them built anew.

A venue of 187 coins with a perpetual each, half of them collateral too, and 400 options on the first; the engine's own
path from the recorded market to P&L, stress rows, marks and Greeks. In a block the clock runs on by a second and a few
coins move. One core.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from oracles.scenario_set import FactorVolatilities, default_correlation, draw_scenario_set
from schemas.catalogue import Catalogue
from schemas.log_records import EXPIRY_ROW, SPOT_ROW, Market
from schemas.risk_parameters import RiskParameters
from streams.engine.market import RecordedMarket
from streams.engine.tables import Tables, build_tables, scenario_table_of
from tests.bench.rows import Row, checksum, peak_memory_mb, side_by_side

COINS, STRIKES, EXPIRIES = 187, 50, 4
BEGIN_MS, DAY_MS, ONE_E9 = 1_700_000_000_000, 86_400_000, 10**9


def rows(small: bool) -> Iterator[Row]:
    """Blocks in which few, half and all of the coins move; with options and without."""
    coins, scenarios = (12, 256) if small else (COINS, 4_096)
    for strikes in (0, 4 if small else STRIKES):
        venue = catalogue(coins, strikes)
        for moved in (5, coins // 2, coins):
            yield _block(venue, moved, scenarios, small)


def catalogue(coins: int, strikes: int) -> Catalogue:
    """C0 has the options; every other coin is collateral."""
    listings: list[dict] = []
    for n in range(coins):
        listings.append({"type": "underlying", "underlying": f"C{n}"})
        listings.append(_instrument(f"C{n}-PERP", f"C{n}", "perpetual"))
        if n % 2 == 0:
            listings.append(_instrument(f"C{n}", f"C{n}", "spot", collateral_factor_e6=900_000))
    for e in range(EXPIRIES):
        for k in range(strikes):
            expiry, strike = BEGIN_MS + DAY_MS * 7 * (e + 1), round((0.6 + 0.8 * k / strikes) * 100) * ONE_E9
            for kind in ("call", "put"):
                terms = {"expiry_ms": expiry, "strike_usd9": strike}
                listings.append(_instrument(f"C0-{e}-{k}-{kind}", "C0", kind, **terms))
    return Catalogue.from_listings(listings)


def _instrument(name: str, underlying: str, kind: str, **terms: int) -> dict:
    return {
        "type": "instrument",
        "instrument": name,
        "underlying": underlying,
        "kind": kind,
        "lot_exponent": -2,
        **terms,
    }


def _market(venue: Catalogue, moved: int, time_ms: int) -> RecordedMarket:
    """Every price is 100, but those of the last coins (and the first, if all move) are 101."""
    market = RecordedMarket()
    market.fit_to(venue)
    count = len(venue.underlyings)
    price = np.where(np.arange(count) >= count - moved, 101, 100) * ONE_E9
    spots = np.array([(u, 0, p, 0) for u, p in enumerate(price.tolist())], SPOT_ROW)
    smile = (int(price[0]), 0, 6_000_000, 30_000_000, -200_000_000, 0, 200_000_000)
    expiries = np.array([(e, 0, *smile) for e in range(len(venue.expiries))], EXPIRY_ROW)
    market.record(Market(spots, expiries), time_ms)
    return market


def _block(venue: Catalogue, moved: int, scenarios: int, small: bool) -> Row:
    names, options = [u.symbol for u in venue.underlyings], len(venue.expiries) > 0
    one = np.full(1, 0.05)
    drawn = draw_scenario_set(
        names, names[:1], FactorVolatilities(np.full(len(names), 0.03), one, one, 0.02 * one),
        default_correlation(np.full((len(names),) * 2, 0.6) + 0.4 * np.eye(len(names)), [0]), seed=1,
        scenarios=scenarios,
    )  # fmt: skip
    table, parameters = scenario_table_of(drawn, venue), RiskParameters()
    before = build_tables(venue, _market(venue, 0, BEGIN_MS), parameters, table)
    now = _market(venue, moved, BEGIN_MS + 1_000)

    def work(known: Tables | None) -> Tables:
        return build_tables(venue, now, parameters, table, before=known)

    timings = side_by_side(
        lambda: work(before), lambda: work(None), repeats=2 if small else 15, clock=time.process_time
    )
    found, anew = work(before), work(None)
    count = len(found.instruments.kind)
    return Row(
        name=f"tables of a block, {moved} of {len(names)} coins moved" + (", living options" if options else ""),
        value=round(timings.seconds[0] * 1e3, 3), unit="ms", ratio=round(timings.ratios[1], 2),
        peer=f"all rows built anew ({timings.seconds[1] * 1e3:.2f} ms)", goal="the same bits",
        ok=found.digest == anew.digest and bool((found.greeks_usd9 == anew.greeks_usd9).all()),
        size=f"{found.reused} of {count} rows taken over, {scenarios} scenarios", memory_mb=peak_memory_mb(),
        checksum=checksum(found.pnl.values, found.stress, found.columns_usd9),
    )  # fmt: skip
