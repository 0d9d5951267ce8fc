"""What recorded files look like: which columns make a file bars, quotes, trades or funding, and in which units."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streams.market_data.bar_checks import RawBars
from streams.market_data.columns import MarketDataError, numbers, texts, times_ms
from streams.market_data.findings import Findings
from streams.market_data.row_checks import Columns

BARS, QUOTES, TRADES, FUNDING, FILLS = "bars", "quotes", "trades", "funding", "fills"
TIME_NAMES = ("time_ms", "open_time", "timestamp", "datetime", "time", "Date", "date", "ts")
SERIES_NAMES = ("symbol", "Symbol", "ticker", "exchange", "pair", "contract")
_ASSET = re.compile(r"(?:^|_)([A-Z]{3,6}?)(?:USDT|-USDT|-PERP|_|-|$)")
_INSTRUMENT = re.compile(r"^([A-Z]+(?:_[A-Z]+)?)-(\d{1,2})([A-Z]{3})(\d{2})-([\d.d]+)-([CP])$")
_MONTHS = {name: place for place, name in enumerate(
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], start=1
)}  # fmt: skip
EXPIRY_HOUR = 8
SNAPSHOT_PAUSE_MS = 300_000


class QuoteNames(NamedTuple):
    """Columns of a recorded chain. ``iv`` may be missing; ``iv_unit`` turns it into a fraction a year."""

    bid: str
    ask: str
    mark: str
    forward: str
    spot: str
    time: str
    iv: str = ""
    iv_unit: float = 1.0


CHAINS = (
    QuoteNames("bid", "ask", "mark", "forward", "index", "time_ms", "iv"),
    QuoteNames(
        "bid_price", "ask_price", "mark_price", "futures_price", "index_price", "timestamp", "implied_volatility"
    ),
    QuoteNames(
        "best_bid_price", "best_ask_price", "mark_price", "underlying_price", "index_price", "timestamp",
        "mark_iv", 0.01,
    ),
    QuoteNames(
        "bid_price", "ask_price", "mark_price", "underlying_price", "estimated_delivery_price", "creation_timestamp"
    ),
)  # fmt: skip


class Instrument(NamedTuple):
    """What the name of a Deribit option says."""

    underlying: str
    expiry_ms: int
    strike: float
    kind: str


def kind_of(names: list[str]) -> str:
    """bars, quotes, trades or funding by the columns; MarketDataError where they are none of them."""
    have = set(names)
    if {"trade_id", "price", "amount"} <= have:
        return TRADES
    if chain_of(have) is not None:
        return QUOTES
    if bar_columns(have) is not None:
        return BARS
    if {"block", "account", "coin", "size"} <= have:
        return FILLS
    if have & {"Funding Rate", "rate"}:
        return FUNDING
    raise MarketDataError("its columns are no bars, quotes, trades, fills or funding that `dpme data` knows")


def chain_of(names: set[str]) -> QuoteNames | None:
    """The first known chain all of whose columns are there, and a name of an instrument with them."""
    if not names & {"instrument_name", "instrument"}:
        return None
    for chain in CHAINS:
        if {column for column in chain[:7] if column} <= names:
            return chain
    return None


def bar_columns(names: set[str]) -> tuple[str, ...] | None:
    """Names of open, high, low and close, as they are or with the prefix of an index of volatility."""
    for prefix in ("", "dvol_"):
        found = tuple(prefix + name for name in ("open", "high", "low", "close"))
        if set(found) <= names:
            return found
    return None


def time_column(names: list[str]) -> str:
    """The column that holds the time of a row."""
    for name in TIME_NAMES:
        if name in names:
            return name
    raise MarketDataError(f"there is no column of times: one of {', '.join(TIME_NAMES)} is expected")


def asset_of(path: Path) -> str:
    """BTC of BTCUSDT_1h_..., BTC-PERP_1m_..., BTC_DVOL_...; the name up to its first dot where nothing fits."""
    found = _ASSET.search(path.name)
    return found[1] if found else path.name.split(".", 1)[0]


def read_bar_series(table: pa.Table, findings: Findings) -> dict[str, RawBars]:
    """Bars by series: one, named "", or one per combination of exchange, pair and contract where there are several."""
    names = table.column_names
    columns = bar_columns(set(names))
    assert columns is not None
    stamps = times_ms(table[time_column(names)], time_column(names), findings)
    prices = [numbers(table[name], name, findings) for name in columns]
    volume = numbers(table["volume"], "volume", findings) if "volume" in names else np.zeros(len(stamps))
    ohlcv = np.column_stack([*prices, volume])
    parts = [texts(table[name]) for name in SERIES_NAMES if name in names]
    parts = [part for part in parts if len(set(part.tolist())) > 1]
    if not parts:
        return {"": RawBars(stamps, ohlcv)}
    labels = np.array(["_".join(row).replace("/", "") for row in zip(*parts)], dtype=object)
    return {name: RawBars(stamps[labels == name], ohlcv[labels == name]) for name in sorted(set(labels.tolist()))}


def read_quotes(table: pa.Table, findings: Findings) -> Columns:
    """A chain in the documented columns; instruments whose names cannot be read are a MarketDataError."""
    names = set(table.column_names)
    chain = chain_of(names)
    assert chain is not None
    instruments = texts(table["instrument_name" if "instrument_name" in names else "instrument"])
    parsed = _parsed_instruments(instruments)
    stamps = _snapshot_times(times_ms(table[chain.time], chain.time, findings))

    def number(name: str) -> np.ndarray:
        return numbers(table[name], name, findings) if name and name in names else np.full(len(stamps), np.nan)

    return {
        "time_ms": stamps,
        "instrument": instruments,
        **parsed,
        "forward": number(chain.forward),
        "index": number(chain.spot),
        "bid": number(chain.bid),
        "ask": number(chain.ask),
        "mark": number(chain.mark),
        "iv": number(chain.iv) * chain.iv_unit,
        "open_interest": number("open_interest"),
    }


def read_trades(table: pa.Table, findings: Findings) -> Columns:
    """Option trades in the documented columns; ``iv`` becomes a fraction where the file has it in per cent."""
    names = table.column_names
    instruments = texts(table["instrument"])
    documented = "side" in names
    return {
        "time_ms": times_ms(table[time_column(names)], "time", findings),
        "instrument": instruments,
        **_parsed_instruments(instruments),
        "side": texts(table["side" if documented else "direction"]),
        "price": numbers(table["price"], "price", findings),
        "amount": numbers(table["amount"], "amount", findings),
        "iv": numbers(table["iv"], "iv", findings) * (1.0 if documented else 0.01),
        "trade_id": texts(table["trade_id"]),
    }


def read_funding(table: pa.Table, findings: Findings) -> Columns:
    """Funding rates: time and rate, a fraction of the notional an interval."""
    name = time_column(table.column_names)
    rate = "rate" if "rate" in table.column_names else "Funding Rate"
    return {"time_ms": times_ms(table[name], name, findings), "rate": numbers(table[rate], rate, findings)}


def instrument_of(name: str) -> Instrument:
    """BTC-6FEB26-100000-C, SOL_USDC-25SEP26-78-C, XRP_USDC-3JUL26-2d1-P (2.1); expiries are at 08:00 UTC."""
    found = _INSTRUMENT.match(name)
    if found is None or found[3] not in _MONTHS:
        raise MarketDataError(f"instrument {name!r} is no option name like BTC-6FEB26-100000-C")
    day = datetime.datetime(2000 + int(found[4]), _MONTHS[found[3]], int(found[2]), EXPIRY_HOUR, tzinfo=datetime.UTC)
    kind = "call" if found[6] == "C" else "put"
    return Instrument(found[1].split("_")[0], int(day.timestamp()) * 1_000, float(found[5].replace("d", ".")), kind)


def _parsed_instruments(names: np.ndarray) -> Columns:
    known: Mapping[str, Instrument] = {name: instrument_of(name) for name in set(names.tolist())}
    rows = [known[name] for name in names]
    return {
        "underlying": np.array([row.underlying for row in rows], dtype=object),
        "kind": np.array([row.kind for row in rows], dtype=object),
        "strike": np.array([row.strike for row in rows]),
        "expiry_ms": np.array([row.expiry_ms for row in rows], np.int64),
    }


def _snapshot_times(stamps: np.ndarray) -> np.ndarray:
    """Rows of a chain are stamped as they are fetched, seconds apart: all of one snapshot get the first stamp of it."""
    order = np.argsort(stamps, kind="stable")
    begins = np.r_[True, np.diff(stamps[order]) > SNAPSHOT_PAUSE_MS]
    first = stamps[order][begins][np.cumsum(begins) - 1]
    out = np.empty_like(stamps)
    out[order] = first
    return out
