"""Compares recorded outputs with expected ones, and measures how long partitions stood still."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from aiokafka.structs import ConsumerRecord

from schemas import log_records as records
from schemas.codec import decode_output
from schemas.margin_batch import decode_batch
from schemas.topics import ACCOUNT_LOG, BLOCKS_DONE, LIQUIDATIONS, MARGIN_BATCHES, MARGIN_CALLS, PUBLIC_OUTPUTS
from streams.runtime.once import Once
from tests.chaos.expected import Values, sequence_of
from tests.chaos.faults import WORKERS

Recorded = dict[tuple[str, int], list[ConsumerRecord]]
MISSED_S = 0.25  # a block later than this counts as missed
ALL = 1 << 60  # compare every repeat, however old
REACH_S = 0.7  # an act is blamed for gaps that last when it comes, or begin so soon after it


@dataclass
class Taken:
    """What a reader takes from the outputs by the rule `Once`, and what it finds wrong."""

    values: Values = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)


def take(recorded: Recorded) -> Taken:
    """Read every output log as any consumer would, but go on after a loss or conflict to count them all."""
    taken = Taken()
    for (topic, partition), log in recorded.items():
        if topic not in PUBLIC_OUTPUTS or not log:
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
    """One disturbance: when (seconds of the epoch), what, to whom, and how long it went on."""

    at_s: float
    fault: str
    who: str
    lasted_s: float = 0.0


class Gap(NamedTuple):
    """Time without output, from `at_s` on; `owner` wrote what came before it."""

    partition: int
    at_s: float
    length_s: float
    owner: str


def barrier_gaps(recorded: Recorded) -> list[Gap]:
    """From the append of each barrier to that of its block's first batch, by Kafka's clock, or (dev) the senders'."""
    found = []
    for (topic, partition), log in recorded.items():
        if topic == MARGIN_BATCHES:
            begun, owner = _barriers(recorded[ACCOUNT_LOG, partition]), ""
            for record in log:
                at_s = begun.pop(decode_batch(record.value)[0].block_hash, None)
                if at_s is not None:  # a new owner repeats some blocks first: those count for nothing
                    found.append(Gap(partition, at_s, record.timestamp / 1e3 - at_s, owner))
                    owner = dict(record.headers).get("owner", b"").decode()
    return sorted(found, key=lambda gap: gap.at_s)


def enforcement_gaps(recorded: Recorded) -> list[Gap]:
    """From the append of a block's last calls and done-marker to that of its liquidations, where it has any."""
    complete: dict[tuple[int, int], float] = {}
    for topic in (MARGIN_CALLS, BLOCKS_DONE):
        for partition in {p for t, p in recorded if t == topic}:
            for step, at_s in _first_appends(recorded[topic, partition]).items():
                complete[step] = max(at_s, complete.get(step, 0.0))
    return [
        Gap(0, complete[step], at_s - complete[step], "enforcement")
        for step, at_s in sorted(_first_appends(recorded.get((LIQUIDATIONS, 0), [])).items())
    ]


def _first_appends(log: list[ConsumerRecord]) -> dict[tuple[int, int], float]:
    """(epoch, block) -> when the last of its records that is no repeat was appended."""
    found, once = {}, Once(window=ALL)
    for record in log:
        value = decode_output(record.value)
        if once.take(int(value["seq"]), record.value) == "new":
            found[int(value.get("epoch", 0)), int(value["block"])] = record.timestamp / 1e3
    return found


def missed(gaps: list[Gap], limit_s: float = MISSED_S) -> int:
    """How many came later than the limit."""
    return sum(gap.length_s > limit_s for gap in gaps)


def barrier_silences(recorded: Recorded) -> list[Gap]:
    """From one barrier to the next in partition 0: how long the sequencer decided nothing."""
    times = sorted(_barriers(recorded[ACCOUNT_LOG, 0]).values())
    return [Gap(0, begun, end - begun, "sequencer") for begun, end in pairwise(times)]


def rollbacks(market_log: list[ConsumerRecord]) -> dict[str, int]:
    """How many decisions to go back there are in the log, and how deep the deepest goes."""
    found = [(header.number, records.read_rollback(raw).from_block - header.block) for record in market_log
             if (header := records.read_header(raw := record.value)).kind == records.ROLLBACK]  # fmt: skip
    return {"count": len(dict(found)), "deepest": max(dict(found).values(), default=0)}


def _barriers(log: list[ConsumerRecord]) -> dict[str, float]:
    """Block hash -> when its barrier was appended first."""
    begun: dict[str, float] = {}
    for record in log:
        header = records.read_header(record.value)
        if header.kind == records.BARRIER:
            begun.setdefault("0x" + header.block_hash.hex(), record.timestamp / 1e3)
    return begun


def block_gaps(recorded: Recorded, sent_s: dict[str, float]) -> list[float]:
    """From the last input of each block to the last partition's batch of it: outages of the sequencer included."""
    batches: dict[str, dict[int, float]] = defaultdict(dict)
    for (topic, partition), log in recorded.items():
        if topic == MARGIN_BATCHES:
            for record in log:
                batches[decode_batch(record.value)[0].block_hash].setdefault(partition, record.timestamp / 1e3)
    return [max(batches[block].values()) - at_s for block, at_s in sent_s.items() if block in batches]


def by_fault(acts: list[Act], recorded: Recorded, groups: int = 1) -> dict[str, dict[str, float]]:
    """How often each fault befell whom, and the longest gap from then on (`hit`: how often there was one), seconds.

    With one group a gap belongs to the worker that wrote before it; with hot standby whoever stands still is nobody's
    loss, so every gap at that time counts, as it does for faults of what all depend on. A gap counts from the act on;
    a fault of a worker that owns nothing has none, others may prolong it: medians say more than extremes.
    """
    found: dict[str, dict[str, float]] = {}
    lengths: dict[str, list[float]] = defaultdict(list)
    gaps = [*barrier_gaps(recorded), *barrier_silences(recorded)]
    enforcement = enforcement_gaps(recorded)
    for act in acts:
        role = act.who.split("-")[0]
        name = act.fault if act.fault.endswith(role) else f"{act.fault} {role}"
        theirs = enforcement if role == "enforcement" else [gap for gap in gaps if _is_theirs(gap, act, role, groups)]
        hit = [length_s for gap in theirs if (length_s := _from(act, gap)) > 0.0]
        lengths[name] += [max(hit)] if hit else []
        count = int(found.get(name, {}).get("count", 0)) + 1
        found[name] = {"count": count, "hit": len(lengths[name]), "p50": 0.0, "max": longest(lengths[name])}
        if lengths[name]:
            found[name]["p50"] = round(median(lengths[name]), 3)
    return dict(sorted(found.items()))


def _from(act: Act, gap: Gap) -> float:
    """How long the gap lasts from the act on; 0 where it has nothing to do with it."""
    if gap.at_s > act.at_s + act.lasted_s + REACH_S:
        return 0.0
    return gap.at_s + gap.length_s - max(gap.at_s, act.at_s)


def _is_theirs(gap: Gap, act: Act, role: str, groups: int) -> bool:
    return gap.owner in (act.who, role) or role not in WORKERS or (groups > 1 and role == "risk")


def longest(lengths_s: Iterable[float]) -> float:
    return round(max(lengths_s, default=0.0), 3)


def summary(taken: Taken, compared: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """The fields every report begins with."""
    lost = max([lost for lost, _ in compared.values()] + [taken.verdicts["loss"]])
    doubled = max([alien for _, alien in compared.values()] + [taken.verdicts["conflict"]])
    return {"equal": not lost and not doubled, "lost": lost, "doubled": doubled, "repeats": taken.verdicts["repeat"]}
