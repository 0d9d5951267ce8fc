"""account.log of the hyperliquid sample, as the sequencer makes it: records of the sizes that were recorded."""

from __future__ import annotations

from schemas import log_records as records
from schemas.topics import ACCOUNT_LOG
from streams.replay.hyperliquid import hyperliquid_world
from streams.simulate.in_process import Pipeline
from tests.bench.spine_log import SEED, Shape


class RecordedLog:
    """The sample in one partition: the genesis block, and `values` behind it."""

    def __init__(self, blocks: int | None = None, scenarios: int = 1_024) -> None:
        world = hyperliquid_world(None, SEED, scenarios, limit=blocks)
        run = Pipeline({world.scenario_set.digest: world.scenario_set}, 1)
        run.push_listings(world.listings)
        for block in world.blocks:
            run.push_block(block.block, block.events, block.ticks)
        log = run.logs[ACCOUNT_LOG, 0]
        headers = [records.read_header(value) for value in log]
        behind = next(place for place, header in enumerate(headers) if header.kind == records.BARRIER) + 1
        self.scenario_set, self.shape = world.scenario_set, Shape(accounts=len(run.risks[0].book.accounts))
        self._genesis, self.values = log[:behind], log[behind:]
        self.fills = sum(header.entries for header in headers[behind:] if header.kind == records.EVENTS)

    def genesis(self, partition: int) -> list[bytes]:
        assert partition == 0
        return self._genesis
