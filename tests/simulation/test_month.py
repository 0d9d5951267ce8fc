"""A month of a venue through the whole pure pipeline: listings, expiries, funding, trades, money in and out, crash."""

from __future__ import annotations

from collections import Counter

import orjson
import pytest
from lifecycle_world import HOUR_MS, TERMS_DAYS, Venue, check_conservation

from schemas import log_records as records
from schemas.topics import (
    ACCOUNT_FILLS,
    ACCOUNT_LOG,
    BLOCKS_DONE,
    LIQUIDATIONS,
    MARGIN_CALLS,
    MARGIN_WARNINGS,
    QUARANTINE,
)
from streams.simulate.in_process import Pipeline

DAYS, PARTITIONS, SCENARIOS, SEED, CRASH_DAY = 30, 2, 512, 7, 20
BLOCKS_A_DAY = 24


def new_venue(days: int = DAYS) -> Venue:
    return Venue(SEED, days, HOUR_MS, SCENARIOS, CRASH_DAY)


@pytest.fixture(scope="module")
def month() -> tuple[Venue, Pipeline]:
    """Money and lots are checked at the end of every day."""
    venue = new_venue()
    run = venue.pipeline(PARTITIONS)
    for number, block in enumerate(venue.blocks()):
        for record in block:
            run.push(*record)
        if number % BLOCKS_A_DAY == BLOCKS_A_DAY - 1:
            check_conservation(run, venue)
    return venue, run


def told(run: Pipeline, topic: str) -> list[dict]:
    return [event for value in run.values(topic) for event in orjson.loads(value)["events"]]


def test_nothing_halts_and_nothing_is_refused(month: tuple[Venue, Pipeline]) -> None:
    _, run = month
    done = [orjson.loads(value) for value in run.values(BLOCKS_DONE)]
    assert {d["halted"] for d in done} == {""}
    assert Counter(d["block"] for d in done) == dict.fromkeys(range(DAYS * BLOCKS_A_DAY), PARTITIONS)
    assert run.values(QUARANTINE) == []


def test_everything_happened(month: tuple[Venue, Pipeline]) -> None:
    venue, run = month
    came = Counter(orjson.loads(value)["type"] for value in run.values(ACCOUNT_FILLS))
    assert came["funding"] == 2 * (DAYS * 3 - 1)
    assert min(came[kind] for kind in ("fill", "cash_move", "collateral_move", "transfer")) > 50
    assert venue.expired >= 7 * (DAYS - 1)
    crash = range(CRASH_DAY * BLOCKS_A_DAY, CRASH_DAY * BLOCKS_A_DAY + 8)
    assert any(call["block"] in crash and call["to"] != "healthy" for call in told(run, MARGIN_CALLS))
    assert told(run, MARGIN_WARNINGS)
    assert told(run, LIQUIDATIONS)


def test_every_expiry_is_settled_once_at_an_average_of_its_prices(month: tuple[Venue, Pipeline]) -> None:
    """In every partition alike; the longest window before a daily expiry lies between two blocks."""
    venue, run = month
    settled: list[dict[int, int]] = []
    for partition in range(PARTITIONS):
        found: dict[int, int] = {}
        for raw in run.logs[ACCOUNT_LOG, partition]:
            header = records.read_header(raw)
            if header.kind == records.BARRIER:
                rows = records.read_barrier(raw, header).settlements
                assert not set(rows["expiry"].tolist()) & set(found)
                found |= dict(zip(rows["expiry"].tolist(), rows["price_usd9"].tolist(), strict=True))
        settled.append(found)
    assert settled[0] == settled[1]
    assert len(settled[0]) * 7 == venue.expired
    assert len(run.risks[0].catalogue.expiries) - len(settled[0]) <= len(TERMS_DAYS)


def test_the_month_is_repeatable(month: tuple[Venue, Pipeline]) -> None:
    """Its first days again, in a new run: the same state digest of every block and partition."""
    venue, run = new_venue(days=3), month[1]
    again = venue.pipeline(PARTITIONS)
    for block in venue.blocks():
        for record in block:
            again.push(*record)
    for partition in range(PARTITIONS):
        log = again.logs[BLOCKS_DONE, partition]
        assert run.logs[BLOCKS_DONE, partition][: len(log)] == log


def test_a_machine_loaded_from_the_last_day_goes_on_alike(month: tuple[Venue, Pipeline]) -> None:
    """A whole month of state survives a checkpoint: same bytes, same residue."""
    for risk in month[1].risks:
        again = type(risk).load(risk.dump(), risk.cache)
        assert again.dump() == risk.dump()
        assert again.book.residue_usd21 == risk.book.residue_usd21 != 0
