"""Merton's model on the whole path, quotes to margins: a seeded world gives the same bytes twice."""

from __future__ import annotations

import hashlib

from schemas.topics import MARGIN_BATCHES, MARGIN_CALLS, MARKET_LOG, QUARANTINE
from streams.replay.deribit import deribit_world
from streams.simulate.demo_world import demo_world
from streams.simulate.in_process import Pipeline

TOPICS = (MARKET_LOG, MARGIN_BATCHES, MARGIN_CALLS)


def digest_of(world: object, topics: tuple[str, ...] = TOPICS) -> str:
    """Of what the pure engine says about a world."""
    pipeline = Pipeline({world.scenario_set.digest: world.scenario_set}, partitions=2)  # type: ignore[attr-defined]
    pipeline.push_listings(world.listings)  # type: ignore[attr-defined]
    for block in world.blocks:  # type: ignore[attr-defined]
        pipeline.push_block(block.block, block.events, block.ticks)
    assert pipeline.values(QUARANTINE) == []
    h = hashlib.sha256()
    for topic in topics:
        values = pipeline.values(topic)
        assert values or topic == MARGIN_CALLS
        for value in values:
            h.update(value)
    return h.hexdigest()


def test_a_demo_world_under_merton_repeats_and_differs_from_black76() -> None:
    merton, again, plain = (
        digest_of(demo_world(seed=3, blocks=4, accounts=20, scenarios=256, pricing=pricing))
        for pricing in ("merton", "merton", "black76")
    )
    assert merton == again != plain


def test_a_replay_under_merton_fits_its_quotes_to_the_diffusion() -> None:
    merton, again, plain = (
        digest_of(deribit_world(None, 3, 256, 2, pricing=pricing)) for pricing in ("merton", "merton", "black76")
    )
    assert merton == again != plain
