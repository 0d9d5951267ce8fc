"""Expected shortfall of the kernels against the closed forms of vectors/es_and_backtests.json.

The exact integer kernel sees the quantiles of S equally weighted scenarios at the midpoints of their probabilities.
What remains against the closed form is the discretisation of the last scenarios, which the tolerance states per tail.
"""

import json
import math
import pathlib

import numpy as np
import pytest
from scipy import stats

from kernels.expected_shortfall import FAST, NO_TAIL_THRESHOLD, account_terms
from kernels.layout import WEIGHT_TOTAL, PnlTable, tail_mass_of_level

VECTORS = json.loads((pathlib.Path(__file__).parent / "vectors" / "es_and_backtests.json").read_text())
CLOSED_FORMS = VECTORS["expected_shortfall"]
SCENARIOS = 2**16
UNIT = 1e7  # nano-USD per unit of loss: the heaviest quantile here is 40 units and must fit 31 bits
TOLERANCE = {3: 4e-3, 4: 2e-3, 5: 1e-3, 6: 1e-3}


def kernel_shortfall(quantiles: np.ndarray, level_e6: int) -> tuple[float, float]:
    """(ES, tail threshold) of a short lot whose P&L per lot has the given quantiles."""
    values = np.rint(quantiles * UNIT).astype(np.int32)[None, :]
    zeros = np.zeros(1, np.int64)
    pnl = PnlTable(values, np.zeros(1, np.int8), zeros, zeros, np.abs(values.astype(np.int64)).max(axis=1))
    weights = np.full(SCENARIOS, WEIGHT_TOTAL // SCENARIOS, np.int32)
    shortfall, worst, threshold = zeros.copy(), zeros.copy(), np.array([NO_TAIL_THRESHOLD])
    status = np.full(1, -1, np.int8)
    account_terms(
        np.array([0, 1]), np.array([0], np.int32), np.array([-1]), np.array([0]), pnl, weights,
        tail_mass_of_level(level_e6), np.zeros((1, 1), np.int64), np.array([0]), shortfall, worst,
        np.zeros(1, np.int32), threshold, status,
    )  # fmt: skip
    assert status[0] == FAST
    return shortfall[0] / UNIT, threshold[0] / UNIT


MIDPOINTS = (np.arange(SCENARIOS) + 0.5) / SCENARIOS


@pytest.mark.parametrize(("level_e6", "key"), [(975_000, "es_975"), (990_000, "es_99")])
def test_normal(level_e6: int, key: str) -> None:
    shortfall, _ = kernel_shortfall(stats.norm.ppf(MIDPOINTS), level_e6)
    assert shortfall == pytest.approx(CLOSED_FORMS["normal"][key], rel=1e-4)


def test_the_tail_threshold_of_the_normal_is_its_value_at_risk() -> None:
    _, threshold = kernel_shortfall(stats.norm.ppf(MIDPOINTS), 990_000)
    assert threshold == pytest.approx(CLOSED_FORMS["normal"]["var_99"], abs=1e-3)


@pytest.mark.parametrize("degrees", [int(key) for key in CLOSED_FORMS["student_t"]])
def test_student_t(degrees: int) -> None:
    expected = CLOSED_FORMS["student_t"][str(degrees)]
    quantiles = stats.t.ppf(MIDPOINTS, degrees)
    unit_variance = math.sqrt((degrees - 2) / degrees)
    tolerance = TOLERANCE.get(degrees, 3e-4)
    assert kernel_shortfall(quantiles, 975_000)[0] == pytest.approx(expected["es_975_unscaled"], rel=tolerance)
    shortfall, threshold = kernel_shortfall(quantiles * unit_variance, 975_000)
    assert shortfall == pytest.approx(expected["es_975_unit_variance"], rel=tolerance)
    assert threshold == pytest.approx(expected["var_975_unit_variance"], rel=1e-3)
    shortfall, _ = kernel_shortfall(quantiles * unit_variance, 990_000)
    assert shortfall == pytest.approx(expected["es_99_unit_variance"], rel=2 * tolerance)
