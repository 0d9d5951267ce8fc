"""Smiles of the demo world: those of the shipped recorded ETH chain, scaled to other underlyings, levels and times.

A slice is scaled at constant standardised moneyness: with k = ln(strike/forward), w'(k) = c**2 w(k / c) is again an
SVI slice, with a' = c**2 a, b' = c b, rho' = rho, m' = c m, sigma' = c sigma. A factor c on volatility and the square
root of a ratio of times both act this way.
"""

from __future__ import annotations

import csv
import datetime
import gzip
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from oracles.option_quotes import NO_JUMPS, JumpsE, Quote
from oracles.surface_fit import SliceE9, fit_slice
from schemas.quantities import ONE_E9

RECORDED = Path(__file__).parents[1] / "replay" / "samples" / "deribit_ETH_chain_2024-01-08_definer.csv.gz"
EXPIRIES = ("12JAN24", "26JAN24", "23FEB24", "29MAR24")
EXPIRY_HOUR_UTC = 8


class Smile(NamedTuple):
    """A recorded expiry: forward over index, and its fitted slice of total variance at the recorded time."""

    name: str
    expiry_ms: int
    forward_ratio: float
    slice_e9: SliceE9


class RecordedChain(NamedTuple):
    """What the demo takes from the recorded chain: its time, index price, and smiles by expiry."""

    time_ms: int
    index_usd: float
    smiles: tuple[Smile, ...]


@lru_cache(maxsize=2)
def recorded_chain(jumps: JumpsE = NO_JUMPS) -> RecordedChain:
    """The shipped Deribit ETH chain of 2024-01-08 (MIT licence: streams/replay/samples/NOTICE.md), fitted."""
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with gzip.open(RECORDED, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            rows[row["expire_date"]].append(row)
    first = rows[EXPIRIES[0]][0]
    time_ms, index_usd = int(first["creation_timestamp"]), float(first["estimated_delivery_price"])
    smiles = tuple(_smile(name, rows[name], time_ms, index_usd, jumps) for name in EXPIRIES)
    return RecordedChain(time_ms, index_usd, smiles)


def scaled(slice_e9: SliceE9, factor: float) -> SliceE9:
    """The slice with volatility (or the square root of time) times `factor`, at constant standardised moneyness."""
    a, b, rho, m, sigma = slice_e9
    return (round(a * factor**2), round(b * factor), rho, round(m * factor), max(round(sigma * factor), 1))


def _smile(name: str, rows: list[dict[str, str]], time_ms: int, index_usd: float, jumps: JumpsE) -> Smile:
    forward = float(rows[0]["underlying_price"])
    moment = datetime.datetime.strptime(name, "%d%b%y").replace(hour=EXPIRY_HOUR_UTC, tzinfo=datetime.UTC)
    expiry_ms = int(moment.timestamp()) * 1000
    fitted = fit_slice([_quote(row) for row in rows], round(forward * ONE_E9), 0, expiry_ms - time_ms, jumps)
    if fitted is None:
        raise ValueError(f"{RECORDED.name} has no usable quotes for {name}")
    return Smile(name, expiry_ms, forward / index_usd, fitted)


def _quote(row: dict[str, str]) -> Quote:
    """A recorded row; prices in coin become USD at the row's own forward, undiscounted."""
    mark, bid, ask = (
        round(float(row[column] or 0) * float(row["underlying_price"]) * ONE_E9)
        for column in ("mark_price", "bid_price", "ask_price")
    )
    return Quote(row["option_type"] == "C", int(row["strike_price"]) * ONE_E9, mark, bid, ask)
