"""What the demo venue lists: options and perpetuals of three underlyings, collateral coins, a stablecoin."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import orjson
from msgspec import UNSET, Struct, UnsetType

from kernels.instrument_greeks import instrument_greeks
from kernels.reprice import marks
from oracles.surface_fit import SliceE9
from schemas.catalogue import Catalogue
from schemas.events import InstrumentListing, Jumps, UnderlyingListing
from schemas.log_records import EXPIRY_ROW, SPOT_ROW, Market
from schemas.quantities import USD9_PER_USD
from streams.engine.market import RecordedMarket
from streams.replay.pricing import Pricing, jump_terms_of, jumps_of
from streams.replay.seeding import encode_all
from streams.replay.volatility import HOURLY_VOLATILITY, WITH_HISTORY
from streams.simulate.smiles import RecordedChain, Smile, recorded_chain

STABLE = "USDC"
STRIKE_RATIOS = (0.70, 0.80, 0.90, 0.95, 1.00, 1.05, 1.10, 1.20, 1.30)
COIN_FACTOR_E6, STABLE_FACTOR_E6 = 950_000, 990_000


class Product(NamedTuple):
    """An underlying that is traded. `price_usd` 0 stands for the recorded chain's index.

    `lot_exponent` is of options and perpetual, `coin_lot_exponent` of the collateral coin (0: no collateral).
    """

    symbol: str
    price_usd: float
    strike_step_usd: int
    lot_exponent: int
    coin_lot_exponent: int
    expiries: int


PRODUCTS = (
    Product("BTC", 44_000.0, 500, -3, -5, 4),
    Product("ETH", 0.0, 25, -2, -4, 4),
    Product("SOL", 96.0, 1, 0, 0, 2),
)


class Venue:
    """The listings, and marks of everything listed at a market. Instruments by their catalogue index."""

    def __init__(self, pricing: str = Pricing.BLACK76) -> None:
        self.jumps = jumps_of(pricing)
        self.chain: RecordedChain = recorded_chain(jump_terms_of(self.jumps))
        self.symbols = [product.symbol for product in PRODUCTS]
        self.start_usd = np.array([product.price_usd or self.chain.index_usd for product in PRODUCTS])
        self.volatility_ratio = [_volatility_ratio(symbol) for symbol in self.symbols]
        self.listings = self._listings()
        self.catalogue = Catalogue()
        for listing in _plain(self.listings):
            self.catalogue.apply(listing)
        self.lot_exponents = self.catalogue.columns().lot_exponent

    def index_of(self, instrument: str) -> int:
        return self.catalogue.instrument_index[instrument]

    def options(self, underlying: int) -> list[int]:
        """Indices of the options of an underlying."""
        listed = enumerate(self.catalogue.instruments)
        return [i for i, x in listed if x.underlying == underlying and x.kind in ("call", "put")]

    def smile(self, expiry: int) -> Smile:
        """The recorded smile that a listed expiry's surface is scaled from."""
        expiry_ms = self.catalogue.expiries[expiry].expiry_ms
        return next(smile for smile in self.chain.smiles if smile.expiry_ms == expiry_ms)

    def market(self, time_ms: int, spot_usd9: list[int], slices: list[SliceE9]) -> RecordedMarket:
        """The market of prices (by underlying, stablecoin last) and slices (by expiry), as the engine records it."""
        spots = np.zeros(len(spot_usd9), SPOT_ROW)
        for row, price in enumerate(spot_usd9):
            spots[row] = (row, 0, price, 0)
        expiries = np.zeros(len(slices), EXPIRY_ROW)
        for row, surface in enumerate(slices):
            forward = round(spot_usd9[self.catalogue.expiries[row].underlying] * self.smile(row).forward_ratio)
            expiries[row] = (row, 0, forward, 0, *surface)
        found = RecordedMarket()
        found.fit_to(self.catalogue)
        found.record(Market(spots, expiries), time_ms)
        return found

    def prices_usd9(self, market: RecordedMarket) -> np.ndarray:
        """Mark of one unit of every instrument, int64[I] nano-USD; the rounding of a lot's mark is kept."""
        mark_usd9, _ = marks(market.instrument_table(self.catalogue), market.market_table(self.catalogue))
        found: np.ndarray = mark_usd9 * 10 ** (-self.lot_exponents)
        return found

    def deltas_usd9(self, market: RecordedMarket) -> np.ndarray:
        """Delta of one lot of every instrument (per +100 % spot), int64[I] nano-USD."""
        table = instrument_greeks(market.instrument_table(self.catalogue), market.market_table(self.catalogue))
        return table.delta_usd9

    # -- listings

    def _listings(self) -> list[Struct]:
        found: list[Struct] = [_underlying(symbol, False, self.jumps) for symbol in self.symbols]
        found.append(_underlying(STABLE, True))
        for product, start_usd in zip(PRODUCTS, self.start_usd):
            found.append(_instrument(perpetual(product.symbol), product.symbol, "perpetual", product.lot_exponent))
            if product.coin_lot_exponent:
                coin = {"lot_exponent": product.coin_lot_exponent, "collateral_factor_e6": COIN_FACTOR_E6}
                found.append(_instrument(product.symbol, product.symbol, "spot", **coin))
            found += self._options(product, start_usd)
        return [*found, _instrument(STABLE, STABLE, "spot", 0, collateral_factor_e6=STABLE_FACTOR_E6)]

    def _options(self, product: Product, start_usd: float) -> list[InstrumentListing]:
        found = []
        step = product.strike_step_usd
        for smile in self.chain.smiles[: product.expiries]:
            for strike in sorted({round(start_usd * ratio / step) * step for ratio in STRIKE_RATIOS}):
                terms = {"expiry_ms": smile.expiry_ms, "strike_usd9": strike * USD9_PER_USD}
                for kind in ("call", "put"):
                    name = f"{product.symbol}-{smile.name}-{strike}-{kind[0].upper()}"
                    found.append(_instrument(name, product.symbol, kind, product.lot_exponent, **terms))
        return found


def perpetual(symbol: str) -> str:
    """Name of an underlying's perpetual."""
    return f"{symbol}-PERP"


def _underlying(symbol: str, stable: bool, jumps: Jumps | UnsetType = UNSET) -> UnderlyingListing:
    return UnderlyingListing(version=1, id=f"underlying-{symbol}", underlying=symbol, stable=stable, jumps=jumps)


def _instrument(name: str, underlying: str, kind: Any, lot_exponent: int, **terms: Any) -> InstrumentListing:
    return InstrumentListing(
        version=1, id=f"instrument-{name}", instrument=name, underlying=underlying, kind=kind,
        lot_exponent=lot_exponent, **terms,
    )  # fmt: skip


def _volatility_ratio(symbol: str) -> float:
    """Recorded hourly volatility of an underlying over that of the recorded chain's."""
    history = dict(zip(WITH_HISTORY, HOURLY_VOLATILITY.tolist()))
    return history[symbol] / history["ETH"]


def _plain(listings: list[Struct]) -> list[dict]:
    found: list[dict] = orjson.loads(encode_all(listings))
    return found
