"""docker-compose.yml without Docker: its schema, and each worker's own command as a process against a real broker."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from schemas.topics import topic_specs
from streams.pipeline.config import read_config
from streams.pipeline.feed import Feeder
from streams.pipeline.observe import Observer
from streams.pipeline.scenario_store import publish_scenario_set
from streams.runtime.kafka_process import Broker, free_port
from streams.runtime.topics_admin import delete_topics
from streams.sink.errors import StoreEmpty
from streams.sink.query_socket import QueryClient
from tests.chaos.world import chaos_world
from tests.clickhouse_engine import Engine
from tests.commands import DPME, ROOT, environment
from tests.promtool import promtool
from tests.waiting import wait_until

COMPOSE = ROOT / "docker-compose.yml"
ROLES = ("sequencer", "risk", "enforcement", "model", "sink", "gateway")
BLOCKS, LIMIT_S = 6, 240.0


def compose() -> dict[str, Any]:
    return YAML(typ="safe").load(COMPOSE.read_text())


def test_the_compose_file_fits_its_schema_and_keeps_to_loopback() -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    told = subprocess.run(checker, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    for name, service in compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert {"mem_limit", "cpus", "restart", "healthcheck"} <= service.keys(), name
        assert ":" in service["image"], f"{name}: an image without a tag"
        assert "latest" not in service["image"], name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists(), f"{name}: {source}"


class Installation:
    """The workers of the compose file as processes: names of hosts, ports and folders replaced through DPME_<FIELD>."""

    def __init__(self, broker: Broker, store: str, folder: Path) -> None:
        self.services = compose()["services"]
        self.config_file = ROOT / "infra" / "docker" / "dpme.json"
        self.ports = {role: free_port() for role in ROLES}
        self.folder = folder
        self.common = {
            "DPME_BOOTSTRAP": broker.address,
            "DPME_STORE": store,
            "DPME_PREFIX": f"d{uuid.uuid4().hex[:10]}.",
            "DPME_FOLDER": str(folder / "workers"),
            "DPME_METRICS_HOST": "127.0.0.1",
            "DPME_GATEWAY_HOST": "127.0.0.1",
            "DPME_GATEWAY_PORT": str(free_port()),
        }
        self.config = read_config(self.config_file, self.common)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, service: str) -> subprocess.Popen[bytes]:
        command = self.services[service]["command"]
        given = [str(self.config_file) if part == "/etc/dpme.json" else part for part in command]
        passed_on = dict.fromkeys(self.services[service]["environment"], "")  # as compose does where none is set
        variables = {**passed_on, **self.common, "DPME_METRICS_PORT": str(self.ports.get(service, 0))}
        with open(self.folder / f"{service}.log", "ab") as log:
            self.processes[service] = subprocess.Popen(
                [*DPME, *given], env=environment(**variables), cwd=ROOT,
                stdout=log, stderr=log,
            )  # fmt: skip
        return self.processes[service]

    def get(self, role: str, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[role]}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    async def until_ready(self, role: str) -> None:

        async def ready() -> bool:
            assert self.processes[role].poll() is None, (self.folder / f"{role}.log").read_text()[-2000:]
            return (await asyncio.to_thread(self.get, role, "/readyz"))[0] == 200

        await wait_until(ready, LIMIT_S, poll_s=0.1)

    def metrics(self, role: str) -> dict[str, float]:
        """Sums over the labels, by name."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.get(role, "/metrics")[1]):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0) + sample.value
        return found

    def kill(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.mark.clickhouse
async def test_every_worker_of_the_compose_file_starts_alone_gets_ready_and_does_its_part(
    dev_process: Broker, engine: Engine, tmp_path: Path
) -> None:
    dev_process.start()
    made = Installation(dev_process, engine.url("composed"), tmp_path)
    world = chaos_world(seed=5, blocks=BLOCKS, events=60)
    settings, last = made.config.settings(), -1
    observer = Observer(settings, made.config.partitions, lambda *_: None)
    feeder = Feeder(settings)
    try:
        assert made.start("topics").wait(LIMIT_S) == 0
        await publish_scenario_set(settings, world.scenario_set)
        for role in ROLES:
            made.start(role)
        await asyncio.gather(*(made.until_ready(role) for role in ROLES))
        reading = asyncio.create_task(observer.run())
        await feeder.start()
        await feeder.send_listings(world)
        for inputs in world.blocks:
            last = inputs.block.number
            await feeder.send_inputs(inputs)
            await feeder.announce(inputs)
            await observer.wait_for(partial(observer.is_done, last), LIMIT_S)
        await observer.wait_for(observer.is_enforced, LIMIT_S)
        await _check(made, observer, last)
        reading.cancel()
        for role in ROLES:
            made.processes[role].send_signal(signal.SIGTERM)
        assert [made.processes[role].wait(30) for role in ROLES] == [0] * len(ROLES)
        assert '"event": "ready"' in (tmp_path / "risk.log").read_text()  # log_format of infra/docker/dpme.json
    finally:
        made.kill()
        await feeder.stop()
        await delete_topics(dev_process.address, [settings.topic(s.name) for s in topic_specs(made.config.partitions)])


async def _check(made: Installation, observer: Observer, last: int) -> None:
    """Metrics say what was observed; the store has the last block; every page is Prometheus text without complaint."""
    risk = made.metrics("risk")
    assert risk["dpme_blocks_total"] == observer.counts["blocks"] * made.config.partitions
    assert risk["dpme_margin_warnings_total"] == observer.counts["margin_warning"]
    assert risk["dpme_margin_calls_total"] == observer.counts["call"]
    assert risk["dpme_liquidation_flags_total"] == observer.counts["flag"]
    assert made.metrics("enforcement")["dpme_liquidations_total"] == observer.counts["liquidation"]
    assert made.metrics("sequencer")["dpme_inputs_quarantined_total"] >= len(observer.quarantined) > 0
    for role in ROLES:
        assert made.get(role, "/healthz") == (200, "ok\n")
        assert promtool("check", "metrics", given=made.get(role, "/metrics")[1]) == ""

    async def has_last() -> bool:
        return await asyncio.to_thread(_newest_stored, made.config.store) == last

    await wait_until(has_last, LIMIT_S, poll_s=0.1)


def _newest_stored(store: str) -> int:
    try:
        with QueryClient(store) as client:
            return int(client.ask("latest", limit=1)["block"])
    except StoreEmpty:
        return -1
