"""What a worker counts of itself, as Prometheus metrics. It reads outputs on their way out and changes none.

Names are in base units (`_seconds`, `_bytes`, `_total`); labels are few and bounded: state, topic, partition; never an
account. Counters begin at 0 with the process: after a restart the records since the last checkpoint count again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec
import orjson
from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from schemas import topics
from schemas.decisions import HEALTHY, MARGIN_CALL, STATES
from streams.runtime.machine import LogPosition, Output

LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Of the shell's counters: name there -> metric and what it says.
_SHELL_COUNTERS = {
    "applied": ("dpme_records_applied", "Records of input logs applied."),
    "repeated": ("dpme_records_repeated", "Records dropped because the state is already past them."),
    "holes": ("dpme_log_holes", "Holes of input logs shown to be empty (transaction markers, compaction)."),
    "sent": ("dpme_outputs_sent", "Records sent, outputs and checkpoints."),
    "acknowledged": ("dpme_outputs_acknowledged", "Records the broker has acknowledged."),
    "restores": ("dpme_restores", "Assignments that were restored."),
    "checkpoints_written": ("dpme_checkpoints_written", "Whole checkpoints written."),
    "checkpoints_delayed": ("dpme_checkpoints_delayed", "Checkpoints that were due while one was being written."),
    "checkpoint_bytes": ("dpme_checkpoint_bytes", "Bytes of state in the checkpoints written."),
    "table_rows_priced": ("dpme_table_rows_priced", "Instrument rows of risk tables that were priced."),
    "table_rows_reused": ("dpme_table_rows_reused", "Rows taken over, as nothing they depend on had changed."),
}
_SHELL_GAUGES = {
    "units": ("dpme_units", "Units of state held by this worker (partitions, for risk)."),
    "inbox": ("dpme_inbox_records", "Records read and not yet applied."),
    "unacknowledged": ("dpme_outputs_unacknowledged", "Outputs sent and not yet acknowledged."),
}


_Values = Mapping[tuple[str, ...], float]  # values of the labels -> value


class Standing(Protocol):
    """What the meter asks of the running worker; every answer is a snapshot, from any thread."""

    def shell_counts(self) -> Mapping[str, int]: ...

    def lags(self) -> Mapping[LogPosition, int]: ...

    def checkpoint_age_s(self) -> float | None: ...

    def loop_silence_s(self) -> float: ...

    def not_ready(self) -> str: ...


class _Done(Struct):
    """The fields of a blocks.done record that are counted."""

    partition: int
    block: int
    events: int
    evaluated: bool
    states: dict[str, int]


class _Event(Struct):
    to_state: str = msgspec.field(name="to", default="")


class _Events(Struct):
    events: list[_Event]


class Meter:
    """Counts outputs (`saw`) and shows them, with the worker's standing, in `registry`."""

    def __init__(self, worker: str, restarts: int, standing: Standing) -> None:
        self.worker, self.restarts, self.standing = worker, restarts, standing
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._blocks = self._counter("blocks", "Blocks done, a partition each.")
        self._events = self._counter("events", "Account events in the blocks done.")
        self._warnings = self._counter("margin_warnings", "Margin warnings.")
        self._calls = self._counter("margin_calls", "Margin calls.")
        self._flags = self._counter("liquidation_flags", "Accounts found liquidatable or insolvent.")
        self._releases = self._counter("margin_releases", "Accounts that are healthy again.")
        self._liquidations = self._counter("liquidations", "Liquidation events of enforcement.")
        self._quarantined = self._counter("inputs_quarantined", "Inputs sent to quarantine.")
        self._sets = self._counter("scenario_sets_listed", "Scenario sets drawn and listed by the model worker.")
        self._unreadable = self._counter("outputs_unreadable", "Outputs this meter could not read: a bug.")
        self._block_s = self._histogram("block_duration", "From taking up a barrier to blocks.done.")
        self._call_s = self._histogram("barrier_to_last_call", "From taking up a barrier to its last margin call.")
        self._last_call_s: dict[int, float] = {}  # partition -> seconds at the last calls of the barrier under way
        self._accounts: dict[int, dict[str, int]] = {}
        self._last_block: dict[int, int] = {}
        self.registry.register(_Asked(self._standing))

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(f"dpme_{name}", meaning, registry=self.registry)

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(f"dpme_{name}_seconds", meaning, buckets=LATENCY_BUCKETS_S, registry=self.registry)

    def saw(self, output: Output, seconds: float) -> None:
        """An output, so many seconds after the record it comes from was taken up."""
        count = _COUNTED.get(output.topic)
        if count is None or output.value is None:
            return
        try:
            count(self, output.partition, output.value, seconds)
        except (msgspec.DecodeError, orjson.JSONDecodeError):
            self._unreadable.inc()

    def _saw_done(self, partition: int, raw: bytes, seconds: float) -> None:
        done = msgspec.json.decode(raw, type=_Done)
        self._blocks.inc()
        self._events.inc(done.events)
        self._last_block[partition] = done.block
        last_call_s = self._last_call_s.pop(partition, None)
        if done.evaluated:
            self._accounts[partition] = done.states
            self._block_s.observe(seconds)
            if last_call_s is not None:
                self._call_s.observe(last_call_s)

    def _saw_calls(self, partition: int, raw: bytes, seconds: float) -> None:
        for event in msgspec.json.decode(raw, type=_Events).events:
            counters = {HEALTHY: self._releases, MARGIN_CALL: self._calls}
            counters.get(event.to_state, self._flags).inc()
        self._last_call_s[partition] = seconds

    def _saw_warnings(self, partition: int, raw: bytes, seconds: float) -> None:
        self._warnings.inc(len(msgspec.json.decode(raw, type=_Events).events))

    def _saw_liquidations(self, partition: int, raw: bytes, seconds: float) -> None:
        self._liquidations.inc(len(msgspec.json.decode(raw, type=_Events).events))

    def _saw_quarantined(self, partition: int, raw: bytes, seconds: float) -> None:
        found = orjson.loads(raw)
        self._quarantined.inc(len(found) if isinstance(found, list) else 1)

    def _saw_listing(self, partition: int, raw: bytes, seconds: float) -> None:
        self._sets.inc()

    def _standing(self) -> Iterator[Metric]:
        counts = self.standing.shell_counts()
        for name, (metric, meaning) in _SHELL_COUNTERS.items():
            yield CounterMetricFamily(metric, meaning, value=counts.get(name, 0))
        for name, (metric, meaning) in _SHELL_GAUGES.items():
            yield GaugeMetricFamily(metric, meaning, value=counts.get(name, 0))
        yield CounterMetricFamily("dpme_worker_restarts", "Lives of this worker before this one.", value=self.restarts)
        yield _gauge("dpme_worker_info", "Who this is.", {(self.worker,): 1}, ["worker"])
        lags: _Values = {(topic, str(partition)): lag for (topic, partition), lag in self.standing.lags().items()}
        yield _gauge("dpme_log_lag_records", "Records of a log not yet applied.", lags, ["topic", "partition"])
        blocks: _Values = {(str(partition),): block for partition, block in list(self._last_block.items())}
        yield _gauge("dpme_last_block", "Number of the newest block done.", blocks, ["partition"])
        yield _gauge("dpme_accounts", "Accounts at the newest block, by state.", self._states(), ["state"])
        if (age_s := self.standing.checkpoint_age_s()) is not None:
            yield GaugeMetricFamily("dpme_checkpoint_age_seconds", "Since the newest checkpoint written.", value=age_s)
        silence_s = self.standing.loop_silence_s()
        yield GaugeMetricFamily("dpme_loop_silence_seconds", "Since the event loop last came round.", value=silence_s)
        ready = not self.standing.not_ready()
        yield GaugeMetricFamily("dpme_ready", "1 if /readyz says so.", value=int(ready))

    def _states(self) -> _Values:
        partitions = list(self._accounts.values())
        return {(state,): sum(held.get(state, 0) for held in partitions) for state in STATES} if partitions else {}


_COUNTED: dict[str, Any] = {
    topics.BLOCKS_DONE: Meter._saw_done,
    topics.MARGIN_CALLS: Meter._saw_calls,
    topics.MARGIN_WARNINGS: Meter._saw_warnings,
    topics.LIQUIDATIONS: Meter._saw_liquidations,
    topics.QUARANTINE: Meter._saw_quarantined,
    topics.INSTRUMENTS: Meter._saw_listing,  # the model worker alone writes there
}


class _Asked:
    """A collector whose values are asked for when they are scraped."""

    def __init__(self, ask: Any) -> None:
        self.collect = ask


def _gauge(name: str, meaning: str, values: _Values, labels: list[str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
