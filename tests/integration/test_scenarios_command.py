"""`dpme scenarios` on a broker: published sets are found, listed, drawn the same again; what is wrong is named."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner, Result

from oracles.scenario_set import redraw
from schemas.topics import INSTRUMENTS, topic_specs
from streams.cli.scenarios import app
from streams.pipeline.config import PipelineConfig, write_config
from streams.pipeline.scenario_store import ScenarioSetMissing, ScenarioSets, load_scenario_sets
from streams.runtime.kafka_process import Broker
from streams.runtime.producer import new_producer
from streams.runtime.topics_admin import TopicSpec, delete_topics, ensure_topics

LISTINGS = [
    {"type": "underlying", "version": 1, "id": "u1", "underlying": "BTC"},
    {"type": "underlying", "version": 1, "id": "u2", "underlying": "USDC", "stable": True},
    {"type": "instrument", "version": 1, "id": "i1", "instrument": "BTC-C", "underlying": "BTC", "kind": "call",
     "lot_exponent": -3, "expiry_ms": 1_800_000_000_000, "strike_usd9": 10**13},
]  # fmt: skip


class Installation:
    def __init__(self, address: str, folder: Path) -> None:
        self.config = PipelineConfig(bootstrap=address, prefix=f"t{uuid.uuid4().hex[:10]}.", folder=str(folder))
        self.settings, self.file = self.config.settings(), folder / "config.json"
        write_config(self.file, self.config)

    def make_topics(self) -> list[str]:
        specs = [TopicSpec(self.settings.topic(s.name), s.partitions, s.configs) for s in topic_specs(4)]
        asyncio.run(ensure_topics(self.config.bootstrap, specs))
        return [spec.name for spec in specs]

    def command(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--config", str(self.file)])

    def json(self, *arguments: str) -> dict:
        result = self.command(*arguments, "--json")
        assert result.exit_code == 0, result.output
        found: dict = json.loads(result.stdout.splitlines()[-1])
        return found

    async def list_on_instruments(self, listings: list[dict]) -> None:
        producer = new_producer(self.settings)
        await producer.start()
        await producer.send_and_wait(self.settings.topic(INSTRUMENTS), orjson.dumps(listings), partition=0)
        await producer.stop()


@pytest.fixture
def installation(broker: Broker, tmp_path: Path) -> Iterator[Installation]:
    made = Installation(broker.address, tmp_path)
    names = made.make_topics()
    yield made
    asyncio.run(delete_topics(broker.address, names))


def test_a_set_over_what_is_listed_is_published_once_and_listed(installation: Installation) -> None:
    assert "nothing is listed on instruments yet" in str(installation.command("publish").exception)
    assert "none is listed: dpme scenarios publish" in installation.command("list").output
    asyncio.run(installation.list_on_instruments(LISTINGS))
    made = installation.json("publish", "--seed", "7", "--scenarios", "64")
    assert (made["underlyings"], made["option_underlyings"]) == (["BTC", "USDC"], ["BTC"])
    assert installation.json("publish", "--seed", "7", "--scenarios", "64") == made
    other = installation.json("publish", "--seed", "8", "--scenarios", "64", "--no-list")
    listed = installation.json("list")
    assert listed["listed"] == made["digest"]
    assert {one["digest"] for one in listed["sets"]} == {made["digest"], other["digest"]}
    (found,) = [s for d, s in asyncio.run(load_scenario_sets(installation.settings)).items() if d == made["digest"]]
    assert redraw(found).digest == made["digest"]
    assert "listed" in installation.command("list").output
    for seed, digest in (("8", other["digest"]), ("7", made["digest"])):  # there and back
        installation.json("publish", "--seed", seed, "--scenarios", "64")
        assert installation.json("list")["listed"] == digest


def test_a_file_of_parameters_and_a_recorded_set(installation: Installation, tmp_path: Path) -> None:
    inputs = {
        "underlyings": {"A": {"volatility": 0.6, "options": True}, "B": {"volatility": 0.9}, "USD": {"stable": True}},
        "correlations": {"A/B": 0.5},
        "level_volatility": 1.5,
    }
    file = tmp_path / "inputs.json"
    file.write_bytes(orjson.dumps(inputs))
    made = installation.json("publish", "--file", str(file), "--scenarios", "64")
    found = asyncio.run(load_scenario_sets(installation.settings))[made["digest"]]
    hourly = found.volatility_e9[[0, 1, 3]] / 1e9 * np.sqrt(365 * 24)
    assert np.allclose(hourly, [0.6, 0.9, 1.5], rtol=1e-3)
    assert found.correlation_e9[0, 1] == 500_000_000
    recorded = tmp_path / "set.bin"
    recorded.write_bytes(found.to_bytes())
    assert installation.json("publish", "--file", str(recorded))["digest"] == made["digest"]
    forged = bytearray(found.to_bytes())
    forged[-1000] ^= 1
    recorded.write_bytes(bytes(forged))
    assert "not those that its inputs draw" in str(installation.command("publish", "--file", str(recorded)).exception)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"underlyings": {}}, "length >= 1"),
        ({"underlyings": {"A": {"volatility": -1}}}, "underlyings[...].volatility"),
        ({"underlyings": {"A": {"vol": 1}}}, "unknown field `vol`"),
        ({"underlyings": {"A": {}}, "correlations": {"A/B": 0.1}}, '"A/B" is no pair'),
    ],
)
def test_a_wrong_file_is_refused_by_its_field(
    installation: Installation, tmp_path: Path, document: dict, said: str
) -> None:
    file = tmp_path / "inputs.json"
    file.write_bytes(orjson.dumps(document))
    assert said in str(installation.command("publish", "--file", str(file)).exception)


def test_wrong_options_are_named(installation: Installation) -> None:
    assert "is not NAME=VOLATILITY" in str(installation.command("publish", "-u", "BTC=much").exception)
    assert "--with-options ETH is none" in str(
        installation.command("publish", "-u", "BTC=0.6", "--with-options", "ETH").exception
    )


def test_whoever_waits_for_a_set_says_how_it_is_published(
    installation: Installation, capfd: pytest.CaptureFixture[str]
) -> None:
    waiting = ScenarioSets(installation.settings, wait_s=0.0)
    waiting.fetch()
    waiting.say_if_empty()
    with pytest.raises(ScenarioSetMissing, match="publish it by `dpme scenarios publish --config FILE`"):
        waiting("ab" * 32)
    said = capfd.readouterr().err
    assert '"event": "no_scenario_set"' in said
    assert '"event": "waiting_for_scenario_set"' in said
    assert said.count("dpme scenarios publish --config FILE") == 2


def test_without_topics_it_says_what_to_do(broker: Broker, tmp_path: Path) -> None:
    bare = Installation(broker.address, tmp_path)
    assert "dpme run topics --config FILE makes them" in str(bare.command("list").exception)
