"""Scrambled Sobol points as 32-bit integers: the same bits on every machine, no randomness of its own.

Random linear scrambling with a digital shift: the 32 bits of a coordinate, most significant first, are multiplied by a
random lower triangular matrix over GF(2) with ones on its diagonal, then xored with a random word. The points stay a
digital net of the same quality; each is uniform, and the variance of a mean is that of Owen's nested scrambling. The
random bits are an argument, so the points are a function of them alone.

Sources: Sobol, "On the distribution of points in a cube" (1967); Joe and Kuo, "Constructing Sobol sequences with better
two-dimensional projections" (2008), whose direction numbers lie beside this module with their licence; Matousek, "On
the L2-discrepancy for anchored boxes" (1998); Owen, "Variance with alternative scramblings of digital nets" (2003).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from kernels.compiling import compiled

UInt32Array = npt.NDArray[np.uint32]

BITS = 32
RANDOM_WORDS = BITS + 1
"""Random words a dimension needs: a column of the matrix for each bit, and the shift."""

_TABLE = np.load(Path(__file__).with_name("joe_kuo_direction_numbers.npy")).astype(np.uint32)
DIMENSIONS_MAX = int(_TABLE.shape[0])


@compiled
def _fill_directions(table: UInt32Array, out: UInt32Array) -> None:
    """m_j = m_(j-s) ^ 2**s m_(j-s) ^ xor over k of 2**k a_k m_(j-k), shifted to the top bits (Bratley, Fox, 1988)."""
    one = np.uint32(1)
    for d in range(out.shape[0]):
        polynomial, degree = table[d, 0], 0
        while (polynomial >> np.uint32(degree + 1)) > 0:
            degree += 1
        for j in range(BITS):
            if degree == 0:
                out[d, j] = one << np.uint32(BITS - 1 - j)
            elif j < degree:
                out[d, j] = table[d, 1 + j] << np.uint32(BITS - 1 - j)
            else:
                found = out[d, j - degree] ^ (out[d, j - degree] >> np.uint32(degree))
                for k in range(1, degree):
                    if (polynomial >> np.uint32(degree - k)) & one:
                        found ^= out[d, j - k]
                out[d, j] = found


@compiled
def _scrambled(direction: np.uint32, random: UInt32Array) -> np.uint32:
    """Matrix times direction: the xor of the columns at its set bits; column c is a one at bit c, random bits below."""
    found = np.uint32(0)
    for c in range(BITS):
        bit = np.uint32(1) << np.uint32(BITS - 1 - c)
        if direction & bit:
            found ^= bit | (random[c] & (bit - np.uint32(1)))
    return found


@compiled
def _fill_points(directions: UInt32Array, random: UInt32Array, out: UInt32Array) -> None:
    """Point n is the xor of the directions at the set bits of n: every power of two doubles what is there."""
    for d in range(out.shape[0]):
        out[d, 0] = random[d, BITS]
        done, j = 1, 0
        while done < out.shape[1]:
            direction = _scrambled(directions[d, j], random[d])
            for n in range(done):
                out[d, done + n] = out[d, n] ^ direction
            done, j = 2 * done, j + 1


def direction_numbers(dimensions: int) -> UInt32Array:
    """uint32[D,32]: direction j of each dimension, its leading bit at position 31 - j.

    Raises:
        ValueError: more dimensions than the table has (1,024).
    """
    if not 1 <= dimensions <= DIMENSIONS_MAX:
        raise ValueError(f"Sobol points have 1 to {DIMENSIONS_MAX} dimensions, not {dimensions}")
    out = np.empty((dimensions, BITS), np.uint32)
    _fill_directions(_TABLE, out)
    return out


def scrambled_points(points: int, random: UInt32Array) -> UInt32Array:
    """The first points of the sequence, uint32[D,S]; a word x stands for the uniform number (x + 1/2) / 2**32.

    Args:
        points: S, a power of two up to 2**32: only then is the net balanced.
        random: uint32[D,RANDOM_WORDS], independent uniform bits; zeros give the plain sequence.

    Raises:
        ValueError: a number of points that is no power of two, or too many dimensions.
    """
    if points < 1 or points & (points - 1) or points > 2**BITS:
        raise ValueError(f"the number of points must be a power of two, not {points}")
    out = np.empty((random.shape[0], points), np.uint32)
    _fill_points(direction_numbers(random.shape[0]), random, out)
    return out
