"""Runs a world through a whole pipeline on a broker: processes up, inputs in, figures out, processes down."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from schemas.decisions import STATES
from schemas.topics import topic_specs
from streams.pipeline.config import PipelineConfig, write_config
from streams.pipeline.feed import Feeder
from streams.pipeline.observe import Listener, Observer
from streams.pipeline.scenario_store import publish_scenario_set
from streams.replay.world import BlockInputs, World
from streams.runtime.kafka_process import Broker, DevelopmentBroker, KafkaBroker, answers, free_port
from streams.runtime.topics_admin import TopicSpec, delete_topics, ensure_topics
from streams.sink.current_run import CurrentRun, read_current_run, write_current_run
from streams.sink.errors import StoreError
from streams.sink.query_socket import QueryClient

START_LIMIT_S = 120.0
BLOCK_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0
STORE_LIMIT_S = 60.0
POLL_S = 0.1
GATEWAY_PORT = 8765
NEAREST = 15


class RunError(Exception):
    """The pipeline could not be run; the message says what to do."""


@dataclass(frozen=True)
class RunOptions:
    """How to run a world. broker: "dev" (embedded), "kafka" (Apache Kafka, started if none answers), or host:port.

    paced_ms: wall time of a block, None for as fast as it goes (a block is announced when the one before is done).
    """

    broker: str = "dev"
    data: Path = Path(".dpme")
    risk_workers: int = 1
    partitions: int = 4
    paced_ms: int | None = None
    sink: bool = True
    gateway: bool = True
    model: bool = False
    session_s: float = 6.0


@dataclass
class RunReport:
    """What a run ends with; `figures` is the JSON object of the command line."""

    figures: dict[str, Any]
    nearest: list[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)


def run_world(world: World, options: RunOptions, listener: Listener) -> RunReport:
    """Run to the world's last block. Ctrl-C ends it early, and the report is of what was done until then."""
    with claimed(options.data):
        return asyncio.run(_run(world, options, listener))


@contextlib.contextmanager
def claimed(data: Path) -> Iterator[None]:
    """The data folder belongs to one run at a time."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock: IO[str] = open(data / "run.lock", "w")  # noqa: SIM115 - held over the yield below
    except OSError as error:
        raise RunError(f"cannot write to {data}: {error.strerror}; choose another folder with --data") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"another run uses {data}: stop it, or choose another folder with --data") from error
        yield


async def _run(world: World, options: RunOptions, listener: Listener) -> RunReport:
    listener("phase", {"name": "starting the broker"})
    with _broker(options) as bootstrap:
        config = await prepare(world, options, bootstrap)
        settings = config.settings()
        observer, feeder = Observer(settings, options.partitions, listener), Feeder(settings)
        listener("phase", {"name": "starting the workers"})
        with workers(config):
            reading = asyncio.create_task(observer.run())
            await feeder.start()
            try:
                last, wall_s = await _feed(world, options, feeder, observer, listener)
                await _until_stored(config, observer)
                rss_mb = _rss_mb(Path(config.folder))
            except TimeoutError as error:
                raise RunError(f"the pipeline stands still: see the workers' logs in {config.folder}") from error
            finally:
                await feeder.stop()
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            listener("phase", {"name": "stopping"})
        return _report(world, options, observer, last, wall_s, rss_mb)


@contextlib.contextmanager
def _broker(options: RunOptions) -> Iterator[str]:
    if options.broker not in ("dev", "kafka"):
        host, _, port = options.broker.rpartition(":")
        if not host or not port.isdigit():
            raise RunError(f"--broker is dev, kafka or host:port, not {options.broker!r}")
        yield options.broker
        return
    default_port = int(os.environ.get("DPME_KAFKA_PORT", "9092"))
    if options.broker == "kafka" and answers(default_port):
        yield f"127.0.0.1:{default_port}"
        return
    home = options.data / "run" / "broker"
    shutil.rmtree(options.data / "run", ignore_errors=True)
    broker: Broker = DevelopmentBroker(home) if options.broker == "dev" else KafkaBroker(home)
    broker.start()
    try:
        yield broker.address
    finally:
        broker.stop()


async def prepare(world: World, options: RunOptions, bootstrap: str) -> PipelineConfig:
    """Topics, scenario set, configuration, and the description of the run for the other commands."""
    await _delete_earlier(options.data, bootstrap)
    run_folder = options.data / "run"
    shutil.rmtree(run_folder / "store", ignore_errors=True)
    shutil.rmtree(run_folder / "workers", ignore_errors=True)
    config = PipelineConfig(
        bootstrap=bootstrap,
        prefix=f"{world.name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.",
        folder=str(run_folder / "workers"),
        partitions=options.partitions,
        risk_workers=options.risk_workers,
        model=options.model,
        store=str(run_folder / "store") if options.sink else "",
        gateway_port=_gateway_port() if options.gateway else 0,
        session_s=options.session_s,
        log_format="json",
    )
    settings = config.settings()
    specs = [TopicSpec(settings.topic(s.name), s.partitions, s.configs) for s in topic_specs(options.partitions)]
    await ensure_topics(bootstrap, specs)
    await publish_scenario_set(settings, world.scenario_set)
    write_config(Path(config.folder) / "config.json", config)
    write_current_run(options.data, _current_run(config, options))
    return config


def _gateway_port() -> int:
    """The documented port if it is free, else any."""
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", GATEWAY_PORT)):
        return GATEWAY_PORT
    return free_port()


def _current_run(config: PipelineConfig, options: RunOptions) -> CurrentRun:
    return CurrentRun(
        bootstrap=config.bootstrap,
        prefix=config.prefix,
        store=config.store,
        gateway=f"ws://127.0.0.1:{config.gateway_port}" if config.gateway_port else "",
        partitions=config.partitions,
        kind=options.broker,
    )


async def _delete_earlier(data: Path, bootstrap: str) -> None:
    """Topics of this folder's last run on a broker that outlives runs: nobody will ask for them any more."""
    earlier = read_current_run(data)
    if earlier is not None and earlier.bootstrap == bootstrap and earlier.prefix:
        names = [earlier.prefix + spec.name for spec in topic_specs(earlier.partitions)]
        await delete_topics(bootstrap, names)


@contextlib.contextmanager
def workers(config: PipelineConfig) -> Iterator[None]:
    """The workers of a prepared pipeline, ended in order afterwards. Raises RunError if they ended by themselves.

    Their supervisor has a process group of its own: Ctrl-C reaches us alone.
    """
    log_path = Path(config.folder) / "supervisor.log"
    with open(log_path, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams.pipeline.workers", str(Path(config.folder) / "config.json")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
    try:
        yield
        if process.poll() is not None:
            raise RunError(f"the workers ended by themselves with code {process.returncode}: see {log_path}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


async def _feed(
    world: World, options: RunOptions, feeder: Feeder, observer: Observer, listener: Listener
) -> tuple[int, float]:
    """Send block after block -> (number of the last one, seconds from the first barrier on)."""
    await feeder.send_listings(world)
    last, started = -1, 0.0
    with _interruptible() as interrupted:
        for place, inputs in enumerate(world.blocks):
            began = time.monotonic()
            last = inputs.block.number
            await _send(feeder, inputs)
            listener("block_sent", {"block": last, "time_ms": inputs.block.time_ms, "count": place + 1})
            await observer.wait_for(partial(observer.is_done, last), BLOCK_LIMIT_S if place else START_LIMIT_S)
            started = started or time.monotonic()
            if not interrupted.is_set() and options.paced_ms is not None:
                await _pause(interrupted, options.paced_ms / 1e3 - (time.monotonic() - began))
            if interrupted.is_set():
                break
    if last < 0:
        raise RunError(f"{world.name} has no blocks")
    await observer.wait_for(observer.is_enforced, BLOCK_LIMIT_S)
    await observer.catch_up(BLOCK_LIMIT_S)
    return last, time.monotonic() - started


async def _pause(interrupted: asyncio.Event, rest_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(interrupted.wait(), max(0.0, rest_s))


async def _until_stored(config: PipelineConfig, observer: Observer) -> None:
    """The sink has written everything that was observed of the topics it keeps."""
    from streams.sink.rows import TABLES  # brings pyarrow along

    if not config.store:
        return
    ends = {log: end for log, end in observer.ends.items() if log.partition("/")[0] in TABLES}
    async with asyncio.timeout(STORE_LIMIT_S):
        while not await asyncio.to_thread(_is_stored, config.store, ends):
            await asyncio.sleep(POLL_S)


def _is_stored(store: str, ends: dict[str, int]) -> bool:
    try:
        with QueryClient(store, attach_only=True) as client:
            stored = client.ask("stored")
    except StoreError:  # the sink is not there yet, or just being restarted
        return False
    return all(stored.get(log, 0) >= end for log, end in ends.items())


async def _send(feeder: Feeder, inputs: BlockInputs) -> None:
    await feeder.send_inputs(inputs)
    await feeder.announce(inputs)


@contextlib.contextmanager
def _interruptible() -> Iterator[asyncio.Event]:
    """The first Ctrl-C ends the feeding after the present block."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _rss_mb(folder: Path) -> float:
    """Largest resident size of a risk worker, MB."""
    largest = 0.0
    for pid_file in folder.glob("risk-*.pid"):
        with contextlib.suppress(OSError, ValueError):
            status = Path(f"/proc/{int(pid_file.read_text())}/status").read_text()
            line = next(text for text in status.splitlines() if text.startswith("VmRSS"))
            largest = max(largest, int(line.split()[1]) / 1024)
    return round(largest, 1)


def _report(
    world: World, options: RunOptions, observer: Observer, last: int, wall_s: float, rss_mb: float
) -> RunReport:
    call_ms, counts = observer.call_latencies_ms(), observer.counts
    blocks_ms = [observer.block_latency_ms(block) for block in {n for n, _ in observer.done_ms}]
    accounts = observer.accounts(last)
    figures = {
        "world": world.name,
        "broker": options.broker,
        "blocks": counts["blocks"],
        "accounts": accounts,
        "fills": counts["fills"],
        "warnings": counts["margin_warning"],
        "margin_calls": counts["call"],
        "flags": counts["flag"],
        "releases": counts["release"],
        "liquidations": counts["liquidation"],
        "quarantined": len(observer.quarantined),
        "wide_share": round(len(observer.wide_accounts) / max(accounts, 1), 5),
        "state_digest": observer.state_digest(last),
        "output_digest": observer.output_digest(),
        "barrier_to_last_call_ms_p50": _quantile(call_ms, 0.50),
        "barrier_to_last_call_ms_p99": _quantile(call_ms, 0.99),
        "block_ms_p50": _quantile(blocks_ms, 0.50),
        "blocks_per_s": round(max(counts["blocks"] - 1, 0) / wall_s, 1) if wall_s else None,
        "risk_worker_rss_mb": rss_mb,
        "scenarios": world.scenario_set.size,
    }
    nearest = observer.nearest(NEAREST)
    for row in nearest:
        row["state"] = STATES[row["state"]]
    return RunReport(figures, nearest, world.facts)


def _quantile(values: list[int], share: float) -> int | None:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
