"""What is listed: underlyings, expiries and instruments by dense index, in the order in which the log listed them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from schemas.risk_parameters import parse_parameters


class Underlying(Struct, frozen=True):
    """A price index. Its place in the list is its index."""

    symbol: str
    stable: bool = False
    jumps: tuple[int, int, int] = (0, 0, 0)
    parts: tuple[tuple[int, int], ...] = ()
    """Merton's model: jumps a year (1e-6), mean and standard deviation of a jump's logarithm (1e-9). 0: Black-76.
    `parts`: (underlying, weight in 1e-6), by name, of what moves with others; empty for what moves by itself."""


class Expiry(Struct, frozen=True):
    """An expiry of an underlying: one forward, one rate, one SVI slice."""

    underlying: int
    expiry_ms: int


class Instrument(Struct, frozen=True):
    """A contract or collateral coin. `expiry` is -1 for spot and perpetual."""

    symbol: str
    kind: str
    underlying: int
    expiry: int
    strike_usd9: int
    lot_exponent: int
    collateral_factor_e6: int


KIND_CODES = {"spot": 0, "perpetual": 1, "future": 2, "call": 3, "put": 4}


class Columns(NamedTuple):
    """The catalogue as arrays: instruments [I], expiries [E], underlyings [U]."""

    kind: np.ndarray
    underlying: np.ndarray
    expiry: np.ndarray
    strike_usd9: np.ndarray
    lot_exponent: np.ndarray
    collateral_factor_e6: np.ndarray
    expiry_ms: np.ndarray
    expiry_underlying: np.ndarray
    stable: np.ndarray
    jumps: np.ndarray


PARTS_TOTAL_E6 = 1_000_000
JUMP_FIELDS = ("intensity_e6", "mean_e9", "stddev_e9")


class Catalogue:
    """Grows by listings only; equal logs give equal catalogues."""

    def __init__(self) -> None:
        self.underlyings: list[Underlying] = []
        self.expiries: list[Expiry] = []
        self.instruments: list[Instrument] = []
        self.underlying_index: dict[str, int] = {}
        self.expiry_index: dict[tuple[int, int], int] = {}
        self.instrument_index: dict[str, int] = {}
        self._columns: tuple[tuple[int, int], Columns] | None = None

    def columns(self) -> Columns:
        """Arrays of what is listed (built once for each size of the catalogue: it only grows)."""
        size = (len(self.underlyings), len(self.instruments))
        if self._columns is None or self._columns[0] != size:
            listed = self.instruments
            self._columns = (
                size,
                Columns(
                    np.array([KIND_CODES[i.kind] for i in listed], np.int8),
                    np.array([i.underlying for i in listed], np.int32),
                    np.array([i.expiry for i in listed], np.int32),
                    np.array([i.strike_usd9 for i in listed], np.int64),
                    np.array([i.lot_exponent for i in listed], np.int64),
                    np.array([i.collateral_factor_e6 for i in listed], np.int64),
                    np.array([e.expiry_ms for e in self.expiries], np.int64),
                    np.array([e.underlying for e in self.expiries], np.int32),
                    np.array([u.stable for u in self.underlyings], np.bool_),
                    np.array([u.jumps for u in self.underlyings], np.int64).reshape(-1, len(JUMP_FIELDS)),
                ),
            )
        return self._columns[1]

    def refusal(self, listing: dict) -> str | None:
        """Why a listing (plain dict of a schemas.events listing) cannot be taken; None if it can."""
        kind = listing["type"]
        if kind == "underlying":
            return self._underlying_refusal(listing)
        if kind == "parameters":
            return _parameters_refusal(listing["document"])
        if kind in ("instrument", "model_fit", "open_interest") and listing["underlying"] not in self.underlying_index:
            return f"underlying {listing['underlying']} is not listed"
        if kind == "model_fit":
            return _fit_refusal(listing)
        if kind != "instrument":
            return None
        if listing["instrument"] in self.instrument_index:
            return "instrument is listed already"
        dated = listing["kind"] in ("future", "call", "put")
        if dated != (listing.get("expiry_ms") is not None):
            return (
                f"expiry_ms must be given for future, call and put only, not for {listing['kind']}"
                if not dated
                else (f"expiry_ms is missing for a {listing['kind']}")
            )
        if (listing["kind"] in ("call", "put")) != (listing.get("strike_usd9") is not None):
            return "strike_usd9 must be given for call and put, and for nothing else"
        return None

    def _underlying_refusal(self, listing: dict) -> str | None:
        if listing["underlying"] in self.underlying_index:
            return "underlying is listed already"
        parts = listing.get("parts") or {}
        for name in sorted(parts):
            place = self.underlying_index.get(name)
            if place is None:
                return f"parts: {name} is not listed"
            if self.underlyings[place].parts:
                return f"parts: {name} has parts itself: name those"
        if parts and sum(parts.values()) != PARTS_TOTAL_E6:
            return f"parts: the weights sum to {sum(parts.values())}, not {PARTS_TOTAL_E6}"
        return None

    def apply(self, listing: dict) -> None:
        """Take one underlying or instrument listing (other listings change nothing here)."""
        if listing["type"] == "underlying":
            self.underlying_index[listing["underlying"]] = len(self.underlyings)
            jumps = listing.get("jumps") or dict.fromkeys(JUMP_FIELDS, 0)
            terms = (jumps["intensity_e6"], jumps["mean_e9"], jumps["stddev_e9"])
            weights = sorted((listing.get("parts") or {}).items())
            parts = tuple((self.underlying_index[name], weight) for name, weight in weights)
            self.underlyings.append(Underlying(listing["underlying"], bool(listing.get("stable", False)), terms, parts))
        elif listing["type"] == "instrument":
            self._list_instrument(listing)

    def _list_instrument(self, listing: dict) -> None:
        underlying = self.underlying_index[listing["underlying"]]
        expiry = -1
        if listing.get("expiry_ms") is not None:
            expiry = self._expiry(underlying, listing["expiry_ms"])
        self.instrument_index[listing["instrument"]] = len(self.instruments)
        self.instruments.append(
            Instrument(
                listing["instrument"],
                listing["kind"],
                underlying,
                expiry,
                listing.get("strike_usd9") or 0,
                listing["lot_exponent"],
                listing.get("collateral_factor_e6", 1_000_000),
            )
        )

    def _expiry(self, underlying: int, expiry_ms: int) -> int:
        key = (underlying, expiry_ms)
        if key not in self.expiry_index:
            self.expiry_index[key] = len(self.expiries)
            self.expiries.append(Expiry(underlying, expiry_ms))
        return self.expiry_index[key]

    def to_listings(self) -> list[dict]:
        """Listings that rebuild this catalogue, for checkpoints."""
        return [self._underlying_listing(u) for u in self.underlyings] + [
            self._instrument_listing(i) for i in self.instruments
        ]

    def _underlying_listing(self, underlying: Underlying) -> dict:
        listing: dict = {"type": "underlying", "underlying": underlying.symbol, "stable": underlying.stable}
        if underlying.jumps[0]:
            listing["jumps"] = dict(zip(JUMP_FIELDS, underlying.jumps, strict=True))
        if underlying.parts:
            listing["parts"] = {self.underlyings[place].symbol: weight for place, weight in underlying.parts}
        return listing

    def _instrument_listing(self, instrument: Instrument) -> dict:
        dated = instrument.expiry >= 0
        return {
            "type": "instrument",
            "instrument": instrument.symbol,
            "underlying": self.underlyings[instrument.underlying].symbol,
            "kind": instrument.kind,
            "lot_exponent": instrument.lot_exponent,
            "expiry_ms": self.expiries[instrument.expiry].expiry_ms if dated else None,
            "strike_usd9": instrument.strike_usd9 if instrument.kind in ("call", "put") else None,
            "collateral_factor_e6": instrument.collateral_factor_e6,
        }

    @classmethod
    def from_listings(cls, listings: list[dict]) -> Catalogue:
        catalogue = cls()
        for listing in listings:
            catalogue.apply(listing)
        return catalogue


def _fit_refusal(listing: dict) -> str | None:
    alpha, gamma, beta = listing["alpha_e12"], listing["gamma_e12"], listing["beta_e12"]
    if 2 * alpha + gamma + 2 * beta >= 2 * 10**12:
        return "alpha + gamma / 2 + beta must be below one"
    return "alpha + gamma must not be negative" if alpha + gamma < 0 else None


def _parameters_refusal(document: dict) -> str | None:
    try:
        parse_parameters(document)
    except msgspec.ValidationError as error:
        return f"parameter document: {error}"
    return None
