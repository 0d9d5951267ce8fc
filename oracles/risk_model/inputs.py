"""From the state of the risk model to what a scenario set is drawn from: volatilities, correlations, residual bank.

Factors with history take theirs from the state: so a skew follows its spot by the risk-reversal beta of its own
history (correlation x its volatility / the spot's), whose sign nobody has to know, and a curvature and a term slope by
theirs. The others follow governed numbers (``SurfaceParameters``), and their residuals are those of a donor shifted in
time: tails as fat as the donor's, no link but the stated correlation.

**Fallbacks**, each reported by name. Reference: the first underlying; if it is bad itself, ``REFERENCE_VOLATILITY``.

* ``short_history`` (under a year): at least the reference's volatility; no selected model (GARCH) below the multi-speed
  variance with its stress floor.
* ``new_asset`` (under 30 days), ``constant_prices`` (a day without a move), ``stale`` (a day without a bar): at least
  the reference's volatility plus own noise of 100 % a year, beta 1 to the reference and nothing else shared.
* ``no_volatility_history``: the largest known level's volatility, at least ``SurfaceParameters.level_volatility``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kernels.dcc import correlation_of
from oracles.risk_model.scenarios import MICRO, ResidualBank, factor_names
from oracles.risk_model.state import SHAPES, SURFACE_FACTORS, Finding, RiskModelState
from oracles.risk_model.variance_model import YEAR_HOURS, bars_of
from oracles.scenario_set import (
    FALLBACK_NOISE_VOLATILITY,
    SURFACE_KINDS,
    TO_LEVEL,
    FactorVolatilities,
    default_correlation,
    nearest_correlation,
)  # fmt: skip

FloatArray = npt.NDArray[np.float64]

REFERENCE_VOLATILITY = 1.5
"""Annual, of a reference asset that has no history of its own."""
NEW_ASSET_HOURS, STALE_HOURS = 720, 24
WITH_OWN_NOISE = ("new_asset", "constant_prices", "stale")
LEVEL = 0  # of the kinds of surface factors, which stand in one order in the state and in a set
RESIDUAL_LIMIT = 1_000.0
"""Whitened residuals are clipped here: beyond it lies nothing but bad data."""
_SHRINK = 1e-6  # keeps a repaired matrix positive definite through its rounding to 1e-9


@dataclass(frozen=True)
class SurfaceParameters:
    """Governed numbers of factors without history, annual volatilities; correlations as in ``default_correlation``.

    Why these: infra/docs/risk_model.md.
    """

    level_volatility: float = 1.0
    skew_volatility: float = 0.5
    curvature_volatility: float = 5.0
    term_volatility: float = 1.0
    rate_volatility: float = 0.05
    level_to_own_spot: float = -0.3
    level_to_level: float = 0.7
    rate_to_rate: float = 0.5


class ScenarioInputs(NamedTuple):
    """What ``scenarios.draw_fhs_set`` takes, for ``underlyings`` and ``option_underlyings``; ``fallbacks`` by name."""

    underlyings: tuple[str, ...]
    option_underlyings: tuple[str, ...]
    volatilities: FactorVolatilities
    correlation: FloatArray
    bank: ResidualBank
    horizon_seconds: int
    fallbacks: list[Finding]


def scenario_inputs(
    state: RiskModelState,
    option_underlyings: Sequence[str],
    horizon_seconds: int,
    parameters: SurfaceParameters | None = None,
) -> ScenarioInputs:
    """Inputs of a set over the state's underlyings and the given surfaces.

    A horizon below one bar takes the residuals of the shortest horizon and its share of a bar's variance; a longer one
    the residuals of the longest horizon of the spec that fits into it.

    Raises:
        ValueError: surfaces that are no underlyings, or a horizon above a bar that is not whole bars.
    """
    spec, surfaces, given = state.spec, tuple(option_underlyings), parameters or SurfaceParameters()
    if not set(surfaces) <= set(spec.underlyings):
        raise ValueError("option underlyings must be underlyings of the risk model")
    bars = horizon_seconds * 1000 / spec.interval_ms
    if horizon_seconds < 1 or (bars > 1 and bars != int(bars)):
        raise ValueError(f"a horizon of {horizon_seconds} s is not whole bars of {spec.interval_ms} ms")
    reasons = {asset: found for u, asset in enumerate(spec.underlyings) if (found := fallback_reason(state, u))}
    spot = _spot_volatilities(state, bars, reasons, horizon_seconds)
    level, unknown = _level_volatilities(state, surfaces, bars, horizon_seconds, given)
    root_years = math.sqrt(horizon_seconds / (YEAR_HOURS * 3_600))
    least = (given.skew_volatility, given.curvature_volatility, given.term_volatility)
    shapes = {
        name: _shape_volatilities(state, surfaces, kind, bars, annual * root_years)
        for kind, (name, annual) in enumerate(zip(SHAPES, least, strict=True), 1)
    }
    rate = np.full(len(surfaces), given.rate_volatility * root_years)
    fitting = [h for h in spec.horizons if h <= max(bars, 1)] or [min(spec.horizons)]
    return ScenarioInputs(
        spec.underlyings,
        surfaces,
        FactorVolatilities(spot, level, rate=rate, **shapes),
        _correlation(state, surfaces, spot, reasons, given),
        residual_bank(state, surfaces, max(fitting)),
        horizon_seconds,
        [Finding(name, asset) for asset, name in reasons.items()] + unknown,
    )


def fallback_reason(state: RiskModelState, u: int) -> str:
    """Why an underlying's own history is not enough, or nothing."""
    interval = state.spec.interval_ms
    known = int(state.variances[u].bars[0])
    if known < bars_of(NEW_ASSET_HOURS, interval):
        return "new_asset"
    if state.unchanged[u] >= bars_of(STALE_HOURS, interval):
        return "constant_prices"
    if state.time_ms[0] - state.value_ms[u] > STALE_HOURS * 3_600_000:
        return "stale"
    return "short_history" if known < bars_of(YEAR_HOURS, interval) else ""


def _own_stddev(state: RiskModelState, u: int, bars: float, is_young: bool) -> float:
    """By the asset's own history, 0 where there is none; below a bar its share of a bar's variance. Where the history
    is not enough, no selected model goes below the multi-speed variance with its floor."""
    if state.variances[u].bars[0] < 1:
        return 0.0
    models = (state.spot_stddev, state.floored_stddev) if is_young else (state.spot_stddev,)
    found = [model(u, int(state.time_ms[0]), max(int(bars), 1)) for model in models]
    return max((value for value in found if math.isfinite(value)), default=0.0) * math.sqrt(min(bars, 1.0))


def _spot_volatilities(state: RiskModelState, bars: float, reasons: dict[str, str], horizon_seconds: int) -> FloatArray:
    root_years = math.sqrt(horizon_seconds / (YEAR_HOURS * 3_600))
    assets = state.spec.underlyings
    out = np.array([_own_stddev(state, u, bars, asset in reasons) for u, asset in enumerate(assets)])
    if reasons.get(assets[0]):
        out[0] = max(out[0], REFERENCE_VOLATILITY * root_years)
    for u, asset in enumerate(assets[1:], 1):
        if reasons.get(asset) in WITH_OWN_NOISE:
            out[u] = max(out[u], math.hypot(out[0], FALLBACK_NOISE_VOLATILITY * root_years))
        elif reasons.get(asset):
            out[u] = max(out[u], out[0])
    return out


def _level_volatilities(
    state: RiskModelState, surfaces: tuple[str, ...], bars: float, horizon_seconds: int, given: SurfaceParameters
) -> tuple[FloatArray, list[Finding]]:
    known = {surfaces[o]: _surface_stddev(state, f, bars) for o, f in _known(state, surfaces, LEVEL)}
    least = given.level_volatility * math.sqrt(horizon_seconds / (YEAR_HOURS * 3_600))
    fallback = max([least, *known.values()])
    missing = [Finding("no_volatility_history", asset) for asset in surfaces if asset not in known]
    return np.array([known.get(asset, fallback) for asset in surfaces]), missing


def _shape_volatilities(
    state: RiskModelState, surfaces: tuple[str, ...], kind: int, bars: float, given: float
) -> FloatArray:
    out = np.full(len(surfaces), given)
    for o, f in _known(state, surfaces, kind):
        out[o] = _surface_stddev(state, f, bars)
    return out


def _surface_stddev(state: RiskModelState, f: int, bars: float) -> float:
    return state.surface_stddev(f, max(int(bars), 1)) * math.sqrt(min(bars, 1.0))


def _correlation(
    state: RiskModelState, surfaces: tuple[str, ...], spot: FloatArray, reasons: dict[str, str],
    given: SurfaceParameters,
) -> FloatArray:  # fmt: skip
    """[D,D]: the present DCC where both factors have a history, the governed template elsewhere; repaired."""
    assets = state.spec.underlyings
    present = correlation_of(state.dcc.root)
    spots = present[: len(assets), : len(assets)].copy()
    for u, asset in enumerate(assets[1:], 1):
        if reasons.get(asset) in WITH_OWN_NOISE:
            spots[u, :] = spots[:, u] = min(spot[0] / spot[u], 1.0) * spots[0, :]
            spots[u, u] = 1.0
    rows = [assets.index(asset) for asset in surfaces]
    matrix = default_correlation(
        nearest_correlation(spots), rows, level_to_own_spot=given.level_to_own_spot,
        level_to_level=given.level_to_level, rate_to_rate=given.rate_to_rate, kinds=SURFACE_KINDS,
    )  # fmt: skip
    places = _known_factors(state, surfaces)
    for at, source in places:
        matrix[at, : len(assets)] = matrix[: len(assets), at] = present[source, : len(assets)]
        for other, other_source in places:
            matrix[at, other] = present[source, other_source] if at != other else 1.0
    _follow_levels(matrix, len(assets), len(surfaces), {at for at, _ in places})
    shrunk = (1.0 - _SHRINK) * nearest_correlation(matrix)
    np.fill_diagonal(shrunk, 1.0)
    return shrunk


def _follow_levels(matrix: FloatArray, spots: int, surfaces: int, known: set[int]) -> None:
    """Shapes without history are a share of their level and own noise: so with everything else as their level is."""
    for kind, name in enumerate(SHAPES, 1):
        for level in range(spots, spots + surfaces):
            at = level + kind * surfaces
            if at not in known:
                matrix[at, :] = matrix[:, at] = TO_LEVEL.get(name, 0.0) * matrix[level, :]
                matrix[at, at] = 1.0


def _known(state: RiskModelState, surfaces: tuple[str, ...], kind: int) -> list[tuple[int, int]]:
    """(position among ``surfaces``, number among the state's surface factors) of those of a kind whose history is long
    enough, and says something: one that never moved is no evidence that it does not."""
    listed = state.spec.option_underlyings
    pairs = [(o, kind * len(listed) + listed.index(asset)) for o, asset in enumerate(surfaces) if asset in listed]
    least = bars_of(NEW_ASSET_HOURS, state.spec.interval_ms)
    return [(o, f) for o, f in pairs if state.vol_bars[f] >= least and state.surface_stddev(f, 1) > 0.0]


def _known_factors(state: RiskModelState, surfaces: tuple[str, ...]) -> list[tuple[int, int]]:
    """(factor of the set, factor of the state) of levels and shapes with a history."""
    spots = len(state.spec.underlyings)
    kinds = [(kind, o, f) for kind in range(SURFACE_FACTORS) for o, f in _known(state, surfaces, kind)]
    return [(spots + kind * len(surfaces) + o, spots + f) for kind, o, f in kinds]


def residual_bank(state: RiskModelState, surfaces: tuple[str, ...], horizon: int) -> ResidualBank:
    """The joint residuals of a horizon of the spec, one column a factor of the set.

    Vectors without the first underlying fall out. A value that a factor lacks, and every column of a factor without
    history, is the first underlying's at another time; the shift grows from factor to factor.
    """
    residuals = state.residuals(horizon)
    residuals = residuals[np.isfinite(residuals[:, 0])]
    spots, number = len(state.spec.underlyings), len(residuals)
    names = factor_names(state.spec.underlyings, surfaces)
    columns: dict[int, FloatArray] = {u: residuals[:, u] for u in range(spots)}
    columns |= {at: residuals[:, source] for at, source in _known_factors(state, surfaces)}
    out = np.empty((len(names), number))
    for f in range(len(names)):
        donor = np.roll(residuals[:, 0], f * number // len(names))
        own = columns.get(f, donor)
        out[f] = np.where(np.isfinite(own), own, donor)
    whole = np.rint(np.clip(out, -RESIDUAL_LIMIT, RESIDUAL_LIMIT) * MICRO).astype(np.int32)
    return ResidualBank(names, horizon * state.spec.interval_ms // 1000, whole)
