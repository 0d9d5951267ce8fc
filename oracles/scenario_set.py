"""Seeded weighted scenario sets, drawn left of the log and recorded as integers.

Model ``t-copula-sobol``: all factors are one multivariate Student t (5 degrees of freedom: a t copula with t margins),

    X = g * C^(1/2) Z * volatility * sqrt((df - 2) / df),   g = sqrt(df / chi2_df),

with Z from scrambled Sobol points through the inverse normal, directions ordered by their share of the variance so that
the best Sobol dimensions serve the largest. The radius g has the first dimension and is importance-sampled: with
v uniform, the chi-square probability is u = v**2.5 (small u is a heavy shock) and the weight 2.5 * v**1.5, so the tail
that expected shortfall averages gets several times its share of the scenarios. The weights become integers by largest
remainder (sum 2**30).

Whatever this module computes is not bit-reproducible over machines and need not be: the recorded integers are what
margins use, named by the digest of their bytes, and anyone may redraw the set from its seed and parameters.

Sources: Demarta and McNeil, "The t copula and related copulas" (2005), section 2; Owen, "Scrambling Sobol' and
Niederreiter-Xing points" (1998); Higham, "Computing the nearest correlation matrix" (2002) for the repair's first step.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv, ndtri
from scipy.stats import qmc

from kernels.layout import WEIGHT_TOTAL, YEAR_SECONDS, ScenarioTable, scenario_table, tail_mass_of_level
from kernels.weights import integer_weights

MODEL = "t-copula-sobol"
VERSION = 1
DEGREES_OF_FREEDOM = 5.0
MAGIC = b"DPMESCN1"

SPOT_LIMIT, LEVEL_LIMIT, SKEW_LIMIT, RATE_LIMIT = 1.5, 1.5, 1.0, 0.2
"""Bounds of the factors (absolute): a spot factor stays within x0.22 .. x4.5; int32 in 1e-9 ends at 2.147."""

FALLBACK_NOISE_VOLATILITY = 1.0
"""Annual volatility of the own noise of a coin without history (beside beta 1 to bitcoin)."""

_RADIUS_EXPONENT = 2.5
_SMALLEST_PROBABILITY = 1e-12
_EIGENVALUE_MINIMUM = 1e-8

FloatArray = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class FactorVolatilities:
    """Standard deviations over the horizon (annual volatility times sqrt(horizon in years)).

    ``spot`` [U], log return; for the O underlyings with an option surface: ``level`` [O], log of the volatility
    multiplier; ``skew`` [O], relative volatility change per unit of log-moneyness; ``rate`` [O], absolute.
    """

    spot: FloatArray
    level: FloatArray
    skew: FloatArray
    rate: FloatArray

    def stacked(self) -> FloatArray:
        """[U + 3 O] in the order of the correlation matrix: spots, levels, skews, rates."""
        return np.concatenate([self.spot, self.level, self.skew, self.rate])

    @staticmethod
    def from_annual(
        spot: FloatArray, level: FloatArray, skew: FloatArray, rate: FloatArray, horizon_seconds: int
    ) -> FactorVolatilities:
        """Scale annual volatilities to the horizon by the square root of time."""
        root = math.sqrt(horizon_seconds / YEAR_SECONDS)
        return FactorVolatilities(spot * root, level * root, skew * root, rate * root)


@dataclass(frozen=True, eq=False)
class ScenarioSet:
    """A recorded scenario set; factor arrays int32 in 1e-9, weights int32 with sum 2**30.

    ``spot_log_return`` [U,S]; ``level_log``, ``skew``, ``rate_shift`` [O,S] for ``option_underlyings``, a subset of
    ``underlyings``. ``level_e6`` is the confidence level of expected shortfall (990_000 = 99 %).
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
    model: str = MODEL
    version: int = VERSION

    @property
    def size(self) -> int:
        """Number of scenarios."""
        return int(self.weights.shape[0])

    @property
    def digest(self) -> str:
        """Name of the set: BLAKE2b-256 of ``to_bytes``, hexadecimal."""
        return hashlib.blake2b(self.to_bytes(), digest_size=32).hexdigest()

    def to_bytes(self) -> bytes:
        """Magic, length of the JSON header (uint32 little-endian), header, then the int32 arrays little-endian."""
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
        encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        arrays = (self.spot_log_return, self.level_log, self.skew, self.rate_shift, self.weights)
        body = b"".join(np.ascontiguousarray(array, "<i4").tobytes() for array in arrays)
        return MAGIC + len(encoded).to_bytes(4, "little") + encoded + body

    @staticmethod
    def from_bytes(data: bytes) -> ScenarioSet:
        """Inverse of ``to_bytes``.

        Raises:
            ValueError: not a scenario set, or its length does not match its header.
        """
        if data[: len(MAGIC)] != MAGIC or len(data) < len(MAGIC) + 4:
            raise ValueError("not a recorded scenario set")
        start = len(MAGIC) + 4
        end = start + int.from_bytes(data[len(MAGIC) : start], "little")
        try:
            header = json.loads(data[start:end])
            size = int(header["scenarios"])
            underlyings, surfaces = tuple(header["underlyings"]), tuple(header["option_underlyings"])
            horizon_seconds, level_e6, seed, version = (
                int(header[name]) for name in ("horizon_seconds", "level_e6", "seed", "version")
            )
            model = str(header["model"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError("scenario set with an unreadable header") from error
        rows = len(underlyings) + 3 * len(surfaces) + 1
        if len(data) != end + 4 * rows * size:
            raise ValueError(f"scenario set of {len(data)} bytes, its header says {end + 4 * rows * size}")
        table = np.frombuffer(data, "<i4", offset=end).astype(np.int32).reshape(rows, size)
        cuts = np.cumsum([len(underlyings), len(surfaces), len(surfaces), len(surfaces)])
        spot, level, skew, rate, weights = np.split(table, cuts)
        return ScenarioSet(
            underlyings, surfaces, spot, level, skew, rate, weights[0], horizon_seconds, level_e6, seed, model, version
        )

    def table(self, underlyings: Sequence[str] | None = None) -> ScenarioTable:
        """The kernels' view, its spot rows in the order of ``underlyings`` (default: the set's own order).

        Raises:
            KeyError: an underlying that the set does not know; it must not be margined with zero moves.
        """
        order = self.underlyings if underlyings is None else underlyings
        position = {name: row for row, name in enumerate(self.underlyings)}
        surface = {name: row for row, name in enumerate(self.option_underlyings)}
        rows = np.array([position[name] for name in order], np.int64)
        return scenario_table(
            np.ascontiguousarray(self.spot_log_return[rows]),
            np.array([surface.get(name, -1) for name in order], np.int32),
            self.level_log,
            self.skew,
            self.rate_shift,
            self.weights,
            tail_mass_of_level(self.level_e6),
            self.horizon_seconds,
        )


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
    """Draw a set; a function of its arguments alone.

    Args:
        correlation: f64[D,D], D = U + 3 O, order spots, levels, skews, rates; positive semi-definite.
        scenarios: a power of two.

    Raises:
        ValueError: sizes that do not match, a size that is no power of two, a matrix that is not a correlation matrix,
            a negative volatility, an option underlying that is no underlying.
    """
    factors = len(underlyings) + 3 * len(option_underlyings)
    scale = volatilities.stacked()
    _check_arguments(underlyings, option_underlyings, scale, correlation, factors, scenarios)
    engine = qmc.Sobol(factors + 1, scramble=True, rng=np.random.Generator(np.random.Philox(seed)))
    points = np.clip(engine.random(scenarios), _SMALLEST_PROBABILITY, 1.0 - _SMALLEST_PROBABILITY)
    radius_uniform = points[:, 0]
    normals = ndtri(points[:, 1:]) @ _principal_directions(correlation).T
    half = DEGREES_OF_FREEDOM / 2.0
    radius = np.sqrt(half / gammaincinv(half, np.maximum(radius_uniform**_RADIUS_EXPONENT, 1e-300)))
    unit_variance = math.sqrt((DEGREES_OF_FREEDOM - 2.0) / DEGREES_OF_FREEDOM)
    moves = (normals * radius[:, None] * (scale * unit_variance)).T
    cuts = np.cumsum([len(underlyings), *[len(option_underlyings)] * 2])
    spot, level, skew, rate = np.split(moves, cuts)
    return ScenarioSet(
        tuple(underlyings),
        tuple(option_underlyings),
        _to_nano(spot, SPOT_LIMIT),
        _to_nano(level, LEVEL_LIMIT),
        _to_nano(skew, SKEW_LIMIT),
        _to_nano(rate, RATE_LIMIT),
        integer_weights(_RADIUS_EXPONENT * radius_uniform ** (_RADIUS_EXPONENT - 1.0)),
        horizon_seconds,
        level_e6,
        seed,
    )


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
    if scenarios < 2 or scenarios & (scenarios - 1) or scenarios > WEIGHT_TOTAL:
        raise ValueError(f"the number of scenarios must be a power of two, not {scenarios}")
    if not np.isfinite(scale).all() or (scale < 0.0).any():
        raise ValueError("volatilities must be finite and non-negative")
    if not np.allclose(np.diag(correlation), 1.0) or not np.allclose(correlation, correlation.T):
        raise ValueError("a correlation matrix is symmetric with a unit diagonal")


def _principal_directions(correlation: FloatArray) -> FloatArray:
    """B with B B^T = correlation, columns by falling variance."""
    eigenvalues, vectors = np.linalg.eigh(correlation)
    if eigenvalues[0] < -1e-9:
        raise ValueError(f"the correlation matrix is not positive semi-definite (eigenvalue {eigenvalues[0]:.2e})")
    order = np.argsort(-eigenvalues, kind="stable")
    signs = np.where(vectors.sum(axis=0) < 0.0, -1.0, 1.0)  # eigenvectors have no sign of their own
    directions: FloatArray = (vectors * signs * np.sqrt(np.maximum(eigenvalues, 0.0)))[:, order]
    return directions


def _to_nano(moves: FloatArray, limit: float) -> Int32Array:
    return np.ascontiguousarray(np.rint(np.clip(moves, -limit, limit) * 1e9).astype(np.int32))


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
) -> FloatArray:
    """Correlation matrix of [spots, levels, skews, rates], repaired to be positive definite.

    Args:
        spot_correlation: [U,U]; ``default_spot_correlation`` makes one.
        option_rows: the underlyings with an option surface, as indices into the spots.
        level_to_own_spot: a level follows another spot by this times the correlation of the two spots.

    Skews correlate with nothing; rates with each other only. The sign of the spot-volatility correlation changes over
    the years, so it is a parameter and not a law.
    """
    spots, surfaces = spot_correlation.shape[0], len(option_rows)
    matrix = np.eye(spots + 3 * surfaces)
    levels = slice(spots, spots + surfaces)
    rates = slice(spots + 2 * surfaces, spots + 3 * surfaces)
    matrix[:spots, :spots] = spot_correlation
    matrix[:spots, levels] = level_to_own_spot * spot_correlation[:, np.array(option_rows, np.int64)]
    matrix[levels, :spots] = matrix[:spots, levels].T
    matrix[levels, levels] = level_to_level + (1.0 - level_to_level) * np.eye(surfaces)
    matrix[rates, rates] = rate_to_rate + (1.0 - rate_to_rate) * np.eye(surfaces)
    return nearest_correlation(matrix)


def nearest_correlation(matrix: FloatArray) -> FloatArray:
    """Positive definite correlation matrix near a symmetric one: eigenvalues floored, unit diagonal restored."""
    symmetric = 0.5 * (matrix + matrix.T)
    eigenvalues, vectors = np.linalg.eigh(symmetric)
    if eigenvalues[0] >= _EIGENVALUE_MINIMUM:
        return symmetric
    repaired = (vectors * np.maximum(eigenvalues, _EIGENVALUE_MINIMUM)) @ vectors.T
    scale = 1.0 / np.sqrt(np.diag(repaired))
    repaired = repaired * np.outer(scale, scale)
    np.fill_diagonal(repaired, 1.0)
    return repaired
