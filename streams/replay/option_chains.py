"""Option chains of any recorded source -> expiries ready to be fitted: quotes in USD, forwards from put-call parity.

Three formats: Deribit snapshots (a row an option, prices in coin), Deribit's book summary (the shipped recorded chain),
and the documented quotes file, CSV with the columns of ``QUOTE_COLUMNS``: USD prices, empty where there is none.
"""

from __future__ import annotations

import csv
import datetime
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from oracles.forward import BASIS_POINT, PARITY_SPREAD_MAX_BP, Forward, Side, parity_forward
from oracles.option_quotes import Quote
from oracles.surface import Chain
from schemas.quantities import ONE_E9
from streams.replay.deribit_records import COLUMNS as SNAPSHOT_COLUMNS
from streams.replay.deribit_records import read_snapshots
from streams.replay.files import ReplayError, decimal, read_lines, read_rows, usd9

QUOTE_COLUMNS = ("time_ms", "underlying", "expiry_ms", "kind", "strike", "bid", "ask", "mark")
SUMMARY_COLUMNS = (
    "creation_timestamp", "base_currency", "expire_date", "strike_price", "option_type", "bid_price", "ask_price",
    "mark_price", "underlying_price",
)  # fmt: skip
WANTED = (
    f"a quotes file (CSV with {','.join(QUOTE_COLUMNS)}, USD), a Deribit options snapshot or a Deribit book summary, "
    "as .csv or .csv.gz,"
)
EXPIRY_HOUR_UTC = 8
KINDS = {"call": True, "put": False, "C": True, "P": False, "c": True, "p": False}


class Market(NamedTuple):
    """One underlying's options at one time."""

    underlying: str
    time_ms: int
    chains: list[Chain]
    expired: int


class Row(NamedTuple):
    """One option of a source; prices in the unit of its contract, `forward_usd` as the source has it (0: none)."""

    underlying: str
    expiry_ms: int
    is_call: bool
    strike_usd: Decimal
    bid: Decimal
    ask: Decimal
    mark: Decimal
    forward_usd: Decimal


def read_markets(path: Path) -> list[Market]:
    """Markets of a file, by underlying; ReplayError where it is none of the formats or has no living option."""
    found = _columns(path)
    if set(SNAPSHOT_COLUMNS) <= found:
        (snapshot,) = read_snapshots([path])
        rows = [
            Row(r.currency, r.expiry_ms, r.kind == "call", r.strike_usd, r.bid, r.ask, r.mark, r.future_usd)
            for r in snapshot.rows
        ]
        return _markets(rows, snapshot.time_ms, path, inverse=True)
    if set(SUMMARY_COLUMNS) <= found:
        rows, time_ms = _summary(path)
        return _markets(rows, time_ms, path, inverse=True)
    rows, time_ms = _quotes(path)
    return _markets(rows, time_ms, path, inverse=False)


def _columns(path: Path) -> set[str]:
    if not path.is_file():
        raise ReplayError(f"{path} is no file: give {WANTED} or leave it out for the shipped chain")
    return set(next(csv.reader([next(iter(read_lines(path)), "")]), []))


def _quotes(path: Path) -> tuple[list[Row], int]:
    rows, times = [], set()
    for line, row in enumerate(read_rows(path, QUOTE_COLUMNS, WANTED), start=2):
        times.add(_whole(row, "time_ms", path, line))
        strike, bid, ask, mark, forward = (
            decimal(row.get(name) or "0", path, line) for name in ("strike", "bid", "ask", "mark", "forward")
        )
        expiry_ms, is_call = _whole(row, "expiry_ms", path, line), _is_call(row["kind"], path, line)
        rows.append(Row(row["underlying"], expiry_ms, is_call, strike, bid, ask, mark, forward))
    if len(times) != 1:
        raise ReplayError(f"{path} has {len(times)} values of time_ms: one file a moment is expected")
    return rows, times.pop()


def _summary(path: Path) -> tuple[list[Row], int]:
    rows, times = [], set()
    for line, row in enumerate(read_rows(path, SUMMARY_COLUMNS, WANTED), start=2):
        times.add(_whole(row, "creation_timestamp", path, line))
        names = ("strike_price", "bid_price", "ask_price", "mark_price", "underlying_price")
        strike, bid, ask, mark, forward = (decimal(row[name] or "0", path, line) for name in names)
        is_call = _is_call(row["option_type"], path, line)
        expiry_ms = _expiry_ms(row["expire_date"], path, line)
        rows.append(Row(row["base_currency"], expiry_ms, is_call, strike, bid, ask, mark, forward))
    if not times:
        raise ReplayError(f"{path} has no rows")
    return rows, max(times)


def _whole(row: dict[str, str], name: str, path: Path, line: int) -> int:
    try:
        return int(row[name])
    except ValueError:
        raise ReplayError(f"{path} line {line}: {name} {row[name]!r} is no whole number") from None


def _is_call(text: str, path: Path, line: int) -> bool:
    if text not in KINDS:
        raise ReplayError(f"{path} line {line}: kind {text!r} is neither call nor put")
    return KINDS[text]


def _expiry_ms(text: str, path: Path, line: int) -> int:
    """Deribit's dates (12JAN24) expire at 08:00 UTC."""
    try:
        moment = datetime.datetime.strptime(text, "%d%b%y")
    except ValueError:
        raise ReplayError(f"{path} line {line}: {text!r} is no date such as 12JAN24") from None
    return int(moment.replace(hour=EXPIRY_HOUR_UTC, tzinfo=datetime.UTC).timestamp()) * 1000


def _markets(rows: list[Row], time_ms: int, path: Path, *, inverse: bool) -> list[Market]:
    by_underlying: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_underlying[row.underlying][row.expiry_ms].append(row)
    markets = []
    for underlying, expiries in sorted(by_underlying.items()):
        alive = {expiry_ms: found for expiry_ms, found in sorted(expiries.items()) if expiry_ms > time_ms}
        chains = [chain_of(expiry_ms, found, inverse=inverse) for expiry_ms, found in alive.items()]
        if chains:
            markets.append(Market(underlying, time_ms, chains, len(expiries) - len(alive)))
    if not markets:
        raise ReplayError(f"{path} has no option that is alive at its time {time_ms}")
    return markets


def chain_of(expiry_ms: int, rows: list[Row], *, inverse: bool) -> Chain:
    """Quotes of one expiry at one forward: the median that the source tells, or that of parity. Forward 0 where there
    is none: nothing is fitted then.

    A basis point of the forward is up to 0.3 vol points on the last day. Rows of one snapshot may be seconds apart,
    each with the index of its own moment, while pairs of one strike are not; but where the source tells all rows the
    same, parity, which knows no more than the spreads of its strikes, only adds their noise. So whichever agrees better
    with itself counts, and parity where it contradicts what is told.
    """
    told = sorted(float(row.forward_usd) for row in rows if row.forward_usd > 0)
    median = told[(len(told) - 1) // 2] if told else 0.0
    sides = [Side(r.is_call, float(r.strike_usd), float(r.bid), float(r.ask)) for r in rows if r.strike_usd > 0]
    parity = parity_forward(sides, median or _crossing(sides), inverse=inverse) if sides else None
    trusted = parity is not None and (not told or _is_better(parity, told, median))
    forward = parity.price_usd if parity is not None and trusted else median
    scale = Decimal(str(forward)) if inverse else Decimal(1)
    quotes = [
        Quote(r.is_call, usd9(r.strike_usd), usd9(r.mark * scale), usd9(r.bid * scale), usd9(r.ask * scale))
        for r in rows
    ]
    return Chain(expiry_ms, round(forward * ONE_E9), 0, quotes, _kept(parity, trusted))


def _is_better(parity: Forward, told: list[float], told_usd: float) -> bool:
    """Is the forward of parity to be taken instead of the median `told_usd` of those told (ascending)?"""
    spread_bp = (told[3 * len(told) // 4] - told[len(told) // 4]) / told_usd / BASIS_POINT
    apart_bp = abs(parity.price_usd / told_usd - 1.0) / BASIS_POINT
    agrees = parity.spread_bp <= PARITY_SPREAD_MAX_BP
    return agrees and (parity.spread_bp < spread_bp or apart_bp > PARITY_SPREAD_MAX_BP)


def _kept(parity: Forward | None, trusted: bool) -> Forward | None:
    return parity if trusted else None


def _crossing(sides: list[Side]) -> float:
    """Strike at which calls and puts cost most nearly the same: where a forward is to be looked for."""
    middles: dict[float, dict[bool, float]] = defaultdict(dict)
    for side in sides:
        if 0 < side.bid <= side.ask:
            middles[side.strike_usd][side.is_call] = (side.bid + side.ask) / 2
    gaps = [(abs(pair[True] - pair[False]), strike) for strike, pair in middles.items() if len(pair) == 2]
    return min(gaps)[1] if gaps else 0.0
