"""Sequencer agent: input topics and its own market.log -> market.log, account.log, quarantine. One unit.

One owner, or with `sequencers` above 1 one that decides and others, each a group of its own, that follow: they read and
carry out the same, and one of them claims the log when nothing is decided any more though something could be. A claim
is only a question of time: whoever claims, and however often, `account.log` is the same.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from aiokafka.errors import KafkaError

from schemas.topics import CHECKPOINTS_SEQUENCER, INPUTS, MARKET_LOG
from streams.engine.sequence import Sequencer, Vector
from streams.pipeline.config import PipelineConfig
from streams.runtime.exits import die
from streams.runtime.notes import note
from streams.runtime.worker import RoleApp, Runtime, make_app, run_worker
from streams.simulate.in_process import INPUT_PARTITIONS

TICK_S = 0.02
PAUSED_S = 0.1  # a tick that comes so late: we stood still ourselves, and have to read first


class SequencerFactory:
    """Every life has a token of its own, for its fence."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config, self.follows = config, config.sequencers > 1

    def empty(self, unit: int) -> Sequencer:
        every = self.config.checkpoint_every
        return Sequencer(self.config.partitions, INPUT_PARTITIONS, os.urandom(16), every, self.follows)

    def load(self, unit: int, raw: bytes) -> Sequencer:
        machine = Sequencer.load(raw, os.urandom(16), self.follows)
        machine.checkpoint_every = self.config.checkpoint_every
        return machine

    def unit_of(self, topic: str, partition: int) -> int:
        return 0


class StandbyRuntime(Runtime):
    """Watches for the silence of whoever decides."""

    async def start(self, app: RoleApp) -> None:
        await super().start(app)
        self._standing_by = asyncio.create_task(self._stand_by())

    async def stop(self) -> None:
        self._standing_by.cancel()
        await super().stop()

    async def _stand_by(self) -> None:
        """Claim the log after `takeover_s` in which something waited, and no record came to it."""
        since_s, market_offset, read = 0.0, -1, dict[Any, int]()
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(TICK_S)
            now_s, machine = time.monotonic(), self._machine()
            if machine is None or machine.fenced or machine.claimed:
                continue
            paused = now_s - before_s > PAUSED_S
            if machine.settled or paused or machine.market_offset != market_offset or not read:
                since_s, market_offset, read = now_s, machine.market_offset, dict(machine.read)
            elif now_s - since_s > self.settings.takeover_s:
                try:
                    await self._claim(read)
                except (KafkaError, OSError):  # the broker is away: nobody decides
                    pass
                except Exception as exception:
                    die("claim of market.log", exception)
                read = {}

    def _machine(self) -> Sequencer | None:
        unit = self.shell.units.get(0)
        return unit.machine if unit is not None else None  # type: ignore[return-value]

    async def _claim(self, until: Vector) -> None:
        """Twice the end of the log is looked at: to find out whether anything is due may have taken long."""
        if not await self._has_read_all() or not await self.shell.ask(0, lambda m: m.would_decide(until)):
            return
        if await self._has_read_all():
            await self.shell.ask(0, lambda m: (True, m.claim()))
            note("claims_market_log", life=os.getpid())

    async def _has_read_all(self) -> bool:
        topic, machine = self.settings.topic(MARKET_LOG), self._machine()
        ends = await self.probe.ends([(topic, 0)])
        return machine is not None and machine.market_offset == ends[topic, 0]


def run(config: PipelineConfig, name: str, group: int = 0) -> int:
    """Run one sequencer worker until it is told to stop."""
    app = make_app(
        "sequencer",
        [*INPUTS, MARKET_LOG],
        SequencerFactory(config),
        config.settings(group, "sequencer"),
        name=name,
        gap_topics=INPUTS,
        checkpoint_topic=CHECKPOINTS_SEQUENCER,
        runtime_class=StandbyRuntime if config.sequencers > 1 else Runtime,
    )
    return run_worker(app)
