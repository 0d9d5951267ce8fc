"""Dynamic conditional correlation of standardised residuals, bar by bar, and what scenarios need of it.

    Q <- (1 - a - b) T + a z z^T + b Q,   R = diag(Q)^(-1/2) Q diag(Q)^(-1/2) = L L^T

with z clipped, so that one bar cannot take the correlations over, and T the slow mean of z z^T (the target), which
begins as the identity worth ``PRIOR_BARS`` observations: R is positive definite from the first bar on. A joint residual
is whitened by the L that was known when it was forecast (w = L^-1 z) and recoloured by the present one (z = L w).

Source: Engle, "Dynamic conditional correlation" (2002), eqs. 18-19; loops in a fixed order, no BLAS or LAPACK.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.compiling import compiled
from kernels.layout import FloatArray, Int64Array
from kernels.loops import assign
from kernels.normal import fma
from kernels.variance import smoothed

PRIOR_BARS = 240


class DccState(NamedTuple):
    """``q``, ``target``, ``root`` [D,D] (``root`` is L, lower triangular) and ``bars`` int64[1] seen."""

    q: FloatArray
    target: FloatArray
    root: FloatArray
    bars: Int64Array


class DccSettings(NamedTuple):
    """``news`` a, ``memory`` b, ``clip`` of z, ``target_decay`` a bar."""

    news: float
    memory: float
    clip: float
    target_decay: float


def empty_dcc(factors: int) -> DccState:
    """State before the first bar: no correlation."""
    return DccState(np.eye(factors), np.eye(factors), np.eye(factors), np.zeros(1, np.int64))


@compiled
def cholesky(matrix: FloatArray, out: FloatArray) -> bool:
    """Lower triangular ``out`` with out out^T = matrix; False where the matrix is not positive definite."""
    for i in range(matrix.shape[0]):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total = fma(-out[i, k], out[j, k], total)
            if i != j:
                out[i, j], out[j, i] = total / out[j, j], 0.0
            elif total > 0.0:
                out[i, i] = np.sqrt(total)
            else:
                return False
    return True


@compiled
def step(state: DccState, settings: DccSettings, z: FloatArray) -> None:
    """Move the state by one bar's residuals ``z`` [D]; a residual that is not a number counts as 0."""
    size = z.shape[0]
    clipped, scale = np.empty(size), np.empty(size)
    seen = state.bars[0] + 1
    state.bars[0] = seen
    for i in range(size):
        clipped[i] = 0.0 if np.isnan(z[i]) else min(max(z[i], -settings.clip), settings.clip)
    rest = 1.0 - settings.news - settings.memory
    for i in range(size):
        for j in range(i + 1):
            product = clipped[i] * clipped[j]
            target = smoothed(state.target[i, j], product, settings.target_decay, seen + PRIOR_BARS)
            q = rest * target + settings.news * product + settings.memory * state.q[i, j]
            state.target[i, j] = state.target[j, i] = target
            state.q[i, j] = state.q[j, i] = q
    correlation = np.empty((size, size))
    for i in range(size):
        scale[i] = 1.0 / np.sqrt(state.q[i, i])
    for i in range(size):
        for j in range(size):
            correlation[i, j] = state.q[i, j] * scale[i] * scale[j] if i != j else 1.0
    cholesky(correlation, state.root)


@compiled
def fold(state: DccState, settings: DccSettings, z: FloatArray, roots: FloatArray) -> None:
    """Step through the rows of ``z`` [n,D]; ``roots`` [n,D,D] is L after each."""
    for t in range(z.shape[0]):
        step(state, settings, z[t])
        for i in range(state.root.shape[0]):
            assign(roots[t, i], state.root[i])


@compiled
def whiten(root: FloatArray, z: FloatArray, out: FloatArray) -> None:
    """out = root^-1 z by forward substitution."""
    for i in range(z.shape[0]):
        total = z[i]
        for k in range(i):
            total = fma(-root[i, k], out[k], total)
        out[i] = total / root[i, i]


@compiled
def colour(root: FloatArray, whitened: FloatArray, out: FloatArray) -> None:
    """out [D,N] = root @ whitened [D,N], row by row, the factor's sum ascending."""
    for i in range(root.shape[0]):
        out[i, :] = 0.0
        for k in range(i + 1):
            loading = root[i, k]
            for n in range(whitened.shape[1]):
                out[i, n] = fma(loading, whitened[k, n], out[i, n])


@compiled
def correlation_of(root: FloatArray) -> FloatArray:
    """root root^T with a unit diagonal."""
    size = root.shape[0]
    out = np.empty((size, size))
    for i in range(size):
        for j in range(i + 1):
            total = 0.0
            for k in range(j + 1):
                total = fma(root[i, k], root[j, k], total)
            out[i, j] = out[j, i] = total if i != j else 1.0
    return out
