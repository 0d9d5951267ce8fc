"""Weighted scenario sets, drawn from published integers and recorded as integers: anyone may draw them again.

Model ``t-copula-sobol``: all factors are one multivariate Student t (5 degrees of freedom: a t copula with t margins),

    X = g * C^(1/2) Z * volatility * sqrt((df - 2) / df),   g = sqrt(df / chi2_df),

with Z from scrambled Sobol points through the inverse normal, directions ordered by their share of the variance so that
the best Sobol dimensions serve the largest. The radius g has the first dimension and is importance-sampled (see
``kernels.sampling``). The weights become integers by largest remainder (sum 2**30).

Version 2 draws in the functional core: volatilities and correlations are rounded to integers first, the scrambling bits
are SHAKE-256 of the published inputs (the head of the recorded bytes), and every step after them has the same bits on
every machine. So ``redraw`` gives the same digest anywhere. A venue takes the number of the epoch for ``seed``: then
nobody can pick a lucky set. Sets of version 1 (drawn by libraries whose bits differ between machines) are still read.
Version 3 is the same record for models with inputs of their own, ``source`` and ``parameters_e9``: see
``oracles.risk_model.scenarios``, which draws them. Version 4 is version 3 with two more factors of every surface,
curvature and term, for any model. What is drawn without them stays of version 2 or 3, byte for byte.

Sources: Demarta and McNeil, "The t copula and related copulas" (2005), section 2; Owen, "Scrambling Sobol' and
Niederreiter-Xing points" (1998); Higham, "Computing the nearest correlation matrix" (2002) for the repair's first step.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.eigen import from_eigen, symmetric_eigen
from kernels.layout import NANO, WEIGHT_TOTAL, YEAR_SECONDS, ScenarioTable, scenario_table, tail_mass_of_level
from kernels.sampling import factor_moves, radii
from kernels.sobol import DIMENSIONS_MAX, RANDOM_WORDS, scrambled_points
from kernels.weights import integer_weights

MODEL = "t-copula-sobol"
VERSION, VERSION_WITH_SOURCE, VERSION_WITH_SHAPE = 2, 3, 4
DEGREES_OF_FREEDOM = 5.0
MAGIC = b"DPMESCN1"

SPOT_LIMIT = 1.5
SURFACE_LIMITS = {"level": 1.5, "skew": 1.0, "curvature": 2.0, "term": 1.0, "rate": 0.2}
"""Bounds of the factors (absolute): a spot factor stays within x0.22 .. x4.5; int32 in 1e-9 ends at 2.147."""
PLAIN_KINDS, SURFACE_KINDS = ("level", "skew", "rate"), tuple(SURFACE_LIMITS)
"""Factors of a surface in the order of a set, up to version 3 and from version 4 on."""

VOLATILITY_MAX = 1000.0
"""Largest standard deviation of a factor over the horizon."""

FALLBACK_NOISE_VOLATILITY = 1.0
"""Annual volatility of the own noise of a coin without history (beside beta 1 to bitcoin)."""

_EIGENVALUE_MINIMUM = 1e-8
_ROUNDING = 1e-6  # an eigenvalue this far below zero is the rounding of the correlations

FloatArray = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FactorVolatilities:
    """Standard deviations over the horizon (annual volatility times sqrt(horizon in years)).

    ``spot`` [U], log return; for the O underlyings with an option surface: ``level`` [O], log of the volatility
    multiplier; ``skew`` [O], relative volatility change per unit of log-moneyness; ``rate`` [O], absolute. Both or
    neither (empty) of ``curvature`` [O], relative volatility change per squared unit of log-moneyness, and ``term``
    [O], log of volatility per unit of an expiry's term loading (``kernels.option_rows.expiry_loadings``).
    """

    spot: FloatArray
    level: FloatArray
    skew: FloatArray
    rate: FloatArray
    curvature: FloatArray = field(default_factory=lambda: np.zeros(0))
    term: FloatArray = field(default_factory=lambda: np.zeros(0))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Factors of the surfaces."""
        return SURFACE_KINDS if self.curvature.size or self.term.size else PLAIN_KINDS

    def stacked(self) -> FloatArray:
        """[U + 3 O] or [U + 5 O] in the order of the correlation matrix: spots, then kind by kind."""
        return np.concatenate([self.spot, *(getattr(self, kind) for kind in self.kinds)])

    @staticmethod
    def unstacked(stacked: FloatArray, spots: int, kinds: Sequence[str]) -> FactorVolatilities:
        """Inverse of ``stacked``."""
        spot, surface = stacked[:spots], stacked[spots:].reshape(len(kinds), -1)
        return FactorVolatilities(spot, **dict(zip(kinds, surface, strict=True)))

    @staticmethod
    def from_annual(
        spot: FloatArray, level: FloatArray, skew: FloatArray, rate: FloatArray, horizon_seconds: int,
        curvature: FloatArray | None = None, term: FloatArray | None = None,
    ) -> FactorVolatilities:  # fmt: skip
        """Scale annual volatilities to the horizon by the square root of time."""
        root = math.sqrt(horizon_seconds / YEAR_SECONDS)
        given = (spot, level, skew, rate, *(part for part in (curvature, term) if part is not None))
        return FactorVolatilities(*(part * root for part in given))


@dataclass(frozen=True, eq=False)
class ScenarioSet:
    """A recorded scenario set; factor arrays int32 in 1e-9, weights int32 with sum 2**30.

    ``spot_log_return`` [U,S]; ``level_log``, ``skew``, ``rate_shift`` [O,S] for ``option_underlyings``, a subset of
    ``underlyings``, from version 4 on also ``curvature``, ``term``. ``level_e6`` is the confidence level of expected
    shortfall (990_000 = 99 %). Drawn from ``seed``, ``volatility_e9`` [D] over the horizon, ``correlation_e9`` [D,D],
    D = U + K O: spots, then each of the K ``kinds`` (both empty in sets of version 1, which cannot be drawn again).
    ``source`` names other published inputs by their digest, ``parameters_e9`` [P] further numbers (from version 3 on).
    """

    underlyings: tuple[str, ...]
    option_underlyings: tuple[str, ...]
    spot_log_return: Int32Array
    level_log: Int32Array
    skew: Int32Array
    rate_shift: Int32Array
    weights: Int32Array
    horizon_seconds: int
    level_e6: int
    seed: int
    volatility_e9: Int64Array
    correlation_e9: Int32Array
    model: str = MODEL
    version: int = VERSION
    source: str = ""
    parameters_e9: Int64Array = field(default_factory=lambda: np.zeros(0, np.int64))
    curvature: Int32Array = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    term: Int32Array = field(default_factory=lambda: np.zeros((0, 0), np.int32))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which factors its surfaces have."""
        return SURFACE_KINDS if self.version >= VERSION_WITH_SHAPE else PLAIN_KINDS

    @property
    def factor_count(self) -> int:
        """D."""
        return len(self.underlyings) + len(self.kinds) * len(self.option_underlyings)

    @property
    def size(self) -> int:
        """Number of scenarios."""
        return int(self.weights.shape[0])

    @property
    def digest(self) -> str:
        """Name of the set: BLAKE2b-256 of ``to_bytes``, hexadecimal."""
        return hashlib.blake2b(self.to_bytes(), digest_size=32).hexdigest()

    def inputs(self) -> bytes:
        """What the set is drawn from, the head of ``to_bytes``: magic, length of the JSON header (uint32), header; from
        version 2 on the volatilities (int64) and the correlations right of the diagonal (int32, row by row), from
        version 3 on the further parameters (int64). All little-endian.
        """
        header = {
            "horizon_seconds": self.horizon_seconds,
            "level_e6": self.level_e6,
            "model": self.model,
            "option_underlyings": list(self.option_underlyings),
            "scenarios": self.size,
            "seed": self.seed,
            "underlyings": list(self.underlyings),
            "version": self.version,
        }
        if self.version >= VERSION_WITH_SOURCE:
            header |= {"source": self.source, "parameters": int(self.parameters_e9.size)}
        encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        above = self.correlation_e9[right_of_diagonal(self.correlation_e9.shape[0])]
        parameters = self.volatility_e9.astype("<i8").tobytes() + above.astype("<i4").tobytes()
        parameters += self.parameters_e9.astype("<i8").tobytes()
        return MAGIC + len(encoded).to_bytes(4, "little") + encoded + parameters

    def factors(self) -> Int32Array:
        """All factors [D,S] in the order of the correlations."""
        return np.concatenate([self.spot_log_return, *(getattr(self, _COLUMN_OF[kind]) for kind in self.kinds)])

    def to_bytes(self) -> bytes:
        """``inputs``, then factors and weights as int32 little-endian."""
        return self.inputs() + self.factors().astype("<i4").tobytes() + self.weights.astype("<i4").tobytes()

    @staticmethod
    def from_bytes(data: bytes) -> ScenarioSet:
        """Inverse of ``to_bytes``.

        Raises:
            ValueError: not a scenario set, of a version after this one, or of a length that its header does not say.
        """
        empty, start = _read_header(data)
        factors, size = empty.factor_count, empty.size
        pairs = factors * (factors - 1) // 2
        further = empty.parameters_e9.size
        parameters = 8 * factors + 4 * pairs + 8 * further if empty.version > 1 else 0
        if len(data) != start + parameters + 4 * (factors + 1) * size:
            expected = start + parameters + 4 * (factors + 1) * size
            raise ValueError(f"scenario set of {len(data)} bytes, its header says {expected}")
        if parameters:
            volatility = np.frombuffer(data, "<i8", factors, start).astype(np.int64)
            correlation = symmetric_e9(np.frombuffer(data, "<i4", pairs, start + 8 * factors), factors)
            own = np.frombuffer(data, "<i8", further, start + 8 * factors + 4 * pairs).astype(np.int64)
            empty = replace(empty, volatility_e9=volatility, correlation_e9=correlation, parameters_e9=own)
        drawn = np.frombuffer(data, "<i4", offset=start + parameters).astype(np.int32).reshape(factors + 1, size)
        return empty.filled(drawn[:-1], drawn[-1])

    def filled(self, factors: Int32Array, weights: Int32Array) -> ScenarioSet:
        """The set of the same inputs with these factors [D,S] and weights [S]."""
        spots = len(self.underlyings)
        surface = factors[spots:].reshape(len(self.kinds), -1, factors.shape[1])
        columns: Any = {_COLUMN_OF[kind]: moves for kind, moves in zip(self.kinds, surface, strict=True)}
        return replace(self, spot_log_return=factors[:spots], weights=weights, **columns)

    def table(self, underlyings: Sequence[str] | None = None) -> ScenarioTable:
        """The kernels' view, its spot rows in the order of ``underlyings`` (default: the set's own order).

        Raises:
            KeyError: an underlying that the set does not know; it must not be margined with zero moves.
        """
        order = self.underlyings if underlyings is None else underlyings
        position = {name: row for row, name in enumerate(self.underlyings)}
        surface = {name: row for row, name in enumerate(self.option_underlyings)}
        rows = np.array([position[name] for name in order], np.int64)
        shape = (self.curvature, self.term) if self.version >= VERSION_WITH_SHAPE else ()
        return scenario_table(
            np.ascontiguousarray(self.spot_log_return[rows]),
            np.array([surface.get(name, -1) for name in order], np.int32),
            self.level_log,
            self.skew,
            self.rate_shift,
            self.weights,
            tail_mass_of_level(self.level_e6),
            self.horizon_seconds,
            *shape,
        )


_COLUMN_OF = {kind: kind for kind in SURFACE_KINDS} | {"level": "level_log", "rate": "rate_shift"}


def _read_header(data: bytes) -> tuple[ScenarioSet, int]:
    """-> (a set of zeros with the header's inputs but no parameters, the offset of what follows the header)."""
    if data[: len(MAGIC)] != MAGIC or len(data) < len(MAGIC) + 4:
        raise ValueError("not a recorded scenario set")
    start = len(MAGIC) + 4
    end = start + int.from_bytes(data[len(MAGIC) : start], "little")
    try:
        header = json.loads(data[start:end])
        underlyings, surfaces = tuple(header["underlyings"]), tuple(header["option_underlyings"])
        horizon_seconds, level_e6, seed, version, size = (
            int(header[name]) for name in ("horizon_seconds", "level_e6", "seed", "version", "scenarios")
        )
        model, source = str(header["model"]), str(header.get("source", ""))
        further = int(header.get("parameters", 0))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("scenario set with an unreadable header") from error
    if not 1 <= version <= VERSION_WITH_SHAPE or size < 1 or further < 0:
        read = f"this code reads up to {VERSION_WITH_SHAPE}"
        raise ValueError(f"scenario set of version {version} with {size} scenarios: {read}")
    none = without_scenarios(underlyings, surfaces, size)
    no_parameters = (np.zeros(0, np.int64), np.zeros((0, 0), np.int32))
    own = np.zeros(further if version >= VERSION_WITH_SOURCE else 0, np.int64)
    return ScenarioSet(
        underlyings, surfaces, *none, horizon_seconds, level_e6, seed, *no_parameters, model, version, source, own
    ), end  # fmt: skip


def without_scenarios(
    underlyings: tuple[str, ...], surfaces: tuple[str, ...], size: int
) -> tuple[Int32Array, Int32Array, Int32Array, Int32Array, Int32Array]:
    """Placeholders of factors and weights: zeros that occupy no memory."""
    spot, surface, weights = (
        np.broadcast_to(np.int32(0), shape) for shape in ((len(underlyings), size), (len(surfaces), size), (size,))
    )
    return spot, surface, surface, surface, weights


@lru_cache(maxsize=8)
def right_of_diagonal(size: int) -> npt.NDArray[np.bool_]:
    """bool[D,D]: selects what is right of the diagonal, row by row."""
    return ~np.tri(size, dtype=np.bool_)


def symmetric_e9(above: Int32Array, size: int) -> Int32Array:
    """Correlations [D,D] in 1e-9 from those right of the diagonal, row by row."""
    out = np.zeros((size, size), np.int32)
    out[right_of_diagonal(size)] = above
    return out + out.T + NANO * np.eye(size, dtype=np.int32)


def draw_scenario_set(
    underlyings: Sequence[str],
    option_underlyings: Sequence[str],
    volatilities: FactorVolatilities,
    correlation: FloatArray,
    *,
    seed: int,
    scenarios: int = 4096,
    horizon_seconds: int = 3600,
    level_e6: int = 990_000,
) -> ScenarioSet:
    """Round the parameters to 1e-9 and draw a set; a function of its arguments alone, the same bits everywhere.

    Args:
        volatilities: with curvature and term the set is of version 4, without them of version 2.
        correlation: f64[D,D] in the order of ``volatilities.stacked()``; positive semi-definite.
        seed: any integer; the number of the epoch on a venue.
        scenarios: a power of two.

    Raises:
        ValueError: sizes that do not match, a size that is no power of two, a matrix that is not a correlation matrix,
            a negative volatility, an option underlying that is no underlying, more factors than Sobol dimensions.
    """
    names = (underlyings, option_underlyings)
    return redraw(undrawn_set(*names, volatilities, correlation, seed, scenarios, horizon_seconds, level_e6))


def undrawn_set(
    underlyings: Sequence[str],
    option_underlyings: Sequence[str],
    volatilities: FactorVolatilities,
    correlation: FloatArray,
    seed: int,
    scenarios: int,
    horizon_seconds: int,
    level_e6: int,
) -> ScenarioSet:
    """The set's inputs, rounded and checked, with zeros for factors and weights; errors as ``draw_scenario_set``."""
    scale = volatilities.stacked()
    factors = len(underlyings) + len(volatilities.kinds) * len(option_underlyings)
    _check_arguments(underlyings, option_underlyings, scale, correlation, factors, scenarios)
    names, surfaces = tuple(underlyings), tuple(option_underlyings)
    none = without_scenarios(names, surfaces, scenarios)
    above = np.rint(correlation[right_of_diagonal(factors)] * NANO).astype(np.int32)
    parameters = (np.rint(scale * NANO).astype(np.int64), symmetric_e9(above, factors))
    version = VERSION_WITH_SHAPE if volatilities.kinds == SURFACE_KINDS else VERSION
    return ScenarioSet(names, surfaces, *none, horizon_seconds, level_e6, seed, *parameters, version=version)


def redraw(recorded: ScenarioSet) -> ScenarioSet:
    """Draw again what the inputs of a recorded set say; whether its factors are those is for the caller to compare.

    Raises:
        ValueError: a set of another model or version, or correlations that are not positive semi-definite.
    """
    if recorded.model != MODEL or recorded.version not in (VERSION, VERSION_WITH_SHAPE):
        raise ValueError(f"a set of model {recorded.model} version {recorded.version} cannot be drawn again")
    points = published_points(recorded, recorded.volatility_e9.size + 1)
    radius, weight = radii(points[0])
    unit_variance = math.sqrt((DEGREES_OF_FREEDOM - 2.0) / DEGREES_OF_FREEDOM)
    scale = recorded.volatility_e9 / float(NANO) * unit_variance
    loadings = scale[:, None] * principal_directions(recorded.correlation_e9 / float(NANO))
    return recorded.filled(factor_moves(points[1:], radius, loadings, factor_limits(recorded)), integer_weights(weight))


def published_points(recorded: ScenarioSet, dimensions: int) -> npt.NDArray[np.uint32]:
    """Scrambled Sobol points uint32[dimensions,S], a function of the set's published inputs."""
    bits = hashlib.shake_256(recorded.inputs()).digest(4 * RANDOM_WORDS * dimensions)
    words = np.frombuffer(bits, "<u4").astype(np.uint32).reshape(dimensions, RANDOM_WORDS)
    return scrambled_points(recorded.size, words)


def factor_limits(recorded: ScenarioSet) -> FloatArray:
    """Largest absolute move of each factor [D]."""
    of_surfaces = [SURFACE_LIMITS[kind] for kind in recorded.kinds]
    counts = [len(recorded.underlyings), *[len(recorded.option_underlyings)] * len(of_surfaces)]
    return np.repeat([SPOT_LIMIT, *of_surfaces], counts)


def within_limits(recorded: ScenarioSet, moves: FloatArray) -> Int32Array:
    """Moves [D,S] of the factors of a set, bounded as drawn ones are, int32 in 1e-9."""
    limit = factor_limits(recorded)[:, None]
    bounded: FloatArray = np.clip(moves, -limit, limit)
    return np.rint(bounded * NANO).astype(np.int32)


def _check_arguments(
    underlyings: Sequence[str],
    option_underlyings: Sequence[str],
    scale: FloatArray,
    correlation: FloatArray,
    factors: int,
    scenarios: int,
) -> None:
    if not set(option_underlyings) <= set(underlyings) or len(set(underlyings)) != len(underlyings):
        raise ValueError("option underlyings must be underlyings, each named once")
    if scale.shape != (factors,) or correlation.shape != (factors, factors):
        raise ValueError(f"{factors} factors need {factors} volatilities and a {factors}x{factors} correlation matrix")
    if factors >= DIMENSIONS_MAX:
        raise ValueError(f"{factors} factors are more than the {DIMENSIONS_MAX - 1} that Sobol dimensions serve")
    if scenarios < 2 or scenarios & (scenarios - 1) or scenarios > WEIGHT_TOTAL:
        raise ValueError(f"the number of scenarios must be a power of two, not {scenarios}")
    if not ((scale >= 0.0) & (scale <= VOLATILITY_MAX)).all():
        raise ValueError(f"volatilities must be between 0 and {VOLATILITY_MAX:g}")
    if not _is_near(np.diag(correlation), np.ones(factors)) or not _is_near(correlation, correlation.T):
        raise ValueError("a correlation matrix is symmetric with a unit diagonal")
    if not (np.abs(correlation) <= 1.0 + _ROUNDING).all():
        raise ValueError("correlations must be between -1 and 1")


def _is_near(found: FloatArray, wanted: FloatArray) -> bool:
    """``np.allclose`` in a tenth of its time; False for NaN."""
    return bool((np.abs(found - wanted) <= 1e-8 + 1e-5 * np.abs(wanted)).all())


def principal_directions(correlation: FloatArray) -> FloatArray:
    """B with B B^T = correlation, columns by falling variance."""
    eigenvalues, vectors = symmetric_eigen(correlation)
    if eigenvalues[-1] < -_ROUNDING:
        raise ValueError(f"the correlation matrix is not positive semi-definite (eigenvalue {eigenvalues[-1]:.2e})")
    directions: FloatArray = vectors.T * np.sqrt(np.maximum(eigenvalues, 0.0))
    return directions


def fallback_spot(bitcoin_annual_volatility: float, noise: float = FALLBACK_NOISE_VOLATILITY) -> tuple[float, float]:
    """(annual volatility, correlation with bitcoin) of a coin without history: beta 1 to bitcoin plus own noise."""
    volatility = math.hypot(bitcoin_annual_volatility, noise)
    return volatility, bitcoin_annual_volatility / volatility


def default_spot_correlation(
    bitcoin_row: int, bitcoin_correlation: Sequence[float | None], between_coins: float = 0.7
) -> FloatArray:
    """Correlation matrix [U,U] of the spots.

    Args:
        bitcoin_correlation: per coin None if it has a history (then ``between_coins`` with every other such coin), else
            its correlation with bitcoin from ``fallback_spot``: it then follows the others through bitcoin alone.
    """
    coins = len(bitcoin_correlation)
    with_history = np.array([given is None for given in bitcoin_correlation])
    to_bitcoin = np.array([between_coins if given is None else given for given in bitcoin_correlation])
    to_bitcoin[bitcoin_row] = 1.0
    matrix = np.outer(to_bitcoin, to_bitcoin)
    both = np.outer(with_history, with_history)
    both[bitcoin_row, :] = both[:, bitcoin_row] = False
    matrix[both] = between_coins
    matrix[np.arange(coins), np.arange(coins)] = 1.0
    return matrix


def default_correlation(
    spot_correlation: FloatArray,
    option_rows: Sequence[int],
    *,
    level_to_own_spot: float = -0.3,
    level_to_level: float = 0.7,
    rate_to_rate: float = 0.5,
    kinds: Sequence[str] = PLAIN_KINDS,
) -> FloatArray:
    """Correlation matrix of spots, then each of the ``kinds`` of surface factors, repaired to be positive definite.

    Args:
        spot_correlation: [U,U]; ``default_spot_correlation`` makes one.
        option_rows: the underlyings with an option surface, as indices into the spots.
        level_to_own_spot: a level follows another spot by this times the correlation of the two spots.

    Curvatures and terms follow levels by ``TO_LEVEL``; skews correlate with nothing, rates with each other only. The
    sign of the spot-volatility correlation changes over the years, so it is a parameter and not a law.
    """
    spots, surfaces = spot_correlation.shape[0], len(option_rows)
    matrix = np.eye(spots + len(kinds) * surfaces)
    matrix[:spots, :spots] = spot_correlation
    with_spots = level_to_own_spot * spot_correlation[:, np.array(option_rows, np.int64)]
    own = np.eye(surfaces)
    levels = level_to_level + (1.0 - level_to_level) * own
    places = {kind: slice(spots + n * surfaces, spots + (n + 1) * surfaces) for n, kind in enumerate(kinds)}
    for kind, at in places.items():
        share = TO_LEVEL.get(kind, 0.0)
        matrix[:spots, at], matrix[at, :spots] = share * with_spots, share * with_spots.T
        for other, to in places.items():
            matrix[at, to] = share * TO_LEVEL.get(other, 0.0) * levels
        matrix[at, at] += (1.0 - share * share) * own
    matrix[places["rate"], places["rate"]] = rate_to_rate + (1.0 - rate_to_rate) * own
    return nearest_correlation(matrix)


TO_LEVEL = {"level": 1.0, "curvature": -0.55, "term": -0.9}
"""Correlation of each kind with the level of its surface, where there is no history: infra/docs/risk_model.md."""


def nearest_correlation(matrix: FloatArray) -> FloatArray:
    """Positive definite correlation matrix near a symmetric one: eigenvalues floored, unit diagonal restored."""
    symmetric = 0.5 * (matrix + matrix.T)
    eigenvalues, vectors = symmetric_eigen(symmetric)
    if eigenvalues[-1] >= _EIGENVALUE_MINIMUM:
        return symmetric
    repaired = from_eigen(np.maximum(eigenvalues, _EIGENVALUE_MINIMUM), vectors)
    scale = 1.0 / np.sqrt(np.diag(repaired))
    repaired = repaired * np.outer(scale, scale)
    np.fill_diagonal(repaired, 1.0)
    return repaired
