"""A seeded world of two underlyings, small enough for two cores: everything of it is a function of its arguments.

Prices wander about their start with falls of a few percent, so that accounts warn, are called, flagged and released;
quotes are fitted now and then, one expiry is settled under way, and a few bad events are declared by their blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec import Struct

from oracles.scenario_set import (
    FactorVolatilities,
    ScenarioSet,
    default_correlation,
    default_spot_correlation,
    draw_scenario_set,
)
from schemas.events import (
    Block,
    CashMove,
    CollateralMove,
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
from schemas.risk_parameters import RiskParameters, parameters_document
from streams.replay.world import BlockInputs, World

START_MS = 1_700_000_000_000
BLOCK_MS = 1_000
DAY_MS = 86_400_000
PRICES_USD = {"BTC": 40_000, "ETH": 2_000, "USDC": 1}
MONEYNESS = (0.8, 0.9, 1.0, 1.1, 1.2)
FITTED_DAYS, QUOTE_EVERY_BLOCKS = 30, 15
NO_PARENT = "0x" + "0" * 64


def scenario_set(size: int) -> ScenarioSet:
    """Two stressed underlyings and a stable coin."""
    volatilities = FactorVolatilities.from_annual(
        np.array([0.6, 0.8, 0.05]), np.array([0.9, 0.9]), np.array([0.3, 0.3]), np.array([0.02, 0.02]), 3600
    )
    correlation = default_correlation(default_spot_correlation(0, [None, None, 0.1]), [0, 1])
    return draw_scenario_set(("BTC", "ETH", "USDC"), ("BTC", "ETH"), volatilities, correlation, seed=1, scenarios=size)


def chaos_world(seed: int, blocks: int, accounts: int = 90, events: int = 3_000, scenarios: int = 256) -> World:
    """`events`: fills, moves and bad events over all blocks but the first, which seeds the book."""
    scenario = scenario_set(scenarios)
    expiries_ms = [START_MS + blocks * BLOCK_MS // 2, START_MS + 7 * DAY_MS, START_MS + FITTED_DAYS * DAY_MS]
    instruments = _instruments(expiries_ms)
    listings: list[Struct] = [
        *(UnderlyingListing(version=1, id=f"u-{u}", underlying=u, stable=u == "USDC") for u in PRICES_USD),
        ParametersListing(version=1, id="parameters", document=parameters_document(RiskParameters())),
        ScenarioSetListing(version=1, id="scenarios", digest=scenario.digest),
        *instruments,
    ]
    made = _Blocks(np.random.default_rng(seed), instruments, expiries_ms, accounts, len(listings))
    per_block = -(-events // max(blocks - 1, 1))
    return World(f"chaos{seed}", listings, scenario, RiskParameters(), blocks, made.all(blocks, per_block))


def _instruments(expiries_ms: list[int]) -> list[InstrumentListing]:
    made = []
    for name in ("BTC", "ETH"):
        common: dict[str, Any] = {"version": 1, "underlying": name}
        perpetual, coin = f"{name}-PERP", name
        made.append(InstrumentListing(id=perpetual, instrument=perpetual, kind="perpetual", lot_exponent=-3, **common))
        made.append(
            InstrumentListing(
                id=f"coin-{coin}", instrument=coin, kind="spot", lot_exponent=-6, collateral_factor_e6=950_000, **common
            )
        )
        for number, expiry_ms in enumerate(expiries_ms):
            for share in MONEYNESS:
                strike = int(PRICES_USD[name] * share)
                for kind in ("call", "put"):
                    option = f"{name}-{number}-{strike}-{kind}"
                    made.append(
                        InstrumentListing(
                            id=option,
                            instrument=option,
                            kind=kind,
                            lot_exponent=-2,
                            expiry_ms=expiry_ms,
                            strike_usd9=strike * 10**9,
                            **common,
                        )
                    )
    return made


class _Blocks:
    """Draws block after block; `level` is the common price factor."""

    def __init__(
        self, rng: np.random.Generator, instruments: list[InstrumentListing], expiries_ms: list[int], accounts: int,
        listings: int,
    ) -> None:  # fmt: skip
        self.rng, self.instruments, self.expiries_ms = rng, instruments, expiries_ms
        self.accounts, self.listings, self.level = accounts, listings, 1.0

    def all(self, blocks: int, per_block: int) -> Iterator[BlockInputs]:
        parent = NO_PARENT
        for number in range(blocks):
            time_ms = START_MS + number * BLOCK_MS
            events = self._trades(number, time_ms, per_block) if number else self._seed(time_ms)
            ticks = self._ticks(number, time_ms)
            block = Block(
                version=1, number=number, hash=_hash(number), parent_hash=parent, time_ms=time_ms,
                event_count=len(events), tick_count=len(ticks), listing_count=self.listings,
            )  # fmt: skip
            parent = block.hash
            yield BlockInputs(block, events, ticks)

    def _seed(self, time_ms: int) -> list[Any]:
        events: list[Any] = []
        for account in range(self.accounts):
            cash_usd6 = int(self.rng.uniform(200, 20_000) * 1e6)
            common: dict[str, Any] = {"version": 1, "block": 0, "time_ms": time_ms, "account": f"account-{account}"}
            events.append(CashMove(id=f"cash-{account}", amount_usd6=cash_usd6, **common))
            for leg in range(5):
                events.append(self._trade(f"seed-{account}-{leg}", common, 300))
        return events

    def _trades(self, number: int, time_ms: int, count: int) -> list[Any]:
        events: list[Any] = []
        for at in range(count):
            account = f"account-{self.rng.integers(self.accounts)}"
            when_ms = time_ms - int(self.rng.integers(BLOCK_MS - 50))
            common: dict[str, Any] = {"version": 1, "block": number, "time_ms": when_ms, "account": account}
            name, draw = f"event-{number}-{at}", self.rng.random()
            if draw < 0.02:
                events.append({"type": "fill", "id": name, **common, "instrument": "BTC-PERP", "lots": "many"})
            elif draw < 0.04:
                events.append(Fill(id=name, instrument="NOT-LISTED", lots=1, price_usd9=10**9, **common))
            elif draw < 0.14:
                events.append(CashMove(id=name, amount_usd6=int(self.rng.uniform(-500, 1_500) * 1e6), **common))
            else:
                events.append(self._trade(name, common, 30))
        return events

    def _trade(self, name: str, common: dict[str, Any], most_lots: int) -> Any:
        instrument = self.instruments[self.rng.integers(len(self.instruments))]
        if instrument.kind == "spot":
            lots = int(self.rng.integers(1, 100_000))
            return CollateralMove(id=name, instrument=instrument.instrument, lots=lots, **common)
        factor = self.level if instrument.kind == "perpetual" else 0.05
        price_usd9 = int(PRICES_USD[instrument.underlying] * factor * 1e9)
        lots = int(self.rng.integers(-most_lots, most_lots)) or 1
        return Fill(id=name, instrument=instrument.instrument, lots=lots, price_usd9=price_usd9, **common)

    def _ticks(self, number: int, time_ms: int) -> list[Any]:
        if not number:
            return [*self._spots("0", time_ms), *self._surfaces(time_ms)]
        ticks: list[Any] = []
        for part, when_ms in enumerate((time_ms - 500, time_ms)):
            fall = 0.03 if self.rng.random() < 0.02 else 0.0
            self.level *= float(np.exp(self.rng.normal(0, 0.005) - 0.02 * np.log(self.level) - fall))
            ticks += self._spots(f"{number}-{part}", when_ms)
        if number % QUOTE_EVERY_BLOCKS == 0:
            ticks += self._quotes(number, time_ms)
        return ticks

    def _spots(self, name: str, time_ms: int) -> list[Any]:
        made = []
        for underlying, price_usd in PRICES_USD.items():
            factor = 1.0 if underlying == "USDC" else self.level
            price_usd9 = int(price_usd * factor * 1e9)
            made.append(
                SpotTick(
                    version=1,
                    id=f"spot-{underlying}-{name}",
                    source="index",
                    time_ms=time_ms,
                    underlying=underlying,
                    price_usd9=price_usd9,
                )
            )
        return made

    def _surfaces(self, time_ms: int) -> list[Any]:
        made = []
        for underlying in ("BTC", "ETH"):
            for number, expiry_ms in enumerate(self.expiries_ms):
                years = (expiry_ms - START_MS) / (365 * DAY_MS)
                made.append(
                    SurfaceTick(
                        version=1,
                        id=f"surface-{underlying}-{number}",
                        source="index",
                        time_ms=time_ms,
                        underlying=underlying,
                        expiry_ms=expiry_ms,
                        a_e9=int(0.29 * years * 1e9),
                        b_e9=int(0.1 * np.sqrt(years) * 1e9),
                        rho_e9=-200_000_000,
                        m_e9=0,
                        sigma_e9=100_000_000,
                    )
                )
        return made

    def _quotes(self, number: int, time_ms: int) -> list[Any]:
        """A forward and out-of-the-money marks of one expiry: the sequencer fits a slice to them."""
        expiry_ms = self.expiries_ms[-1]
        common: dict[str, Any] = {"version": 1, "source": "venue", "time_ms": time_ms}
        forward_usd9 = int(PRICES_USD["BTC"] * self.level * 1e9)
        made: list[Any] = [
            ForwardTick(
                id=f"forward-{number}", underlying="BTC", expiry_ms=expiry_ms, price_usd9=forward_usd9, **common
            )
        ]
        for instrument in self.instruments:
            if instrument.underlying != "BTC" or instrument.expiry_ms != expiry_ms:
                continue
            strike = (instrument.strike_usd9 or 0) / forward_usd9
            if (instrument.kind == "call") == (strike > 1):
                distance = abs(np.log(strike)) / 0.17  # 60 % a year over 30 days
                mark = 0.07 * float(np.exp(-distance * (1 + distance / 4))) * self.rng.uniform(0.98, 1.02)
                mark_usd9 = max(1, int(mark * forward_usd9))
                made.append(
                    QuoteTick(
                        id=f"quote-{number}-{instrument.instrument}",
                        instrument=instrument.instrument,
                        mark_usd9=mark_usd9,
                        **common,
                    )
                )
        return made


def _hash(number: int) -> str:
    return "0x" + hashlib.blake2b(f"chaos:{number}".encode(), digest_size=32).hexdigest()
