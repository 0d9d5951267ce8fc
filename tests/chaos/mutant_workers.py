"""`python -m tests.chaos.mutant_workers NAME CONFIG.json`: the workers of a pipeline, broken on purpose.

name                 what is wrong                                                     a chaos run must
late_and_again       nothing: outputs are sent 0.4 s late, after a restore records     pass
                     come again from further back (the guard drops them)
early_checkpoint     outputs are sent late, and checkpoints do not wait (R2)           fail: outputs are lost
guard_off            records are skipped after a restore, and whatever comes is        fail: a partition halts
                     applied (R1)
repeats_applied      risk does not recognise a repeated log record                     fail: a partition halts
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from schemas.topics import PUBLIC_OUTPUTS
from streams.engine import risk
from streams.pipeline import workers
from streams.runtime import checkpoint_writer, shell, worker

LATE_S = 0.4
SKIPPED, REPEATED = 2, 5


def _late_outputs() -> None:
    prompt = shell.Shell._send

    async def late(self: shell.Shell, topic: str, *rest: Any) -> asyncio.Future[object]:
        if topic not in PUBLIC_OUTPUTS:
            return await prompt(self, topic, *rest)
        turn = self.__dict__.setdefault("turns", {}).get(topic)

        async def deliver() -> object:
            await asyncio.sleep(LATE_S)
            if turn is not None:
                await turn  # in the order of the sends
            return await (await prompt(self, topic, *rest))

        self.__dict__["turns"][topic] = made = asyncio.ensure_future(deliver())
        return made

    shell.Shell._send = late  # type: ignore[method-assign,assignment]


def early_checkpoint() -> None:
    _late_outputs()

    async def at_once(self: checkpoint_writer.CheckpointWriter, outputs: list[asyncio.Future[object]]) -> None:
        return None

    checkpoint_writer.CheckpointWriter.acknowledged = at_once  # type: ignore[method-assign]


def _shift_after_restores(shift: int) -> None:
    """Faust reads on somewhere else than where the states stand, as it does when it follows its own offsets."""
    restore = worker.Runtime.restore

    async def shifted(self: worker.Runtime, assigned: Any) -> dict[Any, int]:
        offsets = await restore(self, assigned)
        ends = await self.probe.ends([(at.topic, at.partition) for at in offsets])
        internal = {at for at in offsets if self.settings.short(at.topic) not in self.gap_topics}
        return {
            at: min(max(0, offset + shift), ends[at.topic, at.partition]) if at in internal and offset else offset
            for at, offset in offsets.items()
        }

    worker.Runtime.restore = shifted  # type: ignore[method-assign]


def late_and_again() -> None:
    _late_outputs()
    _shift_after_restores(-REPEATED)


def guard_off() -> None:
    _shift_after_restores(SKIPPED)

    async def blind(self: shell.Shell, unit: shell.Unit, item: shell.Item) -> None:
        await self._apply(unit, item)
        unit.cursor[item.topic, item.partition] = item.offset + 1
        await self._maybe_checkpoint(unit)

    shell.Shell._judge = blind  # type: ignore[method-assign]


def repeats_applied() -> None:
    risk.Risk._is_repeat = lambda self, header, raw: False  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    made.__name__: made for made in (late_and_again, early_checkpoint, guard_off, repeats_applied)
}

# What to do to whom, so that the mistake shows in a few seconds; checkpoints at every block where they matter.
SCRIPTS = {
    "late_and_again": "kill all:risk,kill:sequencer,kill:enforcement,kill all:risk",
    "early_checkpoint": "kill all:risk,kill:risk,kill all:risk",
    "guard_off": "kill all:risk,kill all:risk,kill all:risk",
    "repeats_applied": "kill:sequencer,kill:sequencer,kill:sequencer",
}
CHECKPOINT_EVERY = {"late_and_again": 1, "early_checkpoint": 1}

if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)]()
    sys.exit(workers.main())
