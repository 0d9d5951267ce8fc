"""A risk model that learns of more assets, or follows another variance: what it knows stays, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.dcc import DccState
from oracles.risk_model.state import SURFACE_FACTORS, HorizonState, ModelSpec, RiskModelState


def extended(state: RiskModelState, spec: ModelSpec) -> RiskModelState:
    """A state of ``spec``, which has the underlyings and surfaces of the present one first, in their order.

    Its variance model may be another, and the number of returns it keeps. Arrays are shared: the old state is done.

    Raises:
        ValueError: a spec that drops or reorders assets, or has other bars, horizons or lengths.
    """
    old = state.spec
    if not _continues(spec.underlyings, old.underlyings) or not _continues(
        spec.option_underlyings, old.option_underlyings
    ):
        raise ValueError("assets may only be added behind those that are there")
    if (spec.interval_ms, spec.horizons, spec.residuals) != (old.interval_ms, old.horizons, old.residuals):
        raise ValueError("bars, horizons and lengths of a risk model do not change")
    grown = RiskModelState(spec)
    spots, surfaces = len(old.underlyings), len(old.option_underlyings)
    of_surfaces = _of_surfaces(surfaces, len(spec.option_underlyings))
    factors = np.concatenate([np.arange(spots), len(spec.underlyings) + of_surfaces])
    grown.variances[:spots] = state.variances
    grown.returns[:spots] = [history.of_size(spec.returns) for history in state.returns]
    grown.open_interest[:spots] = state.open_interest
    grown.close[:spots], grown.unchanged[:spots] = state.close, state.unchanged
    grown.vol_of_vol[of_surfaces], grown.vol_bars[of_surfaces] = state.vol_of_vol, state.vol_bars
    for name in ("value", "value_ms", "bar_stddev"):
        getattr(grown, name)[factors] = getattr(state, name)
    grown.time_ms[:] = state.time_ms
    square = np.ix_(factors, factors)
    q, target, root = (_padded(part, square, spec.factors) for part in state.dcc[:3])
    grown.dcc = DccState(q, target, root, state.dcc.bars)
    grown.horizons = [_wider(part, factors, spec.factors) for part in state.horizons]
    return grown


def _of_surfaces(old: int, new: int) -> npt.NDArray[np.int64]:
    """Where the factors of ``old`` surfaces are among those of ``new`` ones: all levels first, then kind by kind."""
    return np.concatenate([np.arange(old) + kind * new for kind in range(SURFACE_FACTORS)])


def _continues(longer: tuple[str, ...], shorter: tuple[str, ...]) -> bool:
    return longer[: len(shorter)] == shorter


def _padded(matrix: np.ndarray, square: tuple[np.ndarray, ...], size: int) -> np.ndarray:
    """The matrix with factors that are correlated with nothing."""
    out = np.eye(size)
    out[square] = matrix
    return out


def _wider(state: HorizonState, factors: np.ndarray, size: int) -> HorizonState:
    def wide(part: np.ndarray) -> np.ndarray:
        out = np.full((len(part), size), np.nan)
        out[:, factors] = part
        return out

    square = np.ix_(factors, factors)
    root = np.stack([_padded(part, square, size) for part in state.root])
    return HorizonState(wide(state.stddev), wide(state.value), root, state.made_ms, wide(state.ring), state.seen)
