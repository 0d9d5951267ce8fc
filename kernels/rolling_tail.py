"""Value-at-risk and expected shortfall of a rolling window of observations, without sorting the window again.

The window is kept sorted: an observation enters and leaves by one shift of memory. With n observations known and tail
probability p, value-at-risk is the k-th worst and expected shortfall the mean of the k worst, k = ceil(n p).
"""

from __future__ import annotations

import numpy as np

from kernels.compiling import compiled, inlined
from kernels.layout import FloatArray


@inlined
def _insert(window: FloatArray, size: int, x: float) -> None:
    at = np.searchsorted(window[:size], x)
    for k in range(size, at, -1):
        window[k] = window[k - 1]
    window[at] = x


@inlined
def _remove(window: FloatArray, size: int, x: float) -> None:
    for k in range(np.searchsorted(window[:size], x), size - 1):
        window[k] = window[k + 1]


@compiled
def tails_of_sorted(window: FloatArray, size: int, tails: FloatArray, out: FloatArray) -> None:
    """out[a] = (VaR, ES) of the low end and (VaR, ES) of the high end, in the unit of the observations.

    ``window`` ascending, its first ``size`` >= 1 entries count; ``tails`` [A] probabilities; ``out`` [A,4].
    """
    for a in range(tails.shape[0]):
        k = min(max(int(np.ceil(size * tails[a] - 1e-9)), 1), size)
        low, high = 0.0, 0.0
        for q in range(k):
            low += window[q]
            high += window[size - 1 - q]
        out[a, 0], out[a, 1] = window[k - 1], low / k
        out[a, 2], out[a, 3] = window[size - k], high / k


@compiled
def rolling_tails(x: FloatArray, lag: int, window: int, least: int, tails: FloatArray) -> FloatArray:
    """Tails float64[n,A,4] at each t of x[t - lag - window + 1 .. t - lag], as in ``tails_of_sorted``.

    ``lag`` is how long after its own index an observation is known (the horizon); observations that are not numbers are
    left out; rows with fewer than ``least`` >= 1 are NaN.
    """
    out = np.full((x.shape[0], tails.shape[0], 4), np.nan)
    held = np.empty(window + 1)
    size = 0
    for t in range(lag, x.shape[0]):
        entering, leaving = t - lag, t - lag - window
        if not np.isnan(x[entering]):
            _insert(held, size, x[entering])
            size += 1
        if leaving >= 0 and not np.isnan(x[leaving]):
            _remove(held, size, x[leaving])
            size -= 1
        if size >= least:
            tails_of_sorted(held, size, tails, out[t])
    return out


@compiled
def projected_tails(vectors: FloatArray, loadings: FloatArray, tails: FloatArray) -> FloatArray:
    """Tails [B,A,4] of the projections of ``vectors`` [N,D], N >= 1, on each row of ``loadings`` [B,D]."""
    out = np.empty((loadings.shape[0], tails.shape[0], 4))
    moves = np.empty(vectors.shape[0])
    least = min(max(int(np.ceil(vectors.shape[0] * np.max(tails) - 1e-9)), 1), vectors.shape[0])
    ends = np.empty(2 * least)
    for b in range(loadings.shape[0]):
        for n in range(vectors.shape[0]):
            total = 0.0
            for d in range(vectors.shape[1]):
                total += loadings[b, d] * vectors[n, d]
            moves[n] = total
        ends[:least] = np.sort(np.partition(moves, least - 1)[:least])
        ends[least:] = np.sort(np.partition(moves, moves.shape[0] - least)[moves.shape[0] - least :])
        for a in range(tails.shape[0]):
            k = min(max(int(np.ceil(vectors.shape[0] * tails[a] - 1e-9)), 1), least)
            low, high = 0.0, 0.0
            for q in range(k):
                low += ends[q]
                high += ends[2 * least - 1 - q]
            out[b, a, 0], out[b, a, 1] = ends[k - 1], low / k
            out[b, a, 2], out[b, a, 3] = ends[2 * least - k], high / k
    return out
