"""How much of the moves of recorded surfaces the factors of a scenario set explain, expiry by expiry.

At each maturity: share of the squared moves between snapshots (at most 36 hours apart) that is explained by the moves
of the factors as the risk model reads them at 30 days (`oracles.risk_model.smile_shape`), with the loadings of
`kernels.option_rows.expiry_loadings`; of the volatility at the forward, and of the smile relative to it over one
standard deviation or so. Beside it: without the term, and with loadings of one. No free parameter is fitted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kernels.option_rows import expiry_loadings
from kernels.svi import total_variances
from oracles.risk_model.smile_shape import shape_of
from oracles.surface import fit_surface
from oracles.surface_fit import Slice, parameters_of
from schemas.quantities import MILLISECONDS_PER_YEAR
from streams.replay.option_chains import read_markets
from tests.bench.rows import Row, checksum
from tests.bench.surface import SNAPSHOTS

GAP_MS = 36 * 3_600_000
EXPIRED_SOON_MS = 86_400_000
AT_THE_FORWARD_DAYS = (5, 7, 14, 60, 120, 180)
SMILES = ((7, 0.15), (14, 0.2), (30, 0.3), (60, 0.4), (90, 0.5), (180, 0.7))
POINTS = 21

Moment = tuple[int, list[Slice]]
"""Time and slices of one snapshot."""


class Reading(NamedTuple):
    """One snapshot: factors (level, skew, curvature, term), log volatilities by maturity, smiles over the forward's."""

    time_ms: int
    factors: np.ndarray
    at_the_forward: np.ndarray
    smiles: np.ndarray


def rows(small: bool) -> Iterator[Row]:
    """All rows of the part."""
    folder = os.environ.get(SNAPSHOTS)
    if folder is None:
        yield Row(name="factors of recorded surfaces", value=None, unit="", goal=f"not run: {SNAPSHOTS} is not set")
        return
    moments: dict[str, list[Moment]] = {}
    paths = sorted(Path(folder).glob("*deribit_options_snapshot_*.csv*"))
    for path in paths[:3] if small else paths:
        for market in read_markets(path):
            fitted = fit_surface(market.chains, market.time_ms)
            slices = [Slice(e.chain.expiry_ms, *e.smile.slice_e9) for e in fitted if e.smile.slice_e9 is not None]
            moments.setdefault(market.underlying, []).append((market.time_ms, slices))
    for underlying, found in moments.items():
        yield from explained(underlying, found)


def explained(name: str, moments: list[Moment]) -> Iterator[Row]:
    """Rows of one underlying."""
    readings = [read for moment in moments if (read := _reading(*moment)) is not None]
    pairs = [(a, b) for a, b in pairwise(readings) if b.time_ms - a.time_ms <= GAP_MS]
    level, skew, curvature, term = np.array([b.factors - a.factors for a, b in pairs]).T[:, :, None]
    size = f"{len(pairs)} moves"
    for place, days in enumerate(AT_THE_FORWARD_DAYS):
        moves = np.array([[b.at_the_forward[place] - a.at_the_forward[place]] for a, b in pairs])
        loading = expiry_loadings(days / 365)[0]
        yield _row(
            f"{name} volatility at the forward, {days} d", moves, level + loading * term, level, "level alone", size
        )
    for place, (days, half) in enumerate(SMILES):
        moves, k = np.array([b.smiles[place] - a.smiles[place] for a, b in pairs]), _grid(half)
        loaded, plain = (skew * a * k + curvature * (a * k) ** 2 for a in (expiry_loadings(days / 365)[1], 1.0))
        yield _row(f"{name} smile within {half:g}, {days} d", moves, loaded, plain, "loadings of one", size)


def _row(name: str, moves: np.ndarray, ours: np.ndarray, other: np.ndarray, peer: str, size: str) -> Row:
    share, without = (1.0 - float(((moves - told) ** 2).sum() / (moves**2).sum()) for told in (ours, other))
    return Row(
        name=name, value=round(share, 2), unit="of squared moves explained", peer=f"{peer} ({without:.2f})",
        goal="> 0", ok=share > 0.0, size=size, checksum=checksum(moves, ours),
    )  # fmt: skip


def _reading(time_ms: int, slices: list[Slice]) -> Reading | None:
    """None: too few expiries to read every factor."""
    alive = sorted(one for one in slices if one.expiry_ms > time_ms + EXPIRED_SOON_MS)
    shape = shape_of(alive, time_ms)
    if None in shape:
        return None
    factors = [_log_volatility(alive, time_ms, 30), *(value / 1e9 for value in shape if value is not None)]
    smiles = []
    for days, half in SMILES:
        variance = _variances(alive, time_ms, days, np.append(_grid(half), 0.0))
        smiles.append(np.sqrt(variance[:-1] / variance[-1]))
    at_the_forward = np.array([_log_volatility(alive, time_ms, days) for days in AT_THE_FORWARD_DAYS])
    return Reading(time_ms, np.array(factors), at_the_forward, np.array(smiles))


def _grid(half: float) -> np.ndarray:
    return np.linspace(-half, half, POINTS)


def _log_volatility(alive: list[Slice], time_ms: int, days: int) -> float:
    return 0.5 * float(np.log(_variances(alive, time_ms, days, np.zeros(1))[0] / (days / 365)))


def _variances(alive: list[Slice], time_ms: int, days: int, k: np.ndarray) -> np.ndarray:
    """Total variance at a maturity, linear between expiries; beyond them at the volatility of the nearest."""
    years = [(one.expiry_ms - time_ms) / MILLISECONDS_PER_YEAR for one in alive]
    wanted, out = min(max(days / 365, years[0]), years[-1]), np.empty((len(alive), len(k)))
    for one, row in zip(alive, out, strict=True):
        total_variances(parameters_of(one[1:]), k, row)
    return np.array([np.interp(wanted, years, column) for column in out.T]) * (days / 365) / wanted
