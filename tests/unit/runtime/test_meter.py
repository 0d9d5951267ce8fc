"""Metrics: counted from real records, named as Prometheus wants, served beside the probes."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas import decisions, topics
from schemas.codec import encode
from streams.runtime.health import SILENCE_LIMIT_S, HealthServer
from streams.runtime.machine import Output
from streams.runtime.meter import Meter
from streams.runtime.standing import WorkerStanding
from tests.promtool import promtool

MARGIN = decisions.Margin(1, 2, 3, 4, 5, 6, 7, 8, "stress", "row")
LOG = ("account.log", 1)


class FakeShell:
    """The part of the shell that is asked."""

    def metrics(self) -> dict[str, int]:
        return {"applied": 7, "checkpoint_bytes": 900, "inbox": 2, "table_rows_reused": 5}

    def checkpoint_written_s(self) -> float | None:
        return time.monotonic() - 3.0


class FakeWatchdog:
    def __init__(self) -> None:
        self.beat_s = time.monotonic()


@pytest.fixture
def standing() -> WorkerStanding:
    made = WorkerStanding(lag_limit=10)
    made.follow(FakeShell(), FakeWatchdog())  # type: ignore[arg-type]
    return made


@pytest.fixture
def meter(standing: WorkerStanding) -> Meter:
    return Meter("risk-0", 2, standing)


@pytest.fixture
def server(meter: Meter) -> Iterator[HealthServer]:
    made = HealthServer("127.0.0.1", 0, meter)
    yield made
    made.close()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """(name, values of the labels in order of their names...) -> value."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(s.name, *(value for _, value in sorted(s.labels.items()))): s.value for s in found}


def done(partition: int, block: int, evaluated: bool, **states: int) -> Output:
    counts = dict.fromkeys(("first", "wide", "warnings", "calls", "parameter_version"), 0)
    digests = dict.fromkeys(("state_digest", "table_digest", "scenario_digest"), "")
    head: dict[str, Any] = {"version": 1, "partition": partition, "seq": block, "block": block, "block_hash": "0x"}
    record = decisions.BlockDone(
        **head, time_ms=block, accounts=sum(states.values()), events=5, evaluated=evaluated, states=states, **counts,
        **digests,
    )  # fmt: skip
    return Output(topics.BLOCKS_DONE, partition, None, encode(record))


def calls(partition: int, *to_states: str) -> Output:
    events = tuple(
        decisions.Call(k, f"c{k}", "ann", 1, 1, "healthy", state, MARGIN) for k, state in enumerate(to_states)
    )
    return Output(topics.MARGIN_CALLS, partition, None, encode(decisions.CallRecord(1, partition, 1, 1, events)))


def test_outputs_are_counted_by_what_they_say(meter: Meter, server: HealthServer) -> None:
    meter.saw(calls(0, "margin_call", "liquidatable", "healthy", "margin_call", "insolvent"), 0.03)
    meter.saw(done(0, 7, True, healthy=3, margin_call=1), 0.2)
    meter.saw(done(1, 7, True, healthy=2, insolvent=1), 0.004)
    meter.saw(done(1, 8, False, healthy=9), 9.0)
    bad = encode(decisions.Quarantined(1, "malformed", "", "", "account.fills", 0, 3, 0, "AA=="))
    meter.saw(Output(topics.QUARANTINE, 0, None, bad), 0.0)
    meter.saw(Output(topics.QUARANTINE, 0, None, b"[" + bad + b"," + bad + b"]"), 0.0)
    meter.saw(Output(topics.ACCOUNT_LOG, 0, None, b"\xff not ours to read"), 0.0)
    meter.saw(Output(topics.INSTRUMENTS, 0, b"scenario-epoch-7", b"{}"), 0.0)
    found = samples(get(server, "/metrics")[1])
    expected = {
        ("dpme_blocks_total",): 3, ("dpme_events_total",): 15, ("dpme_margin_calls_total",): 2,
        ("dpme_liquidation_flags_total",): 2, ("dpme_margin_releases_total",): 1,
        ("dpme_inputs_quarantined_total",): 3, ("dpme_outputs_unreadable_total",): 0,
        ("dpme_scenario_sets_listed_total",): 1,
        ("dpme_block_duration_seconds_count",): 2, ("dpme_barrier_to_last_call_seconds_count",): 1,
        ("dpme_barrier_to_last_call_seconds_sum",): 0.03, ("dpme_accounts", "healthy"): 5,
        ("dpme_accounts", "insolvent"): 1, ("dpme_last_block", "1"): 8, ("dpme_records_applied_total",): 7,
        ("dpme_checkpoint_bytes_total",): 900, ("dpme_worker_restarts_total",): 2,
        ("dpme_worker_info", "risk-0"): 1, ("dpme_table_rows_reused_total",): 5,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert found["dpme_checkpoint_age_seconds",] >= 3
    assert found["process_resident_memory_bytes",] > 1e6


def test_an_output_that_cannot_be_read_is_counted_and_harms_nobody(meter: Meter, server: HealthServer) -> None:
    meter.saw(Output(topics.BLOCKS_DONE, 0, None, b"{"), 0.0)
    assert samples(get(server, "/metrics")[1])["dpme_outputs_unreadable_total",] == 1


def test_names_and_units_are_those_of_prometheus(meter: Meter, standing: WorkerStanding, server: HealthServer) -> None:
    meter.saw(calls(0, "margin_call"), 0.03)
    meter.saw(done(0, 7, True, healthy=3, margin_call=1), 0.2)
    standing.asked({LOG: 3}, {LOG: 5})
    text = get(server, "/metrics")[1]
    assert "ann" not in text  # no metric names an account
    assert promtool("check", "metrics", given=text) == ""


def test_ready_means_assigned_restored_and_near_the_end(standing: WorkerStanding, server: HealthServer) -> None:
    assert get(server, "/readyz") == (503, "the broker does not say where the logs end\n")
    standing.asked({}, {})
    assert get(server, "/readyz") == (503, "no assignment\n")
    standing.asked({LOG: -1}, {LOG: 4})
    assert get(server, "/readyz") == (503, "restoring account.log/1\n")
    standing.asked({LOG: 89}, {LOG: 100})
    assert get(server, "/readyz") == (503, "11 records behind in account.log/1, the limit is 10\n")
    standing.asked({LOG: 90}, {LOG: 100})
    assert get(server, "/readyz") == (200, "ok\n")
    found = samples(get(server, "/metrics")[1])
    assert (found["dpme_ready",], found["dpme_log_lag_records", "1", LOG[0]]) == (1, 10)


def test_healthy_means_that_the_loop_comes_round(standing: WorkerStanding, server: HealthServer) -> None:
    assert get(server, "/healthz") == (200, "ok\n")
    standing._watchdog.beat_s -= SILENCE_LIMIT_S + 1  # type: ignore[union-attr]
    status, reason = get(server, "/healthz")
    assert status == 503
    assert reason.startswith("the event loop has been silent for 6")
    assert get(server, "/readyz")[0] == 503
    assert get(server, "/nothing")[0] == 404


def test_before_it_is_connected_a_worker_lives_and_is_not_ready() -> None:
    server = HealthServer("127.0.0.1", 0, Meter("sink", 0, WorkerStanding(1)))
    try:
        assert get(server, "/healthz")[0] == 200
        assert get(server, "/readyz") == (503, "not connected yet\n")
        assert samples(get(server, "/metrics")[1])["dpme_ready",] == 0
    finally:
        server.close()
