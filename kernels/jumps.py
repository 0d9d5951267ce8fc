"""Merton jumps over a horizon as weighted states: how often each jumps, drawn more often than they happen.

A state is (number of common jumps 0..``COMMON_MAX``, the factor of an own jump or none); probabilities are Poisson
over the horizon, the last count carrying the rest. States are proposed with probabilities proportional to the square
roots of their own, which is where rare jumps get scenarios, and a scenario weighs probability over proposal.

Source: Merton (1976); Glasserman, "Monte Carlo Methods in Financial Engineering" (2003), sections 3.5 and 4.6.
"""

from __future__ import annotations

import numpy as np

from kernels.compiling import compiled
from kernels.layout import NANO, FloatArray, Int32Array
from kernels.normal import exponential
from kernels.quantiles import inverse_normal
from kernels.sobol import UInt32Array

COMMON_MAX = 3
_TO_UNIFORM = 2.0**-32


@compiled
def state_probabilities(common: float, own: FloatArray) -> FloatArray:
    """[COMMON_MAX + 1, D + 1]: joint probability of the common count and of no own jump (column 0) or factor f's.

    ``common`` and ``own`` [D] are expected numbers over the horizon. Two own jumps at once count as the likelier one:
    the probability of any own jump is shared out by intensity.
    """
    total = 0.0
    for f in range(own.shape[0]):
        total += own[f]
    out = np.empty((COMMON_MAX + 1, own.shape[0] + 1))
    p, left = exponential(-common), 1.0
    for n in range(COMMON_MAX + 1):
        mass = p if n < COMMON_MAX else left
        out[n, 0] = mass * exponential(-total)
        for f in range(own.shape[0]):
            share = own[f] / total if total > 0.0 else 0.0
            out[n, f + 1] = mass * (1.0 - exponential(-total)) * share
        left -= p
        p *= common / (n + 1)
    return out


@compiled
def _fill_jumps(
    points: UInt32Array, probabilities: FloatArray, mean: FloatArray, stddev: FloatArray, out: FloatArray,
    weight: FloatArray,
) -> None:  # fmt: skip
    flat = probabilities.ravel()
    proposal, cumulative = np.empty(flat.shape[0]), np.empty(flat.shape[0])
    total, columns = 0.0, probabilities.shape[1]
    for state in range(flat.shape[0]):
        proposal[state] = np.sqrt(max(flat[state], 0.0))
        total += proposal[state]
        cumulative[state] = total
    for s in range(points.shape[1]):
        u = (float(points[0, s]) + 0.5) * _TO_UNIFORM * total
        state = 0
        while state < flat.shape[0] - 1 and cumulative[state] <= u:
            state += 1
        weight[s] = flat[state] / (proposal[state] / total)
        count, single = state // columns, state % columns - 1
        spread = np.sqrt(float(count)) * inverse_normal((float(points[1, s]) + 0.5) * _TO_UNIFORM)
        for f in range(out.shape[0]):
            out[f, s] = count * mean[0, f] + spread * stddev[0, f]
        if single >= 0:
            own = inverse_normal((float(points[2, s]) + 0.5) * _TO_UNIFORM)
            out[single, s] += mean[1, single] + own * stddev[1, single]


@compiled
def add_jumps(moves: Int32Array, jumps: FloatArray, limit: FloatArray) -> None:
    """moves <- clip(moves + jumps) in 1e-9, in place; ``limit`` [D] as a fraction."""
    for f in range(moves.shape[0]):
        for s in range(moves.shape[1]):
            bounded = min(max(moves[f, s] / float(NANO) + jumps[f, s], -limit[f]), limit[f])
            moves[f, s] = np.int32(np.rint(bounded * float(NANO)))


def draw_jumps(
    points: UInt32Array, common: float, own: FloatArray, mean: FloatArray, stddev: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(jumps [D,S] as log moves, weights [S] with mean about 1).

    ``points`` uint32[3,S]: state, size of the common jumps, size of the own jump. ``common``, ``own`` [D]: expected
    numbers over the horizon. ``mean``, ``stddev`` [2,D] of one common and one own jump; a common jump has one size for
    all factors, scaled by each factor's ``stddev``.
    """
    out, weight = np.zeros((own.shape[0], points.shape[1])), np.empty(points.shape[1])
    _fill_jumps(points, state_probabilities(common, own), mean, stddev, out, weight)
    return out, weight
