"""The log that the spine benchmark measures on is one that the risk machine takes, the same every time."""

from __future__ import annotations

import pytest

from schemas import log_records as records
from schemas.topics import ACCOUNT_LOG, MARGIN_CALLS
from streams.engine.risk import Risk
from streams.engine.tables import TableCache
from tests.bench.spine_log import Shape, SpineLog, small_shape
from tests.bench.spine_peers import expected, fills_of
from tests.bench.spine_recorded import RecordedLog

SHAPE = small_shape(Shape(accounts=1_000, partitions=2, blocks=3, calls=4, moving=True, rich=False))


def values(log: SpineLog, partition: int) -> list[bytes]:
    return [v for block in log.blocks(partition) for v in (*block.events, block.barrier)]


def taken(log: SpineLog | RecordedLog, partition: int, behind: list[bytes]) -> tuple[Risk, dict[str, int]]:
    """The machine after the log, and how many records it said behind the genesis block, by topic."""
    risk, said = Risk(partition, TableCache({log.scenario_set.digest: log.scenario_set}.__getitem__)), {}
    genesis = log.genesis(partition)
    for offset, value in enumerate([*genesis, *behind]):
        for outputs in risk.steps(ACCOUNT_LOG, partition, offset, value):
            for output in outputs if offset >= len(genesis) else ():
                said[output.topic] = said.get(output.topic, 0) + 1
    return risk, said


@pytest.mark.parametrize("partition", [0, 1])
def test_a_machine_takes_the_whole_log(partition: int) -> None:
    log = SpineLog(SHAPE)
    risk, said = taken(log, partition, values(log, partition))
    assert (risk.halted, risk.block, len(risk.book.accounts)) == ("", SHAPE.blocks, SHAPE.accounts // SHAPE.partitions)
    assert said[MARGIN_CALLS] == SHAPE.blocks  # a change of state in each


def test_the_log_is_a_function_of_its_shape() -> None:
    assert values(SpineLog(SHAPE), 1) == values(SpineLog(SHAPE), 1)
    assert values(SpineLog(SHAPE), 0) != values(SpineLog(SHAPE), 1)


def test_copied_accounts_stand_where_the_originals_do() -> None:
    log = SpineLog(SHAPE)
    many = SpineLog(Shape(**{**vars(SHAPE), "accounts": 3 * SHAPE.accounts}))
    many.original = log.original
    few, copied = taken(log, 0, [])[0].book, taken(many, 0, [])[0].book
    assert copied.lots.tolist() == few.lots.tolist() * 3
    assert copied.cash().tolist() == few.cash().tolist() * 3


def test_the_recorded_log_is_taken_and_counts_its_fills() -> None:
    log = RecordedLog(blocks=5, scenarios=128)
    risk, _ = taken(log, 0, log.values)
    assert risk.halted == ""
    rows = [h.entries for v in log.values if (h := records.read_header(v)).kind == records.EVENTS]
    assert log.fills == sum(rows) > 0


def test_every_fill_reaches_the_peers() -> None:
    log = SpineLog(SHAPE)
    fills = list(fills_of(values(log, 0)))
    assert len(fills) == SHAPE.fills // SHAPE.partitions
    assert expected(fills) == expected(fills) != expected(fills[1:])
