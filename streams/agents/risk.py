"""Risk agent: account.log -> warnings, calls, batches, blocks done. A unit per partition, shared by workers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from schemas.topics import ACCOUNT_LOG, CHECKPOINTS
from streams.engine.risk import Risk
from streams.engine.tables import TableCache
from streams.pipeline.config import PipelineConfig
from streams.pipeline.scenario_store import ScenarioSets
from streams.runtime.worker import make_app, run_worker


class RiskFactory:
    """Partitions of one worker share the tables of a barrier."""

    def __init__(self, cache: TableCache) -> None:
        self.cache = cache

    def empty(self, unit: int) -> Risk:
        return Risk(unit, self.cache, checkpoint_every=1)

    def load(self, unit: int, raw: bytes) -> Risk:
        return Risk.load(raw, self.cache)

    def unit_of(self, topic: str, partition: int) -> int:
        return partition

    def counts(self) -> dict[str, int]:
        """For the worker's metrics."""
        return {"table_rows_priced": self.cache.rows_priced, "table_rows_reused": self.cache.rows_reused}


def run(config: PipelineConfig, name: str, group: int = 0) -> int:
    """Run one risk worker until it is told to stop."""
    scenario_sets = ScenarioSets(config.settings())
    scenario_sets.fetch_ahead()  # while the worker joins its group
    digests = ThreadPoolExecutor(1, thread_name_prefix="digest")
    cache = TableCache(scenario_sets, threading.Lock(), aside=digests.submit)
    app = make_app(
        "risk",
        [ACCOUNT_LOG],
        RiskFactory(cache),
        config.settings(group, "risk"),
        name=name,
        checkpoint_topic=CHECKPOINTS,
    )
    return run_worker(app)
