"""Bids on a broker, with two groups of enforcement workers: the liquidations are the pure engine's, bids and all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import orjson
from msgspec import structs
from test_partition_change import Installation, _remove_all, of_outputs

from schemas.topics import AUCTION_BIDS, LIQUIDATIONS
from streams.pipeline.config import write_config
from streams.pipeline.feed import Feeder
from streams.replay.world import BlockInputs
from streams.runtime.kafka_process import Broker
from streams.simulate.in_process import Pipeline


def bids_of(inputs: BlockInputs, count: int) -> list[bytes]:
    block: Any = inputs.block
    same = {"type": "bid", "version": 1, "block": block.number, "account": "keeper", "target": "account-0",
            "fraction_e6": 1_000_000, "price_usd6": -1}  # fmt: skip
    return [orjson.dumps(same | {"id": f"b{block.number}-{n}", "time_ms": block.time_ms - n % 3}) for n in range(count)]


def test_bids_come_to_their_blocks_record_by_either_group(broker: Broker, tmp_path: Path) -> None:
    installation = Installation(broker, tmp_path)
    write_config(installation.file, structs.replace(installation.config, groups=2, sequencers=2))
    bids = {inputs.block.number: bids_of(inputs, n % 4) for n, inputs in enumerate(installation.blocks)}  # type: ignore[attr-defined]
    blocks = [
        inputs._replace(block=structs.replace(inputs.block, event_count=inputs.block.event_count + len(bids[number])))  # type: ignore[type-var,attr-defined]
        for number, inputs in zip(bids, installation.blocks, strict=True)
    ]
    asyncio.run(_send(installation, [raw for of_block in bids.values() for raw in of_block]))
    try:
        installation.run(blocks)
        pure = Pipeline({installation.world.scenario_set.digest: installation.world.scenario_set}, 2)
        for raw in [raw for of_block in bids.values() for raw in of_block]:
            pure.push(AUCTION_BIDS, 0, raw)
        pure.push_listings(installation.world.listings)
        assert installation.outputs(0, 2) == of_outputs(installation.pure(blocks, pure))
        records = [msgspec.json.decode(raw) for raw in pure.values(LIQUIDATIONS)]
        assert sum(len(record.get("bids", ())) for record in records) == sum(map(len, bids.values())) > 0
    finally:
        asyncio.run(_remove_all(installation.config))


async def _send(installation: Installation, bids: list[bytes]) -> None:
    feeder = Feeder(installation.config.settings())
    await feeder.start()
    for raw in bids:
        await feeder.send_raw(AUCTION_BIDS, 0, raw)
    await feeder.stop()
