"""`dpme run`: the workers of an installation on a broker of your own, for inputs from your own producers."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from schemas.topics import topic_specs
from streams.pipeline.config import ConfigError, PipelineConfig, read_config
from streams.pipeline.workers import group_name, run_alone, worker_specs
from streams.runtime.broker_access import obstacle
from streams.runtime.notes import introduce
from streams.runtime.supervisor import Supervisor
from streams.runtime.topics_admin import TopicsError, TopicSpec, ensure_topics

ROLES = ("all", "topics", "sequencer", "risk", "enforcement", "model", "sink", "gateway")
EXAMPLE = PipelineConfig(
    bootstrap="127.0.0.1:9092",
    prefix="dpme.",
    folder=".dpme/live/workers",
    partitions=4,
    risk_workers=2,
    store=".dpme/live/store",
    gateway_port=8765,
    metrics_port=9100,
)


app = typer.Typer(add_completion=False)


@app.command()
def run(
    role: Annotated[str, typer.Argument(help="all (one supervisor for every worker), topics, or one role.")] = "all",
    config: Annotated[Path | None, typer.Option("--config", help="JSON file; see --example.")] = None,
    name: Annotated[str, typer.Option("--name", help="Stable name of a worker; {hostname} is filled in.")] = "",
    group: Annotated[int, typer.Option("--group", help="Which one of its role's groups a worker is of.")] = 0,
    example: Annotated[bool, typer.Option("--example", help="Print a configuration to start from.")] = False,
) -> None:
    """Run the workers of an installation until SIGTERM or Ctrl-C.

    Producers write JSON to the input topics (instruments, chain.blocks, oracle.ticks, account.fills); `dpme run topics`
    creates all topics. `all` supervises every worker of the configuration: the dead are started again.

    A variable DPME_<FIELD> wins over the field of the file. Passwords come only from DPME_SASL_PASSWORD and
    DPME_STORE_PASSWORD, or from files that the configuration names: see infra/docs/operations.md.

    Example:  dpme run --example > live.json;  dpme run topics --config live.json;  dpme run all --config live.json
    """
    if example:
        print(msgspec.json.format(msgspec.json.encode(EXAMPLE)).decode())
        return
    if role not in ROLES:
        raise typer.BadParameter(f"{role!r} is no role: choose one of {', '.join(ROLES)}")
    if config is None:
        raise typer.BadParameter("--config FILE is missing; `dpme run --example` prints one to start from")
    raise typer.Exit(_run(role, read(config), name, group))


def read(path: Path) -> PipelineConfig:
    try:
        config = read_config(path, os.environ)
        config.settings()  # a missing password or certificate is said before anything starts
        return config
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}") from error
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def _run(role: str, config: PipelineConfig, name: str, group: int) -> int:
    introduce(config.log_format, role="supervisor")
    if role in ("all", "topics"):
        _make_topics(config)
    if role == "topics":
        return 0
    if role == "all":
        _say_if_nothing_can_be_margined(config)
        return Supervisor(worker_specs(config), config.folder, session_s=config.session_s).run()
    if not 0 <= group < config.groups_of(role):
        said = f"the configuration says {config.groups_of(role)}"
        raise typer.BadParameter(f"--group {group}: {role} has no such group; {said}")
    _check_broker(config)
    chosen = name.replace("{hostname}", socket.gethostname()) or f"{group_name(role, group)}-0"
    return run_alone(role, config, chosen, group)


def _check_broker(config: PipelineConfig) -> None:
    """Before anything is compiled; a broker that is only away may come back while a supervisor starts us again."""
    found = asyncio.run(obstacle(config.bootstrap, config.security()))
    if found is not None and found.lasting:
        raise typer.BadParameter(found.text)


def _say_if_nothing_can_be_margined(config: PipelineConfig) -> None:
    """Here too: what the workers say is in their logs."""
    from streams.pipeline.scenario_store import ScenarioSets

    scenario_sets = ScenarioSets(config.settings())
    scenario_sets.fetch()
    scenario_sets.say_if_empty()


def _make_topics(config: PipelineConfig) -> None:
    settings = config.settings()
    specs = [
        TopicSpec(settings.topic(s.name), s.partitions, s.configs, config.replication_factor)
        for s in topic_specs(config.partitions)
    ]
    try:
        asyncio.run(ensure_topics(config.bootstrap, specs, security=settings.security))
    except TopicsError as error:
        raise typer.BadParameter(str(error)) from error
