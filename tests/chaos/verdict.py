"""Compares recorded outputs with expected ones, and measures how long partitions stood still."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from aiokafka.structs import ConsumerRecord

from schemas import log_records as records
from schemas.margin_batch import decode_batch
from schemas.topics import ACCOUNT_LOG, CHAIN_BLOCKS, MARGIN_BATCHES, PUBLIC_OUTPUTS
from streams.runtime.once import Once
from tests.chaos.expected import Values, sequence_of

Recorded = dict[tuple[str, int], list[ConsumerRecord]]
ALL = 1 << 60  # compare every repeat, however old
SETTLED_S = 8.0  # an act is blamed for the blocks until the next act, or for so long


@dataclass
class Taken:
    """What a reader takes from the outputs by the rule `Once`, and what it finds wrong."""

    values: Values = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)


def take(recorded: Recorded) -> Taken:
    """Read every output log as any consumer would, but go on after a loss or conflict to count them all."""
    taken = Taken()
    for (topic, partition), log in recorded.items():
        if topic not in PUBLIC_OUTPUTS:
            continue
        once, values = Once(window=ALL), taken.values.setdefault((topic, partition), [])
        for record in log:
            sequence = sequence_of(topic, record.value)
            verdict = once.take(sequence, record.value)
            taken.verdicts[verdict] += 1
            if verdict == "loss":
                once.last = sequence - 1
                once.take(sequence, record.value)
            if verdict in ("new", "loss"):
                values.append(record.value)
    return taken


def differences(found: Values, expected: Values) -> tuple[int, int]:
    """(expected values that are missing, values that nobody expected), over all logs."""
    lost = alien = 0
    for log in found.keys() | expected.keys():
        have, want = Counter(found.get(log, [])), Counter(expected.get(log, []))
        lost += (want - have).total()
        alien += (have - want).total()
    return lost, alien


@dataclass(frozen=True)
class Act:
    """One disturbance: when (seconds of the epoch), what, to whom."""

    at_s: float
    kind: str
    who: str


def barrier_gaps(recorded: Recorded) -> list[tuple[float, float]]:
    """(append of a barrier, seconds until the first batch of its block), of every block and partition; broker's clock."""
    batches: dict[tuple[int, int], float] = {}
    barriers: dict[tuple[int, int], float] = {}
    for (topic, partition), log in recorded.items():
        if topic == MARGIN_BATCHES:
            for record in log:
                batches.setdefault((decode_batch(record.value)[0].block, partition), record.timestamp / 1e3)
        elif topic == ACCOUNT_LOG:
            for record in log:
                header = records.read_header(record.value)
                if header.kind == records.BARRIER:
                    barriers.setdefault((header.block, partition), record.timestamp / 1e3)
    return sorted((begun, batches[at] - begun) for at, begun in barriers.items() if at in batches)


def block_gaps(recorded: Recorded, announced: dict[int, float]) -> list[tuple[float, float]]:
    """(last input of a block, seconds until the last partition has its batch): includes the sequencer's outages."""
    batches: dict[int, dict[int, float]] = defaultdict(dict)
    for (topic, partition), log in recorded.items():
        if topic == MARGIN_BATCHES:
            for record in log:
                batches[decode_batch(record.value)[0].block].setdefault(partition, record.timestamp / 1e3)
    return sorted((at, max(batches[block].values()) - at) for block, at in announced.items() if block in batches)


def by_kind(acts: list[Act], gaps: list[tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Longest gap after each act, by what was done to which role: count, median and longest."""
    longest: dict[str, list[float]] = defaultdict(list)
    for place, act in enumerate(acts):
        end_s = acts[place + 1].at_s if place + 1 < len(acts) else act.at_s + SETTLED_S
        near = [gap for at, gap in gaps if at <= end_s and at + gap >= act.at_s]
        longest[f"{act.kind} {act.who.split('-')[0]}"].append(max(near, default=0.0))
    return {
        kind: {"count": len(found), "p50": round(median(found), 3), "max": round(max(found), 3)}
        for kind, found in sorted(longest.items())
    }


def longest(gaps: Iterable[tuple[float, float]]) -> float:
    return round(max((gap for _, gap in gaps), default=0.0), 3)


def announcements(recorded: Recorded, sent: dict[int, float]) -> dict[int, float]:
    """Block -> when its last input was acknowledged, as the feeder saw it; blocks that the broker never had are left out."""
    return sent if recorded.get((CHAIN_BLOCKS, 0)) else {}


def summary(taken: Taken, compared: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """The fields every report begins with."""
    lost = max([lost for lost, _ in compared.values()] + [taken.verdicts["loss"]])
    doubled = max([alien for _, alien in compared.values()] + [taken.verdicts["conflict"]])
    return {"equal": not lost and not doubled, "lost": lost, "doubled": doubled, "repeats": taken.verdicts["repeat"]}
