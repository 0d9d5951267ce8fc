"""Forwards from parity: exact on a consistent chain, in either unit, and robust against bad quotes."""

from __future__ import annotations

import numpy as np
import pytest
from smile_worlds import ONE, chain

from oracles.forward import Side, parity_forward, weighted_quantile

FORWARD = 101.37
STRIKES = [float(k) for k in range(80, 125, 4)]


def sides(inverse: bool, forward: float = FORWARD, spread: float = 0.01) -> list[Side]:
    scale = forward if inverse else 1.0
    return [
        Side(q.is_call, q.strike_usd9 / ONE, q.bid_usd9 / ONE / scale, q.ask_usd9 / ONE / scale)
        for q in chain(strikes=STRIKES, spread=spread, forward=forward)
    ]


@pytest.mark.parametrize("inverse", [False, True])
def test_a_consistent_chain_gives_its_forward(inverse: bool) -> None:
    found = parity_forward(sides(inverse), 100.0, inverse=inverse)
    assert found is not None
    assert found.price_usd == pytest.approx(FORWARD, rel=1e-7)
    assert (found.pairs, found.spread_bp < 0.01) == (9, True)


def test_discounted_prices_are_grown() -> None:
    discounted = [s._replace(bid=s.bid * 0.97, ask=s.ask * 0.97) for s in sides(False)]
    found = parity_forward(discounted, 100.0, 1 / 0.97)
    assert found is not None
    assert found.price_usd == pytest.approx(FORWARD, rel=1e-7)


@pytest.mark.parametrize("bad", [(3.0, 3.1), (0.0, 0.5), (9.0, 1.0), (0.001, 900.0)])
def test_a_stale_one_sided_crossed_or_wide_quote_does_not_move_it(bad: tuple[float, float]) -> None:
    found = parity_forward([s._replace(bid=bad[0], ask=bad[1]) if n == 11 else s for n, s in enumerate(sides(False))],
                           100.0)  # fmt: skip
    assert found is not None
    assert found.price_usd == pytest.approx(FORWARD, rel=1e-4)


def test_fewer_than_three_pairs_give_none() -> None:
    assert parity_forward(sides(False)[:4], 100.0) is None
    assert parity_forward([s for s in sides(False) if s.is_call], 100.0) is None
    assert parity_forward([], 100.0) is None


def test_a_weighted_quantile_is_a_value_that_was_there() -> None:
    values, weights = np.array([5.0, 1.0, 3.0]), np.array([1.0, 1.0, 5.0])
    assert [weighted_quantile(values, weights, q) for q in (0.1, 0.5, 0.99)] == [1.0, 3.0, 5.0]
