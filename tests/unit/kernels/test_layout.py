"""kernels.layout: constructors from recorded integers."""

import numpy as np
import pytest

from kernels import layout


def arguments(weights: np.ndarray, tail_mass: int) -> tuple:
    one = np.array([[250_000_000, -1]], np.int32)
    return one, np.array([0], np.int32), one, one, one, weights, tail_mass, 3600


def test_scenario_table_divides_recorded_integers_once() -> None:
    weights = np.array([2**29, 2**29], np.int32)
    table = layout.scenario_table(*arguments(weights, 10))
    assert table.spot_log_return.tolist() == [[0.25, -1 / 1e9]]
    assert table.horizon_years == 1 / 8760
    assert all(column.flags.c_contiguous for column in table[:6])


@pytest.mark.parametrize(
    ("weights", "tail_mass"),
    [([2**29, 2**29 - 1], 10), ([2**30 + 1, -1], 10), ([2**29, 2**29], 0), ([2**29, 2**29], 2**30)],
)
def test_scenario_table_refuses_bad_weights_and_tail_mass(weights: list[int], tail_mass: int) -> None:
    with pytest.raises(ValueError, match=r"scenario weights|tail mass"):
        layout.scenario_table(*arguments(np.array(weights, np.int64), tail_mass))


def test_tail_mass_of_level_rounds_down() -> None:
    assert layout.tail_mass_of_level(990_000) == 10_737_418
    assert layout.tail_mass_of_level(975_000) == 26_843_545


def test_empty_pnl_table_has_the_agreed_columns() -> None:
    table = layout.empty_pnl_table(3, 8)
    assert table.values.shape == (3, 8)
    assert [column.dtype.name for column in table] == ["int32", "int8", "int64", "int64", "int64"]
