"""Faults of the broker itself: only of one that belongs to the run."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import TYPE_CHECKING

from streams.runtime.kafka_process import KafkaNode, answers
from tests.chaos.faults import fault
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.chaos.acts import Tormentor

BROKER = "broker"
NODE = "node"
OWN, CLUSTER = "a broker of its own", "three brokers (--brokers 3)"
AWAY_S, FREEZE_S, BOTH_AWAY_S = 6.0, 10.0, 8.0
RESTARTED_LIMIT_S = 60.0


@fault("kill broker", "SIGKILL of the broker, and at once a new life on the same log and port", BROKER,
       needs=OWN, always=(BROKER,), takes_s=8.0)  # fmt: skip
async def kill_broker(on: Tormentor, role: str) -> None:
    """From the main thread: it is to die with us."""
    if on.broker is not None:
        with on.lasting("kill broker", BROKER):
            on.broker.kill()
            on.broker.start()
        on.signals["SIGKILL"] += 1


@fault("kill node", "one of three brokers is killed, and comes back after a while", NODE, needs=CLUSTER,
       always=(NODE,), takes_s=20.0)  # fmt: skip
async def kill_node(on: Tormentor, role: str) -> None:
    with on.lasting("kill node", NODE):
        await _away(on, [on.chance.choice(on.nodes)], AWAY_S)


@fault("two nodes away", "two of three brokers are killed: nothing is acknowledged until one is back", NODE,
       needs=CLUSTER, always=(NODE,), takes_s=25.0)  # fmt: skip
async def two_nodes_away(on: Tormentor, role: str) -> None:
    with on.lasting("two nodes away", NODE):
        await _away(on, on.chance.sample(on.nodes, 2), BOTH_AWAY_S)


@fault("freeze node", "one of three brokers is silent, its connections stay open", NODE, needs=CLUSTER,
       always=(NODE,), takes_s=15.0)  # fmt: skip
async def freeze_node(on: Tormentor, role: str) -> None:
    node = on.chance.choice(on.nodes)
    with on.lasting("freeze node", NODE):
        node.signal(signal.SIGSTOP)
        on.signals["SIGSTOP"] += 1
        try:
            await asyncio.sleep(FREEZE_S)
        finally:
            node.signal(signal.SIGCONT)


async def _away(on: Tormentor, nodes: list[KafkaNode], span_s: float) -> None:
    for node in nodes:
        node.kill()
        on.signals["SIGKILL"] += 1
    await asyncio.sleep(span_s)
    for node in nodes:
        node.launch()
    for node in nodes:
        await wait_until(partial(asyncio.to_thread, answers, node.port), RESTARTED_LIMIT_S, poll_s=0.1)
