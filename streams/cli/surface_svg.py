"""A surface as one SVG picture, and as a page around it: a panel an expiry, and total variance of all in one."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from oracles.surface import FittedExpiry, findings_by_name, volatilities
from streams.cli.surface_plot import bounds_of
from streams.cli.surface_table import cells_of, expiry_name, headings, verdict_text

PANEL_WIDTH, PANEL_HEIGHT, COLUMNS = 400, 260, 3
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 46, 30
CURVE_POINTS = 120
STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#333}.title{font-weight:600;font-size:13px}.sub{fill:#666}"
    ".curve{fill:none;stroke:#1f5fbf;stroke-width:1.8}.bar{stroke:#999;stroke-width:1.4}.mark{fill:#c2410c}"
    ".grid{stroke:#e6e6e6}.bad{fill:#b91c1c}.good{fill:#15803d}.frame{fill:#fff;stroke:#d4d4d4}"
)


class _Frame:
    """One panel's scale: from values to places in the picture."""

    def __init__(self, x: float, y: float, bounds: tuple[float, float, float, float]) -> None:
        self.x, self.y = x, y
        self.low, self.high, self.bottom, self.top = bounds

    def across(self, k: float) -> float:
        return self.x + LEFT + (k - self.low) / (self.high - self.low) * (PANEL_WIDTH - LEFT - RIGHT)

    def down(self, value: float) -> float:
        inner = PANEL_HEIGHT - TOP - BOTTOM
        return self.y + TOP + (self.top - min(max(value, self.bottom), self.top)) / (self.top - self.bottom) * inner

    def line(self, k: np.ndarray, values: np.ndarray, colour: str = "") -> str:
        points = " ".join(f"{self.across(a):.1f},{self.down(b):.1f}" for a, b in zip(k.tolist(), values.tolist()))
        style = f' style="stroke:{colour}"' if colour else ""
        return f'<polyline class="curve" points="{points}"{style}/>'

    def grid(self, labels: list[tuple[float, str]], percent: bool) -> list[str]:
        parts = [f'<rect class="frame" x="{self.x + 1}" y="{self.y + 1}" width="{PANEL_WIDTH - 2}" '
                 f'height="{PANEL_HEIGHT - 2}" rx="6"/>']  # fmt: skip
        for n in range(5):
            value = self.bottom + (self.top - self.bottom) * n / 4
            text, y = f"{100 * value:.0f} %" if percent else f"{value:.3g}", self.down(value)
            parts.append(f'<line class="grid" x1="{self.x + LEFT}" x2="{self.x + PANEL_WIDTH - RIGHT}" '
                         f'y1="{y:.1f}" y2="{y:.1f}"/>')  # fmt: skip
            parts.append(_text(self.x + LEFT - 5, y + 4, text, "sub", "end"))
        for n, (k, label) in enumerate(labels):
            anchor = "end" if n == len(labels) - 1 else "middle"
            parts.append(_text(self.across(k), self.y + PANEL_HEIGHT - 10, label, "sub", anchor))
        return parts


def svg_of(title: str, expiries: list[FittedExpiry]) -> str:
    """The picture; opens in any browser."""
    rows = math.ceil((len(expiries) + 1) / COLUMNS)
    width, height = COLUMNS * PANEL_WIDTH, rows * PANEL_HEIGHT + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<style>{STYLE}</style>", f'<rect width="{width}" height="{height}" fill="#fafafa"/>',
        _text(10, 22, title, "title"),
    ]  # fmt: skip
    for place, expiry in enumerate(expiries):
        parts += _panel(expiry, *_corner(place))
    parts += _variances(expiries, *_corner(len(expiries)))
    return "\n".join([*parts, "</svg>"])


def page_of(title: str, expiries: list[FittedExpiry]) -> str:
    """A self-contained page: the picture, the table, and what was found in the quotes."""
    head = "".join(f"<th>{escape(name)}</th>" for name in headings())
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells_of(expiry)) + "</tr>" for expiry in expiries
    )
    found = [f for expiry in expiries for f in expiry.smile.findings]
    notes = "".join(f"<li>{escape(name)}: {count}</li>" for name, count in findings_by_name(found).items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>
body{{font:14px system-ui,sans-serif;margin:24px;color:#222;background:#fafafa}}table{{border-collapse:collapse}}
td,th{{padding:3px 10px;text-align:right;border-bottom:1px solid #ddd}}td:last-child,th:last-child{{text-align:left}}
svg{{max-width:100%;height:auto}}</style></head><body>
{svg_of(title, expiries)}
<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>
<p>Volatility over strike: fitted curve (blue), bid to ask (grey), marks (red). Last panel: total variance over
log-moneyness; lines that cross would be calendar arbitrage. RMS errors in vol points, against marks.</p>
<h3>Found in the quotes</h3><ul>{notes or "<li>nothing</li>"}</ul>
</body></html>
"""


def _corner(place: int) -> tuple[float, float]:
    return (place % COLUMNS) * PANEL_WIDTH, (place // COLUMNS) * PANEL_HEIGHT + 34


def _panel(expiry: FittedExpiry, x: float, y: float) -> list[str]:
    frame = _Frame(x, y, bounds_of(expiry))
    forward = expiry.chain.forward_usd9 / 1e9
    places = [frame.low + (frame.high - frame.low) * n / 4 for n in range(5)]
    labels = [(k, f"{forward * math.exp(k):,.0f}" if forward >= 100 else f"{k:+.2f}") for k in places]
    parts = frame.grid(labels, percent=True)
    for bar in expiry.bars:
        if not frame.low - 1e-9 <= bar.log_moneyness <= frame.high + 1e-9 or not math.isfinite(bar.mark):
            continue
        at = frame.across(bar.log_moneyness)
        if math.isfinite(bar.bid) and math.isfinite(bar.ask):
            parts.append(f'<line class="bar" x1="{at:.1f}" x2="{at:.1f}" y1="{frame.down(bar.bid):.1f}" '
                         f'y2="{frame.down(bar.ask):.1f}"/>')  # fmt: skip
        parts.append(f'<circle class="mark" cx="{at:.1f}" cy="{frame.down(bar.mark):.1f}" r="1.7"/>')
    if expiry.smile.slice_e9 is not None:
        k = np.linspace(frame.low, frame.high, CURVE_POINTS)
        parts.append(frame.line(k, volatilities(expiry.smile.slice_e9, k, expiry.years)))
    quality = expiry.quality
    parts.append(_text(x + 10, y + 18, f"{expiry_name(expiry)}  ({expiry.years * 365:.1f} d)", "title"))
    if math.isfinite(quality.inside_share):
        said = f"core RMS {quality.core_points:.2f} vol points, inside bid/ask {100 * quality.inside_share:.0f} %"
        parts.append(_text(x + 10, y + 34, said, "sub"))
    free = expiry.verdict is not None and expiry.verdict.free
    return [*parts, _text(x + PANEL_WIDTH - 10, y + 18, verdict_text(expiry), "good" if free else "bad", "end")]


def _variances(expiries: list[FittedExpiry], x: float, y: float) -> list[str]:
    """Total variance of every slice over log-moneyness, in standard deviations of the last but one."""
    drawn = [e for e in expiries if e.smile.slice_e9 is not None]
    if not drawn:
        return []
    levels = [float(volatilities(e.smile.slice_e9, np.zeros(1), e.years)[0]) ** 2 * e.years for e in drawn]  # type: ignore[arg-type]
    reach = min(3.0 * math.sqrt(levels[len(levels) // 2]), 1.5)
    k = np.linspace(-reach, reach, CURVE_POINTS)
    curves = [volatilities(e.smile.slice_e9, k, e.years) ** 2 * e.years for e in drawn]  # type: ignore[arg-type]
    bottom, top = max(min(c.min() for c in curves), 1e-7), max(c.max() for c in curves)
    frame = _Frame(x, y, (-reach, reach, math.log10(bottom), math.log10(top) + 0.02))
    labels = [(reach * n / 2, f"{reach * n / 2:+.2f}") for n in range(-2, 3)]
    parts = frame.grid(labels, percent=False)
    for n, curve in enumerate(curves):
        shade = 200 - round(170 * n / max(len(curves) - 1, 1))
        parts.append(frame.line(k, np.log10(curve), f"rgb({shade},{shade // 2 + 40},{255 - shade})"))
    return [*parts, _text(x + 10, y + 18, "total variance, log10", "title"),
            _text(x + 10, y + 34, "over log-moneyness; no two lines may cross", "sub")]  # fmt: skip


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
