"""Random weeks (and a day) of a venue: money is conserved to the unit at every block, and repeats change no account."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lifecycle_world import HOUR_MS, Record, Venue, check_conservation

from schemas.topics import ACCOUNT_LOG, BLOCKS_DONE, QUARANTINE
from streams.simulate.in_process import Pipeline

PARTITIONS = 3


def week(seed: int) -> Venue:
    return Venue(seed, days=8, block_ms=6 * HOUR_MS)


@given(st.integers(0, 2**32), st.integers(0, 2**32))
@settings(max_examples=6, phases=[Phase.reuse, Phase.generate])  # a smaller seed is no smaller week
def test_a_week_conserves_money_and_repeats_change_no_account(seed: int, repeat_seed: int) -> None:
    venue, rng = week(seed), random.Random(repeat_seed)
    calm, repeating = venue.pipeline(PARTITIONS), venue.pipeline(PARTITIONS)
    past: list[Record] = []
    for records in venue.blocks():
        for record in records:
            calm.push(*record)
            for again in [record] * rng.choice([1, 1, 2, 3]) + rng.sample(past, min(len(past), rng.randrange(3))):
                repeating.push(*again)
        past += records
        check_conservation(calm, venue)
    assert venue.expired >= 7 * 7
    assert calm.values(QUARANTINE) == []
    assert repeating.sequencer.intake.repeats > 0
    assert_same(calm, repeating)


def assert_same(calm: Pipeline, repeating: Pipeline) -> None:
    """The same log for every partition, hence the same accounts, the same outputs."""
    for partition in range(PARTITIONS):
        assert repeating.logs[ACCOUNT_LOG, partition] == calm.logs[ACCOUNT_LOG, partition]
    assert repeating.values(BLOCKS_DONE) == calm.values(BLOCKS_DONE)
    for one, other in zip(calm.risks, repeating.risks, strict=True):
        assert one.halted == ""
        assert one.dump() == other.dump()
        assert np.array_equal(one.book.cash(), other.book.cash())
