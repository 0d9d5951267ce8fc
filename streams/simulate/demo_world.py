"""The world of `dpme demo`: a seeded venue of options and perpetuals that lives through a crash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec import Struct

from oracles.surface_fit import SliceE9
from schemas.events import (
    AccountEvent,
    CashMove,
    CollateralMove,
    Fill,
    ForwardTick,
    ParametersListing,
    ScenarioSetListing,
    SpotTick,
    SurfaceTick,
)
from schemas.quantities import USD9_PER_USD
from schemas.risk_parameters import RiskParameters, VenueStress, parameters_document
from streams.replay.blocks import BlockChain
from streams.replay.pricing import Pricing
from streams.replay.seeding import BUFFER_RULE, buffer_facts, seed_cash
from streams.replay.volatility import option_volatilities, scenario_set_of
from streams.replay.world import BlockInputs, World
from streams.simulate.accounts import ACCOUNT_RULE, Accounts, draw_accounts, ladder
from streams.simulate.order_flow import Moment, OrderFlow
from streams.simulate.random_walk import TICKS_PER_BLOCK, walk
from streams.simulate.smiles import scaled
from streams.simulate.venue import PRODUCTS, STABLE, Venue

NAME = "demo"
SOURCE = "demo"
BLOCK_MS = 1_000
ACCOUNTS_DEFAULT, BLOCKS_DEFAULT, SCENARIOS_DEFAULT = 500, 60, 4_096
ACCOUNTS_MIN = 20
PRICE_STEP_USD9 = 1_000_000
FLAT_CASH_USD6 = 1_000_000_000
SEEDING_RULE = ACCOUNT_RULE + " " + BUFFER_RULE


def demo_world(
    seed: int = 7,
    blocks: int = BLOCKS_DEFAULT,
    accounts: int = ACCOUNTS_DEFAULT,
    scenarios: int = SCENARIOS_DEFAULT,
    pricing: str = Pricing.BLACK76,
) -> World:
    """A function of its arguments: `blocks` blocks of a second, the genesis block 0 among them.

    Smiles start from the shipped recorded chain; prices follow `random_walk`. `scenarios` is a power of two.

    Raises:
        ValueError: fewer than 1 block or ACCOUNTS_MIN accounts.
    """
    if blocks < 1 or accounts < ACCOUNTS_MIN:
        raise ValueError(f"a demo has at least 1 block and {ACCOUNTS_MIN} accounts, not {blocks} and {accounts}")
    venue = Venue(pricing)
    symbols = venue.symbols
    scenario_set = scenario_set_of(option_volatilities(symbols, [STABLE]), seed, scenarios)
    parameters = RiskParameters(venue_stress=VenueStress())
    listings: list[Struct] = [
        ParametersListing(version=1, id="parameters", document=parameters_document(parameters)),
        *venue.listings,
        ScenarioSetListing(version=1, id="scenario-set", digest=scenario_set.digest),
    ]
    state = MarketState(venue)
    market = venue.market(state.time_ms, state.spot_usd9(), state.slices)
    prices = venue.prices_usd9(market)
    drawn = draw_accounts(venue, prices, venue.deltas_usd9(market), accounts, seed)
    events, ticks = genesis_events(venue, drawn, prices, state.time_ms), state.ticks(0, state.first_path())
    cash = seed_cash(listings, scenario_set, state.time_ms, events, ticks, seed)
    chain = BlockChain(f"{NAME}-{seed}", len(listings))
    start = chain.block(0, state.time_ms, [*events, *cash.moves(0)], ticks)
    flow = OrderFlow(venue, drawn, [ladder(venue, u, prices) for u in range(len(PRODUCTS))], seed)
    return World(
        name=NAME,
        listings=listings,
        scenario_set=scenario_set,
        parameters=parameters,
        block_count=blocks,
        blocks=_blocks(start, state, flow, chain, seed, blocks),
        facts={"source": f"seed {seed}", "accounts": accounts, **buffer_facts(cash), "seeding_rule": SEEDING_RULE},
    )


class MarketState:
    """Prices of the last tick and surfaces of the last block, as the ticks of the world tell them."""

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self.time_ms = venue.chain.time_ms
        self.log_price = np.zeros(len(PRODUCTS))
        self.stable_usd = 1.0
        self.slices = self._slices(np.zeros(len(PRODUCTS)), self.time_ms)

    def spot_usd9(self) -> list[int]:
        """Price of every underlying, the stablecoin's last."""
        return self.path_usd9(self.log_price[None, :], self.stable_usd)[0]

    def path_usd9(self, log_prices: np.ndarray, stable_usd: float) -> list[list[int]]:
        """Prices at each tick: log prices [ticks, U] -> [ticks][U + 1], on the index's grid of 0.001 USD."""
        usd9 = self.venue.start_usd * np.exp(log_prices) * USD9_PER_USD
        grid = np.rint(usd9 / PRICE_STEP_USD9).astype(np.int64) * PRICE_STEP_USD9
        return [[*row, round(stable_usd * USD9_PER_USD)] for row in grid.tolist()]

    def first_path(self) -> list[list[int]]:
        return [self.spot_usd9()]

    def _slices(self, log_level: np.ndarray, time_ms: int) -> list[SliceE9]:
        """Surface of each expiry: recorded, times the underlying's level, at the time that is left."""
        found, recorded_ms = [], self.venue.chain.time_ms
        for index, expiry in enumerate(self.venue.catalogue.expiries):
            smile = self.venue.smile(index)
            left = max(expiry.expiry_ms - time_ms, 1) / (expiry.expiry_ms - recorded_ms)
            level = self.venue.volatility_ratio[expiry.underlying] * np.exp(log_level[expiry.underlying])
            found.append(scaled(smile.slice_e9, float(level * np.sqrt(left))))
        return found

    def advance(self, log_prices: np.ndarray, stable_usd: float, log_level: np.ndarray) -> list[Moment]:
        """Go to the end of the next block -> the stretches between its ticks, with marks."""
        paths = [self.spot_usd9(), *self.path_usd9(log_prices, self.stable_usd)[:-1]]
        step = BLOCK_MS // TICKS_PER_BLOCK
        moments = []
        for place, spot_usd9 in enumerate(paths):
            begin = self.time_ms + place * step
            market = self.venue.market(begin, spot_usd9, self.slices)
            moments.append(Moment(begin, begin + step, self.venue.prices_usd9(market)))
        self.time_ms += BLOCK_MS
        self.log_price, self.stable_usd = log_prices[-1], stable_usd
        self.slices = self._slices(log_level, self.time_ms)
        return moments

    def ticks(self, number: int, path_usd9: list[list[int]]) -> list[Struct]:
        """Ticks of a block that ends now: index prices on the way, the stablecoin and all surfaces at its end."""
        found: list[Struct] = []
        step = BLOCK_MS // TICKS_PER_BLOCK
        names = [*self.venue.symbols, STABLE]
        for place, prices in enumerate(path_usd9):
            time_ms = self.time_ms - (len(path_usd9) - 1 - place) * step
            is_last = place == len(path_usd9) - 1
            for name, price in zip(names, prices):
                if is_last or name != STABLE:
                    tick = SpotTick(
                        version=1, id=f"{number}-{place}-{name}", source=SOURCE, time_ms=time_ms, underlying=name,
                        price_usd9=price,
                    )  # fmt: skip
                    found.append(tick)
        return [*found, *self._surface_ticks(number), *(self._forward_ticks(number) if number == 0 else ())]

    def _surface_ticks(self, number: int) -> list[SurfaceTick]:
        return [
            SurfaceTick(
                **self._expiry_terms(number, index, "surface"), a_e9=a, b_e9=b, rho_e9=rho, m_e9=m, sigma_e9=sigma
            )
            for index, (a, b, rho, m, sigma) in enumerate(self.slices)
        ]

    def _forward_ticks(self, number: int) -> list[ForwardTick]:
        """Carry is told once: forwards then move with their index."""
        spot_usd9, expiries = self.spot_usd9(), self.venue.catalogue.expiries
        return [
            ForwardTick(
                **self._expiry_terms(number, index, "zforward"),  # sorts after the index prices of its time
                price_usd9=round(spot_usd9[expiry.underlying] * self.venue.smile(index).forward_ratio),
            )
            for index, expiry in enumerate(expiries)
        ]

    def _expiry_terms(self, number: int, index: int, what: str) -> dict[str, Any]:
        expiry = self.venue.catalogue.expiries[index]
        name = self.venue.symbols[expiry.underlying]
        return {
            "version": 1, "id": f"{number}-{what}-{name}-{self.venue.smile(index).name}", "source": SOURCE,
            "time_ms": self.time_ms, "underlying": name, "expiry_ms": expiry.expiry_ms,
        }  # fmt: skip


def genesis_events(venue: Venue, accounts: Accounts, prices_usd9: np.ndarray, time_ms: int) -> list[AccountEvent]:
    """Positions and collateral at the beginning as events of block 0, everything at its mark."""
    events: list[AccountEvent] = []
    symbols = [instrument.symbol for instrument in venue.catalogue.instruments]
    for name, book in accounts.books.items():
        common: dict[str, Any] = {"version": 1, "block": 0, "time_ms": time_ms, "account": name}
        for i, lots in book.items():
            price = max(int(prices_usd9[i]), 1)
            fill_id = f"0-fill-{len(events):06d}"
            events.append(Fill(**common, id=fill_id, instrument=symbols[i], lots=lots, price_usd9=price))
        for i, lots in accounts.collateral[name].items():
            move_id = f"0-collateral-{len(events):06d}"
            events.append(CollateralMove(**common, id=move_id, instrument=symbols[i], lots=lots))
        if not book and not accounts.collateral[name]:  # what it drew cancelled out: it begins with cash alone
            events.append(CashMove(**common, id=f"0-deposit-{len(events):06d}", amount_usd6=FLAT_CASH_USD6))
    return events


def _blocks(
    start: BlockInputs, state: MarketState, flow: OrderFlow, chain: BlockChain, seed: int, blocks: int
) -> Iterator[BlockInputs]:
    yield start
    for number, step in zip(range(1, blocks), walk(seed, blocks)):
        path = state.path_usd9(step.log_price, step.stable_usd)
        moments = state.advance(step.log_price, step.stable_usd, step.log_level)
        yield chain.block(number, state.time_ms, flow.fills(number, moments), state.ticks(number, path))
