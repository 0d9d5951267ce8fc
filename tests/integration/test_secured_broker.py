"""An installation on Apache Kafka by SASL_SSL: the outputs of a plain run; every client and command gets in, a wrong
password, authority or protocol is named by its field, and no log holds the password."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from streams.pipeline.config import PipelineConfig, read_config
from streams.pipeline.feed import Feeder
from streams.pipeline.observe import Observer
from streams.pipeline.run import RunOptions, run_world
from streams.pipeline.scenario_store import publish_scenario_set
from streams.runtime.broker_access import obstacle
from streams.runtime.kafka_process import KafkaBroker
from tests.chaos.world import chaos_world
from tests.commands import DPME, ROOT, dpme, environment
from tests.secured_kafka import MECHANISM, PASSWORD, USER, SecuredKafka, make_authority

pytestmark = pytest.mark.kafka
BLOCKS, PARTITIONS, LIMIT_S = 24, 2, 240.0


def world():
    return chaos_world(seed=5, blocks=BLOCKS, events=120)


@pytest.fixture(scope="module")
def broker(kafka_process: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with SecuredKafka(tmp_path_factory.mktemp("secured")) as made:
        make_authority(made.home / "stranger.pem", made.home / "stranger.p12")
        yield made


class Installation(NamedTuple):
    """A configuration file without password, which comes from the environment."""

    file: Path
    folder: Path

    def dpme(self, *arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
        return dpme(*arguments, "--config", str(self.file), **{"DPME_SASL_PASSWORD": PASSWORD, **given})

    @property
    def config(self) -> PipelineConfig:
        return read_config(self.file, {})

    @contextlib.contextmanager
    def workers(self) -> Iterator[None]:
        command = [*DPME, "run", "all", "--config", str(self.file)]
        with open(self.folder / "supervisor.log", "ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(DPME_SASL_PASSWORD=PASSWORD), stdout=log, stderr=log
            )
        try:
            yield
            assert process.poll() is None, (self.folder / "supervisor.log").read_text()
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def installation(broker: SecuredKafka, tmp_path: Path) -> Installation:
    fields = {
        "bootstrap": broker.secured_address, "prefix": f"{tmp_path.name}.", "folder": str(tmp_path / "workers"),
        "store": str(tmp_path / "store"), "partitions": PARTITIONS, "security_protocol": "SASL_SSL",
        "sasl_mechanism": MECHANISM, "sasl_username": USER, "ca_file": str(broker.authority), "log_format": "json",
    }  # fmt: skip
    file = tmp_path / "live.json"
    file.write_bytes(orjson.dumps(fields))
    return Installation(file, tmp_path)


COMMANDS = (
    ("doctor",), ("scenarios", "list"), ("margin", "show", "account-0"), ("trace", "account-0"), ("stress",),
    ("gate", "withdraw", "account-0", "1"), ("quarantine", "list"), ("partitions", "show"),
)  # fmt: skip


def test_its_outputs_are_those_of_a_plain_run_and_every_command_gets_in(
    broker: SecuredKafka, installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunOptions(broker.address, tmp_path / "plain", 1, PARTITIONS, sink=False, gateway=False)
    plain = run_world(world(), options, lambda *_: None).figures
    monkeypatch.setenv("DPME_SASL_PASSWORD", PASSWORD)
    assert installation.dpme("run", "topics").returncode == 0
    with installation.workers():
        digests = asyncio.run(fed(installation.config))
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda command: installation.dpme(*command, "--json"), COMMANDS))
    assert digests == (plain["output_digest"], plain["state_digest"])
    assert plain["margin_calls"] > 0 < plain["liquidations"]
    assert [(a.args, a.stderr) for a in answers if a.returncode] == []
    logs = [log.read_text() for log in tmp_path.rglob("*.log")]
    assert sum('"event": "ready"' in log for log in logs) == len(("sequencer", "risk", "enforcement", "sink")) * 2 - 1
    assert not any(PASSWORD in said for said in (*logs, *(a.stdout + a.stderr for a in answers)))


async def fed(config: PipelineConfig) -> tuple[str, str]:
    """(digest of the outputs, of the state) after the world's last block."""
    settings, last = config.settings(), -1
    observer, feeder = Observer(settings, PARTITIONS, lambda *_: None), Feeder(settings)
    await publish_scenario_set(settings, world().scenario_set)
    reading = asyncio.create_task(observer.run())
    await feeder.start()
    await feeder.send_listings(world())
    for inputs in world().blocks:
        last = inputs.block.number
        await feeder.send_inputs(inputs)
        await feeder.announce(inputs)
        await observer.wait_for(partial(observer.is_done, last), LIMIT_S)
    await observer.wait_for(observer.is_enforced, LIMIT_S)
    await observer.catch_up(LIMIT_S)
    reading.cancel()
    await asyncio.gather(reading, feeder.stop(), return_exceptions=True)
    return observer.output_digest(), observer.state_digest(last)


WRONG = "wrong-sesame-77"
MISTAKES = [
    ({"DPME_SASL_PASSWORD": WRONG}, "fields sasl_username, sasl_password: .* refuses user 'dpme'"),
    ({"DPME_SASL_USERNAME": "nobody"}, "fields sasl_username, sasl_password: .* refuses user 'nobody'"),
    ({"DPME_SASL_MECHANISM": "PLAIN"}, "field sasl_mechanism: .* does not take PLAIN"),
    ({"DPME_CA_FILE": "{stranger}"}, "field ca_file: the certificate of the broker .* does not pass .*stranger.pem"),
    ({"DPME_BOOTSTRAP": "localhost:{port}"}, "field bootstrap: the certificate .* is for another name"),
    ({"DPME_BOOTSTRAP": "{plain}", "DPME_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "field security_protocol: .* no user"),
    ({"DPME_SECURITY_PROTOCOL": "SSL"}, r"field security_protocol \(or bootstrap\): .* ends a connection by SSL"),
    ({"DPME_SECURITY_PROTOCOL": "PLAINTEXT"}, "field security_protocol .* ends a connection by PLAINTEXT"),
    ({"DPME_BOOTSTRAP": "{plain}"}, "field security_protocol .* ends a connection by SASL_SSL"),
]


@pytest.mark.parametrize(("change", "said"), MISTAKES)
def test_what_keeps_us_out_is_named_by_its_field(
    broker: SecuredKafka, installation: Installation, change: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = broker.secured_address.rpartition(":")[2]
    for name, value in ({"DPME_SASL_PASSWORD": PASSWORD} | change).items():
        filled = value.format(plain=broker.address, port=port, stranger=broker.home / "stranger.pem")
        monkeypatch.setenv(name, filled)
    config = read_config(installation.file, os.environ)
    found = asyncio.run(obstacle(config.bootstrap, config.security()))
    assert found is not None
    assert re.search(said, found.text)
    assert found.lasting == ("ends a connection" not in said)


@pytest.mark.parametrize(
    ("command", "code"),
    [(("run", "topics"), 2), (("run", "risk"), 2), (("margin", "show", "account-0"), 1), (("doctor",), 1)],
)
def test_a_wrong_password_is_one_clear_message_of_each_kind_of_command(
    installation: Installation, command: tuple[str, ...], code: int
) -> None:
    answer = installation.dpme(*command, DPME_SASL_PASSWORD=WRONG)
    said = " ".join((answer.stdout + answer.stderr).replace("│", " ").split())
    assert answer.returncode == code, said
    assert "fields sasl_username, sasl_password: the broker at" in said
    assert "Traceback" not in said
    assert WRONG not in said
