"""What people are told by an installation without topics, and by one in which nothing has happened yet."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from streams.pipeline.config import PipelineConfig, write_config
from streams.runtime.kafka_process import Broker
from tests.commands import dpme

SHOW, STRESS = ("margin", "show", "ann"), ("stress",)
WITHOUT_TOPICS = (
    (SHOW, "has no topic {prefix}account.log: no run is there, or no longer"),
    (("scenarios", "list"), "there is no topic {prefix}instruments yet: dpme run topics"),
    (("quarantine", "list"), "has no topic {prefix}quarantine: is this the right installation?"),
    (("partitions", "change", "--to", "8"), "has no topic {prefix}market.log: is this the right installation?"),
)
WITHOUT_BLOCKS = (
    (SHOW, "the run has no block yet: wait for the first one"),
    (STRESS, "the run has no block yet"),
    (("gate", "withdraw", "ann", "1"), "the run has no block yet"),
    (("trace", "ann"), "the run has no accounts yet"),
    (("scenarios", "publish"), "nothing is listed on instruments yet"),
    (("quarantine", "show", "account.fills/0/1"), "account.fills/0/1"),
)
Told = Sequence[tuple[tuple[str, ...], str]]


def check(config: Path, prefix: str, told: Told) -> None:
    """Each command ends with 1 and one last line that says why."""
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda one: dpme(*one[0], "--config", str(config)), told))
    for answer, (command, said) in zip(answers, told, strict=True):
        last = answer.stderr.strip().splitlines()[-1]
        assert (answer.returncode, "Traceback" in answer.stderr) == (1, False), (command, answer.stderr)
        assert last.startswith("dpme: "), (command, answer.stderr)
        assert said.format(prefix=prefix) in last, (command, last)


def test_what_is_not_there_yet_is_said(dev_process: Broker, tmp_path: Path) -> None:
    dev_process.start()
    prefix, file = f"e{uuid.uuid4().hex[:10]}.", tmp_path / "live.json"
    write_config(file, PipelineConfig(bootstrap=dev_process.address, prefix=prefix, folder=str(tmp_path / "workers")))
    check(file, prefix, WITHOUT_TOPICS)
    assert dpme("run", "topics", "--config", str(file)).returncode == 0
    check(file, prefix, WITHOUT_BLOCKS)
