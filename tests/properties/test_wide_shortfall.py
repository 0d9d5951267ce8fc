"""Two limbs against Python integers: equal for any tables, weights and lots, or refused; nothing wraps."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_expected_shortfall import ANY_LOTS, Case, cases, wide

from kernels.expected_shortfall import AccountTerms
from kernels.layout import PnlTable
from kernels.wide_shortfall import account_terms_two_limb

WIDE_LOTS = st.one_of(ANY_LOTS, st.integers(-(2**50), 2**50), st.integers(-(2**40), 2**40))


def two_limb(case: Case) -> AccountTerms | None:
    return account_terms_two_limb(
        case.legs, case.lots, case.pnl, case.weights, case.tail_mass, case.stress, case.stress_weight_e6
    )


@settings(max_examples=400, deadline=None)
@given(cases(WIDE_LOTS))
def test_two_limbs_are_the_definition_or_refuse(case: Case) -> None:
    found = two_limb(case)
    assert found is None or found == wide(case)
    if all(abs(int(lots)) < 2**45 for lots in case.lots):  # gross below 2**88 for any exponents and legs
        assert found is not None


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(25, 55))
def test_a_large_account_with_many_ties_in_the_high_limb(seed: int, magnitude: int) -> None:
    """Thousands of scenarios, hedged to a small net: high limbs tie, the low ones decide."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-(2**31) + 1, 2**31, (2, 500)).astype(np.int32)
    values[1] = values[0] + rng.integers(-3, 4, 500) if magnitude % 2 else values[1]
    zeros, wide_values = np.zeros(2, np.int64), values.astype(np.int64)
    pnl = PnlTable(values, np.array([0, 1], np.int8), zeros, zeros, np.abs(wide_values).max(axis=1))
    lots = int(rng.integers(2**magnitude))
    stress = rng.integers(-(2**38), 2**38, (2, 7))
    weights = rng.integers(0, 2**20, 500).astype(np.int32)
    case = Case(
        pnl, weights, int(weights.sum() // 100), stress, rng.integers(0, 10**6, 7), np.arange(2, dtype=np.int32),
        np.array([2 * lots, -lots]),
    )  # fmt: skip
    assert two_limb(case) in (wide(case), None if magnitude > 40 else wide(case))
