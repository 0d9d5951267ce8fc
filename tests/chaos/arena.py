"""One run on a broker: topics, supervised workers, the producer, who torments them, and everything read back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from msgspec import structs

from schemas.topics import ACCOUNT_LOG, INPUTS, MARKET_LOG, PUBLIC_OUTPUTS, QUARANTINE, topic_specs
from streams.pipeline.config import PipelineConfig
from streams.pipeline.feed import Feeder
from streams.pipeline.scenario_store import publish_scenario_set
from streams.pipeline.workers import worker_specs
from streams.replay.world import BlockInputs, World
from streams.runtime.kafka_process import Broker, KafkaCluster
from streams.runtime.log_reader import LogReader
from streams.runtime.settings import RuntimeSettings
from streams.sink.errors import StoreError
from streams.sink.query_socket import QueryClient
from streams.sink.rows import TABLES
from tests.chaos.acts import Tormentor
from tests.chaos.faults import Script
from tests.chaos.feeding import BadProducer
from tests.chaos.notes import notes, tracebacks
from tests.chaos.small_disk import mount, unmount
from tests.chaos.verdict import Recorded
from tests.chaos.watching import ChaosObserver
from tests.installation import stamped_topics, supervised

SILENT_BROKERS = {"request_timeout_ms": 2_500, "consumer_request_timeout_ms": 2_500, "rebalance_s": 1.5}
START_LIMIT_S = 300.0


class Impossible(Exception):
    """The plan asks for a fault that the run cannot have; the message says why."""


@dataclass(frozen=True)
class Plan:
    """How a run goes. script: acts in their order, None: by chance; mutant: a name of `mutant_workers`, "" for none."""

    seed: int
    interval_s: float
    disturbed: bool = True
    partitions: int = 4
    risk_workers: int = 3
    groups: int = 1
    sequencers: int = 1
    session_s: float = 6.0
    checkpoint_every: int = 10
    sink: bool = False
    mutant: str = ""
    script: Script | None = None
    end_limit_s: float = 180.0
    producer: type[BadProducer] = BadProducer
    broker: Broker | KafkaCluster | None = None


@dataclass
class Outcome:
    """What a run left behind. failure: why it could not be finished, "" if it was."""

    recorded: Recorded
    producer: BadProducer
    tormentor: Tormentor
    failure: str
    deaths: list[str]
    lives: Counter[str]
    rejected: int  # checkpoints that restores passed over
    crashes: list[str]  # lives that ended by an exception of which no note was made: no fault may bring that about
    store: dict[str, dict[str, int]] = field(default_factory=dict)  # see `census`; empty without a sink
    seconds: dict[str, float] = field(default_factory=dict)


async def run(world: World, blocks: list[BlockInputs], address: str, folder: Path, plan: Plan) -> Outcome:
    """Feed the blocks while the workers are disturbed, wait until all is calm and done, and read everything back."""
    shutil.rmtree(folder, ignore_errors=True)
    config = PipelineConfig(
        bootstrap=address, prefix=f"c{uuid.uuid4().hex[:10]}.", folder=str(folder / "workers"),
        partitions=plan.partitions, risk_workers=plan.risk_workers, groups=plan.groups, session_s=plan.session_s,
        sequencers=plan.sequencers,
        replication_factor=len(plan.broker.nodes) if isinstance(plan.broker, KafkaCluster) else 1,
        checkpoint_every=plan.checkpoint_every, log_format="json", store=str(folder / "store") if plan.sink else "",
    )  # fmt: skip
    if isinstance(plan.broker, KafkaCluster):
        config = structs.replace(config, **SILENT_BROKERS)
    async with stamped_topics(config):
        try:
            await publish_scenario_set(config.settings(), world.scenario_set)
            return await _run(world, blocks, config, plan)
        finally:
            unmount(folder / "store")


async def _run(world: World, blocks: list[BlockInputs], config: PipelineConfig, plan: Plan) -> Outcome:
    settings, marks = config.settings(), [time.monotonic()]
    small_disk = bool(config.store) and mount(Path(config.store))
    names, seams = [spec.name for spec in worker_specs(config)], not plan.mutant
    tormentor = Tormentor(config, names, plan.seed, plan.broker, seams, small_disk)
    observer, feeder = ChaosObserver(settings, plan.partitions, tormentor.halted), Feeder(settings)
    tormentor.blocks_done = observer.progress
    producer = plan.producer(feeder, observer, plan.seed, plan.disturbed)
    if reason := tormentor.impossible(plan.script or ()):
        raise Impossible(reason)
    with workers(config, plan.mutant):
        reading = asyncio.create_task(observer.run())
        await feeder.start()
        failure = ""
        try:
            await producer.begin(world, blocks[0])
            await observer.wait_for(lambda: observer.is_done(blocks[0].block.number), START_LIMIT_S)
            marks.append(time.monotonic())
            await _torment(producer, world, blocks, tormentor, plan)
            marks.append(time.monotonic())
            await observer.wait_for(lambda: _complete(observer, blocks, producer), plan.end_limit_s)
            if config.store:
                await asyncio.wait_for(_stored(config, plan.partitions), plan.end_limit_s)
        except Exception as error:  # what a run must never end with: told in the verdict
            failure = f"{type(error).__name__}: {error}"
        marks.append(time.monotonic())
        await feeder.stop()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    recorded = await read_back(settings, plan.partitions)
    outcome = Outcome(recorded, producer, tormentor, failure, *_lives(Path(config.folder)))
    spans = [end - begun for begun, end in pairwise(marks)]
    if config.store:
        outcome.store = await asyncio.to_thread(census, Path(config.store))
    outcome.seconds = dict(zip(("start", "disturbed", "catch_up"), spans, strict=False))
    return outcome


async def _torment(
    producer: BadProducer, world: World, blocks: list[BlockInputs], tormentor: Tormentor, plan: Plan
) -> None:
    """Feed; a script may outlast the feeding, chance ends with it."""
    script = list(plan.script) if plan.script is not None else None
    producer.needs_s = tormentor.needs_s
    acting = asyncio.create_task(tormentor.run(script if plan.disturbed else []))
    try:
        await producer.run(world, blocks, plan.interval_s)
        tormentor.fed = True
        if script is not None:
            await acting
    finally:
        acting.cancel()
        await asyncio.gather(acting, return_exceptions=True)


def _complete(observer: ChaosObserver, blocks: list[BlockInputs], producer: BadProducer) -> bool:
    return (
        observer.has_done(blocks[-1].block)
        and observer.is_enforced()
        and producer.garbage.keys() <= observer.quarantined
    )


async def _stored(config: PipelineConfig, partitions: int) -> None:
    """Wait until the sink says that it has everything that the outputs' logs hold now."""
    reader = LogReader(config.settings())
    await reader.start()
    try:
        logs = [
            (spec.name, p) for spec in topic_specs(partitions) if spec.name in TABLES for p in range(spec.partitions)
        ]
        names = {(config.settings().topic(topic), p): f"{topic}/{p}" for topic, p in logs}
        wanted = {names[log]: end for log, end in (await reader.ends(names)).items()}
    finally:
        await reader.stop()
    while True:
        with contextlib.suppress(StoreError), QueryClient(Path(config.store), attach_only=True) as client:
            found = client.ask("stored")
            if all(found.get(log, 0) >= end for log, end in wanted.items()):
                return
        await asyncio.sleep(0.1)


CENSUS = """
import json, sys
from streams.sink.rows import TABLES
from streams.sink.sink import doubled, missing
from streams.sink.store import ChdbStore
store = ChdbStore(sys.argv[1], create=False)
rows = {table: store.query(f"SELECT count() AS n FROM dpme.{table}")[0]["n"] for table in TABLES.values()}
print(json.dumps({"rows": rows, "missing": missing(store), "doubled": doubled(store)}))
"""


def census(folder: Path) -> dict[str, dict[str, int]]:
    """Rows of each table of a store, and how many it lacks or has twice; in a process of its own, as chDB wants it."""
    done = subprocess.run([sys.executable, "-c", CENSUS, str(folder)], capture_output=True, text=True, check=True)
    counted: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return counted


@contextlib.contextmanager
def workers(config: PipelineConfig, mutant: str = "") -> Iterator[None]:
    """The supervisor with all workers, to be tormented, or broken on purpose."""
    module = ["tests.chaos.mutant_workers", mutant] if mutant else ["tests.chaos.seams"]
    with supervised(config, *module):
        yield


async def read_back(settings: RuntimeSettings, partitions: int) -> Recorded:
    """Every record of the logs and inputs, as the broker has them."""
    reader = LogReader(settings)
    await reader.start()
    try:
        recorded: Recorded = {}
        for spec in topic_specs(partitions):
            if spec.name in (*INPUTS, *PUBLIC_OUTPUTS, ACCOUNT_LOG, MARKET_LOG, QUARANTINE):
                for partition in range(spec.partitions):
                    topic = settings.topic(spec.name)
                    bounds = await reader.bounds(topic, partition)
                    recorded[spec.name, partition] = await reader.read(topic, partition, *bounds)
        return recorded
    finally:
        await reader.stop()


def _lives(folder: Path) -> tuple[list[str], Counter[str], int, list[str]]:
    """(reasons of workers that ended themselves, lives of each worker, checkpoints passed over, crashes)."""
    deaths, rejected, crashes = [], 0, []
    for path in sorted(folder.glob("*.log")):
        crashes += [f"{path.stem}: {said}" for said in tracebacks(path)]
        for one in notes(path):
            rejected += one["event"] == "checkpoint_rejected"
            if one["event"] == "die":
                deaths.append(f"{path.stem}: {one['reason']} ({one['code']}) {one['exception'] or ''}"[:200])
    lives = Counter(one["worker"] for one in notes(folder / "supervisor.log") if one["event"] == "ended")
    return deaths, lives, rejected, crashes
