"""`python -m streams.pipeline.workers CONFIG`: the supervisor process of a pipeline, and what it runs."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

from msgspec import structs

from streams.pipeline.config import PipelineConfig, read_config
from streams.runtime.notes import introduce
from streams.runtime.supervisor import Supervisor, WorkerSpec

SHELL_MODULES = ("streams.runtime.worker", "faust.app", "faust.transport.drivers.aiokafka", "faust.cli.worker")
GROUPED = ("sequencer", "risk", "enforcement")  # roles that may have more than one group
KERNELS = "streams.simulate.warm_up"
RISK_MODULES = (*SHELL_MODULES, "streams.agents.risk", KERNELS)


class Named(NamedTuple):
    """A worker of an installation: its role, its stable name, its hot-standby group."""

    role: str
    name: str
    group: int = 0


def worker_specs(config: PipelineConfig) -> list[WorkerSpec]:
    """Every worker, as the supervisor wants it."""
    named = [Named("sequencer", group_name("sequencer", group), group) for group in range(config.sequencers)]
    for group in range(config.groups):
        named += group_members(config, group)
    if config.model:
        named.append(Named("model", "model"))
    if config.store:
        named.append(Named("sink", "sink"))
    if config.gateway_port:
        named.append(Named("gateway", "gateway"))
    return [_spec(_with_own_port(config, place), one) for place, one in enumerate(named)]


def group_members(config: PipelineConfig, group: int) -> list[Named]:
    """Enforcement and risk workers of one group; group 0 is the first among equals in name only."""
    stem = group_name("risk", group)
    risk = [Named("risk", f"{stem}-{number}", group) for number in range(config.risk_workers)]
    return [Named("enforcement", group_name("enforcement", group), group), *risk]


def group_name(role: str, group: int) -> str:
    """Stem of the names of a group's workers."""
    return f"{role}-standby{group}" if group else role


def _with_own_port(config: PipelineConfig, place: int) -> PipelineConfig:
    """The workers of one machine take the metrics ports upwards from the configured one, in their order."""
    port = config.metrics_port + place if config.metrics_port else 0
    return structs.replace(config, metrics_port=port)


def _spec(config: PipelineConfig, one: Named) -> WorkerSpec:
    return WorkerSpec(one.name, lambda: run_role(one.role, config, one.name, one.group), warm=_warm_modules(one.role))


def _warm_modules(role: str) -> tuple[str, ...]:
    """What the parent may import before it forks; chDB must be opened only in its own process, so the sink's is not.

    Roles with kernels have them compiled before they join their group: in the event loop the watchdog would end it.
    """
    if role == "risk":
        return RISK_MODULES
    return (*SHELL_MODULES, KERNELS) if role in ("sequencer", "model") else SHELL_MODULES


def run_role(role: str, config: PipelineConfig, name: str, group: int = 0) -> int:
    """One worker in this process, until it is told to stop."""
    introduce(config.log_format, worker=name, role=role)
    of_group = (group,) if role in GROUPED else ()
    return int(importlib.import_module(f"streams.agents.{role}").run(config, name, *of_group))


def run_alone(role: str, config: PipelineConfig, name: str, group: int = 0) -> NoReturn:
    """The same without a supervisor, which would have imported and compiled first, and ended the process for good."""
    for module in _warm_modules(role):
        getattr(importlib.import_module(module), "warm", lambda: None)()
    code = run_role(role, config, name, group)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Faust leaves threads behind that would keep the process


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m streams.pipeline.workers CONFIG.json", file=sys.stderr)
        return 2
    config = read_config(Path(sys.argv[1]))
    introduce(config.log_format, role="supervisor")
    return Supervisor(worker_specs(config), config.folder, session_s=config.session_s).run()


if __name__ == "__main__":
    sys.exit(main())
