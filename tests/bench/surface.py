"""Volatility surfaces: time of a fit beside scipy's, and how near the slices are to recorded markets.

Quality is measured on the shipped recorded chain and, where the environment names a folder of Deribit snapshots
(DPME_OPTION_SNAPSHOTS), on those too: share of two-sided quotes that hold the slice between bid and ask, error of the
core in vol points (median over expiries) by tenor, and arbitrage of the recorded integers on a dense grid. Quotes say
less the nearer the expiry is: under two days the error is measured against their half spread.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from kernels.svi import durrleman_g, total_variances
from kernels.svi_fit import MINIMUM_POINTS, fit_free_slice, fit_slice
from oracles.surface import CORE_STDDEVS, FittedExpiry, fit_surface
from oracles.surface_fit import NO_FLOOR, parameters_of
from schemas.quantities import USD9_PER_USD
from streams.replay.deribit_records import read_snapshots
from streams.replay.files import read_lines
from streams.replay.option_chains import Market, read_markets
from streams.simulate.smiles import RECORDED
from tests.bench.rows import Row, checksum, peak_memory_mb, side_by_side

FIT_GOAL_US = 167.0
INSIDE_GOAL, CORE_GOAL_POINTS = 0.80, 0.35
CORE_DAYS_MIN = 2.0  # nearer expiries have spreads six times as wide: error over half spread is their goal
CORE_SPREAD_SHARE = 0.25
TENOR_DAYS = (0.0, 0.5, 1.0, CORE_DAYS_MIN, 7.0, 30.0, 90.0, float("inf"))
SNAPSHOTS = "DPME_OPTION_SNAPSHOTS"
PASSES = 10
DENSE = np.linspace(-8.0, 8.0, 4_001)


def rows(small: bool) -> Iterator[Row]:
    """All rows of the part."""
    shipped = _fitted(read_markets(RECORDED))
    yield from _speed(shipped[:4] if small else shipped)
    yield from _quality("shipped ETH chain", shipped)
    folder = os.environ.get(SNAPSHOTS)
    if folder is None:
        yield Row(name="quality on recorded snapshots", value=None, unit="", goal=f"not run: {SNAPSHOTS} is not set")
        return
    paths = sorted(Path(folder).glob("*deribit_options_snapshot_*.csv*"))
    fitted = [e for path in (paths[:1] if small else paths) for e in _fitted(read_markets(path))]
    yield from _quality(f"{len(paths)} recorded snapshots", fitted)
    yield _limit_of_a_slice(paths[:1] if small else paths)


def _fitted(markets: list[Market]) -> list[FittedExpiry]:
    return [expiry for market in markets for expiry in fit_surface(market.chains, market.time_ms)]


def _speed(expiries: list[FittedExpiry]) -> Iterator[Row]:
    points = [tuple(e.smile.points) for e in expiries]
    found: dict[str, list[np.ndarray]] = {}

    def free() -> None:
        for _ in range(PASSES):
            found["free"] = [fit_free_slice(*p, *NO_FLOOR)[0] for p in points]

    def plain() -> None:
        for _ in range(PASSES):
            found["plain"] = [fit_slice(*p)[0] for p in points]

    def scipy() -> None:
        found["scipy"] = [_scipy_fit(*p) for p in points]

    timings = side_by_side(free, plain, repeats=9)
    ours, plain_us = (round(1e6 * s / len(points) / PASSES, 1) for s in timings.seconds)
    beside = side_by_side(plain, scipy, repeats=3)  # apart: scipy's BLAS threads go on spinning for a while
    scipy_us = round(1e6 * beside.seconds[1] / len(points), 1)
    quotes = sum(len(p[0]) for p in points) / len(points)
    size, memory = f"{len(points)} expiries of {quotes:.0f} quotes", peak_memory_mb()
    yield Row(
        name="SVI fit, free of butterfly arbitrage", value=ours, unit="us", goal=f"<= {FIT_GOAL_US:g}",
        ok=ours <= FIT_GOAL_US, peer=f"butterfly not looked at: {plain_us} us", ratio=round(timings.ratios[1], 2),
        size=size, memory_mb=memory, checksum=checksum(*found["free"]),
    )  # fmt: skip
    yield Row(
        name="SVI fit, butterfly not looked at", value=plain_us, unit="us",
        peer=f"scipy least_squares, generic start: {scipy_us} us", ratio=round(beside.ratios[1] * PASSES, 1), size=size,
        memory_mb=memory, checksum=checksum(*found["plain"]),
    )  # fmt: skip
    worse = max(_loss(a, *p) / max(_loss(b, *p), 1e-30) for a, b, p in zip(found["plain"], found["scipy"], points))
    yield Row(
        name="squared error over scipy's, worst expiry", value=round(worse, 4), unit="", goal="<= 1.05",
        ok=worse <= 1.05, size=size, checksum=checksum(*found["plain"]),
    )  # fmt: skip


def _scipy_fit(k: np.ndarray, w: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Five raw parameters, bounded as ours are, from a generic start; a is free."""
    width = float(k[-1] - k[0])

    def residuals(p: np.ndarray) -> Any:
        return np.sqrt(weight) * (p[0] + p[1] * (p[2] * (k - p[3]) + np.hypot(k - p[3], p[4])) - w)

    start = [float(w.min()) / 2, 0.1, -0.1, float(k.mean()), max(0.2 * width, 2e-4)]
    low = [-np.inf, 0.0, -0.999, k[0] - width, 1e-4]
    high = [np.inf, 2.0, 0.999, k[-1] + width, max(2 * width, 1e-3)]
    return np.asarray(least_squares(residuals, start, bounds=(low, high), x_scale="jac").x)


def _loss(p: np.ndarray, k: np.ndarray, w: np.ndarray, weight: np.ndarray) -> float:
    return float((weight * (p[0] + p[1] * (p[2] * (k - p[3]) + np.hypot(k - p[3], p[4])) - w) ** 2).sum())


def _quality(name: str, expiries: list[FittedExpiry]) -> Iterator[Row]:
    fitted = [e for e in expiries if e.smile.slice_e9 is not None]
    sliced = np.array([e.smile.slice_e9 for e in fitted], np.int64)
    size, check = f"{len(fitted)} of {len(expiries)} expiries", checksum(sliced)
    market = [e for e in fitted if e.quality.two_sided]
    held = _inside_share(market)
    yield Row(
        name=f"inside bid and ask, {name}", value=round(100 * held, 1), unit="%", goal=f">= {100 * INSIDE_GOAL:g} %",
        ok=held >= INSIDE_GOAL, size=size, checksum=check,
    )  # fmt: skip
    for days in ((CORE_DAYS_MIN, TENOR_DAYS[-1]), (0.0, CORE_DAYS_MIN), *pairwise(TENOR_DAYS)):
        tenor = f"{days[0]:g} to {days[1]:g} days" if days[1] < TENOR_DAYS[-1] else f"{days[0]:g} days or more"
        yield from _core(f"{tenor}, {name}", [e for e in market if _is_of(e, days)])
    wrong = [_has_butterfly(s) for s in sliced]
    gaps = [e.verdict.calendar_gap < 0 for e in fitted if e.verdict is not None]
    repaired = sum(e.smile.repaired for e in fitted)
    yield Row(
        name=f"butterfly and calendar violations, {name}", value=float(sum(wrong) + sum(gaps)), unit="expiries",
        goal="0", ok=not any(wrong) and not any(gaps), peer=f"{repaired} repaired", size=size, checksum=check,
    )  # fmt: skip


def _inside_share(chosen: list[FittedExpiry]) -> float:
    two_sided = sum(e.quality.two_sided for e in chosen)
    return sum(e.quality.inside_share * e.quality.two_sided for e in chosen) / two_sided


def _is_of(expiry: FittedExpiry, days: tuple[float, float]) -> bool:
    return days[0] <= expiry.years * 365 < days[1]


def _core(name: str, chosen: list[FittedExpiry]) -> Iterator[Row]:
    """Error of one tenor beside the half spread of its quotes."""
    if not chosen:
        return
    core = float(np.nanmedian([e.quality.core_points for e in chosen]))
    spread = float(np.nanmedian([e.quality.half_spread_points for e in chosen]))
    inside = _inside_share(chosen)
    is_near = chosen[0].years * 365 < CORE_DAYS_MIN
    limit = CORE_SPREAD_SHARE * spread if is_near else CORE_GOAL_POINTS
    goal = f"<= {limit:.2f}, {CORE_SPREAD_SHARE:g} of the half spread" if is_near else f"<= {limit:g}"
    yield Row(
        name=f"core error, {name}", value=round(core, 3), unit="vol points", ratio=round(spread / core, 1), goal=goal,
        ok=core <= limit, peer=f"median half spread {spread:.2f}, {100 * inside:.1f} % inside",
        size=f"{len(chosen)} expiries", checksum=checksum(np.array([e.smile.slice_e9 for e in chosen], np.int64)),
    )  # fmt: skip


def _limit_of_a_slice(paths: list[Path]) -> Row:
    """What five parameters can do near expiry: error of a fit to the volatilities that the source publishes itself."""
    published, ours = [], []
    for path in paths:
        known = _published(path)
        for expiry in (e for e in _fitted(read_markets(path)) if e.years * 365 < CORE_DAYS_MIN and e.quality.two_sided):
            strikes = np.round(expiry.chain.forward_usd9 * np.exp(expiry.smile.points.log_moneyness) / USD9_PER_USD, 3)
            found = [known.get((expiry.chain.expiry_ms, float(strike))) for strike in strikes]
            if None not in found and len(found) >= MINIMUM_POINTS:
                published.append(_core_error(np.array(found, np.float64), expiry))
                ours.append(expiry.quality.core_points)
    return Row(
        name=f"core error, 0 to {CORE_DAYS_MIN:g} days, fitted to the source's own volatilities",
        value=round(float(np.median(published)), 3), unit="vol points", size=f"{len(published)} expiries",
        peer=f"fitted to marks: {np.median(ours):.3f}", checksum=checksum(np.array(published)),
    )  # fmt: skip


def _published(path: Path) -> dict[tuple[int, float], float]:
    """(expiry, strike) -> volatility as a Deribit snapshot has it, the same for the call and the put."""
    (snapshot,) = read_snapshots([path])
    column = [float(row["implied_volatility"] or "nan") for row in csv.DictReader(read_lines(path))]
    return {(row.expiry_ms, float(row.strike_usd)): iv for row, iv in zip(snapshot.rows, column, strict=True)}


def _core_error(volatility: np.ndarray, expiry: FittedExpiry) -> float:
    """Vol points, root mean square over the core, of a slice fitted to these volatilities of the expiry's points."""
    k, _, weight = expiry.smile.points
    parameters, _, _ = fit_slice(k, volatility**2 * expiry.years, weight)
    variance = np.empty(len(k))
    total_variances(parameters, k, variance)
    at_forward = float(np.interp(0.0, k, volatility)) * expiry.years**0.5
    core = np.abs(k) <= CORE_STDDEVS * at_forward
    return float(np.sqrt(np.mean((100 * (np.sqrt(variance / expiry.years) - volatility))[core] ** 2)))


def _has_butterfly(slice_e9: np.ndarray) -> bool:
    values = parameters_of(tuple(int(v) for v in slice_e9))  # type: ignore[arg-type]
    return bool(min(durrleman_g(*values, k) for k in DENSE) < 0.0)
