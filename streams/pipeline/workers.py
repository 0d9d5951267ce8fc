"""`python -m streams.pipeline.workers CONFIG`: the supervisor process of a pipeline, and what it runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from streams.pipeline.config import PipelineConfig, read_config
from streams.runtime.notes import introduce
from streams.runtime.supervisor import Supervisor, WorkerSpec

SHELL_MODULES = ("streams.runtime.worker", "faust.app", "faust.transport.drivers.aiokafka", "faust.cli.worker")
GROUPED = ("risk", "enforcement")  # roles of which hot standby has a group more
RISK_MODULES = (*SHELL_MODULES, "streams.agents.risk", "streams.simulate.warm_up")


def worker_specs(config: PipelineConfig) -> list[WorkerSpec]:
    """Every worker by its stable name."""
    specs = [_spec("sequencer", config, "sequencer")]
    for group in range(config.groups):
        specs += group_specs(config, group)
    if config.store:
        specs.append(_spec("sink", config, "sink"))
    if config.gateway_port:
        specs.append(_spec("gateway", config, "gateway"))
    return specs


def group_specs(config: PipelineConfig, group: int) -> list[WorkerSpec]:
    """Enforcement and risk workers of one group; group 0 is the first among equals in name only."""
    names = [("enforcement", group_name("enforcement", group))]
    names += [("risk", f"{group_name('risk', group)}-{number}") for number in range(config.risk_workers)]
    return [_spec(role, config, name, group) for role, name in names]


def group_name(role: str, group: int) -> str:
    """Stem of the names of a group's workers."""
    return f"{role}-standby{group}" if group else role


def _spec(role: str, config: PipelineConfig, name: str, group: int = 0) -> WorkerSpec:
    return WorkerSpec(name, _target(role, config, name, group), warm=_warm_modules(role))


def _warm_modules(role: str) -> tuple[str, ...]:
    """What the parent may import before it forks; chDB must be opened only in its own process, so the sink's is not."""
    return RISK_MODULES if role == "risk" else SHELL_MODULES


def _target(role: str, config: PipelineConfig, name: str, group: int) -> Callable[[], int]:
    return lambda: run_role(role, config, name, group)



def run_role(role: str, config: PipelineConfig, name: str, group: int = 0) -> int:
    """One worker in this process, until it is told to stop."""
    introduce(config.log_format, worker=name, role=role)
    of_group = (group,) if role in GROUPED else ()
    return int(importlib.import_module(f"streams.agents.{role}").run(config, name, *of_group))


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m streams.pipeline.workers CONFIG.json", file=sys.stderr)
        return 2
    config = read_config(Path(sys.argv[1]))
    introduce(config.log_format, role="supervisor")
    return Supervisor(worker_specs(config), config.folder, session_s=config.session_s).run()


if __name__ == "__main__":
    sys.exit(main())
