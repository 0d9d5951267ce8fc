"""Checks of quotes, trades and funding: each flaw by its name. A wrong row is dropped, a wrong field emptied (NaN)."""

from __future__ import annotations

from typing import Any

import numpy as np

from streams.market_data.findings import (
    BOUNDARY_VOLATILITY,
    CROSSED_QUOTE,
    DUPLICATE,
    GAP,
    INDEX_VARIES,
    MARK_NOT_POSITIVE,
    OUT_OF_ORDER,
    PRICE_NOT_POSITIVE,
    TOO_FEW_STRIKES,
    Findings,
    utc,
)

Columns = dict[str, Any]
VOLATILITY_MIN, VOLATILITY_MAX = 0.01, 5.0
STRIKES_MIN = 5


def take(columns: Columns, rows: np.ndarray) -> Columns:
    return {name: values[rows] for name, values in columns.items()}


def clean_quotes(quotes: Columns, findings: Findings) -> Columns:
    """Option quotes of many snapshots; see infra/docs/data.md for the columns."""
    quotes = _in_time_order(quotes, findings)
    quotes = _without_duplicates(quotes, (quotes["time_ms"], quotes["instrument"]), quotes["instrument"], findings)
    good = quotes["mark"] > 0
    findings.add(MARK_NOT_POSITIVE, int((~good).sum()), "row dropped", quotes["instrument"][~good])
    quotes = take(quotes, good)
    _empty_crossed(quotes, findings)
    _empty_boundary(quotes, findings)
    _one_index_a_snapshot(quotes, findings)
    _find_too_few_strikes(quotes, findings)
    return quotes


def clean_trades(trades: Columns, findings: Findings) -> Columns:
    """Trades, one row each; a volatility at the venue's boundary means that none could be implied."""
    trades = _in_time_order(trades, findings)
    trades = _without_duplicates(trades, (trades["trade_id"],), trades["trade_id"], findings)
    good = (trades["price"] > 0) & (trades["amount"] > 0)
    findings.add(PRICE_NOT_POSITIVE, int((~good).sum()), "row dropped", trades["trade_id"][~good])
    trades = take(trades, good)
    boundary = _at_boundary(trades["iv"])
    findings.add(BOUNDARY_VOLATILITY, int(boundary.sum()), "row dropped", trades["trade_id"][boundary])
    return take(trades, ~boundary)


def clean_funding(funding: Columns, interval_ms: int, findings: Findings) -> Columns:
    """Funding rates in time order, one a time."""
    funding = _in_time_order(funding, findings)
    stamps = np.array([utc(time) for time in funding["time_ms"]], dtype=object)
    funding = _without_duplicates(funding, (funding["time_ms"],), stamps, findings)
    steps = np.diff(funding["time_ms"])
    gaps = np.flatnonzero(steps > interval_ms + 60_000)
    findings.add_times(GAP, funding["time_ms"][gaps], "left open: a missing rate is no rate")
    return funding


def _in_time_order(rows: Columns, findings: Findings) -> Columns:
    times = rows["time_ms"]
    backwards = np.flatnonzero(np.diff(times) < 0) + 1
    findings.add_times(OUT_OF_ORDER, times[backwards], "rows sorted by time")
    return take(rows, np.argsort(times, kind="stable")) if len(backwards) else rows


def _without_duplicates(rows: Columns, key: tuple[np.ndarray, ...], names: np.ndarray, findings: Findings) -> Columns:
    seen: set[tuple[Any, ...]] = set()
    first = np.zeros(len(names), bool)
    for place, row in enumerate(zip(*key)):
        first[place] = row not in seen
        seen.add(row)
    findings.add(DUPLICATE, int((~first).sum()), "first kept", [str(name) for name in names[~first]])
    return take(rows, first)


def _empty_crossed(quotes: Columns, findings: Findings) -> None:
    for side in ("bid", "ask"):
        quotes[side] = np.where(quotes[side] > 0, quotes[side], np.nan)
    crossed = quotes["bid"] > quotes["ask"]
    findings.add(CROSSED_QUOTE, int(crossed.sum()), "bid and ask emptied, mark kept", quotes["instrument"][crossed])
    quotes["bid"][crossed] = quotes["ask"][crossed] = np.nan


def _at_boundary(volatility: np.ndarray) -> np.ndarray:
    return (volatility <= VOLATILITY_MIN) | (volatility >= VOLATILITY_MAX)


def _empty_boundary(quotes: Columns, findings: Findings) -> None:
    """Volatilities of 1 % or less and of 500 % or more are where venues stop searching, not what a market says."""
    boundary = _at_boundary(quotes["iv"])
    findings.add(BOUNDARY_VOLATILITY, int(boundary.sum()), "iv emptied", quotes["instrument"][boundary])
    quotes["iv"][boundary] = np.nan


def _one_index_a_snapshot(quotes: Columns, findings: Findings) -> None:
    """Chains are fetched row by row while the index moves; one snapshot gets its median index per underlying."""
    worst, count, index = 0.0, 0, quotes["index"].copy()
    for rows in _groups(quotes["time_ms"], quotes["underlying"]):
        values = quotes["index"][rows]
        known = values[values > 0]
        if not len(known):
            continue
        spread = 1e4 * (known.max() / known.min() - 1)
        worst, count = max(worst, spread), count + int(spread > 0)
        index[rows] = np.median(known)
    quotes["index"] = index
    findings.add(INDEX_VARIES, count, "the snapshot's median taken", [f"{worst:.1f} bp at most"])


def _find_too_few_strikes(quotes: Columns, findings: Findings) -> None:
    few = [
        f"{quotes['instrument'][rows[0]]} has {len(strikes)}"
        for rows in _groups(quotes["time_ms"], quotes["underlying"], quotes["expiry_ms"])
        if len(strikes := np.unique(quotes["strike"][rows])) < STRIKES_MIN
    ]
    findings.add(TOO_FEW_STRIKES, len(few), f"kept: no smile is fitted through fewer than {STRIKES_MIN}", few)


def _groups(*keys: np.ndarray) -> list[np.ndarray]:
    """Row numbers of every distinct combination of keys."""
    codes = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        distinct, code = np.unique(key.astype(str) if key.dtype == object else key, return_inverse=True)
        codes = codes * (len(distinct) + 1) + code
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(order) else []
