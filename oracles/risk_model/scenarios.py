"""Scenario sets of the risk model: joint filtered historical simulation, and Merton jumps on a Gaussian diffusion.

Both are recorded as ``ScenarioSet`` of version 4, or 3 without curvature and term, and drawn again from published
integers alone, bit for bit.

``joint-fhs-dcc``: the published ``ResidualBank`` holds N joint residuals, each whitened by the correlation known when
it was forecast. They are recoloured by the present correlations, scaled by the present volatilities, and S of them are
kept with weights (``kernels.vector_selection``); ``sampling_errors`` says what that costs against all N.

``merton-jumps``: factors diffuse together and jump together (one common jump that hits all, each in its own measure) or
alone (``kernels.jumps``). Sobol points, scrambled by the published inputs.

Sources: Barone-Adesi, Giannopoulos, Vosper (1999); Engle (2002); Merton (1976).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from kernels.dcc import cholesky, colour
from kernels.jumps import add_jumps, draw_jumps
from kernels.layout import NANO
from kernels.sampling import factor_moves
from kernels.vector_selection import select_vectors
from kernels.weights import integer_weights
from oracles.scenario_set import (
    SURFACE_KINDS,
    VERSION_WITH_SOURCE,
    FactorVolatilities,
    ScenarioSet,
    factor_limits,
    principal_directions,
    published_points,
    undrawn_set,
)  # fmt: skip

FHS_MODEL, JUMP_MODEL = "joint-fhs-dcc", "merton-jumps"
BANK_MAGIC = b"DPMERES1"
MICRO = 1_000_000

FloatArray = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class ResidualBank:
    """Joint whitened residuals int32[D,N] in 1e-6, oldest first, of ``factors`` (D names) over one horizon."""

    factors: tuple[str, ...]
    horizon_seconds: int
    whitened_e6: Int32Array

    @property
    def digest(self) -> str:
        """Name of the bank: BLAKE2b-256 of ``to_bytes``, hexadecimal."""
        return hashlib.blake2b(self.to_bytes(), digest_size=32).hexdigest()

    def to_bytes(self) -> bytes:
        """Magic, length of the JSON header (uint32), header, residuals row by row; little-endian."""
        header = {"factors": list(self.factors), "horizon_seconds": self.horizon_seconds}
        encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        return BANK_MAGIC + len(encoded).to_bytes(4, "little") + encoded + self.whitened_e6.astype("<i4").tobytes()

    @staticmethod
    def from_bytes(data: bytes) -> ResidualBank:
        """Inverse of ``to_bytes``.

        Raises:
            ValueError: not a bank, or of a length that its header does not say.
        """
        start = len(BANK_MAGIC) + 4
        end = start + int.from_bytes(data[len(BANK_MAGIC) : start], "little")
        try:
            header = json.loads(data[start:end])
            factors, horizon_seconds = tuple(header["factors"]), int(header["horizon_seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError("residual bank with an unreadable header") from error
        if data[: len(BANK_MAGIC)] != BANK_MAGIC or not factors or (len(data) - end) % (4 * len(factors)):
            raise ValueError("not a residual bank of whole vectors")
        values = np.frombuffer(data, "<i4", offset=end).astype(np.int32)
        return ResidualBank(factors, horizon_seconds, values.reshape(len(factors), -1))


def factor_names(
    underlyings: Sequence[str], option_underlyings: Sequence[str], kinds: Sequence[str] = SURFACE_KINDS
) -> tuple[str, ...]:
    """Names of the D factors in a set's order: ``spot:BTC``, ..., ``level:BTC``, ``skew:BTC``, ..., ``rate:BTC``."""
    surfaces = [f"{kind}:{name}" for kind in kinds for name in option_underlyings]
    return (*(f"spot:{name}" for name in underlyings), *surfaces)


def draw_fhs_set(
    underlyings: Sequence[str],
    option_underlyings: Sequence[str],
    volatilities: FactorVolatilities,
    correlation: FloatArray,
    bank: ResidualBank,
    *,
    seed: int,
    scenarios: int = 4096,
    horizon_seconds: int = 3600,
    level_e6: int = 990_000,
) -> ScenarioSet:
    """Round the parameters and draw from the bank; arguments and errors as ``scenario_set.draw_scenario_set``.

    Raises:
        ValueError: also when the bank is of other factors or empty.
    """
    names = (underlyings, option_underlyings)
    undrawn = undrawn_set(*names, volatilities, correlation, seed, scenarios, horizon_seconds, level_e6)
    version = max(undrawn.version, VERSION_WITH_SOURCE)
    return redraw_fhs(replace(undrawn, model=FHS_MODEL, version=version, source=bank.digest), bank)


def redraw_fhs(recorded: ScenarioSet, bank: ResidualBank) -> ScenarioSet:
    """Draw again what the inputs of a recorded set and the bank it names say.

    Raises:
        ValueError: a set of another model, another bank, a bank of other factors, or correlations that are not
            positive definite.
    """
    if recorded.model != FHS_MODEL:
        raise ValueError(f"a set of model {recorded.model} is not drawn from residuals")
    if bank.digest != recorded.source:
        raise ValueError(f"bank {bank.digest[:16]} is not the set's source {recorded.source[:16]}")
    whitened, moves = _recoloured(recorded, bank)
    chosen, weights = select_vectors(moves, whitened, recorded.size)
    return recorded.filled(_rounded(recorded, moves[:, chosen]), integer_weights(weights))


def all_vectors(recorded: ScenarioSet, bank: ResidualBank) -> ScenarioSet:
    """The set of all N vectors with equal weights, in the order of the bank; what a drawn set approximates."""
    _, moves = _recoloured(recorded, bank)
    return recorded.filled(_rounded(recorded, moves), integer_weights(np.ones(moves.shape[1])))


def _recoloured(recorded: ScenarioSet, bank: ResidualBank) -> tuple[FloatArray, FloatArray]:
    """(whitened [D,N], moves [D,N] in standard deviations)."""
    if bank.factors != factor_names(recorded.underlyings, recorded.option_underlyings, recorded.kinds):
        raise ValueError("the residual bank is of other factors than the set")
    if bank.whitened_e6.shape[1] < 1:
        raise ValueError("the residual bank is empty")
    root = np.zeros(recorded.correlation_e9.shape)
    if not cholesky(recorded.correlation_e9 / float(NANO), root):
        raise ValueError("the correlation matrix is not positive definite")
    whitened = bank.whitened_e6 / float(MICRO)
    moves = np.empty_like(whitened)
    colour(root, whitened, moves)
    return whitened, moves


def _rounded(recorded: ScenarioSet, moves: FloatArray) -> Int32Array:
    """Moves in standard deviations -> int32 in 1e-9 within the limits of the factors."""
    limit = factor_limits(recorded)[:, None]
    scaled = moves * (recorded.volatility_e9 / float(NANO))[:, None]
    return np.rint(np.clip(scaled, -limit, limit) * float(NANO)).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Jumps:
    """Jumps of the D factors: ``common_per_year`` hit all at once, ``own_per_year`` [D] one alone.

    ``mean`` and ``stddev`` [2,D]: of a common jump, of an own jump, as moves of each factor.
    """

    common_per_year: float
    own_per_year: FloatArray
    mean: FloatArray
    stddev: FloatArray

    def parameters_e9(self) -> npt.NDArray[np.int64]:
        """int64[1 + 5 D] as recorded."""
        flat = [np.array([self.common_per_year]), self.own_per_year, self.mean.ravel(), self.stddev.ravel()]
        return np.rint(np.concatenate(flat) * NANO).astype(np.int64)


def draw_jump_set(
    underlyings: Sequence[str],
    option_underlyings: Sequence[str],
    volatilities: FactorVolatilities,
    correlation: FloatArray,
    jumps: Jumps,
    *,
    seed: int,
    scenarios: int = 4096,
    horizon_seconds: int = 3600,
    level_e6: int = 990_000,
) -> ScenarioSet:
    """Round the parameters and draw; ``volatilities`` are those of the diffusion. Other arguments and errors as
    ``scenario_set.draw_scenario_set``.

    Raises:
        ValueError: also for jumps of other sizes, not finite, or with negative intensities or deviations.
    """
    undrawn = undrawn_set(
        underlyings, option_underlyings, volatilities, correlation, seed, scenarios, horizon_seconds, level_e6
    )
    factors = undrawn.volatility_e9.size
    shapes = (jumps.own_per_year.shape, jumps.mean.shape, jumps.stddev.shape)
    if shapes != ((factors,), (2, factors), (2, factors)):
        raise ValueError(f"jumps of {factors} factors need own_per_year [{factors}], mean and stddev [2,{factors}]")
    if not np.isfinite(jumps.mean).all() or not _all_within(jumps):
        raise ValueError("jumps: intensities and deviations must be finite and not negative, means finite")
    version = max(undrawn.version, VERSION_WITH_SOURCE)
    return redraw_jumps(replace(undrawn, model=JUMP_MODEL, version=version, parameters_e9=jumps.parameters_e9()))


def _all_within(jumps: Jumps) -> bool:
    values = np.concatenate([np.array([jumps.common_per_year]), jumps.own_per_year, jumps.stddev.ravel()])
    return bool(np.isfinite(values).all() and (values >= 0.0).all())


def redraw_jumps(recorded: ScenarioSet) -> ScenarioSet:
    """Draw again what the inputs of a recorded set say.

    Raises:
        ValueError: a set of another model, or of another number of parameters than its factors need.
    """
    factors = recorded.volatility_e9.size
    if recorded.model != JUMP_MODEL or recorded.parameters_e9.size != 1 + 5 * factors:
        raise ValueError(f"a set of model {recorded.model} with {recorded.parameters_e9.size} parameters has no jumps")
    years = recorded.horizon_seconds / (365 * 86_400)
    values = recorded.parameters_e9 / float(NANO)
    mean, stddev = values[1 + factors :].reshape(2, 2, factors)
    points = published_points(recorded, factors + 3)
    moves, weights = draw_jumps(points[:3], values[0] * years, values[1 : 1 + factors] * years, mean, stddev)
    scale = recorded.volatility_e9 / float(NANO)
    loadings = scale[:, None] * principal_directions(recorded.correlation_e9 / float(NANO))
    limit = factor_limits(recorded)
    diffusion = factor_moves(points[3:], np.ones(recorded.size), loadings, limit)
    add_jumps(diffusion, moves, limit)
    return recorded.filled(diffusion, integer_weights(weights))


def shortfalls(scenario_set: ScenarioSet, books: FloatArray) -> FloatArray:
    """Expected shortfall [B] of linear books [B,D] (exposure to each factor) at the set's level, as positive losses."""
    losses = -(books @ (scenario_set.factors() / float(NANO)))
    weights = scenario_set.weights / float(scenario_set.weights.sum())
    tail = 1.0 - scenario_set.level_e6 / 1e6
    out = np.empty(len(books))
    for b, loss in enumerate(losses):
        order = np.argsort(-loss, kind="stable")
        mass = np.minimum(np.cumsum(weights[order]), tail)
        out[b] = np.diff(mass, prepend=0.0) @ loss[order] / tail
    return out


def sampling_errors(recorded: ScenarioSet, bank: ResidualBank, books: FloatArray) -> FloatArray:
    """Relative error [B] of each book's expected shortfall in the drawn set against all vectors of its bank."""
    return shortfalls(recorded, books) / shortfalls(all_vectors(recorded, bank), books) - 1.0
