"""Whole worlds: the shipped samples through the pure pipeline, and the counts of the recorded sources."""

from collections import Counter

import pytest
from replay_invariants import checked_blocks, plain, run

from schemas.margin_batch import decode_batch
from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, INSTRUMENTS, ORACLE_TICKS
from streams.replay.chainlink import chainlink_world
from streams.replay.deribit import deribit_world
from streams.replay.hyperliquid import Venue, hyperliquid_world
from streams.replay.hyperliquid_records import is_spot, read_blocks
from streams.replay.seeding import encode_all
from streams.simulate.in_process import Pipeline

WORLDS = {"hyperliquid": hyperliquid_world, "deribit": deribit_world, "chainlink": chainlink_world}
SCENARIOS = 64
SEED = 7


@pytest.mark.parametrize(("name", "limit"), [("hyperliquid", None), ("deribit", None), ("chainlink", 150)])
def test_sample_has_warnings_calls_and_flags(name, limit):
    world = WORLDS[name](None, SEED, SCENARIOS, limit)
    counts, quarantined = run(world)
    assert counts["margin.warnings"] > 0
    assert counts["margin_call"] > 0
    assert counts["liquidatable"] > 0
    assert counts["liquidations"] > 0
    assert len(quarantined) == world.facts.get("marks_not_above_zero", 0)
    assert "sample" in world.facts["source"]


@pytest.mark.parametrize("name", WORLDS)
def test_equal_seeds_give_equal_worlds(name):
    def content(seed):
        world = WORLDS[name](None, seed, SCENARIOS, 5)
        blocks = [(plain(b.block), [*map(plain, b.events)], [*map(plain, b.ticks)]) for b in world.blocks]
        return world.scenario_set.digest, [plain(listing) for listing in world.listings], blocks

    assert content(SEED) == content(SEED)
    assert content(SEED) != content(SEED + 1)


@pytest.mark.parametrize("name", WORLDS)
def test_first_margins_are_the_drawn_multiples(name):
    """Net liquidation value is k x initial margin at the first barrier, to a micro-USD."""
    world = WORLDS[name](None, SEED, SCENARIOS, 5)
    genesis = next(iter(world.blocks))
    pipeline = Pipeline({world.scenario_set.digest: world.scenario_set}, partitions=1)
    pipeline.push(INSTRUMENTS, 0, encode_all(world.listings))
    for topic, events in (
        (ACCOUNT_FILLS, genesis.events),
        (ORACLE_TICKS, genesis.ticks),
        (CHAIN_BLOCKS, [genesis.block]),
    ):
        pipeline.push(topic, 0, encode_all(events))
    rows = [row for raw in pipeline.values("margin.batches") for row in decode_batch(raw)[1].to_pylist()]
    ratios = [row["nlv_usd6"] / row["initial_margin_usd6"] for row in rows if row["initial_margin_usd6"] > 10**6]
    assert 0.59 < min(ratios) < 0.8
    assert any(0.8 < ratio < 1 for ratio in ratios)
    assert sum(ratio > 1 for ratio in ratios) > len(ratios) / 2
    assert world.facts["k_percentiles"]["p0"] == pytest.approx(min(ratios), abs=1e-3)


def test_recorded_fills_are_all_there(recorded_data):
    world = hyperliquid_world(recorded_data / "fills", SEED, SCENARIOS)
    facts = world.facts
    assert (facts["blocks"], facts["fill_sides"], facts["accounts"]) == (1_000, 7_282, 899)
    assert (facts["coins"], facts["spot_coins"], facts["empty_blocks"]) == (187, 18, 295)
    assert (facts["first_block"], facts["last_block"]) == (777_010_829, 777_011_828)
    assert max(link["largest_gap_bp"] for link in facts["spot_coins_on_a_perpetuals_index"].values()) < 50
    kinds: Counter = Counter()
    for inputs in checked_blocks(world):
        if inputs.block.number >= facts["first_block"]:
            kinds.update(type(event).__name__ for event in inputs.events)
    assert kinds == {"Fill": 7_282, "CollateralMove": 516}  # a restatement before every spot fill
    kinds_listed = Counter(getattr(listing, "kind", "") for listing in world.listings)
    assert (kinds_listed["perpetual"], kinds_listed["spot"]) == (169, 18)


def test_recorded_perpetual_positions_continue(recorded_data):
    """Seed plus fills is the recorded startPosition at every fill of a perpetual, rounded to lots."""
    blocks = read_blocks(next((recorded_data / "fills").glob("*node_fills*")))
    venue = Venue(blocks)
    held = {
        (event.account, event.instrument): event.lots
        for event in venue.genesis(blocks)
        if event.instrument.endswith("-PERP")
    }
    breaks = transitions = 0
    for block in blocks:
        for fill in block.fills:
            if not is_spot(fill.coin):
                key = fill.account, venue.instrument(fill.coin)
                transitions += 1
                breaks += held.get(key, 0) != venue.lots(fill.coin, fill.start)
                held[key] = held.get(key, 0) + venue.lots(fill.coin, fill.size)
    assert transitions == 7_282 - 516
    assert breaks == 0


def test_recorded_chains_are_all_there(recorded_data):
    world = deribit_world(recorded_data / "options", SEED, SCENARIOS)
    facts = world.facts
    assert (facts["snapshots"], facts["rows"], facts["marks_not_above_zero"]) == (59, 93_582, 949)
    bad = quotes = 0
    for inputs in checked_blocks(world):
        if inputs.block.number > 0:
            bad += sum(isinstance(tick, dict) for tick in inputs.ticks)
            quotes += sum(plain(tick)["type"] == "quote" for tick in inputs.ticks)
    assert (bad, quotes) == (949, 93_582)


def test_recorded_rounds_become_slots(recorded_data):
    world = chainlink_world(recorded_data / "oracle", SEED, SCENARIOS)
    assert (world.facts["rounds"], world.facts["slots"]) == (11_106, 11_101)
    ticks: Counter = Counter()
    for inputs in checked_blocks(world):
        ticks.update(tick.underlying for tick in inputs.ticks)
    assert ticks["ETH"] == 11_102
    assert ticks["stETH"] > 11_102
