"""A run, read back: its logs, checkpoints, scenarios. That of a data folder, whose broker is started again if it has
ended, or an installation of `dpme run`, by its configuration and with its passwords and certificates."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from streams.cli.errors import CommandError

if TYPE_CHECKING:
    from oracles.scenario_set import ScenarioSet
    from streams.runtime.checkpoints import Checkpoint
    from streams.runtime.kafka_process import Broker
    from streams.runtime.log_reader import LogReader
    from streams.runtime.settings import RuntimeSettings
    from streams.sink.current_run import CurrentRun

EXAMPLES_SHOWN = 5
Record = tuple[int, bytes]  # offset in its partition, value
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Installation of `dpme run` instead of the last run of --data.")
]


class Source(NamedTuple):
    """Where a run's topics are, and how to reach them."""

    partitions: int
    settings: RuntimeSettings


@contextlib.contextmanager
def source_of(data: Path, config: Path | None) -> Iterator[Source]:
    """The installation of a configuration, or the last run of a data folder."""
    if config is not None:
        from streams.cli.run import read as read_configuration

        installation = read_configuration(config)
        yield Source(installation.partitions, installation.settings())
        return
    from streams.runtime.settings import RuntimeSettings

    with _broker_of(data) as run:
        yield Source(run.partitions, RuntimeSettings(bootstrap=run.bootstrap, prefix=run.prefix))


@contextlib.contextmanager
def _broker_of(data: Path) -> Iterator[CurrentRun]:
    """The last run of a data folder, with a broker that has its logs."""
    from streams.sink.current_run import read_current_run

    run = read_current_run(data)
    if run is None:
        raise CommandError(f"there is no run in {data}: start one with `dpme demo`, or name its folder with --data")
    from msgspec.structs import replace

    from streams.pipeline.run import claimed
    from streams.runtime.kafka_process import answers

    host, _, port = run.bootstrap.rpartition(":")
    home = data / "run" / "broker"
    if host not in ("127.0.0.1", "localhost") or answers(int(port)) or not home.exists():
        yield run
        return
    with claimed(data), _own_broker(run.kind, home, int(port)) as broker:
        yield replace(run, bootstrap=broker.address)


def _own_broker(kind: str, home: Path, port: int) -> Broker:
    """The broker that a run had started for itself, over the same data."""
    from streams.cli.doctor import is_free
    from streams.runtime.kafka_process import DevelopmentBroker, KafkaBroker

    if kind == "dev":
        return DevelopmentBroker(home)
    return KafkaBroker(home, port if is_free(port) else 0)


class RunReader:
    """Reads the topics of a run; from `reading`."""

    def __init__(self, source: Source, reader: LogReader) -> None:
        self.partitions, self.settings, self.reader = source.partitions, source.settings, reader

    async def log(self, topic: str, partition: int, begin: int = 0) -> list[Record]:
        """Records of a topic's partition from an offset on to what is its end now."""
        name = self.settings.topic(topic)
        low, high = await self.reader.bounds(name, partition)
        return [(r.offset, r.value) for r in await self.reader.read(name, partition, max(low, begin), high)]

    async def checkpoint(self, partition: int) -> Checkpoint | None:
        """The newest whole checkpoint of a risk partition."""
        from schemas.topics import CHECKPOINTS
        from streams.runtime.checkpoints import CheckpointReader

        return await CheckpointReader(self.reader, self.settings.topic(CHECKPOINTS)).newest(partition)

    async def genesis(self, partition: int) -> bytes | None:
        """The state that the log begins with; None where it begins with nothing."""
        from schemas.topics import GENESIS
        from streams.runtime.checkpoints import CheckpointReader

        if not self.settings.generation:
            return None
        found = await CheckpointReader(self.reader, self.settings.topic(GENESIS)).newest(partition)
        return found.state if found is not None else None

    async def scenario_sets(self) -> dict[str, ScenarioSet]:
        """Every scenario set of the run, by digest."""
        from streams.pipeline.scenario_store import load_scenario_sets

        return await load_scenario_sets(self.settings)


@contextlib.asynccontextmanager
async def reading(source: Source) -> AsyncIterator[RunReader]:
    """A connection to a run's broker, which must still have its logs."""
    from schemas.topics import ACCOUNT_LOG
    from streams.runtime.log_reader import LogReader

    settings = source.settings
    reader = LogReader(settings)
    await reader.start()
    try:
        topic = settings.topic(ACCOUNT_LOG)
        if topic not in await reader.topics():
            where = settings.bootstrap
            raise CommandError(f"the broker at {where} has no topic {topic}: no run is there, or no longer")
        yield RunReader(source, reader)
    finally:
        await reader.stop()


def near_matches(name: str, known: Iterable[str]) -> str:
    """A few known names that are most like `name`, as text: empty where nothing is known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, EXAMPLES_SHOWN, 0.5) or names[:EXAMPLES_SHOWN]
    return ", ".join(near)


def unknown_account(account: str, known: Iterable[str]) -> CommandError:
    """What to say where the run does not have the account."""
    near = near_matches(account, known)
    exist = f"; some that exist: {near}" if near else "; the run has no accounts yet"
    return CommandError(f"the last run has no account {account!r}{exist}")


def liquidations_of(account: str, log: Iterable[Record]) -> list[dict[str, Any]]:
    """The liquidation events of an account in the records of `liquidations`, each once."""
    from schemas.codec import decode_output

    told: dict[str, dict[str, Any]] = {}
    for _, raw in log:
        for event in decode_output(raw)["events"]:
            if event["account"] == account:
                told[event["id"]] = event
    return list(told.values())
