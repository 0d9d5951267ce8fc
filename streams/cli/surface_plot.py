"""Smiles as text: a canvas of braille dots for the curve, bid and ask as bars, strikes below."""

from __future__ import annotations

import math

import numpy as np

from oracles.surface import FittedExpiry, volatilities

WIDTH, HEIGHT = 71, 16
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
REACH_STDDEVS = 3.0
BAR, MARK_ONLY = "│", "·"
Bounds = tuple[float, float, float, float]


def bounds_of(expiry: FittedExpiry) -> Bounds:
    """(lowest k, highest k, lowest volatility, highest volatility) to draw."""
    slice_e9 = expiry.smile.slice_e9
    level = float(volatilities(slice_e9, np.zeros(1), expiry.years)[0]) if slice_e9 else 0.6
    reach = REACH_STDDEVS * level * math.sqrt(max(expiry.years, 1e-6))
    seen = [bar for bar in expiry.bars if abs(bar.log_moneyness) <= reach]
    low, high = (min(b.log_moneyness for b in seen), max(b.log_moneyness for b in seen)) if seen else (-reach, reach)
    low, high = (low, high) if high - low > 0.2 * reach else (-reach, reach)
    values = [v for bar in seen for v in (bar.bid, bar.mark, bar.ask) if math.isfinite(v) and v < 3 * level]
    if slice_e9:
        values += volatilities(slice_e9, np.linspace(low, high, 50), expiry.years).tolist()
    bottom, top = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.05 * (top - bottom) or 0.01
    return low, high, max(bottom - margin, 0.0), top + margin


def text_plot(expiry: FittedExpiry, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """The smile as lines: volatility over strike."""
    low, high, bottom, top = bounds_of(expiry)
    cells = [[" "] * width for _ in range(height)]

    def row_of(volatility: float) -> int:
        return round((top - volatility) / (top - bottom) * (height - 1))

    for bar in expiry.bars:
        column = round((bar.log_moneyness - low) / (high - low) * (width - 1))
        if not 0 <= column < width or not math.isfinite(bar.mark):
            continue
        two_sided = math.isfinite(bar.bid) and math.isfinite(bar.ask)
        first, last = (row_of(bar.ask), row_of(bar.bid)) if two_sided else (row_of(bar.mark),) * 2
        for row in range(max(first, 0), min(last, height - 1) + 1):
            cells[row][column] = BAR if two_sided else MARK_ONLY
    _draw_curve(cells, expiry, (low, high, bottom, top))
    lines = [f"{100 * (top - (top - bottom) * n / (height - 1)):6.1f} ┤{''.join(row)}" for n, row in enumerate(cells)]
    return [*lines, *_axis(expiry, low, high, width)]


def _draw_curve(cells: list[list[str]], expiry: FittedExpiry, bounds: Bounds) -> None:
    if expiry.smile.slice_e9 is None:
        return
    low, high, bottom, top = bounds
    height, width = len(cells), len(cells[0])
    curve = volatilities(expiry.smile.slice_e9, np.linspace(low, high, 2 * width), expiry.years)
    dots = np.rint((top - curve) / (top - bottom) * (4 * height - 1)).astype(int)
    for x, y in enumerate(dots.tolist()):
        if not 0 <= y < 4 * height:
            continue
        row, column = y // 4, x // 2
        held = ord(cells[row][column]) - 0x2800
        held = held if 0 <= held < 256 else 0
        cells[row][column] = chr(0x2800 + (held | DOTS[y % 4][x % 2]))


def _axis(expiry: FittedExpiry, low: float, high: float, width: int) -> list[str]:
    forward = expiry.chain.forward_usd9 / 1e9
    ticks, labels = list("─" * width), [" "] * width
    for n in range(5):
        column = round(n * (width - 1) / 4)
        k = low + (high - low) * n / 4
        text = f"{forward * math.exp(k):,.0f}" if forward >= 100 else f"{k:+.2f}"
        start = min(max(column - len(text) // 2, 0), width - len(text))
        ticks[column] = "┬"
        labels[start : start + len(text)] = text
    return [f"       └{''.join(ticks)}", f"        {''.join(labels).rstrip()}"]
