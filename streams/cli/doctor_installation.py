"""What `dpme doctor --config FILE` checks of an installation: configuration, broker, topics, store, ports."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from schemas.topics import TopicSpec, topic_specs
from streams.cli.findings import BAD, OK, OPTIONAL, Finding
from streams.pipeline.config import ConfigError, PipelineConfig, read_config
from streams.runtime.broker_access import obstacle
from streams.runtime.settings import RuntimeSettings
from streams.sink.clickhouse_store import ClickHouseStore
from streams.sink.errors import StoreEmpty, StoreError
from streams.sink.store import is_server

ASK_LIMIT_S = 10.0
_CHECKED = ("cleanup.policy", "retention.ms", "max.message.bytes")


def check_installation(path: Path) -> Iterator[Finding]:
    """One finding after the other; what cannot be checked because of an earlier one is left out."""
    try:
        config = read_config(path, os.environ)
        settings = config.settings()
    except OSError as error:
        yield Finding("configuration", BAD, f"{path}: {error.strerror}", "dpme run --example > FILE prints one")
        return
    except ConfigError as error:
        yield Finding("configuration", BAD, str(error), "see infra/docs/operations.md for every field")
        return
    said = f"{path}: broker {config.bootstrap} ({config.security_protocol}), prefix {config.prefix!r}"
    yield Finding("configuration", OK, said)
    yield from asyncio.run(_check_broker(config, settings))
    yield _check_store(config)
    for name, host, port in (
        ("gateway port", config.gateway_host, config.gateway_port),
        ("metrics port", config.metrics_host, config.metrics_port),
    ):
        if port:
            yield _check_port(name, host, port)


async def _check_broker(config: PipelineConfig, settings: RuntimeSettings) -> list[Finding]:
    try:
        async with asyncio.timeout(ASK_LIMIT_S):
            admin = AIOKafkaAdminClient(**settings.client_options())
            try:
                await admin.start()
                return [Finding("broker", OK, f"{config.bootstrap} answers"), *await _check_topics(admin, config)]
            finally:
                await admin.close()
    except (KafkaError, OSError, TimeoutError) as error:
        return [await _without_broker(error, config, settings)]


async def _without_broker(error: Exception, config: PipelineConfig, settings: RuntimeSettings) -> Finding:
    found = await obstacle(config.bootstrap, settings.security)
    if found is None:
        said = f"{config.bootstrap} lets us in, and then: {str(error) or type(error).__name__}"
        return Finding("broker", BAD, said, "look at the broker's own log")
    advice = "mend that field, or its DPME_ variable" if found.lasting else "start it, or mend bootstrap"
    return Finding("broker", BAD, found.text, advice)


async def _check_topics(admin: AIOKafkaAdminClient, config: PipelineConfig) -> list[Finding]:
    settings = config.settings()
    wanted = {settings.topic(spec.name): spec for spec in topic_specs(config.partitions)}
    present = {t["topic"]: t for t in await admin.describe_topics(list(wanted)) if not t["error_code"]}
    create = "dpme run topics --config FILE creates what is missing"
    if missing := sorted(wanted.keys() - present.keys()):
        return [Finding("topics", BAD, f"{len(missing)} of {len(wanted)} are missing: {missing[0]}, ...", create)]
    wrong = [
        f"{name} has {len(present[name]['partitions'])} partitions, not {spec.partitions}"
        for name, spec in wanted.items()
        if len(present[name]["partitions"]) != spec.partitions
    ]
    if wrong:
        return [Finding("topics", BAD, "; ".join(wrong), "partitions never change in place: take another prefix")]
    differing = _differing(wanted, await _settings_of(admin, list(wanted)))
    if differing:
        return [Finding("topics", OPTIONAL, "; ".join(differing), "kafka-configs.sh --alter, or another prefix")]
    return [Finding("topics", OK, f"{len(wanted)} with the right partitions and settings")]


async def _settings_of(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """Topic -> its settings."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(asked):
        for _code, _message, _kind, name, entries in answer.resources:
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


def _differing(wanted: dict[str, TopicSpec], found: dict[str, dict[str, str]]) -> list[str]:
    """Settings that lose or refuse records if they are other than wanted."""
    differing = []
    for name, spec in wanted.items():
        for key in _CHECKED:
            want, have = spec.configs.get(key), found.get(name, {}).get(key)
            if want is not None and have is not None and want != have:
                differing.append(f"{name}: {key} is {have}, wanted {want}")
    return differing


def _check_store(config: PipelineConfig) -> Finding:
    if not config.store:
        advice = "set store to a folder or clickhouse://user@host:port/database"
        return Finding("store", OPTIONAL, "none configured", advice)
    if not is_server(config.store):
        return Finding("store", OK, f"chDB in {config.store}")
    try:
        store = ClickHouseStore(config.store, config.secret("store_password"))
    except StoreEmpty:
        return Finding("store", OK, f"{config.store} answers; its tables are made by the first sink")
    except (StoreError, ConfigError) as error:
        return Finding("store", BAD, str(error), "check store, DPME_STORE_PASSWORD or store_password_file")
    [row] = store.query("SELECT version() AS version")
    store.close()
    return Finding("store", OK, f"{config.store}: ClickHouse {row['version']}")


def _check_port(name: str, host: str, port: int) -> Finding:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        advice = "stop what listens there if it is not DPME, or choose another port"
        return Finding(name, OPTIONAL, f"{host}:{port}: {error.strerror}", advice)
    return Finding(name, OK, f"{host}:{port} is free")
