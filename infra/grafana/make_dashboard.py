#!/usr/bin/env python3
"""Writes dashboards/dpme.json: `python infra/grafana/make_dashboard.py`. The panels are the table below."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "dashboards" / "dpme.json"
CALL = "dpme_barrier_to_last_call_seconds_bucket"
BLOCK = "dpme_block_duration_seconds_bucket"


def quantile(share: float, bucket: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({bucket}[$__rate_interval])))"


# title, unit of Grafana, [(expression, legend)]
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("Barrier to last margin call", "s", [(quantile(0.5, CALL), "p50"), (quantile(0.99, CALL), "p99")]),
    ("Barrier to block done", "s", [(quantile(0.5, BLOCK), "p50"), (quantile(0.99, BLOCK), "p99")]),
    ("Blocks and events", "ops", [
        ("sum(rate(dpme_blocks_total[$__rate_interval]))", "blocks x partitions"),
        ("sum(rate(dpme_events_total[$__rate_interval]))", "events"),
    ]),
    ("Accounts by state", "short", [("sum by (state) (dpme_accounts)", "{{state}}")]),
    ("Said of accounts", "short", [
        ("sum(increase(dpme_margin_warnings_total[$__rate_interval]))", "warnings"),
        ("sum(increase(dpme_margin_calls_total[$__rate_interval]))", "calls"),
        ("sum(increase(dpme_liquidation_flags_total[$__rate_interval]))", "flags"),
        ("sum(increase(dpme_liquidations_total[$__rate_interval]))", "liquidations"),
    ]),
    ("Log lag", "short", [("sum by (role, topic) (dpme_log_lag_records)", "{{role}} {{topic}}")]),
    ("Quarantined inputs", "short", [("sum(increase(dpme_inputs_quarantined_total[$__rate_interval]))", "inputs")]),
    ("Scenario sets listed", "short", [("sum(increase(dpme_scenario_sets_listed_total[$__rate_interval]))", "sets")]),
    ("Ready workers", "short", [("sum by (role) (dpme_ready)", "{{role}}")]),
    ("Memory", "bytes", [("max by (role) (process_resident_memory_bytes)", "{{role}}")]),
    ("Checkpoints", "Bps", [("sum by (role) (rate(dpme_checkpoint_bytes_total[$__rate_interval]))", "{{role}}")]),
    ("Checkpoint age", "s", [("max by (role) (dpme_checkpoint_age_seconds)", "{{role}}")]),
    ("Restarts", "short", [("sum by (role) (changes(process_start_time_seconds[1h]))", "{{role}}")]),
]  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Panels three in a row, 8 x 8 cells each."""
    panels = [_panel(place, *panel) for place, panel in enumerate(PANELS)]
    head = {"uid": "dpme", "title": "DPME", "tags": ["dpme"], "schemaVersion": 39, "version": 1, "refresh": "5s"}
    return {**head, "time": {"from": "now-30m", "to": "now"}, "timezone": "utc", "panels": panels}


def _panel(place: int, title: str, unit: str, queries: list[tuple[str, str]]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "prometheus"}
    targets = [
        {"refId": chr(ord("A") + number), "datasource": source, "expr": expression, "legendFormat": legend}
        for number, (expression, legend) in enumerate(queries)
    ]
    return {
        "id": place + 1, "type": "timeseries", "title": title, "datasource": source, "targets": targets,
        "gridPos": {"x": place % 3 * 8, "y": place // 3 * 8, "w": 8, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
    }  # fmt: skip


def text() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
