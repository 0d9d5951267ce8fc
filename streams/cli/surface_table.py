"""One line an expiry: what `dpme surface` says in its table, its page and its JSON."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np

from oracles.option_quotes import Defect
from oracles.surface import FittedExpiry, findings_by_name, volatilities
from oracles.surface_fit import Method


def headings() -> tuple[str, ...]:
    """Of `cells_of`."""
    return ("Expiry", "Days", "Forward", "ATM %", "Core", "RMS", "Spread", "Inside", "g min", "Quotes", "Verdict")


def expiry_name(expiry: FittedExpiry) -> str:
    """2026-01-30."""
    return datetime.datetime.fromtimestamp(expiry.chain.expiry_ms / 1000, datetime.UTC).strftime("%Y-%m-%d")


def verdict_text(expiry: FittedExpiry) -> str:
    """Free of arbitrage (as fitted, repaired, or by the fallback named), or what is wrong."""
    if expiry.verdict is None:
        return f"no slice: {expiry.smile.findings[-1].defect}" if expiry.smile.findings else "no slice"
    wrong = (["butterfly"] if expiry.verdict.butterfly_g < 0 else []) + (
        ["calendar"] if expiry.verdict.calendar_gap < 0 else []
    )
    if wrong:
        return f"ARBITRAGE: {', '.join(wrong)}"
    if any(finding.defect is Defect.HELD for finding in expiry.smile.findings):
        return "degraded"
    if expiry.smile.repaired:
        return "repaired"
    made = expiry.smile.method
    return "free" if made in (Method.SVI, Method.RECORDED) else str(made)


def cells_of(expiry: FittedExpiry) -> list[str]:
    """The expiry as text."""
    quality, verdict = expiry.quality, expiry.verdict
    forward = expiry.chain.forward_usd9 / 1e9
    level = level_of(expiry)
    inside = f"{100 * quality.inside_share:.0f} %" if math.isfinite(quality.inside_share) else "-"
    return [
        expiry_name(expiry), f"{expiry.years * 365:.1f}",
        f"{forward:,.{0 if forward >= 10_000 else 2}f}" if forward else "-",
        "-" if level is None else f"{100 * level:.1f}", _points(quality.core_points), _points(quality.rms_points),
        _points(quality.half_spread_points), inside, "-" if verdict is None else f"{verdict.butterfly_g:.2f}",
        str(len(expiry.smile.points.weight)), verdict_text(expiry),
    ]  # fmt: skip


def level_of(expiry: FittedExpiry) -> float | None:
    """At-the-money volatility."""
    slice_e9 = expiry.smile.slice_e9
    if slice_e9 is None or expiry.years <= 0:
        return None
    return float(volatilities(slice_e9, np.zeros(1), expiry.years)[0])


def plain(expiry: FittedExpiry) -> dict[str, Any]:
    """The expiry for machines; null where there is no value."""
    verdict, quality, smile, parity = expiry.verdict, expiry.quality, expiry.smile, expiry.chain.parity
    names = ("a_e9", "b_e9", "rho_e9", "m_e9", "sigma_e9")
    return {
        "expiry_ms": expiry.chain.expiry_ms,
        "days": expiry.years * 365,
        "forward_usd9": expiry.chain.forward_usd9,
        "forward_source": "parity" if parity else "source",
        "parity_spread_bp": None if parity is None else parity.spread_bp,
        "slice": None if smile.slice_e9 is None else dict(zip(names, smile.slice_e9, strict=True)),
        "atm_volatility": level_of(expiry),
        "method": str(smile.method),
        "repaired": smile.repaired,
        "degraded": any(finding.defect is Defect.HELD for finding in smile.findings),
        "arbitrage_free": verdict is not None and verdict.free,
        "butterfly_g_min": None if verdict is None else _finite(verdict.butterfly_g),
        "butterfly_k": None if verdict is None else _finite(verdict.butterfly_k),
        "butterfly_interval": None if verdict is None or verdict.butterfly_g >= 0
        else [verdict.negative_from, verdict.negative_to],
        "calendar_gap": None if verdict is None else _finite(verdict.calendar_gap),
        "quotes": len(smile.points.weight),
        **{name: _finite(value) for name, value in quality._asdict().items()},
        "findings": findings_by_name(smile.findings),
    }  # fmt: skip


def _points(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
