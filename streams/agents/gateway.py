"""The gateway's agent: public logs -> WebSocket. Any number may run, each a replica in a group of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas import topics
from streams.gateway.hub import RING_EVENTS, TOPICS, Hub, HubFault
from streams.gateway.margins import MarginReplica
from streams.gateway.server import DEFAULT_PORT, Gateway, GatewayError
from streams.pipeline.config import PipelineConfig
from streams.runtime.exits import die
from streams.runtime.machine import Headers, LogPosition, Machine, Output
from streams.runtime.notes import note
from streams.runtime.settings import RuntimeSettings
from streams.runtime.worker import RoleApp, Runtime, make_app, run_worker


class GatewayMachine:
    """The shell's view of hub and replica. Also its factory: there is one a process, and no checkpoint."""

    def __init__(self, gateway: Gateway, margins: MarginReplica) -> None:
        self.gateway, self.margins = gateway, margins
        self._positions: dict[LogPosition, int] = {}

    def empty(self, unit: int) -> Machine:
        return self

    def load(self, unit: int, raw: bytes) -> Machine:
        raise HubFault("a gateway has no checkpoints")

    def unit_of(self, topic: str, partition: int) -> int:
        return 0

    def positions(self) -> dict[LogPosition, int]:
        return dict(self._positions)

    def steps(
        self, topic: str, partition: int, offset: int, value: bytes | None, headers: Headers
    ) -> Iterator[list[Output]]:
        if value is None:
            raise HubFault(f"{topic}/{partition} offset {offset} has no value")
        if topic == topics.MARGIN_BATCHES:
            self.margins.take(partition, value)
        else:
            self.gateway.hub.publish(topic, partition, value)
        self._positions[topic, partition] = offset + 1
        yield from ()

    def start(self) -> list[Output]:
        return []

    def is_long(self, topic: str, value: bytes | None) -> bool:
        return False

    def checkpoint_mark(self) -> int | None:
        return None

    def dump(self) -> bytes:
        raise HubFault("a gateway has no checkpoints")


class GatewayRuntime(Runtime):
    """Listens before the group is joined. Starts near the end of the logs: as far back as the rings reach."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.positions_source = self._starting_positions

    async def _starting_positions(self, unit: int, logs: frozenset[LogPosition]) -> dict[LogPosition, int]:
        bounds = await self.probe.bounds_of([(self.settings.topic(topic), partition) for topic, partition in logs])
        found = {}
        for topic, partition in logs:
            first, end = bounds[self.settings.topic(topic), partition]
            back = 1 if topic == topics.MARGIN_BATCHES else RING_EVENTS
            found[topic, partition] = max(first, end - back)
        return found

    async def start(self, app: RoleApp) -> None:
        machine: Any = self.factory
        try:
            await machine.gateway.start()
        except GatewayError as error:
            die(str(error))
        note("gateway_listening", url=machine.gateway.url)
        await super().start(app)

    async def stop(self) -> None:
        machine: Any = self.factory
        await machine.gateway.stop()
        await super().stop()


def make_gateway(
    settings: RuntimeSettings, *, name: str, epoch: str, host: str = "127.0.0.1", port: int = DEFAULT_PORT
) -> RoleApp:
    """The Faust app of a gateway. `name` is its own: it is also its group, because every gateway reads everything."""
    margins = MarginReplica()
    machine = GatewayMachine(Gateway(Hub(epoch), margins, host, port), margins)
    wanted = [*TOPICS, topics.MARGIN_BATCHES]
    return make_app(name, wanted, machine, settings, name=name, runtime_class=GatewayRuntime)


def run(config: PipelineConfig, name: str) -> int:
    """Run a gateway of a pipeline until it is told to stop."""
    host, port = config.gateway_host, config.gateway_port
    return run_worker(make_gateway(config.settings(), name=name, epoch=config.run_name, host=host, port=port))
