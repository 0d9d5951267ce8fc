"""Sequencer agent: input topics and its own market.log -> market.log, account.log, quarantine. One owner, one unit."""

from __future__ import annotations

import os

from schemas.topics import CHECKPOINTS_SEQUENCER, INPUTS, MARKET_LOG
from streams.engine.sequence import Sequencer
from streams.pipeline.config import PipelineConfig
from streams.runtime.worker import make_app, run_worker
from streams.simulate.in_process import INPUT_PARTITIONS


class SequencerFactory:
    """Every life has a token of its own, for its fence."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def empty(self, unit: int) -> Sequencer:
        return Sequencer(self.partitions, INPUT_PARTITIONS, os.urandom(16), checkpoint_every=1)

    def load(self, unit: int, raw: bytes) -> Sequencer:
        return Sequencer.load(raw, os.urandom(16))

    def unit_of(self, topic: str, partition: int) -> int:
        return 0


def run(config: PipelineConfig, name: str) -> int:
    """Run one sequencer worker until it is told to stop."""
    app = make_app(
        "sequencer",
        [*INPUTS, MARKET_LOG],
        SequencerFactory(config.partitions),
        config.settings(),
        name=name,
        gap_topics=INPUTS,
        checkpoint_topic=CHECKPOINTS_SEQUENCER,
    )
    return run_worker(app)
