"""kernels.scenario_losses against Python integers: every number of legs and of scenarios, wrapped sums, loss order."""

import numpy as np
import pytest

from kernels.scenario_losses import accumulate, address_room, in_loss_order


def in_order(row: list[int]) -> list[int]:
    """Within whole blocks of 16 the even places, then the odd ones."""
    whole = len(row) - len(row) % 16
    blocks = [row[begin : begin + 16] for begin in range(0, whole, 16)]
    return [value for block in blocks for value in (*block[::2], *block[1::2])] + row[whole:]


@pytest.mark.parametrize("scenarios", [1, 3, 15, 16, 17, 32, 47, 64, 130])
@pytest.mark.parametrize("legs", range(11))
def test_losses_are_the_sums_of_products(legs: int, scenarios: int) -> None:
    rng = np.random.default_rng(100 * legs + scenarios)
    extreme = rng.random((7, scenarios)) < 0.2
    values = np.where(extreme, -(2**31), rng.integers(-(2**31), 2**31, (7, scenarios))).astype(np.int32)
    instruments = rng.integers(0, 7, legs).astype(np.int32)
    shifted = rng.integers(-(2**31) + 1, 2**31, legs + 2).astype(np.int32)
    losses = np.full(scenarios, 77)
    accumulate(values, instruments, shifted, address_room(legs), losses)
    rows = values[instruments].astype(object)
    sums = [-sum(int(q) * v for q, v in zip(shifted, rows[:, s])) for s in range(scenarios)]
    assert losses.tolist() == [(v + 2**63) % 2**64 - 2**63 for v in in_order(sums)]


@pytest.mark.parametrize("scenarios", [1, 16, 40])
def test_weights_are_brought_into_the_order_of_the_losses(scenarios: int) -> None:
    weights = np.arange(scenarios, dtype=np.int32)
    assert in_loss_order(weights).tolist() == in_order(weights.tolist())
    assert weights.tolist() == list(range(scenarios))
