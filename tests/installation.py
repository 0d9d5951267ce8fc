"""An installation for a test or a measurement: stamped topics that are gone afterwards, and workers of any program."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from schemas.topics import topic_specs
from streams.pipeline.config import PipelineConfig, write_config
from streams.runtime.topics_admin import TopicSpec, delete_topics, ensure_topics

STAMPED = {"message.timestamp.type": "LogAppendTime"}  # times are the broker's: nobody's clock matters
ROOT = Path(__file__).parents[1]
STOP_LIMIT_S = 30.0


@contextlib.asynccontextmanager
async def stamped_topics(config: PipelineConfig) -> AsyncIterator[None]:
    """Every topic of the configuration, with the broker's times; deleted at the end."""
    settings, copies = config.settings(), config.replication_factor
    specs = [
        TopicSpec(settings.topic(s.name), s.partitions, s.configs | STAMPED, copies)
        for s in topic_specs(config.partitions)
    ]
    await ensure_topics(config.bootstrap, specs)
    try:
        yield
    finally:
        await delete_topics(config.bootstrap, [spec.name for spec in specs])


@contextlib.contextmanager
def supervised(config: PipelineConfig, *module: str) -> Iterator[None]:
    """`python -m MODULE... CONFIG`, a supervisor with all its workers; stopped at the end, dead with this process."""
    folder = Path(config.folder)
    write_config(folder / "config.json", config)
    with open(folder / "supervisor.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module, str(folder / "config.json")],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
