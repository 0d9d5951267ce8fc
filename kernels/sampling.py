"""From uniform integers to moves of the factors: importance-sampled radius, normals, fixed-order products, rounding.

A multivariate Student t with five degrees of freedom: X = g B Z scale, g = sqrt(5 / chi2_5), Z normal, B B^T the
correlation. The radius is importance-sampled: with v uniform, the chi-square probability is v**2.5 (small v is a heavy
shock) and the weight of the scenario 2.5 v**1.5, so the tail that expected shortfall averages gets several times its
share of the scenarios.
"""

from __future__ import annotations

import numpy as np

from kernels.compiling import compiled, inlined
from kernels.layout import NANO, FloatArray, Int32Array
from kernels.normal import fma
from kernels.quantiles import half_chi_square_5, inverse_normal
from kernels.sobol import UInt32Array

RADIUS_EXPONENT = 2.5
_TO_UNIFORM = 2.0**-32
_NANO = float(NANO)
_TILE = 256  # scenarios a block: the shocks of a tile stay in the second cache, the sums in the first


@compiled
def _fill_radius(points: UInt32Array, radius: FloatArray, weight: FloatArray) -> None:
    for s in range(points.shape[0]):
        v = (float(points[s]) + 0.5) * _TO_UNIFORM
        radius[s] = np.sqrt(2.5 / half_chi_square_5(v))
        weight[s] = RADIUS_EXPONENT * v * np.sqrt(v)


@compiled
def _fill_normals(points: UInt32Array, radius: FloatArray, out: FloatArray) -> None:
    """out[k, s] = radius[s] N^-1(points[k, s])."""
    for k in range(points.shape[0]):
        for s in range(points.shape[1]):
            out[k, s] = radius[s] * inverse_normal((float(points[k, s]) + 0.5) * _TO_UNIFORM)


@inlined
def _add_four(x: FloatArray, y: FloatArray, k: int, shocks: FloatArray, start: int, x_sums, y_sums) -> None:  # type: ignore[no-untyped-def]
    """sums += factors[k] shocks[k], then k + 1, k + 2, k + 3, for two factors: four steps while a sum is loaded."""
    end = start + x_sums.shape[0]
    a, b, c, d = shocks[k, start:end], shocks[k + 1, start:end], shocks[k + 2, start:end], shocks[k + 3, start:end]
    x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
    y0, y1, y2, y3 = y[k], y[k + 1], y[k + 2], y[k + 3]
    for s in range(x_sums.shape[0]):
        x_sums[s] = fma(x3, d[s], fma(x2, c[s], fma(x1, b[s], fma(x0, a[s], x_sums[s]))))
        y_sums[s] = fma(y3, d[s], fma(y2, c[s], fma(y1, b[s], fma(y0, a[s], y_sums[s]))))


@compiled
def _sum_two(x: FloatArray, y: FloatArray, shocks: FloatArray, start: int, x_sums, y_sums) -> None:  # type: ignore[no-untyped-def]
    """Rows x and y of the product with shocks[:, start : start + size], k ascending, a fused multiply-add a step."""
    x_sums[:] = 0.0
    y_sums[:] = 0.0
    for k in range(0, x.shape[0], 4):
        _add_four(x, y, k, shocks, start, x_sums, y_sums)


@compiled
def _fill_moves(loadings: FloatArray, shocks: FloatArray, limit: FloatArray, out: Int32Array) -> None:
    """out = round(clip(loadings @ shocks)) in 1e-9."""
    buffer = np.empty((2, _TILE))
    for start in range(0, shocks.shape[1], _TILE):
        width = min(_TILE, shocks.shape[1] - start)
        for f in range(0, loadings.shape[0], 2):
            _sum_two(loadings[f], loadings[f + 1], shocks, start, buffer[0, :width], buffer[1, :width])
            for r in range(2):
                for s in range(width):
                    bounded = min(max(buffer[r, s], -limit[f + r]), limit[f + r])
                    out[f + r, start + s] = np.int32(np.rint(bounded * _NANO))


def radii(points: UInt32Array) -> tuple[FloatArray, FloatArray]:
    """(g [S], weight [S] with mean about 1) of the uniform words [S]."""
    radius, weight = np.empty(points.shape), np.empty(points.shape)
    _fill_radius(points, radius, weight)
    return radius, weight


def factor_moves(points: UInt32Array, radius: FloatArray, loadings: FloatArray, limit: FloatArray) -> Int32Array:
    """Moves int32[F,S] in 1e-9.

    Args:
        points: uint32[K,S], the uniform word of each direction and scenario.
        radius: [S], multiplies every factor of a scenario.
        loadings: [F,K], scale and direction: loadings @ loadings^T is the covariance of the factors at radius 1.
        limit: [F], largest absolute move, at most 2.1.
    """
    factors, directions = loadings.shape
    padded = np.zeros((factors + -factors % 2, directions + -directions % 4))  # zeros add nothing: fma(0, x, sum) = sum
    padded[:factors, :directions] = loadings
    shocks = np.zeros((padded.shape[1], points.shape[1]))
    _fill_normals(points, radius, shocks)
    limits = np.resize(limit, padded.shape[0])
    out = np.empty((padded.shape[0], points.shape[1]), np.int32)
    _fill_moves(padded, shocks, limits, out)
    return out[:factors]
