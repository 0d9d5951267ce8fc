"""Model agent: market.log -> scenario sets, fits, and the listings of both. One owner, one unit.

Fits are made in a thread of their own (the kernel releases the interpreter), beside the loop and the stream. What is
found is said between two records; what was under way when the process died is asked for again by its checkpoint.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from oracles.risk_model.refits import FitRequest, GarchParameters, fitted
from schemas.topics import CHECKPOINTS_MODEL, MARKET_LOG
from streams.engine.model_epochs import ModelEpochs
from streams.engine.output import Output
from streams.pipeline.config import PipelineConfig
from streams.runtime.exits import die
from streams.runtime.notes import note
from streams.runtime.worker import RoleApp, Runtime, make_app, run_worker

LOOK_S = 0.1


class ModelFactory:
    def empty(self, unit: int) -> ModelEpochs:
        return ModelEpochs()

    def load(self, unit: int, raw: bytes) -> ModelEpochs:
        return ModelEpochs.load(raw)

    def unit_of(self, topic: str, partition: int) -> int:
        return 0


class ModelRuntime(Runtime):
    """Makes the fits that the machine asks for, one after another."""

    async def start(self, app: RoleApp) -> None:
        await super().start(app)
        self._answered: set[tuple[str, int]] = set()
        self._missed = (0, 0)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fit")
        self._fitting = asyncio.create_task(self._fit_on_request())

    async def stop(self) -> None:
        self._fitting.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
        await super().stop()

    async def _fit_on_request(self) -> None:
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                for request in await self._requests():
                    await self._fit(request)
        except Exception as exception:  # cancellation passes
            die("fit of the risk model", exception)

    async def _requests(self) -> list[FitRequest]:
        """Fits under way that this life has not answered."""
        found: list[FitRequest] = []
        missed = self._missed

        def collect(machine: ModelEpochs) -> tuple[bool, list[Output]]:
            found.extend(machine.requests())
            self._missed = machine.refits.late, machine.refits.lost
            return True, []

        await self.shell.ask(0, collect)
        if self._missed != missed:
            note("fits_missed", late=self._missed[0], lost=self._missed[1])
        self._answered &= {_name(one) for one in found}  # what the log has by now is asked for no more
        return [one for one in found if _name(one) not in self._answered]

    async def _fit(self, request: FitRequest) -> None:
        started_s = time.monotonic()
        found: GarchParameters = await asyncio.get_running_loop().run_in_executor(self._pool, fitted, request)
        if not await self.shell.ask(0, lambda machine: (True, machine.answer(request, found))):
            return  # the unit is elsewhere: whoever has it is asked
        self._answered.add(_name(request))
        ms = round(1e3 * (time.monotonic() - started_s), 1)
        note("fitted", underlying=request.underlying, kind=request.kind, returns=request.returns.size, ms=ms)


def _name(request: FitRequest) -> tuple[str, int]:
    return request.underlying, request.time_ms


def run(config: PipelineConfig, name: str) -> int:
    """Run the model worker until it is told to stop."""
    app = make_app(
        "model",
        [MARKET_LOG],
        ModelFactory(),
        config.settings(),
        name=name,
        checkpoint_topic=CHECKPOINTS_MODEL,
        runtime_class=ModelRuntime,
    )
    return run_worker(app)
