"""kernels.quantiles against scipy, from the smallest to the largest 33-bit probability."""

import numpy as np
import pytest
from numba import njit
from scipy.special import gammainc, gammaincc, gammaincinv, ndtri

from kernels import quantiles

inverse_normal = njit(error_model="numpy")(lambda u: quantiles.inverse_normal(u))
half_chi_square_5 = njit(error_model="numpy")(lambda v: quantiles.half_chi_square_5(v))

WORDS = np.concatenate(
    [[0, 1, 2, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], np.geomspace(3, 2**31, 200).astype(np.int64)]
)
LEVELS = np.concatenate([(WORDS + 0.5) / 2.0**32, 1.0 - (WORDS + 0.5) / 2.0**32])


def test_the_normal_quantile_is_that_of_scipy() -> None:
    found = np.array([inverse_normal(u) for u in LEVELS])
    assert np.abs(found / ndtri(LEVELS) - 1.0).max() < 1e-14
    assert (found[: len(WORDS)] == -found[len(WORDS) :]).all()  # odd around one half, to the bit


def test_the_chi_square_quantile_is_that_of_scipy() -> None:
    found = np.array([half_chi_square_5(v) for v in LEVELS])
    middle = (LEVELS > 1e-6) & (LEVELS < 0.99)
    assert np.abs(found / gammaincinv(2.5, LEVELS**2.5) - 1.0)[middle].max() < 1e-14


def test_the_chi_square_quantile_inverts_its_distribution_function() -> None:
    for v in LEVELS:
        y = half_chi_square_5(v)
        if v < 0.5:
            assert gammainc(2.5, y) == pytest.approx(v**2.5, rel=1e-13)
        else:
            assert gammaincc(2.5, y) == pytest.approx(-np.expm1(2.5 * np.log(v)), rel=1e-12)
