"""A run's outcome as the JSON object that `python -m tests.chaos` ends with."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from schemas.codec import decode_output
from schemas.margin_batch import decode_batch
from schemas.topics import ACCOUNT_LOG, BLOCKS_DONE, ENFORCEMENT_OUTPUTS, INPUTS, MARGIN_BATCHES, MARKET_LOG, QUARANTINE
from streams.replay.world import BlockInputs, World
from streams.sink.rows import TABLES
from tests.chaos import expected, verdict
from tests.chaos.arena import Outcome
from tests.chaos.expected import Values


def report(
    world: World, blocks: list[BlockInputs], outcome: Outcome, calm: Values, partitions: int, groups: int = 1
) -> dict[str, Any]:
    """Equal to the engine over the logs, to the calm run; logs equal to the sequencer over inputs and decisions."""
    recorded = outcome.recorded
    taken = verdict.take(recorded)
    logs = {p: [r.value for r in recorded[ACCOUNT_LOG, p]] for p in range(partitions)}
    halted = outcome.tormentor.halted
    compared = {
        "calm": verdict.differences(_of_others(taken.values, halted), _of_others(calm, halted)),
        "engine": verdict.differences(taken.values, expected.derived_outputs(world, logs, partitions)),
        "logs": _logs_differ(outcome, logs, partitions),
        "quarantine": _quarantine_differs(outcome),
    }
    made = verdict.summary(taken, compared)
    store = store_differs(outcome, taken.values)
    made["equal"] = made["equal"] and not (outcome.failure or outcome.crashes or store)
    signals = outcome.tormentor.signals
    late = [*verdict.barrier_gaps(recorded), *verdict.enforcement_gaps(recorded)]
    return {
        **made,
        "kills": signals["SIGKILL"],
        "longest_gap_s": verdict.longest(gap.length_s for gap in verdict.barrier_gaps(recorded)),
        "longest_block_s": verdict.longest(verdict.block_gaps(recorded, outcome.producer.sent_s)),
        "blocks_missed": verdict.missed(late),
        "longest_enforcement_s": verdict.longest(gap.length_s for gap in verdict.enforcement_gaps(recorded)),
        "freezes": signals["SIGSTOP"],
        "stops": signals["SIGTERM"],
        "blocks": len(blocks),
        "records": sum(map(len, taken.values.values())),
        "rollbacks": verdict.rollbacks(recorded[MARKET_LOG, 0]),
        "log_repeats": sum(len(log) - len(expected.without_repeats(log)) for log in logs.values()),
        "quarantined": len({r.key for r in recorded[QUARANTINE, 0]}),
        **outcome.producer.count,
        "differences": {name: list(found) for name, found in compared.items() if any(found)},
        "faults": verdict.by_fault(outcome.tormentor.acts, recorded, groups),
        "not_reached": [":".join(act) for act in (*outcome.tormentor.todo, *outcome.tormentor.skipped)],
        "deaths": outcome.deaths,
        "crashes": outcome.crashes,
        "outdated": outcome.tormentor.outdated,
        "halted": sorted(halted),
        "rejected_checkpoints": outcome.rejected,
        "lives": dict(sorted(outcome.lives.items())),
        "failure": outcome.failure,
        "store": store,
        "seconds": {name: round(span, 1) for name, span in outcome.seconds.items()},
    }


def _of_others(values: Values, halted: Collection[int]) -> Values:
    """Outputs that must be those of a calm run although some partitions were halted."""
    if not halted:
        return values
    return {log: found for log, found in values.items() if log[0] not in ENFORCEMENT_OUTPUTS and log[1] not in halted}


def _logs_differ(outcome: Outcome, logs: dict[int, list[bytes]], partitions: int) -> tuple[int, int]:
    """account.log without its repeats against what a sequencer writes that only carries out market.log."""
    recorded = outcome.recorded
    inputs = {log: [r.value for r in found] for log, found in recorded.items() if log[0] in INPUTS}
    market_log = [(r.value, dict(r.headers)) for r in recorded[MARKET_LOG, 0]]
    derived = expected.derived_logs(inputs, market_log, partitions).account_log
    halts = outcome.tormentor.halted
    whole = {p: [raw for raw in log if raw != halts.get(p)] for p, log in logs.items()}
    found = {(ACCOUNT_LOG, p): expected.without_repeats(log) for p, log in whole.items()}
    return verdict.differences(found, {(ACCOUNT_LOG, p): expected.without_repeats(log) for p, log in derived.items()})


def _quarantine_differs(outcome: Outcome) -> tuple[int, int]:
    """(garbage that is not in quarantine, one origin with two contents)."""
    first: dict[bytes, bytes] = {}
    twofold = 0
    for record in outcome.recorded[QUARANTINE, 0]:
        twofold += first.setdefault(record.key, record.value) != record.value
    missing = [key for key in outcome.producer.garbage if key not in first]
    return len(missing), twofold


def store_differs(outcome: Outcome, taken: Values) -> dict[str, int]:
    """Table -> rows too many (or too few, negative), lost or doubled; empty if the store is right, or there is none."""
    if not outcome.store:
        return {}
    wanted = dict.fromkeys(TABLES.values(), 0)
    for (topic, _), values in taken.items():
        wanted[TABLES[topic]] += sum(_rows(topic, value) for value in values)
    wanted[TABLES[QUARANTINE]] = len({record.key for record in outcome.recorded[QUARANTINE, 0]})
    found = {table: outcome.store["rows"][table] - rows for table, rows in wanted.items()}
    for what in ("missing", "doubled"):
        found |= {f"{table} {what}": count for table, count in outcome.store[what].items()}
    return {what: count for what, count in found.items() if count}


def _rows(topic: str, value: bytes) -> int:
    if topic == MARGIN_BATCHES:
        return int(decode_batch(value)[1].num_rows)
    return 1 if topic == BLOCKS_DONE else len(decode_output(value)["events"])
