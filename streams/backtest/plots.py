"""Plots of a report as inline SVG: no script, no font, no file beside the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 920, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 14, 30
BUCKETS = 460
COLOURS = ("#1d4ed8", "#b45309", "#047857", "#7c3aed", "#be185d", "#0e7490", "#4d7c0f")
ALARM = "#dc2626"


class Line(NamedTuple):
    """A series over time, float64[n] at int64[n] milliseconds."""

    name: str
    time_ms: np.ndarray
    values: np.ndarray


class _Frame(NamedTuple):
    """Where values lie in the picture."""

    x0: float
    x1: float
    y0: float
    y1: float
    log: bool

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0 or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.y0, self.y1, max(value, self.y0)))
        return HEIGHT - BOTTOM - (at - low) / (high - low or 1) * (HEIGHT - TOP - BOTTOM)


def over_time(title: str, lines: Sequence[Line], points: Line | None = None, log: bool = True) -> str:
    """Lines in per cent over time, each the maximum of its bucket of days; ``points`` as red dots."""
    largest = max(float(line.values.max()) for line in lines)
    smallest = min(float(line.values.min()) for line in lines)
    if points is not None and len(points.values):
        largest = max(largest, float(points.values.max()))
    start, stop = float(lines[0].time_ms[0]), float(lines[0].time_ms[-1])
    frame = _Frame(start, stop, smallest * 0.9 if log else 0.0, largest * 1.05, log)
    parts = [*_grid(frame), *_years(frame)]
    for place, line in enumerate(lines):
        times, values = _thinned(line)
        path = " ".join(f"{frame.x(t):.1f},{frame.y(v):.1f}" for t, v in zip(times, values))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[place]}" stroke-width="1.3"/>')
    if points is not None:
        parts.extend(
            f'<circle cx="{frame.x(t):.1f}" cy="{frame.y(v):.1f}" r="1.7" fill="{ALARM}" fill-opacity=".75"/>'
            for t, v in zip(points.time_ms, points.values)
        )
    legend = [(line.name, COLOURS[place]) for place, line in enumerate(lines)]
    if points is not None:
        legend.append((points.name, ALARM))
    return _figure(title, parts, legend)


def month_bars(title: str, names: Sequence[str], rates: Sequence[float], expected: float) -> str:
    """A bar a month and a dashed line at what is expected; months above twice that are red."""
    frame = _Frame(0, max(len(names), 1), 0.0, max([*rates, 2 * expected]) * 1.1, False)
    parts = _grid(frame)
    width = (WIDTH - LEFT - RIGHT) / max(len(names), 1)
    for place, (name, rate) in enumerate(zip(names, rates)):
        top, base = frame.y(rate), frame.y(0)
        colour = ALARM if rate > 2 * expected else COLOURS[0]
        parts.append(
            f'<rect x="{frame.x(place) + 0.12 * width:.1f}" y="{top:.1f}" width="{0.76 * width:.1f}" '
            f'height="{base - top:.1f}" fill="{colour}"><title>{escape(name)}: {100 * rate:.2f} %</title></rect>'
        )
        if name.endswith("-01"):
            parts.append(_text(frame.x(place), HEIGHT - 10, name[:4], "start"))
    line = frame.y(expected)
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{line:.1f}" y2="{line:.1f}" class="expected"/>')
    return _figure(title, parts, [("month", COLOURS[0]), (f"above {200 * expected:g} %", ALARM)])


def ranked(title: str, rows: Sequence[tuple[str, float]], chosen: str) -> str:
    """Models by score, best first; bars begin at the worst, so that their length is the lead over it."""
    ordered = sorted(rows, key=lambda row: row[1])
    worst, best = ordered[-1][1], ordered[0][1]
    span, height = worst - best or 1.0, 26 * len(ordered) + 12
    parts = []
    for place, (name, value) in enumerate(ordered):
        y, length = 8 + 26 * place, (worst - value) / span * (WIDTH - 260)
        colour = COLOURS[0] if name == chosen else "#94a3b8"
        parts.append(_text(150, y + 14, name, "end"))
        parts.append(f'<rect x="160" y="{y}" width="{max(length, 2):.1f}" height="19" rx="2" fill="{colour}"/>')
        parts.append(_text(168 + max(length, 2), y + 14, f"{value:.4f}", "start"))
    return _figure(title, parts, [], height)


def _thinned(line: Line) -> tuple[np.ndarray, np.ndarray]:
    size = max(1, math.ceil(len(line.values) / BUCKETS))
    starts = np.arange(0, len(line.values), size)
    return line.time_ms[starts], np.maximum.reduceat(line.values, starts)


def _grid(frame: _Frame) -> list[str]:
    parts = []
    for value in _ticks(frame):
        y = frame.y(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{100 * value:g} %", "end"))
    return parts


def _ticks(frame: _Frame) -> list[float]:
    if frame.log:
        decades = range(math.floor(math.log10(frame.y0)), math.ceil(math.log10(frame.y1)) + 1)
        steps = [round(step * 10.0**decade, 12) for decade in decades for step in (1, 2, 5)]
        return [step for step in steps if frame.y0 <= step <= frame.y1]
    size = 10.0 ** math.floor(math.log10(frame.y1 or 1))
    size *= next(part for part in (0.1, 0.2, 0.5, 1, 2) if frame.y1 / (part * size) <= 6 or part == 2)
    return [round(k * size, 12) for k in range(int(frame.y1 / size) + 1)]


def _years(frame: _Frame) -> list[str]:
    first, last = (np.datetime64(int(value), "ms").astype("datetime64[Y]") for value in (frame.x0, frame.x1))
    parts = []
    for year in np.arange(first + 1, last + 1):
        x = frame.x(float(year.astype("datetime64[ms]").astype(np.int64)))
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="grid"/>')
        parts.append(_text(x, HEIGHT - 10, str(year), "middle" if x < WIDTH - 40 else "end"))
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _figure(title: str, parts: list[str], legend: list[tuple[str, str]], height: int = HEIGHT) -> str:
    keys = " ".join(f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in legend)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><div class="legend">{keys}</div>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )
