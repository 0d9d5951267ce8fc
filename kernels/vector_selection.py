"""Which of N joint vectors become the S weighted scenarios of a set: tails almost whole, the centre thinned.

A vector is kept with probability p_n and weighs 1 / p_n, so that every mean over all vectors is estimated without bias:

    p_n = min(1, S / (2 N) + c score_n),    sum p_n = S,
    score_n = sum over directions of max(0, |move in standard deviations| - 1.5)**2.

Half the set is plain, so no vector weighs more than twice its share of a plain sample; the other half goes where some
book's tail may be. Directions are the factors as they move and as whitened (each given those before it: spreads and
hedges). Sampling is systematic along the mean move, which spreads the kept vectors evenly from crash to rally.

Sources: Madow, "On the theory of systematic sampling, II" (1949); Hesterberg, "Weighted average importance sampling and
defensive mixture distributions" (1995).
"""

from __future__ import annotations

import numpy as np

from kernels.compiling import compiled
from kernels.layout import FloatArray, Int64Array

TAIL_BEGINS = 1.5
"""Standard deviations from which a move counts for the score."""
_SOLVE_STEPS = 60


@compiled
def _add_scores(moves: FloatArray, score: FloatArray) -> None:
    for i in range(moves.shape[0]):
        for n in range(moves.shape[1]):
            beyond = max(abs(moves[i, n]) - TAIL_BEGINS, 0.0)
            score[n] += beyond * beyond


@compiled
def _add_rows(moves: FloatArray, out: FloatArray) -> None:
    for i in range(moves.shape[0]):
        for n in range(moves.shape[1]):
            out[n] += moves[i, n]


@compiled
def _mass(score: FloatArray, plain: float, factor: float) -> float:
    total = 0.0
    for n in range(score.shape[0]):
        total += min(plain + factor * score[n], 1.0)
    return total


@compiled
def _probabilities(score: FloatArray, size: int) -> FloatArray:
    """p [N] by bisection of c, scaled so that they sum to ``size`` but for rounding."""
    number = score.shape[0]
    plain = 0.5 * size / number
    low, high = 0.0, 1.0
    while _mass(score, plain, high) < size and high < 1e12:
        high *= 4.0
    for _ in range(_SOLVE_STEPS):
        middle = 0.5 * (low + high)
        if _mass(score, plain, middle) < size:
            low = middle
        else:
            high = middle
    out = np.empty(number)
    for n in range(number):
        out[n] = min(plain + high * score[n], 1.0)
    return out


@compiled
def _systematic(order: Int64Array, probability: FloatArray, size: int) -> Int64Array:
    """The vectors at which the running sum of probabilities passes 1/2, 3/2, ... of its ``size``-th parts."""
    total = 0.0
    for n in range(order.shape[0]):
        total += probability[order[n]]
    unit = total / size
    out = np.empty(size, np.int64)
    running, found = 0.0, 0
    for n in range(order.shape[0]):
        running += probability[order[n]]
        while found < size and (running >= (found + 0.5) * unit or n == order.shape[0] - 1):
            out[found] = order[n]
            found += 1
    return out


def select_vectors(moves: FloatArray, whitened: FloatArray, size: int) -> tuple[Int64Array, FloatArray]:
    """-> (indices int64[size] ascending along the mean move, weights [size] 1 / p, not normalised).

    ``moves`` and ``whitened`` [D,N] in standard deviations, finite, N >= 1. With N <= ``size`` vectors repeat in turn,
    each with the same weight in total up to one repetition's share.
    """
    number = moves.shape[1]
    if number <= size:
        indices = np.arange(size, dtype=np.int64) % number
        return indices, 1.0 / np.bincount(indices, minlength=number)[indices]
    score, mean = np.zeros(number), np.zeros(number)
    _add_scores(moves, score)
    _add_scores(whitened, score)
    _add_rows(moves, mean)
    probability = _probabilities(score, size)
    chosen = _systematic(np.argsort(mean, kind="stable"), probability, size)
    return chosen, 1.0 / probability[chosen]
