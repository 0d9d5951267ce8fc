"""Toy roles for tests of the runtime, and a program that runs them under the supervisor.

adder: a unit per partition of `numbers`; adds integers, sends every running sum (and numbers divisible by 7 early).
pairer: one unit that reads all partitions of `sums` (repeats included) and sends the total of each round.
replica: reads `totals` from the beginning in every life and copies them; it has no checkpoints and a dynamic name.

python tests/integration/runtime_toy_machines.py BOOTSTRAP PREFIX FOLDER SESSION_S NAME [NAME...]

Names: adder-0, adder-1, ..., pairer-0, replica-0; adder-standby-0 is of the second group of adders.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from streams.runtime.machine import Headers, LogPosition, Output, from_the_beginning
from streams.runtime.once import Once
from streams.runtime.settings import RuntimeSettings
from streams.runtime.supervisor import Supervisor, WorkerSpec
from streams.runtime.worker import make_app, run_worker

PARTITIONS = 2
TOPICS = {"numbers": PARTITIONS, "flags": PARTITIONS, "sums": PARTITIONS, "totals": 1, "copies": 1}
CHECKPOINT_TOPICS = {"adder.checkpoints": PARTITIONS, "pairer.checkpoints": 1}


class Toy:
    """State is a plain dict of JSON values."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def positions(self) -> dict[LogPosition, int]:
        return {(topic, at): offset for topic, at, offset in self.state["positions"]}

    def moved(self, topic: str, at: int, offset: int) -> None:
        positions = {**self.positions(), (topic, at): offset + 1}
        self.state["positions"] = [[*log, next_offset] for log, next_offset in sorted(positions.items())]

    def start(self) -> list[Output]:
        return []

    def is_long(self, topic: str, value: bytes | None) -> bool:
        return value is not None and len(value) % 2 == 0

    def dump(self) -> bytes:
        return json.dumps(self.state, sort_keys=True).encode()


class Adder(Toy):
    def steps(
        self, topic: str, partition: int, offset: int, value: bytes | None, headers: Headers
    ) -> Iterator[list[Output]]:
        number, state = int(value or b"0"), self.state
        if number % 7 == 0:
            state["flags"] += 1
            yield [output("flags", partition, state["flags"], number)]
        state["count"] += 1
        state["sum"] += number
        yield [output("sums", partition, state["count"], state["sum"])]
        self.moved(topic, partition, offset)

    def checkpoint_mark(self) -> int | None:
        return self.state["count"]


class Pairer(Toy):
    def steps(
        self, topic: str, partition: int, offset: int, value: bytes | None, headers: Headers
    ) -> Iterator[list[Output]]:
        record, sums = json.loads(value or b"{}"), self.state["sums"]
        if record["sequence"] == len(sums[partition]) + self.state["round"] + 1:  # else a repeat
            sums[partition].append(record["number"])
        while all(sums):
            self.state["round"] += 1
            yield [output("totals", 0, self.state["round"], sum(queue.pop(0) for queue in sums))]
        self.moved(topic, partition, offset)

    def checkpoint_mark(self) -> int | None:
        return self.state["round"]


class Replica(Toy):
    """Copies what it has not seen; its positions are the runtime's business."""

    def steps(
        self, topic: str, partition: int, offset: int, value: bytes | None, headers: Headers
    ) -> Iterator[list[Output]]:
        record = json.loads(value or b"{}")
        if record["sequence"] == self.state["sequence"] + 1:
            self.state["sequence"] += 1
            yield [output("copies", 0, record["sequence"], record["number"])]

    def checkpoint_mark(self) -> int | None:
        return None


class ReplicaFactory:
    def empty(self, unit: int) -> Replica:
        return Replica({"sequence": 0})

    def load(self, unit: int, raw: bytes) -> Replica:
        raise NotImplementedError("a replica has no checkpoints")

    def unit_of(self, topic: str, partition: int) -> int:
        return 0


class AdderFactory:
    def empty(self, unit: int) -> Adder:
        return Adder({"positions": [["numbers", unit, 0]], "sum": 0, "count": 0, "flags": 0})

    def load(self, unit: int, raw: bytes) -> Adder:
        return Adder(json.loads(raw))

    def unit_of(self, topic: str, partition: int) -> int:
        return partition


class PairerFactory:
    def empty(self, unit: int) -> Pairer:
        start = [["sums", at, 0] for at in range(PARTITIONS)]
        return Pairer({"positions": start, "round": 0, "sums": [[] for _ in range(PARTITIONS)]})

    def load(self, unit: int, raw: bytes) -> Pairer:
        return Pairer(json.loads(raw))

    def unit_of(self, topic: str, partition: int) -> int:
        return 0


def output(topic: str, partition: int, sequence: int, number: int) -> Output:
    value = json.dumps({"sequence": sequence, "number": number}).encode()
    return Output(topic, partition, b"%d" % sequence, value)


def once(values: Iterable[bytes]) -> tuple[list[int], list[str]]:
    """The numbers that a reader takes from one log, and the verdicts other than "new" and "repeat"."""
    rule, taken, faults = Once(), [], []
    for value in values:
        record = json.loads(value)
        verdict = rule.take(record["sequence"], value)
        if verdict == "new":
            taken.append(record["number"])
        elif verdict != "repeat":
            faults.append(verdict)
    return taken, faults


def settings_for(bootstrap: str, prefix: str, session_s: float = 6.0) -> RuntimeSettings:
    return RuntimeSettings(
        bootstrap=bootstrap, prefix=prefix, session_s=session_s, checkpoint_every=20, checkpoint_chunk_bytes=64
    )


def run_adder(settings: RuntimeSettings, name: str) -> int:
    app = make_app("adder", ["numbers"], AdderFactory(), settings, name=name, checkpoint_topic="adder.checkpoints")
    return run_worker(app)


def run_pairer(settings: RuntimeSettings, name: str) -> int:
    app = make_app("pairer", ["sums"], PairerFactory(), settings, name=name, checkpoint_topic="pairer.checkpoints")
    return run_worker(app)


def run_replica(settings: RuntimeSettings, name: str) -> int:
    settings = replace(settings, static_membership=False)
    app = make_app("replica", ["totals"], ReplicaFactory(), settings, name=name, positions_source=from_the_beginning)
    return run_worker(app)


RUN = {"adder": run_adder, "pairer": run_pairer, "replica": run_replica}


def main(bootstrap: str, prefix: str, folder: str, session_s: str, *names: str) -> int:
    settings = settings_for(bootstrap, prefix, float(session_s))
    groups = 2 if any("standby" in name for name in names) else 1

    def spec(name: str) -> WorkerSpec:
        own = replace(settings, group=int("standby" in name), groups=groups if name.startswith("adder") else 1)
        return WorkerSpec(name, partial(RUN[name.split("-")[0]], own, name), warm=("faust.app",))

    return Supervisor([spec(name) for name in names], folder, session_s=settings.session_s).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
