"""Fills of an exchange's own chain in the documented columns, and whether every account's positions add up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streams.market_data.columns import MarketDataError, numbers, read_table, texts, times_ms
from streams.market_data.findings import BROKEN_POSITION, Findings
from streams.market_data.row_checks import Columns
from streams.replay.files import ReplayError
from streams.replay.hyperliquid_records import is_spot, read_blocks

TEXT_COLUMNS = ("account", "coin", "fee_token")
NUMBER_COLUMNS = ("price", "size", "start_position", "fee")
RELATIVE_TOLERANCE = 1e-9


def read_fills(path: Path, findings: Findings) -> Columns:
    """Recorded node_fills. MarketDataError where the file is none, or its blocks are not contiguous."""
    try:
        blocks = read_blocks(path)
    except ReplayError as error:
        raise MarketDataError(str(error)) from error
    rows = [(block, fill) for block in blocks for fill in block.fills]
    columns = {
        "time_ms": np.array([block.time_ms for block, _ in rows], np.int64),
        "block": np.array([block.number for block, _ in rows], np.int64),
        "account": np.array([fill.account for _, fill in rows], dtype=object),
        "coin": np.array([fill.coin for _, fill in rows], dtype=object),
        "price": np.array([float(fill.price) for _, fill in rows]),
        "size": np.array([float(fill.size) for _, fill in rows]),
        "start_position": np.array([float(fill.start) for _, fill in rows]),
        "fee": np.array([float(fill.fee) for _, fill in rows]),
        "fee_token": np.array([fill.fee_token for _, fill in rows], dtype=object),
        "trade_id": np.array([fill.trade for _, fill in rows], np.int64),
    }
    _check_positions(columns, findings)
    return columns


def read_fills_table(path: Path, findings: Findings) -> Columns:
    """The documented file back; positions that do not add up are found again."""
    table = read_table(path)
    missing = [
        name for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS, "time_ms", "trade_id") if name not in table.column_names
    ]
    if missing:
        raise MarketDataError(f"{path.name} has no column {', '.join(missing)}")
    columns = {
        "time_ms": times_ms(table["time_ms"], "time_ms", findings),
        **{name: texts(table[name]) for name in TEXT_COLUMNS},
        **{name: numbers(table[name], name, findings) for name in NUMBER_COLUMNS},
    }
    _check_positions(columns, findings)
    return columns


def _check_positions(fills: Columns, findings: Findings) -> None:
    """Every fill of a perpetual must start where the account's last one ended (spot balances move otherwise too).

    Recorded positions carry the rounding of the venue's floats: a thousand-millionth is no break.
    """
    last: dict[tuple[str, str], float] = {}
    broken = []
    rows = zip(fills["account"], fills["coin"], fills["start_position"].tolist(), fills["size"].tolist())
    for account, coin, start, size in rows:
        expected = last.get((account, coin), start)
        if not is_spot(coin) and abs(expected - start) > RELATIVE_TOLERANCE * max(abs(start), 1.0):
            broken.append(f"{account} {coin} starts at {start:g}, {expected:g} expected")
        last[account, coin] = start + size
    findings.add(BROKEN_POSITION, len(broken), "kept: the recorded start is taken as true", broken)
