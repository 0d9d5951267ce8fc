"""What every world must keep, whatever its source; and a run of a world through the pure pipeline."""

from collections import Counter
from collections.abc import Iterator

import orjson

from schemas.topics import ACCOUNT_FILLS, CHAIN_BLOCKS, INSTRUMENTS, ORACLE_TICKS
from streams.replay.seeding import encode_all
from streams.replay.world import BlockInputs, World
from streams.simulate.in_process import Pipeline


def plain(event: object) -> dict:
    return event if isinstance(event, dict) else orjson.loads(encode_all([event]))[0]


def checked_blocks(world: World) -> Iterator[BlockInputs]:
    """The blocks of a world, each checked: linked, contiguous, counted, ids unique, ticks in their window."""
    seen: set[str] = set()
    before, count = None, 0
    for inputs in world.blocks:
        block = inputs.block
        assert (block.event_count, block.tick_count) == (len(inputs.events), len(inputs.ticks))
        assert block.listing_count == len(world.listings)
        opened_ms = -1 if before is None else before.time_ms
        assert block.time_ms >= opened_ms
        if before is None:
            assert block.parent_hash == "0x" + "00" * 32
        else:
            assert block.parent_hash == before.hash
            assert block.number == before.number + 1
        for event in map(plain, [*inputs.events, *inputs.ticks]):
            assert event["id"] not in seen
            seen.add(event["id"])
        assert all(opened_ms < plain(tick)["time_ms"] <= block.time_ms for tick in inputs.ticks)
        assert all(plain(event)["block"] == block.number for event in inputs.events)
        before, count = block, count + 1
        yield inputs
    assert count == world.block_count


def run(world: World) -> tuple[Counter, list[dict]]:
    """-> (how many of each decision, quarantined inputs) of a world that goes through the pure pipeline."""
    pipeline = Pipeline({world.scenario_set.digest: world.scenario_set}, partitions=2)
    pipeline.push(INSTRUMENTS, 0, encode_all(world.listings))
    for inputs in checked_blocks(world):
        for topic, events in (
            (ACCOUNT_FILLS, inputs.events),
            (ORACLE_TICKS, inputs.ticks),
            (CHAIN_BLOCKS, [inputs.block]),
        ):
            if events:
                pipeline.push(topic, 0, encode_all(events))
    counts: Counter = Counter()
    for topic in ("margin.warnings", "margin.calls", "liquidations"):
        for raw in pipeline.values(topic):
            counts.update(event.get("to", topic) for event in orjson.loads(raw)["events"])
    done = [orjson.loads(raw) for raw in pipeline.values("blocks.done")]
    assert [record["halted"] for record in done if record["halted"]] == []
    assert len(done) == 2 * world.block_count
    return counts, [orjson.loads(raw) for raw in pipeline.values("quarantine")]
