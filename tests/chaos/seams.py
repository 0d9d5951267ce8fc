"""`python -m tests.chaos.seams CONFIG.json`: the workers of a pipeline, with seams that faults reach by files.

FOLDER/NAME.clock             seconds by which the worker's wall clock is wrong, as long as the file is there
FOLDER/NAME.lost              the next acknowledgement is lost on the way: appended, but the client does not know
FOLDER/NAME.failed            the same, and the client gives up: appended, but the worker is told of an error
FOLDER/NAME.engine            version of the log's records that the worker's next life knows, and as sequencer writes
FOLDER/risk-guest-N.invited   a risk worker more, a dynamic member of the group, until it is stopped

Everything else is the product's own code.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from aiokafka.errors import KafkaError, RequestTimedOutError
from aiokafka.producer import sender

from schemas import log_records
from streams.pipeline.config import PipelineConfig, read_config
from streams.pipeline.workers import RISK_MODULES, run_role, worker_specs
from streams.runtime.notes import introduce, note
from streams.runtime.settings import RuntimeSettings
from streams.runtime.supervisor import Supervisor, WorkerSpec

GUESTS = ("risk-guest-0", "risk-guest-1")
CLOCK, LOST, FAILED, ENGINE, INVITED = "clock", "lost", "failed", "engine", "invited"
LOOK_S = 0.05  # how often a seam looks for its file


class GuestConfig(PipelineConfig, frozen=True, kw_only=True):
    """A pipeline as a member sees it that comes and goes: no static name."""

    def settings(self, group: int = 0, role: str = "") -> RuntimeSettings:
        return replace(super().settings(group, role), static_membership=False)


def with_seams(spec: WorkerSpec, folder: Path) -> WorkerSpec:
    """The same worker, its child process changed before it begins."""

    def live() -> int | None:
        at = folder / spec.name
        skew_clock(at.with_suffix(f".{CLOCK}"))
        lose_acknowledgements(at.with_suffix(f".{LOST}"), at.with_suffix(f".{FAILED}"))
        if (engine := at.with_suffix(f".{ENGINE}")).exists():
            log_records.VERSION = int(engine.read_text())
        return spec.target()

    return replace(spec, target=live)


def skew_clock(path: Path) -> None:
    """time.time() of this process is wrong by what the file says; the monotonic clock goes on, as on a real host."""
    right = time.time
    seen = {"at_s": 0.0, "wrong_s": 0.0}

    def wrong() -> float:
        if time.monotonic() - seen["at_s"] > LOOK_S:
            try:
                wrong_s = float(path.read_text())
            except (OSError, ValueError):
                wrong_s = 0.0
            seen.update(at_s=time.monotonic(), wrong_s=wrong_s)
        return right() + seen["wrong_s"]

    time.time = wrong


def lose_acknowledgements(lost: Path, failed: Path) -> None:
    """What the broker answered to one produce request does not reach the client."""
    heard = sender.SendProduceReqHandler.handle_response

    def handle(self: Any, response: Any) -> None:
        for path in (lost, failed):
            if path.exists():
                path.unlink()
                note("acknowledgement_lost", given_up=path == failed)
                error = KafkaError("gave up") if path == failed else RequestTimedOutError()
                _unheard(self, error)
                return
        heard(self, response)

    sender.SendProduceReqHandler.handle_response = handle


def _unheard(handler: Any, error: KafkaError) -> None:
    """As aiokafka does where a request fails: again if the error allows it, else the application is told."""
    for batch in handler._batches.values():
        if handler._can_retry(error, batch):
            handler._to_reenqueue.append(batch)
        else:
            batch.failure(exception=error)


def guest(config: PipelineConfig, name: str) -> WorkerSpec:
    """Sleeps until it is invited."""
    invited = Path(config.folder) / f"{name}.{INVITED}"
    dynamic = msgspec.convert(msgspec.to_builtins(config), GuestConfig)

    def live() -> int:
        while not invited.exists():
            time.sleep(LOOK_S)
        return run_role("risk", dynamic, name)

    return WorkerSpec(name, live, warm=RISK_MODULES)


def main(path: str) -> int:
    config = read_config(Path(path))
    introduce(config.log_format, role="supervisor")
    specs = [*worker_specs(config), *(guest(config, name) for name in GUESTS)]
    seamed = [with_seams(spec, Path(config.folder)) for spec in specs]
    return Supervisor(seamed, config.folder, session_s=config.session_s).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
