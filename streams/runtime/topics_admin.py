"""Creating and deleting topics on either broker, each topic's own answer checked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    NoError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from streams.runtime.broker_access import obstacle
from streams.runtime.security import BrokerSecurity

POLL_S = 0.05
PLAINTEXT = BrokerSecurity()


@dataclass(frozen=True)
class TopicSpec:
    """A topic as it has to be. `configs` are Kafka's topic settings, as strings."""

    name: str
    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)
    replication_factor: int = 1


class TopicsError(Exception):
    """The broker refused, an existing topic has another number of partitions, or the time ran out."""


async def ensure_topics(
    bootstrap: str, specs: Iterable[TopicSpec], timeout_s: float = 30.0, security: BrokerSecurity = PLAINTEXT
) -> None:
    """Creates what is missing and returns when every topic is visible with a leader for each partition.

    A topic that exists is left as it is if it has the stated number of partitions. Raises TopicsError.
    """
    wanted = {spec.name: spec for spec in specs}
    if wanted:
        await _within(timeout_s, bootstrap, security, lambda admin: _ensure(admin, wanted))


async def delete_topics(
    bootstrap: str, names: Iterable[str], timeout_s: float = 30.0, security: BrokerSecurity = PLAINTEXT
) -> None:
    """Deletes the topics (unknown ones are fine) and returns when none of them is visible. Raises TopicsError."""
    gone = set(names)
    if gone:
        await _within(timeout_s, bootstrap, security, lambda admin: _delete(admin, gone))


async def members_of(
    bootstrap: str, groups: Iterable[str], timeout_s: float = 30.0, security: BrokerSecurity = PLAINTEXT
) -> dict[str, list[str]]:
    """Consumer groups that have members now -> what these call themselves. Raises TopicsError."""
    found: dict[str, list[str]] = {}
    await _within(timeout_s, bootstrap, security, lambda admin: _members(admin, groups, found))
    return found


async def _ensure(admin: AIOKafkaAdminClient, wanted: Mapping[str, TopicSpec]) -> None:
    new = [NewTopic(s.name, s.partitions, s.replication_factor, topic_configs=dict(s.configs)) for s in wanted.values()]
    _check((await admin.create_topics(new)).topic_errors, TopicAlreadyExistsError)
    while not all(_visible(topic, wanted) for topic in (await admin.describe_topics(list(wanted)))):
        await asyncio.sleep(POLL_S)


async def _delete(admin: AIOKafkaAdminClient, gone: set[str]) -> None:
    _check((await admin.delete_topics(sorted(gone))).topic_error_codes, UnknownTopicOrPartitionError)
    while gone & set(await admin.list_topics()):
        await asyncio.sleep(POLL_S)


async def _members(admin: AIOKafkaAdminClient, groups: Iterable[str], found: dict[str, list[str]]) -> None:
    for name in groups:
        for answer in await admin.describe_consumer_groups([name]):
            for _, group, _, _, _, members, *_ in answer.groups:
                if members:
                    found[group] = [client for _, client, *_ in members]


async def _within(
    timeout_s: float, bootstrap: str, security: BrokerSecurity, work: Callable[[AIOKafkaAdminClient], Awaitable[None]]
) -> None:
    """Does the work on a fresh client, again while the broker is away, until the time runs out."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **security.client_options())
                try:
                    await admin.start()
                    return await work(admin)
                except (KafkaConnectionError, NodeNotReadyError) as error:
                    found = await obstacle(bootstrap, security)
                    if found is not None and found.lasting:
                        raise TopicsError(found.text) from error
                    await asyncio.sleep(POLL_S)
                finally:
                    await admin.close()
    except TimeoutError as error:
        found = await obstacle(bootstrap, security)
        why = found.text if found else f"the broker at {bootstrap} does not do what it was asked"
        raise TopicsError(f"{why} (waited {timeout_s:g} s)") from error


def _check(answers: Iterable[Sequence[Any]], harmless: type[KafkaError]) -> None:
    """Raises TopicsError if a topic's answer (name, code, reason if there is one) is an error other than `harmless`."""
    for name, code, *reason in answers:
        error = for_code(code)
        if error is not NoError and error is not harmless:
            raise TopicsError(f"topic {name}: {error.__name__} {reason[0] if reason else ''}".rstrip())


def _visible(topic: Mapping[str, Any], wanted: Mapping[str, TopicSpec]) -> bool:
    if topic["error_code"] or any(partition["leader"] < 0 for partition in topic["partitions"]):
        return False
    spec = wanted[topic["topic"]]
    if len(topic["partitions"]) != spec.partitions:
        raise TopicsError(
            f"topic {spec.name} has {len(topic['partitions'])} partitions, not {spec.partitions}: "
            "their number never changes in place"
        )
    return True
