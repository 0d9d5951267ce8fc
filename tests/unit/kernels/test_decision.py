"""kernels.decision against its formulas in Python integers; the hinge bound; what the kernel leaves alone."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest

from kernels import decision as d
from kernels.expected_shortfall import FAST, NO_TAIL_THRESHOLD, WIDE, account_terms_wide
from kernels.layout import PnlTable

MULTIPLIER_E6 = 1_250_000
ACCOUNTS, INSTRUMENTS, SCENARIOS, ROWS = 40, 9, 130, 6


class Book(NamedTuple):
    pointer: np.ndarray
    legs: np.ndarray
    lots: np.ndarray
    pnl: PnlTable
    weights: np.ndarray
    tail_mass: int
    stress: np.ndarray
    stress_weight_e6: np.ndarray
    plain: d.PlainTerms


def book(seed: int) -> Book:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, INSTRUMENTS, ACCOUNTS)
    legs = [np.sort(rng.choice(INSTRUMENTS, n, replace=False)).astype(np.int32) for n in counts]
    values = rng.integers(-(2**30), 2**30, (INSTRUMENTS, SCENARIOS)).astype(np.int32)
    zeros, exponent = np.zeros(INSTRUMENTS, np.int64), rng.integers(0, 3, INSTRUMENTS).astype(np.int8)
    pnl = PnlTable(values, exponent, zeros, zeros, np.abs(values.astype(np.int64)).max(axis=1))
    pointer = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    plain = d.PlainTerms(
        rng.integers(-(10**6), 8 * 10**7, ACCOUNTS), rng.integers(-(10**5), 10**6, ACCOUNTS),
        rng.integers(0, 10**10, ACCOUNTS), rng.integers(0, 10**9, ACCOUNTS),
    )  # fmt: skip
    weights = rng.integers(0, 2**20, SCENARIOS).astype(np.int32)
    return Book(
        pointer, np.concatenate(legs), rng.integers(-9, 10, pointer[-1]), pnl, weights, int(weights.sum() // 20),
        rng.integers(-(2**34), 2**34, (INSTRUMENTS, ROWS)), rng.integers(0, 10**6, ROWS), plain,
    )  # fmt: skip


def empty() -> d.Margins:
    columns = {name: np.full(ACCOUNTS, -77, np.int64) for name in d.Margins._fields}
    columns["tail_threshold"][:] = NO_TAIL_THRESHOLD
    return d.Margins(**{**columns, "wide": np.zeros(ACCOUNTS, np.bool_)})


def run(found: Book, into: d.Margins, accounts: np.ndarray, may_bound: bool = False, block: int = 5) -> np.ndarray:
    status = np.full(ACCOUNTS, -7, np.int8)
    d.decisions(
        found.pointer, found.legs, found.lots, accounts, found.pnl, found.weights, found.tail_mass, found.stress,
        found.stress_weight_e6, found.plain, MULTIPLIER_E6, np.full(ACCOUNTS, may_bound), block, into, status,
    )  # fmt: skip
    return status


def up(value: int, unit: int) -> int:
    return -(-value // unit)


def twin(found: Book, a: int) -> dict[str, int]:
    leg = slice(found.pointer[a], found.pointer[a + 1])
    terms = account_terms_wide(
        found.legs[leg], found.lots[leg], found.pnl, found.weights, found.tail_mass, found.stress,
        found.stress_weight_e6,
    )  # fmt: skip
    nlv, equity, short, add_ons = (int(column[a]) for column in found.plain)
    candidates = [terms.es_usd9, terms.stress_usd9, short]
    risk = max(candidates)
    maintenance = up(risk + add_ons, 1_000)
    initial = up(up(risk * MULTIPLIER_E6, 10**6) + add_ons, 1_000)
    state = 3 if equity < 0 else 2 if nlv < maintenance else 0 if nlv >= initial else 1
    return {
        "nlv_usd6": nlv, "equity_usd6": equity, "initial_margin_usd6": initial, "maintenance_margin_usd6": maintenance,
        "expected_shortfall_usd6": up(terms.es_usd9, 1_000), "stress_loss_usd6": up(terms.stress_usd9, 1_000),
        "short_option_minimum_usd6": up(short, 1_000), "add_ons_usd6": up(add_ons, 1_000),
        "binding": candidates.index(risk), "stress_row": terms.stress_row, "state": state, "wide": 0,
        "es_usd9": terms.es_usd9, "stress_usd9": terms.stress_usd9, "tail_threshold": terms.tail_threshold_usd9,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_one_pass_is_the_decision_in_python_integers(seed: int) -> None:
    found, into = book(seed), empty()
    assert (run(found, into, np.arange(ACCOUNTS)) == FAST).all()
    for a in range(ACCOUNTS):
        assert {name: int(getattr(into, name)[a]) for name in twin(found, a)} == twin(found, a)
    assert (into.keyframe_block == 5).all()
    assert len(set(into.state.tolist())) >= 3
    assert len(set(into.binding.tolist())) == 3


def test_the_decision_at_its_edges() -> None:
    """NLV one micro-USD around each line, equity around zero; the first of equal terms binds."""
    for es, stress, short, add_ons, nlv, equity in product(
        [-5_000, 0, 7_000], [0, 7_000], [0, 7_000], [0, 1], range(-1, 12), [-1, 0]
    ):
        plain = d.PlainTerms(*(np.array([v]) for v in (nlv, equity, short, add_ons)))
        binding, initial, maintenance, state = d.decide(0, es, stress, plain, MULTIPLIER_E6)
        risk = max(es, stress, short)
        assert binding == [es, stress, short].index(risk)
        assert maintenance == up(risk + add_ons, 1_000)
        assert initial == up(up(risk * MULTIPLIER_E6, 10**6) + add_ons, 1_000)
        assert state == (3 if equity < 0 else 2 if nlv < maintenance else 0 if nlv >= initial else 1)


@pytest.mark.parametrize("seed", range(6))
def test_the_hinge_only_ever_says_healthy_of_the_healthy_and_never_less_than_the_margin(seed: int) -> None:
    found, exact, into = book(seed), empty(), empty()
    run(found, exact, np.arange(ACCOUNTS))
    rng = np.random.default_rng(seed)
    into.tail_threshold[:] = exact.tail_threshold + rng.integers(-(10**9), 10**9, ACCOUNTS)
    into.tail_threshold[0] = NO_TAIL_THRESHOLD
    run(found, into, np.arange(ACCOUNTS), may_bound=True)
    bound = into.keyframe_block != 5
    assert bound.any()
    assert not bound[0]
    assert (exact.state[bound] == d.HEALTHY).all()
    for name in ("es_usd9", "expected_shortfall_usd6", "initial_margin_usd6", "maintenance_margin_usd6"):
        assert (getattr(into, name) >= getattr(exact, name)).all()
    for name, column in exact._asdict().items():
        assert np.array_equal(getattr(into, name)[~bound], column[~bound])
    for name in ("nlv_usd6", "stress_usd9", "stress_row", "state", "add_ons_usd6"):
        assert np.array_equal(getattr(into, name), getattr(exact, name))


def test_only_the_chosen_rows_in_range_are_written() -> None:
    found, into = book(1), empty()
    lots = found.lots.copy()
    lots[found.pointer[3]] = 2**40
    status = run(found._replace(lots=lots), into, np.array([2, 3]))
    assert status[[1, 2, 3]].tolist() == [-7, FAST, WIDE]
    for column in into[:12]:
        assert (np.delete(column, 2) == (0 if column.dtype == np.bool_ else -77)).all()


def test_plain_terms_are_sums_rounded_against_the_account() -> None:
    rng = np.random.default_rng(4)
    base = rng.integers(-(10**9), 10**9, ACCOUNTS)
    sums = rng.integers(-(10**15), 10**15, (ACCOUNTS - 3, 4))
    sums[:, 2:] = abs(sums[:, 2:])
    out = d.PlainTerms(*np.full((4, ACCOUNTS), -77, np.int64))
    d.fill_plain_terms(2, base, sums, 123_457, 1_001, out)
    for n, (equity, haircut, gross, short) in enumerate(sums.tolist(), start=2):
        assert (out.equity_usd6[n], out.nlv_usd6[n]) == (base[n] + equity // 1000, base[n] + haircut // 1000)
        assert out.add_ons_usd9[n] == -(-gross * 1_001 // 10**6)
        assert out.short_minimum_usd9[n] == -(-short * 123_457 // 10**6)
    assert all((column[[0, 1, -1]] == -77).all() for column in out)
