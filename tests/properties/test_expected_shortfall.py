"""Expected shortfall against its definition in fractions, for any losses, weights, ties and warm starts."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import expected_shortfall as es
from kernels.layout import PnlTable

SCENARIOS, INSTRUMENTS, ROWS = 8, 6, 3


class Case(NamedTuple):
    pnl: PnlTable
    weights: np.ndarray
    tail_mass: int
    stress: np.ndarray
    stress_weight_e6: np.ndarray
    legs: np.ndarray
    lots: np.ndarray


@st.composite
def cases(draw: st.DrawFn, lots: st.SearchStrategy[int]) -> Case:
    entry = st.one_of(st.integers(-3, 3), st.integers(-(2**31) + 1, 2**31 - 1))
    values = draw(st.lists(st.lists(entry, min_size=SCENARIOS, max_size=SCENARIOS), min_size=INSTRUMENTS,
                           max_size=INSTRUMENTS))  # fmt: skip
    array = np.array(values, np.int32)
    exponent = np.array(draw(st.lists(st.integers(0, 8), min_size=INSTRUMENTS, max_size=INSTRUMENTS)), np.int8)
    weight = st.one_of(st.just(0), st.just(5), st.integers(0, 2**27))
    weights = draw(st.lists(weight, min_size=SCENARIOS, max_size=SCENARIOS).filter(lambda w: sum(w) > 1))
    stress = draw(st.lists(st.integers(-(2**31), 2**31), min_size=INSTRUMENTS * ROWS, max_size=INSTRUMENTS * ROWS))
    legs = draw(st.lists(st.integers(0, INSTRUMENTS - 1), max_size=INSTRUMENTS, unique=True).map(sorted))
    wide = array.astype(np.int64)
    zeros = np.zeros(INSTRUMENTS, np.int64)
    return Case(
        PnlTable(array, exponent, zeros, zeros, np.abs(wide).max(axis=1)),
        np.array(weights, np.int32),
        draw(st.integers(1, sum(weights) - 1)),
        np.array(stress, np.int64).reshape(INSTRUMENTS, ROWS),
        np.array(draw(st.lists(st.integers(0, 1_000_000), min_size=ROWS, max_size=ROWS)), np.int64),
        np.array(legs, np.int32),
        np.array([draw(lots) for _ in legs], np.int64),
    )


SMALL_LOTS = st.one_of(st.integers(-3, 3), st.integers(-(2**20), 2**20))
ANY_LOTS = st.one_of(SMALL_LOTS, st.integers(-(2**31), 2**31), st.integers(-(2**63), 2**63 - 1))


def fast(case: Case, threshold: int = es.NO_TAIL_THRESHOLD, previous_es: int = 0) -> tuple[int, es.AccountTerms]:
    """(status, terms) of the one account of a case."""
    es_usd9, stress_usd9 = np.array([previous_es]), np.zeros(1, np.int64)
    row, warm, status = np.zeros(1, np.int32), np.array([threshold]), np.zeros(1, np.int8)
    es.account_terms(
        np.array([0, len(case.legs)], np.int64), case.legs, case.lots, np.array([0], np.int64), case.pnl, case.weights,
        case.tail_mass, case.stress, case.stress_weight_e6, es_usd9, stress_usd9, row, warm, status,
    )  # fmt: skip
    return int(status[0]), es.AccountTerms(int(es_usd9[0]), int(stress_usd9[0]), int(row[0]), int(warm[0]))


def wide(case: Case) -> es.AccountTerms:
    return es.account_terms_wide(
        case.legs, case.lots, case.pnl, case.weights, case.tail_mass, case.stress, case.stress_weight_e6
    )


def ceiling(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


def defined(case: Case) -> es.AccountTerms:
    """The definition: minimum over t of t + sum w (L - t)+ / P (Rockafellar and Uryasev), and the maximum over rows."""
    terms = [
        (int(q) << int(case.pnl.exponent[i]), case.pnl.values[i].tolist(), case.stress[i].tolist(), int(q))
        for i, q in zip(case.legs, case.lots)
    ]
    losses = [-sum(q * values[s] for q, values, _, _ in terms) for s in range(SCENARIOS)]
    weights = case.weights.tolist()

    def objective(t: int) -> Fraction:
        return t + Fraction(sum(w * max(loss - t, 0) for w, loss in zip(weights, losses)), case.tail_mass)

    threshold = min(v for v in losses if sum(w for w, loss in zip(weights, losses) if loss > v) <= case.tail_mass)
    shortfall = min(objective(t) for t in losses)
    rows = [
        ceiling(Fraction(-sum(lots * stress[r] for _, _, stress, lots in terms) * int(case.stress_weight_e6[r]), 10**6))
        for r in range(ROWS)
    ]
    worst = max(0, *rows)
    return es.AccountTerms(ceiling(shortfall), worst, rows.index(worst) if worst else -1, threshold)


@settings(max_examples=200, deadline=None)
@given(cases(SMALL_LOTS))
def test_the_wide_path_is_the_definition(case: Case) -> None:
    assert wide(case) == defined(case)


@settings(max_examples=300, deadline=None)
@given(cases(ANY_LOTS))
def test_the_fast_path_is_exact_or_says_that_it_does_not_apply(case: Case) -> None:
    status, terms = fast(case)
    shifted = [int(q) << int(case.pnl.exponent[i]) for i, q in zip(case.legs, case.lots)]
    gross = sum(abs(q) * int(case.pnl.absolute_maximum[i]) for i, q in zip(case.legs, shifted))
    stress_gross = sum(abs(int(q)) * int(np.abs(case.stress[i]).max()) for i, q in zip(case.legs, case.lots))
    if status == es.FAST:
        assert terms == defined(case)
        assert all(abs(q) < 2**31 for q in shifted)
        assert max(gross, stress_gross) < 2**61
    else:
        assert status == es.WIDE
        assert any(abs(q) >= 2**31 for q in shifted) or max(gross, stress_gross) >= 2**61 * (1 - 1e-8)
        assert wide(case) == defined(case)


@settings(max_examples=200, deadline=None)
@given(
    cases(SMALL_LOTS), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**34), 2**34)
)
def test_warm_starts_never_change_a_result(case: Case, threshold: int, previous_es: int, offset: int) -> None:
    _, cold = fast(case)
    assert fast(case, threshold, previous_es)[1] == cold
    assert fast(case, cold.tail_threshold_usd9, cold.es_usd9)[1] == cold
    assert fast(case, cold.tail_threshold_usd9 + offset, cold.es_usd9 + 2 * offset)[1] == cold


@settings(max_examples=200, deadline=None)
@given(cases(ANY_LOTS))
def test_tail_scenarios_carry_the_tail_mass_and_reproduce_the_shortfall(case: Case) -> None:
    losses = es.account_losses(case.legs, case.lots, case.pnl)
    chosen, tail_weights = es.tail_scenarios(losses, case.weights, case.tail_mass)
    assert int(tail_weights.sum()) == case.tail_mass
    assert (tail_weights <= case.weights[chosen]).all()
    total = sum(int(w) * losses[s] for s, w in zip(chosen, tail_weights))
    assert -(-total // case.tail_mass) == wide(case).es_usd9
