"""What the outputs have to be: by the pure engine over the recorded logs, and by a calm run of the same inputs."""

from __future__ import annotations

from collections import defaultdict, deque

import msgspec

from schemas import log_records as records
from schemas.codec import decode_output
from schemas.margin_batch import decode_batch
from schemas.topics import (
    ACCOUNT_LOG,
    BLOCKS_DONE,
    INPUTS,
    MARGIN_BATCHES,
    MARGIN_CALLS,
    MARKET_LOG,
    PUBLIC_OUTPUTS,
    QUARANTINE,
)
from streams.engine.enforcement import Enforcement
from streams.engine.risk import Risk
from streams.engine.sequence import Sequencer
from streams.engine.tables import TableCache
from streams.replay.world import BlockInputs, World
from streams.simulate.in_process import INPUT_PARTITIONS, Pipeline

Log = tuple[str, int]
Values = dict[Log, list[bytes]]


def sequence_of(topic: str, raw: bytes) -> int:
    """Dense number of an output record in its topic partition."""
    return decode_batch(raw)[0].seq if topic == MARGIN_BATCHES else int(decode_output(raw)["seq"])


def calm_outputs(world: World, blocks: list[BlockInputs], partitions: int) -> Values:
    """Outputs of the whole pipeline in this process, fed in good order."""
    pipeline = Pipeline({world.scenario_set.digest: world.scenario_set}, partitions)
    pipeline.push_listings(world.listings)
    for inputs in blocks:
        pipeline.push_block(*inputs)
    return {log: values for log, values in pipeline.logs.items() if log[0] in PUBLIC_OUTPUTS}


def derived_outputs(world: World, account_log: dict[int, list[bytes]], partitions: int) -> Values:
    """Outputs that follow from account.log as it was recorded, repeats included."""
    found: Values = defaultdict(list)
    cache = TableCache({world.scenario_set.digest: world.scenario_set}.__getitem__)
    for partition, raws in account_log.items():
        risk = Risk(partition, cache)
        for offset, raw in enumerate(raws):
            for outputs in risk.steps(ACCOUNT_LOG, partition, offset, raw):
                for output in outputs:
                    found[output.topic, output.partition].append(output.value or b"")
    enforcement = Enforcement(partitions)
    for topic in (MARGIN_CALLS, BLOCKS_DONE):
        for partition in range(partitions):
            for offset, raw in enumerate(found[topic, partition]):
                for outputs in enforcement.steps(topic, partition, offset, raw):
                    for output in outputs:
                        found[output.topic, output.partition].append(output.value or b"")
    return dict(found)


class Sequenced(msgspec.Struct):
    """What a sequencer writes that finds everything already decided: account.log and quarantine."""

    account_log: dict[int, list[bytes]]
    quarantine: dict[bytes, bytes]


def derived_logs(inputs: Values, market_log: list[tuple[bytes, dict[str, bytes]]], partitions: int) -> Sequenced:
    """Carry the recorded decisions out once more, in a sequencer that never comes to decide anything itself."""
    sequencer = Sequencer(partitions, INPUT_PARTITIONS, b"the-one-that-only-reads")
    made = Sequenced({p: [] for p in range(partitions)}, {})
    queue = deque(
        [(topic, p, at, raw, {}) for (topic, p), raws in sorted(inputs.items()) for at, raw in enumerate(raws)]
        + [(MARKET_LOG, 0, at, raw, headers) for at, (raw, headers) in enumerate(market_log)]
    )
    for topic, partition, offset, value, headers in queue:
        assert topic in INPUTS or topic == MARKET_LOG
        for outputs in sequencer.steps(topic, partition, offset, value, tuple(headers.items())):
            for output in outputs:
                if output.topic == ACCOUNT_LOG:
                    made.account_log[output.partition].append(output.value or b"")
                elif output.topic == QUARANTINE:
                    made.quarantine[output.key or b""] = output.value or b""
    return made


def without_repeats(account_log: list[bytes]) -> list[bytes]:
    """The first record of each (number, events or decision), in the order of the log."""
    first: dict[tuple[int, bool], bytes] = {}
    for raw in account_log:
        header = records.read_header(raw)
        first.setdefault((header.number, header.kind == records.EVENTS), raw)
    return list(first.values())
