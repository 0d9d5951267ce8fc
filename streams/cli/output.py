"""What commands print: money for people, one JSON object for machines, consoles for both."""

from __future__ import annotations

import datetime
import sys
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

STATE_STYLES = {"healthy": "green", "margin_call": "yellow", "liquidatable": "red", "insolvent": "bold magenta"}
SPARKS = "▁▂▃▄▅▆▇█"
NAME_LIMIT = 18


def error_console() -> Console:
    """For progress and remarks of a command whose stdout is for machines."""
    return Console(stderr=True, highlight=False)


def emit_json(value: dict[str, Any]) -> None:
    """One JSON object as the last line of stdout."""
    sys.stdout.flush()
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    sys.stdout.buffer.flush()


def usd(amount_usd6: int | float) -> str:
    """Micro-USD for people: 1,234,568 or 12.34; -0 is 0."""
    dollars = amount_usd6 / 1e6
    if abs(dollars) < 100:
        return f"{dollars:,.2f}".replace("-0.00", "0.00")
    return f"{dollars:,.0f}"


def price(price_usd9: int) -> str:
    """Nano-USD for people, five significant digits at least."""
    dollars = price_usd9 / 1e9
    return f"{dollars:,.2f}" if dollars >= 100 else f"{dollars:,.4f}"


def percent(share: float, digits: int = 1) -> str:
    return f"{share * 100:+.{digits}f} %"


def moment(time_ms: int) -> str:
    """World time, UTC."""
    at = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
    return at.strftime("%Y-%m-%d %H:%M:%S") + (f".{time_ms % 1000:03d}" if time_ms % 1000 else "")


def short_name(account: str) -> str:
    """Names of accounts fit a column: long ones (addresses) keep both ends."""
    return account if len(account) <= NAME_LIMIT else f"{account[:9]}…{account[-6:]}"


def plural(count: int, name: str) -> str:
    """1 position, 2 positions."""
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def state_text(state: str) -> Text:
    return Text(state.replace("_", " "), STATE_STYLES.get(state, ""))


def sparkline(values: list[float], width: int) -> str:
    """Values, or `width` of them evenly spaced, as a line of blocks between their minimum and maximum."""
    last = len(values) - 1
    shown = values if last < width else [values[place * last // (width - 1)] for place in range(width)]
    low, high = min(shown), max(shown)
    span = high - low or 1.0
    return "".join(SPARKS[min(len(SPARKS) - 1, int((value - low) / span * len(SPARKS)))] for value in shown)
