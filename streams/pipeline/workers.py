"""`python -m streams.pipeline.workers CONFIG`: the supervisor process of a pipeline, and what it runs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from msgspec import structs

from streams.pipeline.config import PipelineConfig, read_config
from streams.runtime.notes import introduce
from streams.runtime.supervisor import Supervisor, WorkerSpec

SHELL_MODULES = ("streams.runtime.worker", "faust.app", "faust.transport.drivers.aiokafka", "faust.cli.worker")
RISK_MODULES = (*SHELL_MODULES, "streams.agents.risk", "streams.simulate.warm_up")


def worker_specs(config: PipelineConfig) -> list[WorkerSpec]:
    """Every worker by its stable name."""
    roles = ["sequencer", "enforcement"]
    names = [(role, role) for role in roles]
    names += [("risk", f"risk-{number}") for number in range(config.risk_workers)]
    if config.store:
        names.append(("sink", "sink"))
    if config.gateway_port:
        names.append(("gateway", "gateway"))
    return [
        WorkerSpec(name, _target(role, _with_own_port(config, place), name), warm=_warm_modules(role))
        for place, (role, name) in enumerate(names)
    ]


def _with_own_port(config: PipelineConfig, place: int) -> PipelineConfig:
    """The workers of one machine take the metrics ports upwards from the configured one, in their order."""
    port = config.metrics_port + place if config.metrics_port else 0
    return structs.replace(config, metrics_port=port)


def _warm_modules(role: str) -> tuple[str, ...]:
    """What the parent may import before it forks; chDB must be opened only in its own process, so the sink's is not."""
    return RISK_MODULES if role == "risk" else SHELL_MODULES


def _target(role: str, config: PipelineConfig, name: str) -> Callable[[], int]:
    return lambda: run_role(role, config, name)


def run_role(role: str, config: PipelineConfig, name: str) -> int:
    """One worker in this process, until it is told to stop."""
    introduce(config.log_format, worker=name, role=role)
    return int(importlib.import_module(f"streams.agents.{role}").run(config, name))


def run_alone(role: str, config: PipelineConfig, name: str) -> NoReturn:
    """The same without a supervisor, which would have imported and compiled first, and ended the process for good."""
    for module in _warm_modules(role):
        getattr(importlib.import_module(module), "warm", lambda: None)()
    code = run_role(role, config, name)
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
