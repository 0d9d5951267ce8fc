"""The benchmarks of the screen at small size: no bound below its margin, the same results again."""

import numpy as np

from streams.engine.margin import account_sums, compute, empty_margins
from tests.bench import screening, screening_core


def test_no_bound_is_violated() -> None:
    found = list(screening.rows(small=True))
    assert [row.name for row in found if row.ok is not True] == []
    for stage in ("bound_sup", "bound_traded", "cleared_hinge"):
        assert any(stage in row.size for row in found)
    assert [row.checksum for row in screening.rows(small=True)] == [row.checksum for row in found]


def test_no_core_bound_is_violated() -> None:
    found = list(screening_core.rows(small=True))
    assert [row.name for row in found if row.ok is not True] == []
    assert len({row.checksum for row in found}) == len(found)


def test_a_wrong_basis_only_loosens_the_core_bound() -> None:
    rng, accounts, start = np.random.default_rng(2), 30, np.zeros(screening.UNDERLYINGS)
    scenarios = screening._scenarios(128, 1)
    before = screening._tables(screening._market(start, 1.0, 0.0), scenarios)
    book, everyone = screening_core._makers(accounts, 21, before), np.arange(accounts)
    right = screening_core._basis(start, 1.0, 0.0, scenarios)
    for factor in (1.0, *rng.uniform(-1, 2, 3)):
        spot, volatility = (np.rint(rows * factor).astype(np.int32) for rows in (right.spot, right.volatility))
        exact = empty_margins(accounts)
        for number, tables in enumerate(
            (before, screening._tables(screening._market(start + 1e-4, 1.0, 0), scenarios))
        ):
            sums = account_sums(book.legs, book.cash_usd6, np.zeros(accounts, np.int64), tables, screening.BRUTE)
            compute(book.legs, everyone, sums, tables, screening.BRUTE, exact)
            if number == 0:
                basis = right._replace(spot=spot, volatility=volatility)
                core = screening_core.CoreScreen(book, basis, scenarios, 1, exact)
                core.take_keyframes(everyone)
        assert (core.bounds(everyone, tables, start + 1e-4, 1.0) >= exact.es_usd9).all()
