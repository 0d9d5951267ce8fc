"""The whole pure pipeline in one process, without a broker: what the logs would hold, and what follows from them.

Used to seed worlds, to check a broker's run against the pure engine, to replay and to trace.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from copy import copy

from oracles.scenario_set import ScenarioSet
from schemas.codec import encode
from schemas.topics import (
    ACCOUNT_FILLS,
    ACCOUNT_LOG,
    BLOCKS_DONE,
    CHAIN_BLOCKS,
    FILL_PARTITIONS,
    INPUTS,
    INSTRUMENTS,
    MARGIN_CALLS,
    MARKET_LOG,
    ORACLE_TICKS,
    VENUE_PARTS,
)
from streams.engine.enforcement import Enforcement
from streams.engine.output import Output
from streams.engine.rebucket import Machines, open_events, rebucket
from streams.engine.risk import Risk
from streams.engine.sequence import Sequencer, partition_of
from streams.engine.tables import TableCache

INPUT_PARTITIONS = {topic: FILL_PARTITIONS if topic == ACCOUNT_FILLS else 1 for topic in INPUTS}


class Pipeline:
    """Sequencer, risk and enforcement, fed record by record; `logs[topic, partition]` are the values."""

    def __init__(self, scenario_sets: Mapping[str, ScenarioSet], partitions: int = 4) -> None:
        self.partitions = partitions
        cache = TableCache(scenario_sets.__getitem__)
        self.sequencer = Sequencer(partitions, INPUT_PARTITIONS, b"in-process")
        self.risks = [Risk(p, cache) for p in range(partitions)]
        self.enforcement = Enforcement(partitions)
        self.logs: dict[tuple[str, int], list[bytes]] = defaultdict(list)
        self._run(self.sequencer.start())

    def with_partitions(self, partitions: int) -> Pipeline:
        """Where the pipeline goes on with another number of partitions: the inputs stay, all else begins anew."""
        machines = Machines(self.sequencer, self.risks, self.enforcement)
        logs = [log for (topic, _), log in self.logs.items() if topic == ACCOUNT_LOG]
        made = copy(self)
        made.partitions, made.logs = partitions, defaultdict(list)
        made.logs.update({log: list(values) for log, values in self.logs.items() if log[0] in INPUTS})
        found = rebucket(machines, [raw for log in logs for raw in open_events(log)], partitions, b"in-process")
        made.sequencer, made.risks, made.enforcement = found
        made._run(made.sequencer.start())
        return made

    def push(self, topic: str, partition: int, raw: bytes) -> None:
        """Append one input record and carry everything out that follows from it."""
        self._run([Output(topic, partition, None, raw)])

    def push_events(self, topic: str, events: Iterable[object]) -> None:
        """Append input events, one record each, account events to their partition."""
        for event in events:
            plain = event if isinstance(event, dict) else None
            account = plain.get("account", "") if plain is not None else getattr(event, "account", "")
            partition = partition_of(account, FILL_PARTITIONS) if topic == ACCOUNT_FILLS else 0
            self.push(topic, partition, encode(event))  # type: ignore[arg-type]

    def push_block(self, block: object, events: Iterable[object], ticks: Iterable[object]) -> None:
        """Append a block with its events and ticks."""
        self.push_events(ORACLE_TICKS, ticks)
        self.push_events(ACCOUNT_FILLS, events)
        self.push_events(CHAIN_BLOCKS, [block])

    def push_listings(self, listings: Iterable[object]) -> None:
        self.push_events(INSTRUMENTS, listings)

    def _run(self, outputs: list[Output]) -> None:
        queue = deque(outputs)
        while queue:
            output = queue.popleft()
            log = self.logs[output.topic, output.partition]
            log.append(output.value or b"")
            for machine in self._readers(output.topic, output.partition):
                for found in machine.steps(output.topic, output.partition, len(log) - 1, output.value, output.headers):
                    queue.extend(found)
                machine.checkpoint_mark()

    def _readers(self, topic: str, partition: int) -> tuple[Sequencer | Risk | Enforcement, ...]:
        if topic == MARKET_LOG:
            return self.sequencer, self.enforcement
        if topic in INPUTS:
            return (self.sequencer,)
        if topic == ACCOUNT_LOG:
            return (self.risks[partition],)
        if topic in (MARGIN_CALLS, BLOCKS_DONE, VENUE_PARTS):
            return (self.enforcement,)
        return ()

    def values(self, topic: str) -> list[bytes]:
        """Values of a topic by partition and order."""
        return [v for (t, _), log in sorted(self.logs.items()) if t == topic for v in log]
