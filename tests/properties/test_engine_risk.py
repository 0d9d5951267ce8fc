"""The risk machine against its brute-force twin, record by record, over random worlds with wide accounts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from engine_worlds import WHALES, random_world, scenario_set
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_twin import TwinBook, margin

from schemas import log_records as records
from schemas.margin_batch import decode_batch
from schemas.topics import ACCOUNT_LOG, MARGIN_BATCHES, MARGIN_CALLS
from streams.engine.book import Book
from streams.engine.margin import HEALTHY
from streams.engine.output import Output
from streams.engine.risk import Risk
from streams.engine.tables import TableCache

SEEDS = st.integers(0, 60)
PARTITION = 0


def cache() -> TableCache:
    return TableCache({s.digest: s for s in (scenario_set(), scenario_set(2))}.__getitem__)


def account_log(seed: int) -> list[bytes]:
    """account.log of a world in which everything is in one partition."""
    return random_world(seed, whales=True).pipeline(1).logs[ACCOUNT_LOG, PARTITION]


def feed(machine: Risk, raw: bytes) -> list[list[Output]]:
    """The outputs of each step of one record."""
    return list(machine.steps(ACCOUNT_LOG, PARTITION, machine.next_offset, raw))


def replayed(machine: Risk, log: list[bytes]) -> Iterator[tuple[bytes, list[list[Output]]]]:
    for raw in log:
        yield raw, feed(machine, raw)


@given(SEEDS)
@settings(max_examples=12)
def test_every_margin_is_that_of_the_twin(seed: int) -> None:
    machine, book = Risk(PARTITION, cache()), TwinBook()
    for raw, steps in replayed(machine, account_log(seed)):
        if book.read(raw) != records.BARRIER:
            continue
        (batch,) = [o.value for step in steps for o in step if o.topic == MARGIN_BATCHES]
        tables = machine._tables()
        assert tables is not None
        rows = decode_batch(batch or b"")[1].to_pylist()
        assert {row["account"] for row in rows} == set(book.cash)
        for row in rows:
            expected = margin(book, row["account"], tables, machine.parameters)
            assert {name: row[name] for name in expected} == expected
            assert row["wide"] == (row["account"] in WHALES)
    assert machine.halted == ""


@given(SEEDS)
@settings(max_examples=12)
def test_greeks_moved_by_events_equal_a_full_recomputation(seed: int) -> None:
    machine, compared = Risk(PARTITION, cache()), 0
    for raw, _ in replayed(machine, account_log(seed)):
        tables = machine._tables()
        if tables is None:
            continue
        twin = Book.from_plain(machine.book.to_plain())
        twin.rebuild_greeks(machine.catalogue, tables.greeks_usd9)
        moved, rebuilt = (
            {int(k): v.tolist() for k, v in zip(b.pair_keys, b.pair_greeks_usd9, strict=True) if v.any()}
            for b in (machine.book, twin)
        )
        assert moved == rebuilt
        compared += records.read_header(raw).kind == records.EVENTS
    assert compared


@given(SEEDS)
@settings(max_examples=12)
def test_whoever_is_cleared_by_the_bound_is_healthy(seed: int) -> None:
    """So every call leaves in the first step of a barrier, and nobody flagged or released waits for the second."""
    machine, cleared = Risk(PARTITION, cache()), 0
    for raw, steps in replayed(machine, account_log(seed)):
        if raw[1] != records.BARRIER:
            continue
        assert [MARGIN_CALLS in [o.topic for o in step] for step in steps[1:]] == [False]
        (done,) = [o for o in steps[1] if o.topic == "blocks.done"]
        first = int((done.value or b"").split(b'"first":')[1].split(b",")[0])
        cleared += len(machine.book.accounts) - first
        unhealthy = int((machine.margins.state != HEALTHY).sum())
        assert first >= unhealthy
    assert cleared


@given(SEEDS, st.integers(0, 10**6))
@settings(max_examples=10)
def test_a_machine_loaded_at_any_record_says_the_same(seed: int, repeat_seed: int) -> None:
    """Dump and load at every record, with repeats of earlier records on the way: equal outputs, equal state."""
    log, rng = account_log(seed), np.random.default_rng(repeat_seed)
    calm, shared = Risk(PARTITION, cache()), cache()
    restarted = Risk(PARTITION, shared)
    for place, raw in enumerate(log):
        expected = [o for step in feed(calm, raw) for o in step]
        found = [o for step in feed(restarted, raw) for o in step]
        assert found == expected
        if rng.random() < 0.3:
            repeat = log[rng.integers(place + 1)]
            assert [o for step in feed(restarted, repeat) for o in step] == []
            restarted.next_offset = calm.next_offset
        dumped = restarted.dump()
        restarted = Risk.load(dumped, shared)
        assert restarted.dump() == dumped == calm.dump()


@given(SEEDS)
@settings(max_examples=8)
def test_partitions_do_not_change_any_margin(seed: int) -> None:
    """One partition or five (some of them empty): the same margins of every account in every block."""
    inputs = random_world(seed, whales=True)
    found = []
    for partitions in (1, 5):
        rows = {}
        for value in inputs.pipeline(partitions).values(MARGIN_BATCHES):
            head, table = decode_batch(value)
            rows.update({(head.block, row["account"]): row for row in table.to_pylist()})
        found.append(rows)
    assert found[0] == found[1]
