"""How fetched records are cut into runs."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from streams.runtime import transport


class Fetched(NamedTuple):
    offset: int
    serialized_value_size: int


@given(st.lists(st.integers(0, 3 * transport.RUN_BYTES), max_size=600))
def test_runs_are_the_records_in_their_order_and_no_larger_than_allowed(sizes: list[int]) -> None:
    records = [Fetched(*pair) for pair in enumerate(sizes)]
    runs = [run.records for run in transport.runs_of(records)]
    assert [record for run in runs for record in run] == records
    for run in runs:
        assert 1 <= len(run) <= transport.RUN_RECORDS
        assert sum(record.serialized_value_size for record in run[:-1]) < transport.RUN_BYTES


def test_small_records_fill_a_run() -> None:
    records = [Fetched(offset, 100) for offset in range(2 * transport.RUN_RECORDS + 1)]
    assert [len(run.records) for run in transport.runs_of(records)] == [transport.RUN_RECORDS] * 2 + [1]
