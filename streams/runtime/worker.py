"""A role as a Faust worker: one thin agent over its topics, everything else in the shell.

app = make_app("risk", ["account.log"], factory, settings, name="risk-0", checkpoint_topic="checkpoints.risk")
run_worker(app)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, cast

import faust
import uvloop
from faust.types import TP
from mode.utils.queues import ThrowableQueue

from streams.runtime import supervisor
from streams.runtime.broker_access import connected
from streams.runtime.checkpoints import CheckpointReader
from streams.runtime.exits import DRAIN_SIGNAL, DRAINED, die
from streams.runtime.freed_memory import share_pools
from streams.runtime.health import HealthServer
from streams.runtime.log_reader import LogReader
from streams.runtime.machine import LogPosition, MachineFactory, PositionsSource
from streams.runtime.meter import Meter
from streams.runtime.notes import NoteHandler, note
from streams.runtime.producer import new_producer
from streams.runtime.settings import RuntimeSettings
from streams.runtime.shell import Shell
from streams.runtime.standing import WorkerStanding
from streams.runtime.transport import CheckpointConsumer, CheckpointTransport, PromptTableManager
from streams.runtime.watchdog import Watchdog

FETCH_BYTES = 8 << 20  # of a partition at once
_TOPIC_POLL_S = 0.2
_STOP_LIMIT_S = 10.0


class Runtime:
    """Everything of a worker that is not Faust: connections, shell, watchdog. Started before the group is joined."""

    shell_class = Shell

    def __init__(
        self,
        role: str,
        topics: Sequence[str],
        factory: MachineFactory,
        settings: RuntimeSettings,
        *,
        name: str,
        gap_topics: Iterable[str] = (),
        checkpoint_topic: str | None = None,
        positions_source: PositionsSource | None = None,
    ) -> None:
        self.role, self.topics, self.factory, self.settings, self.name = role, tuple(topics), factory, settings, name
        self.gap_topics = frozenset(gap_topics)
        self.checkpoint_topic, self.positions_source = checkpoint_topic, positions_source
        self.draining = False
        self._ends_at_restore: dict[LogPosition, int] = {}  # emptied once every position has reached them
        self.standing = WorkerStanding(settings.ready_lag_records)
        self.meter = Meter(name, supervisor.restarts(), self.standing)
        self.health: HealthServer | None = None

    async def start(self, app: RoleApp) -> None:
        """Connects, waits until every topic is visible, and builds the shell."""
        self.app = app
        if self.settings.metrics_port:
            self.health = HealthServer(self.settings.metrics_host, self.settings.metrics_port, self.meter)
        self.producer = new_producer(self.settings)
        self.probe, self.loader, self.janitor = (LogReader(self.settings) for _ in range(3))
        readers = [self.probe, self.loader, self.janitor] if self.checkpoint_topic else [self.probe]
        await asyncio.gather(connected(self.producer, self.settings), *(reader.start() for reader in readers))
        await self._wait_for_topics()
        self.shell = self._new_shell()
        self.watchdog = Watchdog(self.settings.stall_limit_s, self.settings.idle_allowed)
        self.watchdog.start()
        self.standing.follow(self.shell, self.watchdog)
        self._watching = asyncio.create_task(self.watchdog.watch(self._positions, self._behind))
        note("ready", role=self.role, name=self.name)

    async def _wait_for_topics(self) -> None:
        """A group leader that joins before a topic is visible hands out none of its partitions to anyone."""
        wanted = {self.settings.topic(topic) for topic in (*self.topics, *filter(None, [self.checkpoint_topic]))}
        said = False
        while missing := wanted - (await self.probe.topics()).keys():
            if not said:
                note("waiting_for_topics", topics=sorted(missing))
            said = True
            await asyncio.sleep(_TOPIC_POLL_S)

    def _new_shell(self) -> Shell:
        topic = self.checkpoint_topic
        full_name = self.settings.topic(topic) if topic else ""
        return self.shell_class(
            settings=self.settings,
            name=self.name,
            factory=self.factory,
            producer=self.producer,
            first_between=self._first_between,
            gap_topics=self.gap_topics,
            checkpoint_topic=topic,
            checkpoint_loader=CheckpointReader(self.loader, full_name) if topic else None,
            checkpoint_janitor=CheckpointReader(self.janitor, full_name) if topic else None,
            positions_source=self.positions_source,
            saw=self.meter.saw if self.settings.metrics_port else None,
        )

    async def restore(self, assigned: set[TP]) -> dict[TP, int]:
        """The seam: full names in, positions out."""
        logs = {self._log(at): at for at in assigned}
        restored = asyncio.wait_for(self.shell.restore(logs), self.settings.restore_limit_s)
        offsets, ends = await asyncio.gather(restored, self.probe.ends([(at.topic, at.partition) for at in assigned]))
        self._ends_at_restore = {log: ends[at.topic, at.partition] for log, at in logs.items()}
        if not assigned:
            self._caught_up()
        return {logs[log]: offset for log, offset in offsets.items()}

    def _log(self, at: TP) -> LogPosition:
        return self.settings.short(at.topic), at.partition

    async def _first_between(self, topic: str, partition: int, low: int, high: int) -> int | None:
        return await self.probe.first_between(self.settings.topic(topic), partition, low, high)

    def _positions(self) -> dict[LogPosition, int]:
        try:
            assigned = [self._log(at) for at in self.app.consumer.assignment()]
        except Exception:  # Faust's consumer has not started yet: no assignment
            return {}
        found = {log: self.shell.position(log) for log in assigned}
        positions = {log: -1 if offset is None else offset for log, offset in found.items()}
        if not positions:
            self.standing.asked({}, {})
        return positions

    async def _behind(self, positions: dict[LogPosition, int]) -> set[LogPosition]:
        ends = await self.probe.ends([(self.settings.topic(topic), partition) for topic, partition in positions])
        self.standing.asked(positions, {self._log(TP(*at)): end for at, end in ends.items()})
        below = {log for log in positions if positions[log] < ends[self.settings.topic(log[0]), log[1]]}
        holes = set()
        for topic, partition in below:  # behind markers and holes at the end of the log there is nothing to do
            low, high = max(0, positions[topic, partition]), ends[self.settings.topic(topic), partition]
            if topic in self.gap_topics and await self._first_between(topic, partition, low, high) is None:
                holes.add((topic, partition))
        self._note_when_caught_up(positions, below - holes)
        return below - holes

    def _note_when_caught_up(self, positions: dict[LogPosition, int], behind: set[LogPosition]) -> None:
        """Once after each restore: what a rolling restart waits for before it touches the next worker."""
        short = {log for log, end in self._ends_at_restore.items() if positions.get(log, -1) < end and log in behind}
        if self._ends_at_restore and not short and self._ends_at_restore.keys() <= positions.keys():
            self._ends_at_restore = {}
            self._caught_up()

    def _caught_up(self) -> None:
        self.shell.caught_up()
        note("caught_up", life=os.getpid())

    async def stop(self) -> None:
        """Finish what is under way and have it acknowledged. Nothing depends on it: a kill is as good."""
        self._watching.cancel()
        self.watchdog.stop()
        await self.shell.stop()
        await self.producer.stop()
        if self.health is not None:
            self.health.close()


class RoleApp(faust.App):
    """A Faust app whose offsets come from the shell, and in which any crashed service ends the process."""

    runtime: Runtime

    def _new_transport(self) -> CheckpointTransport:
        return CheckpointTransport(self.conf.broker_consumer, self)

    def FlowControlQueue(self, *arguments: Any, **options: Any) -> ThrowableQueue:
        """Faust stops asking for more, a second at a time, where a queue is nearly full. Ours are never nearly full:
        whoever puts into a full one waits for room."""
        queue = super().FlowControlQueue(*arguments, **options)
        queue.pressure_high_ratio = 0.5
        return queue

    async def on_first_start(self) -> None:
        await super().on_first_start()
        await self.runtime.start(self)  # before Faust's consumer joins the group

    def _crash(self, reason: BaseException) -> None:
        die("a Faust service crashed", reason)


def make_app(
    role: str,
    topics: Sequence[str],
    factory: MachineFactory,
    settings: RuntimeSettings,
    *,
    name: str,
    gap_topics: Iterable[str] = (),
    checkpoint_topic: str | None = None,
    positions_source: PositionsSource | None = None,
    runtime_class: type[Runtime] = Runtime,
) -> RoleApp:
    """The Faust app of a role; topic names are without prefix.

    name: stable and unique; with static membership at most one process may use it.
    gap_topics: those of `topics` that others write, where offsets may be missing.
    checkpoint_topic: compacted, a partition per unit. Without it the role starts at positions_source(unit, logs), or,
    without that, at the positions of the empty machine.
    """
    app = RoleApp(settings.group_id(role), **_faust_settings(settings, name))
    app.runtime = runtime_class(
        role,
        topics,
        factory,
        settings,
        name=name,
        gap_topics=gap_topics,
        checkpoint_topic=checkpoint_topic,
        positions_source=positions_source,
    )
    _add_agent(app, role, topics, settings)
    return app


def warm() -> None:
    """For a supervisor: an app that never runs. Faust imports much with the first one, and Python looks through all
    modules to note where its agent stands: together a tenth of a second of every life that is forked without it."""
    settings = RuntimeSettings()
    _add_agent(RoleApp("warm", **_faust_settings(settings, "warm")), "warm", ["warm"], settings)


def _faust_settings(settings: RuntimeSettings, name: str) -> dict[str, Any]:
    return {
        "broker": ";".join(f"kafka://{address}" for address in settings.bootstrap.split(",")),
        "broker_credentials": settings.security.faust_credentials(),
        "autodiscover": False,
        "web_enabled": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "TableManager": PromptTableManager,
        "stream_wait_empty": False,
        "stream_buffer_maxsize": settings.stream_buffer,
        "consumer_auto_offset_reset": "earliest",
        "consumer_group_instance_id": name if settings.static_membership else None,
        "consumer_metadata_max_age_ms": settings.metadata_age_ms,
        "consumer_max_fetch_size": FETCH_BYTES,
        "broker_client_id": name,
        "broker_session_timeout": settings.session_s,
        "broker_heartbeat_interval": settings.heartbeat_interval_s,
        "broker_rebalance_timeout": settings.rebalance_limit_s,
        "broker_request_timeout": settings.faust_request_timeout_s,
        "datadir": os.path.join(tempfile.gettempdir(), f"dpme-faust-{os.getuid()}"),
    }


def _add_agent(app: RoleApp, role: str, topics: Iterable[str], settings: RuntimeSettings) -> None:
    channel = app.topic(
        *(settings.topic(topic) for topic in topics),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        allow_empty=True,
    )

    @app.agent(channel, name=role)
    async def intake(stream: Any) -> None:
        async for event in stream.events():
            try:
                message = event.message
                await app.runtime.shell.feed(settings.short(message.topic), message.partition, message.records)
            except Exception as exception:  # cancellation passes: that is a rebalance or the end
                die("intake", exception)


def run_worker(app: RoleApp) -> int:
    """Run until SIGTERM (restart-safe) or DRAIN_SIGNAL (leave the group); the exit code is returned."""
    share_pools()
    logging.basicConfig(level=logging.WARNING, handlers=[NoteHandler()])
    logging.getLogger("aiokafka").setLevel(logging.NOTSET)  # commands for people silence it
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    app.loop = loop
    return loop.run_until_complete(_serve(app))


async def _serve(app: RoleApp) -> int:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.add_signal_handler(DRAIN_SIGNAL, _drain, app, ending)
    starting = asyncio.create_task(_start(app))
    await ending.wait()
    starting.cancel()
    with contextlib.suppress(asyncio.TimeoutError, asyncio.CancelledError):
        await asyncio.wait_for(_stop(app), _STOP_LIMIT_S)
    note("stopped", draining=app.runtime.draining)
    return DRAINED if app.runtime.draining else 0


async def _start(app: RoleApp) -> None:
    try:
        await app.start()
    except asyncio.CancelledError:
        raise
    except Exception as exception:
        die("start", exception)


async def _stop(app: RoleApp) -> None:
    """A static member that restarts need not tell the group, and Faust's own stop waits for a join under way."""
    if hasattr(app.runtime, "shell"):
        await app.runtime.stop()
    if app.runtime.draining or not app.runtime.settings.static_membership:
        await app.stop()


def _drain(app: RoleApp, ending: asyncio.Event) -> None:
    app.runtime.draining = True
    if app.runtime.settings.static_membership:
        cast(CheckpointConsumer, app.consumer).leave_on_stop()
    ending.set()
