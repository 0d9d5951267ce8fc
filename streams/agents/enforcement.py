"""Enforcement agent: margin.calls, blocks.done, market.log and venue.parts -> liquidations and venue.stress.

One owner, one unit.
"""

from __future__ import annotations

from schemas.topics import BLOCKS_DONE, CHECKPOINTS_ENFORCEMENT, MARGIN_CALLS, MARKET_LOG, VENUE_PARTS
from streams.engine.enforcement import Enforcement
from streams.pipeline.config import PipelineConfig
from streams.runtime.worker import make_app, run_worker


class EnforcementFactory:
    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def empty(self, unit: int) -> Enforcement:
        return Enforcement(self.partitions, checkpoint_every=1)

    def load(self, unit: int, raw: bytes) -> Enforcement:
        return Enforcement.load(raw)

    def unit_of(self, topic: str, partition: int) -> int:
        return 0


def run(config: PipelineConfig, name: str, group: int = 0) -> int:
    """Run one enforcement worker until it is told to stop."""
    app = make_app(
        "enforcement",
        [MARGIN_CALLS, BLOCKS_DONE, MARKET_LOG, VENUE_PARTS],
        EnforcementFactory(config.partitions),
        config.settings(group, "enforcement"),
        name=name,
        checkpoint_topic=CHECKPOINTS_ENFORCEMENT,
    )
    return run_worker(app)
