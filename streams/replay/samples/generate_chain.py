"""Generated Deribit snapshots: the recorded chain first, then its index and volatilities along a seeded path."""

from __future__ import annotations

import csv
import datetime
import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

RECORDED = "deribit_ETH_chain_2024-01-08_definer.csv.gz"
SEED = 20240108
STEPS, STEP_HOURS = 10, 6
STRIKE_LOW_USD, STRIKE_HIGH_USD = 1_600.0, 3_000.0
LAST_EXPIRY = datetime.datetime(2024, 3, 29, 8, tzinfo=datetime.UTC)
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
HOURLY_VOLATILITY, LEVEL_VOLATILITY = 0.00878, 0.0102
CRASH_STEP, CRASH, CRASH_LEVEL = 5, -0.09, 0.20  # index and log volatility of one step
MARK_DECIMALS, TICK, HALF_SPREAD = 6, 0.0005, 0.04
YEAR_HOURS = 8_760.0


class Option(NamedTuple):
    """A recorded option. `ratio` is its forward over the index."""

    name: str
    is_call: bool
    strike: float
    expiry: datetime.datetime
    ratio: float
    volatility: float
    row: dict[str, str]


def snapshots(recorded: Path) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """(stamp of the file name, rows) of each snapshot."""
    with gzip.open(recorded, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    start = datetime.datetime.fromtimestamp(int(rows[0]["creation_timestamp"]) // 1000, datetime.UTC)
    index = float(rows[0]["estimated_delivery_price"])
    options = [option for option in (_option(row, start) for row in rows) if option is not None]
    generator = np.random.default_rng(SEED)
    level = 0.0
    for step in range(STEPS):
        now = start + datetime.timedelta(hours=STEP_HOURS * step)
        if step:
            index *= math.exp(HOURLY_VOLATILITY * math.sqrt(STEP_HOURS) * generator.standard_normal())
            level += LEVEL_VOLATILITY * math.sqrt(STEP_HOURS) * generator.standard_normal()
        if step == CRASH_STEP:
            index, level = index * (1.0 + CRASH), level + CRASH_LEVEL
        alive = [option for option in options if option.expiry > now]
        shown = [_row(option, now, round(index, 2), math.exp(level), step) for option in alive]
        yield now.strftime("%Y%m%dT%H%M%SZ"), shown


def black(is_call: bool, forward: float, strike: float, stddev: float) -> tuple[float, float]:
    """Undiscounted Black-76 (price, delta)."""
    d1 = math.log(forward / strike) / stddev + 0.5 * stddev
    call_delta = _normal(d1)
    call = forward * call_delta - strike * _normal(d1 - stddev)
    return (call, call_delta) if is_call else (call - forward + strike, call_delta - 1.0)


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def _option(row: dict[str, str], start: datetime.datetime) -> Option | None:
    expiry, strike = _expiry(row["expire_date"]), float(row["strike_price"])
    if not (STRIKE_LOW_USD <= strike <= STRIKE_HIGH_USD and expiry <= LAST_EXPIRY) or float(row["open_interest"]) <= 0:
        return None
    forward = float(row["underlying_price"])
    years = (expiry - start).total_seconds() / 3_600.0 / YEAR_HOURS
    is_call = row["option_type"] == "C"
    volatility = _implied(is_call, forward, strike, years, float(row["mark_price"]) * forward)
    return Option(
        row["instrument_name"],
        is_call,
        strike,
        expiry,
        forward / float(row["estimated_delivery_price"]),
        volatility,
        row,
    )


def _expiry(text: str) -> datetime.datetime:
    """9JAN24 -> 08:00 UTC of that day."""
    day, month, year = int(text[:-5]), MONTHS.index(text[-5:-2]) + 1, 2000 + int(text[-2:])
    return datetime.datetime(year, month, day, 8, tzinfo=datetime.UTC)


def _implied(is_call: bool, forward: float, strike: float, years: float, price: float) -> float:
    """By bisection between 10 % and 300 %; the nearer end where the price says more or less than that."""
    low, high = 0.10, 3.00
    for _ in range(60):
        middle = 0.5 * (low + high)
        if black(is_call, forward, strike, middle * math.sqrt(years))[0] < price:
            low = middle
        else:
            high = middle
    return round(0.5 * (low + high), 6)


def _row(option: Option, now: datetime.datetime, index: float, level: float, step: int) -> dict[str, object]:
    forward = round(index * option.ratio, 4)
    years = (option.expiry - now).total_seconds() / 3_600.0 / YEAR_HOURS
    price, delta = black(option.is_call, forward, option.strike, option.volatility * level * math.sqrt(years))
    mark = round(max(price, 0.0) / forward, MARK_DECIMALS)
    bid = math.floor(mark * (1.0 - HALF_SPREAD) / TICK) * TICK
    ask = math.ceil(mark * (1.0 + HALF_SPREAD) / TICK + 1e-9) * TICK
    recorded = step == 0
    return {
        "timestamp": now.isoformat(),
        "instrument_name": option.name,
        "underlying": forward,
        "option_type": "call" if option.is_call else "put",
        "strike": option.strike,
        "expiry_datetime": option.expiry.isoformat(),
        "bid_price": option.row["bid_price"] if recorded else round(bid, 4),
        "ask_price": option.row["ask_price"] if recorded else round(ask, 4),
        "mark_price": option.row["mark_price"] if recorded else mark,
        "futures_price": option.row["underlying_price"] if recorded else forward,
        "delta": round(delta, 5),
        "open_interest": option.row["open_interest"],
        "currency": "ETH",
        "index_price": index,
    }
