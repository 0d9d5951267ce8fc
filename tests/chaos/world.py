"""A seeded world of two underlyings, small enough for two cores: everything of it is a function of its arguments.

Prices wander about their start with falls of a few percent, so that accounts warn, are called, flagged and released;
quotes are fitted now and then, one expiry is settled under way, perpetuals are funded, owners move cash, coins and
positions between subaccounts, and a few bad events are declared by their blocks. The chain may reorganise: a block
whose parent is not the one before it begins another branch.
"""

from __future__ import annotations

import hashlib
import random
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
    Funding,
    InstrumentListing,
    ParametersListing,
    QuoteTick,
    ScenarioSetListing,
    SpotTick,
    SurfaceTick,
    Transfer,
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
FINALITY_BLOCKS = RiskParameters().finality_depth_blocks
BLOCKS_PER_REORGANISATION = 25


def scenario_set(size: int) -> ScenarioSet:
    """Two stressed underlyings and a stable coin."""
    volatilities = FactorVolatilities.from_annual(
        np.array([0.6, 0.8, 0.05]), np.array([0.9, 0.9]), np.array([0.3, 0.3]), np.array([0.02, 0.02]), 3600
    )
    correlation = default_correlation(default_spot_correlation(0, [None, None, 0.1]), [0, 1])
    return draw_scenario_set(("BTC", "ETH", "USDC"), ("BTC", "ETH"), volatilities, correlation, seed=1, scenarios=size)


def chaos_world(
    seed: int, blocks: int, accounts: int = 90, events: int = 3_000, scenarios: int = 256, reorganises: bool = False
) -> World:
    """`events`: fills, moves and bad events over all blocks but the first, which seeds the book. `blocks`: announced,
    those of branches left included."""
    scenario = scenario_set(scenarios)
    first_ms = START_MS + blocks * BLOCK_MS // (4 if reorganises else 2)
    expiries_ms = [first_ms, START_MS + 7 * DAY_MS, START_MS + FITTED_DAYS * DAY_MS]
    instruments = _instruments(expiries_ms)
    listings: list[Struct] = [
        *(UnderlyingListing(version=1, id=f"u-{u}", underlying=u, stable=u == "USDC") for u in PRICES_USD),
        ParametersListing(version=1, id="parameters", document=parameters_document(RiskParameters())),
        ScenarioSetListing(version=1, id="scenarios", digest=scenario.digest),
        *instruments,
    ]
    made = _Blocks(np.random.default_rng(seed), instruments, expiries_ms, accounts, len(listings))
    per_block = -(-events // max(blocks - 1, 1))
    depths = _depths(random.Random(seed), blocks) if reorganises else {}
    return World(f"chaos{seed}", listings, scenario, RiskParameters(), blocks, made.all(blocks, per_block, depths))


def _depths(chance: random.Random, blocks: int) -> dict[int, int]:
    """After which announcements the chain reorganises, and how deep: mostly little, the last time to finality."""
    found, first = {}, min(5, blocks - 2)
    for place in sorted(chance.sample(range(first, blocks - 2), max(2, blocks // BLOCKS_PER_REORGANISATION))):
        found[place] = int(FINALITY_BLOCKS ** chance.random())
    found[max(found)] = FINALITY_BLOCKS
    return found


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

    def all(self, blocks: int, per_block: int, depths: dict[int, int]) -> Iterator[BlockInputs]:
        """`depths`: announcement -> how many blocks the chain then loses. Ticks belong to no branch: they come once."""
        chain: list[Block] = []
        highest = 0  # what is final behind it stays final
        ticks_of: dict[int, list[Any]] = {}
        for place in range(blocks):
            number = len(chain)
            time_ms, own_hash = START_MS + number * BLOCK_MS, _hash(number, place)
            events = self._trades(number, time_ms, per_block, own_hash) if number else self._seed(time_ms, own_hash)
            fresh = number not in ticks_of
            ticks = ticks_of.setdefault(number, self._ticks(number, time_ms) if fresh else [])
            block = Block(
                version=1, number=number, hash=own_hash, parent_hash=chain[-1].hash if chain else NO_PARENT,
                time_ms=time_ms, event_count=len(events), tick_count=len(ticks), listing_count=self.listings,
            )  # fmt: skip
            chain.append(block)
            yield BlockInputs(block, events, ticks if fresh else [])
            highest = max(highest, number)
            del chain[max(1, highest + 1 - FINALITY_BLOCKS, len(chain) - depths.get(place, 0)) :]

    def _seed(self, time_ms: int, own_hash: str) -> list[Any]:
        events: list[Any] = []
        for account in range(self.accounts):
            cash_usd6 = int(self.rng.uniform(200, 20_000) * 1e6)
            common: dict[str, Any] = {
                "version": 1, "block": 0, "block_hash": own_hash, "time_ms": time_ms, "account": f"account-{account}"
            }  # fmt: skip
            events.append(CashMove(id=f"cash-{account}", amount_usd6=cash_usd6, **common))
            for leg in range(5):
                events.append(self._trade(f"seed-{account}-{leg}", common, 300))
        return events

    def _trades(self, number: int, time_ms: int, count: int, own_hash: str) -> list[Any]:
        """Ids are those of the block's number: on another branch the same transactions are mined again, or others."""
        events: list[Any] = []
        for at in range(count):
            account = f"account-{self.rng.integers(self.accounts)}"
            when_ms = time_ms - int(self.rng.integers(BLOCK_MS - 50))
            common: dict[str, Any] = {
                "version": 1, "block": number, "block_hash": own_hash, "time_ms": when_ms, "account": account
            }  # fmt: skip
            events.append(self._event(f"event-{number}-{at}", common, self.rng.random()))
        return events

    def _event(self, name: str, common: dict[str, Any], draw: float) -> Any:
        if draw < 0.02:
            return {"type": "fill", "id": name, **common, "instrument": "BTC-PERP", "lots": "many"}
        if draw < 0.04:
            return Fill(id=name, instrument="NOT-LISTED", lots=1, price_usd9=10**9, **common)
        if draw < 0.14:
            return CashMove(id=name, amount_usd6=int(self.rng.uniform(-500, 1_500) * 1e6), **common)
        if draw < 0.15:
            coin = ("BTC", "ETH")[self.rng.integers(2)]
            amount_usd9 = int(PRICES_USD[coin] * self.level * self.rng.uniform(-1e-4, 1e-4) * 1e9)
            nobody = {field: value for field, value in common.items() if field != "account"}
            return Funding(id=name, instrument=f"{coin}-PERP", amount_usd9=amount_usd9, **nobody)
        if draw < 0.18:
            return self._transfer(name, common)
        return self._trade(name, common, 30)

    def _transfer(self, name: str, common: dict[str, Any]) -> Transfer:
        """To the owner's other subaccount: cash, coins, or a position at its mark."""
        moved: list[dict[str, Any]] = [
            {"amount_usd6": int(self.rng.uniform(1, 300) * 1e6)},
            {"instrument": "ETH", "lots": int(self.rng.integers(1, 9_000))},
            {"instrument": "BTC-PERP", "lots": 3, "price_usd9": int(PRICES_USD["BTC"] * self.level * 1e9)},
        ]
        return Transfer(id=name, to=common["account"] + "/other", **moved[self.rng.integers(3)], **common)

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


def _hash(number: int, place: int) -> str:
    """Of the block announced at this place."""
    return "0x" + hashlib.blake2b(f"chaos:{number}:{place}".encode(), digest_size=32).hexdigest()
