"""The recorded market: integers as they came from the log, and the float tables that the kernels read."""

from __future__ import annotations

import hashlib

import numpy as np

from kernels.layout import CALL, InstrumentTable, MarketTable
from schemas.catalogue import Catalogue
from schemas.log_records import SPARES_DEGRADED, VERSION, Market
from schemas.quantities import LOT_EXPONENT_MIN, MILLISECONDS_PER_YEAR, ONE_E6, ONE_E9, USD9_PER_USD

EXPIRY_FIELDS = ("forward_usd9", "rate_e9", "a_e9", "b_e9", "rho_e9", "m_e9", "sigma_e9")
COLLATERAL_FIELDS = ("collateral_usd9", "factor_cut_e6", "halted")
UNDERLYING_FIELDS = (*COLLATERAL_FIELDS, "spot_degraded")

JUMP_UNITS = np.array([ONE_E6, ONE_E9, ONE_E9], np.float64)
LOT_SIZES = np.array([1.0 / 10**-e if e < 0 else float(10**e) for e in range(LOT_EXPONENT_MIN, 7)])


class RecordedMarket:
    """Latest recorded integers per underlying and expiry; 0 where nothing was recorded yet."""

    def __init__(self) -> None:
        self.time_ms = 0
        self.spot_usd9 = np.zeros(0, np.int64)
        self.volatility_e9 = np.zeros(0, np.int64)
        self.expiries = np.zeros((0, len(EXPIRY_FIELDS)), np.int64)
        self.settled = np.zeros(0, np.bool_)
        self.degraded = np.zeros(0, np.bool_)  # surfaces held back: the slice is the last good one
        self.spot_degraded = np.zeros(
            0, np.bool_
        )  # indexes whose reporters are no quorum: the price is the last good one
        self.spares_degraded = True  # does the version of the record spare who is below MM by degraded oracles alone?
        self.collateral_usd9 = np.zeros(0, np.int64)  # what coins count at, at most; 0: their spot
        self.factor_cut_e6 = np.zeros(0, np.int64)  # of their collateral factors
        self.halted = np.zeros(0, np.bool_)  # coins that nothing new may lean on

    def copy(self) -> RecordedMarket:
        twin = RecordedMarket()
        twin.time_ms, twin.spares_degraded = self.time_ms, self.spares_degraded
        for name in ("spot_usd9", "volatility_e9", "expiries", "settled", "degraded", *UNDERLYING_FIELDS):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    def fit_to(self, catalogue: Catalogue) -> None:
        """Room for everything listed."""
        underlyings, expiries = len(catalogue.underlyings), len(catalogue.expiries)
        if underlyings > len(self.spot_usd9):
            self.spot_usd9 = np.resize(np.append(self.spot_usd9, np.zeros(underlyings, np.int64)), underlyings)
            self.volatility_e9 = np.resize(np.append(self.volatility_e9, np.zeros(underlyings, np.int64)), underlyings)
            for name in UNDERLYING_FIELDS:
                known = getattr(self, name)
                setattr(self, name, np.append(known, np.zeros(underlyings - len(known), known.dtype)))
        missing = expiries - len(self.expiries)
        if missing > 0:
            self.expiries = np.vstack([self.expiries, np.zeros((missing, len(EXPIRY_FIELDS)), np.int64)])
            self.settled = np.append(self.settled, np.zeros(missing, np.bool_))
            self.degraded = np.append(self.degraded, np.zeros(missing, np.bool_))

    def record(self, market: Market, time_ms: int, version: int = VERSION) -> None:
        """Take the rows of a market tick or barrier; `version`: the record's."""
        self.time_ms, self.spares_degraded = time_ms, version >= SPARES_DEGRADED
        self.spot_degraded[market.spots["underlying"]] = market.spots["held"] > 0
        self.spot_usd9[market.spots["underlying"]] = market.spots["spot_usd9"]
        self.volatility_e9[market.spots["underlying"]] = market.spots["volatility_e9"]
        if len(market.expiries):  # a tick of prices alone is the usual one
            for column, name in enumerate(EXPIRY_FIELDS):
                self.expiries[market.expiries["expiry"], column] = market.expiries[name]
            self.degraded[market.expiries["expiry"]] = market.expiries["held"] > 0
        for name in COLLATERAL_FIELDS:
            getattr(self, name)[:] = 0  # every record has all that is guarded
        if len(market.collateral):
            coins = market.collateral["underlying"]
            for name, field in zip(COLLATERAL_FIELDS, ("price_usd9", "factor_cut_e6", "halted"), strict=True):
                getattr(self, name)[coins] = market.collateral[field]

    def digest(self, catalogue: Catalogue) -> bytes:
        """Identity of this market with what is listed: equal digests give equal tables."""
        h = hashlib.blake2b(digest_size=16)
        h.update(np.array([self.time_ms, len(catalogue.instruments)], np.int64).tobytes())
        for part in (self.spot_usd9, self.expiries, self.settled):
            h.update(part.tobytes())
        if self.degraded.any():
            h.update(self.degraded.tobytes())
        if self.spot_degraded.any():
            h.update(self.spot_degraded.tobytes() + b"spots")
        if not self.spares_degraded:
            h.update(b"degraded oracles liquidate")
        if self.collateral_usd9.any() or self.factor_cut_e6.any():
            h.update(self.collateral_usd9.tobytes() + self.factor_cut_e6.tobytes())
        return h.digest()

    # -- tables

    def guarded_usd9(self) -> np.ndarray:
        """int64[U,2]: spot, and the price that a coin held counts at, at most (0: its spot)."""
        return np.stack([self.spot_usd9, self.collateral_usd9], axis=1)

    def market_table(self, catalogue: Catalogue) -> MarketTable:
        """Floats for the kernels: one division each."""
        columns = catalogue.columns()
        remaining_ms = np.maximum(columns.expiry_ms - self.time_ms, 0)
        return MarketTable(
            spot=self.spot_usd9 / float(USD9_PER_USD),
            forward=self.expiries[:, 0] / float(USD9_PER_USD),
            svi=np.ascontiguousarray(self.expiries[:, 2:] / float(ONE_E9)),
            rate=self.expiries[:, 1] / float(ONE_E9),
            years=remaining_ms / float(MILLISECONDS_PER_YEAR),
            expiry_underlying=columns.expiry_underlying,
            jumps=columns.jumps / JUMP_UNITS,
        )

    def instrument_table(self, catalogue: Catalogue) -> InstrumentTable:
        """Everything listed; alive = has a price and is not settled (an option also needs its surface)."""
        columns = catalogue.columns()
        kind, underlying, expiry = columns.kind, columns.underlying, columns.expiry
        alive = self.spot_usd9[underlying] > 0
        dated = expiry >= 0
        if dated.any():
            slot = expiry[dated]
            priced = (self.expiries[slot, 0] > 0) & ~self.settled[slot]
            has_surface = (self.expiries[slot, 2] != 0) | (self.expiries[slot, 3] != 0)
            alive[dated] &= priced & (has_surface | (kind[dated] < CALL))
        return InstrumentTable(
            kind=kind,
            underlying=underlying,
            expiry=expiry,
            strike=columns.strike_usd9 / float(USD9_PER_USD),
            lot_size=LOT_SIZES[columns.lot_exponent - LOT_EXPONENT_MIN],
            factor=columns.collateral_factor_e6 / float(ONE_E6),
            alive=np.ascontiguousarray(alive),
        )

    # -- checkpoint

    def to_plain(self) -> dict:
        return {
            "time_ms": self.time_ms,
            "spot_usd9": self.spot_usd9.tobytes(),
            "volatility_e9": self.volatility_e9.tobytes(),
            "expiries": self.expiries.tobytes(),
            "settled": self.settled.tobytes(),
            "degraded": self.degraded.tobytes(),
            "spares_degraded": self.spares_degraded,
            **{name: getattr(self, name).tobytes() for name in UNDERLYING_FIELDS},
        }

    @classmethod
    def from_plain(cls, plain: dict) -> RecordedMarket:
        market = cls()
        market.time_ms = plain["time_ms"]
        market.spot_usd9 = np.frombuffer(plain["spot_usd9"], np.int64).copy()
        market.volatility_e9 = np.frombuffer(plain["volatility_e9"], np.int64).copy()
        market.expiries = np.frombuffer(plain["expiries"], np.int64).reshape(-1, len(EXPIRY_FIELDS)).copy()
        market.settled = np.frombuffer(plain["settled"], np.bool_).copy()
        market.degraded = np.frombuffer(plain.get("degraded", bytes(len(market.settled))), np.bool_).copy()
        market.spares_degraded = plain.get("spares_degraded", False)
        for name, dtype in zip(UNDERLYING_FIELDS, (np.int64, np.int64, np.bool_, np.bool_), strict=True):
            nothing = bytes(len(market.spot_usd9) * np.dtype(dtype).itemsize)  # written before there were any
            setattr(market, name, np.frombuffer(plain.get(name, nothing), dtype).copy())
        return market
