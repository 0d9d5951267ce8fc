"""What Prometheus and Grafana are given, checked by Prometheus's own tool; and only metrics that the workers have."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from streams.runtime.meter import Meter
from streams.runtime.standing import WorkerStanding
from tests.promtool import promtool

INFRA = Path(__file__).parents[3] / "infra"
PROMETHEUS, DASHBOARD = INFRA / "prometheus", INFRA / "grafana" / "dashboards" / "dpme.json"
WITHOUT_SAMPLES = {"dpme_checkpoint_age_seconds"}  # shown once there is a checkpoint


def expressions() -> list[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def known_metrics() -> set[str]:
    text = generate_latest(Meter("w", 0, WorkerStanding(1)).registry).decode()
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)) | WITHOUT_SAMPLES | {"up"}


def test_configuration_alerts_and_their_tests_pass_promtool() -> None:
    assert promtool("check", "config", str(PROMETHEUS / "prometheus.yml")) == ""
    assert promtool("test", "rules", str(PROMETHEUS / "alerts_test.yml")) == ""


def test_expressions_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "dashboard.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert promtool("check", "rules", str(file)) == ""


@pytest.mark.parametrize("text", [(PROMETHEUS / "alerts.yml").read_text(), "\n".join(expressions())])
def test_alerts_and_panels_name_only_metrics_that_exist(text: str) -> None:
    named = set(re.findall(r"\b(?:dpme|process)_[a-z_]+", text))
    bases = {re.sub(r"_bucket$", "", name) for name in named} - {"process_start_time_seconds"}
    assert len(bases) > 5
    assert bases <= known_metrics()


def test_the_dashboard_is_what_its_table_says() -> None:
    spec = importlib.util.spec_from_file_location("make_dashboard", INFRA / "grafana" / "make_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert DASHBOARD.read_text() == module.text()
