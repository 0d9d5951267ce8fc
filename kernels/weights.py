"""Integer scenario weights by the largest-remainder (Hamilton) method."""

from __future__ import annotations

import numpy as np

from kernels.layout import WEIGHT_TOTAL, FloatArray, Int32Array


def integer_weights(weights: FloatArray, total: int = WEIGHT_TOTAL) -> Int32Array:
    """Round positive weights [S] to integers that sum exactly to ``total`` (at most 2**30).

    Every weight gets the floor of its share; the units left over go to the largest remainders, the lower index first
    among equals, so the result depends on the values alone.

    Raises:
        ValueError: a weight is negative or not finite, or all are zero.
    """
    if not np.isfinite(weights).all() or (weights < 0.0).any() or not (weights > 0.0).any():
        raise ValueError("weights must be finite, non-negative and not all zero")
    shares = weights / np.add.accumulate(weights)[-1] * total  # a running sum has one order; a sum may have any
    floors = np.floor(shares).astype(np.int64)
    missing = total - int(floors.sum())
    by_remainder = np.argsort(floors - shares, kind="stable")
    floors[by_remainder[:missing]] += 1
    if int(floors.sum()) != total:  # only where float rounding of the shares moved whole units
        floors[int(np.argmax(floors))] += total - int(floors.sum())
    return floors.astype(np.int32)
