"""`python -m tests.chaos.mutant_workers NAME CONFIG.json`: the workers of a pipeline, broken on purpose.

name                 what is wrong                                                     a chaos run must
late_and_again       nothing: outputs are sent 0.4 s late, after a restore records     pass
                     come again from further back (the guard drops them)
early_checkpoint     outputs are sent late, and checkpoints do not wait (R2)           fail: outputs are lost
guard_off            records are skipped after a restore, and whatever comes is        fail: a partition halts
                     applied (R1)
repeats_applied      risk does not recognise a repeated log record                     fail: a partition halts
dedupe_off           enforcement takes every record of a restarted risk worker again   fail: liquidations twice
done_early           blocks.done leaves before a block's calls, and counts none        fail: other bytes, or a halt
rollback_ignored     risk goes on from a rollback with the positions of the blocks     fail: other margins
                     that the chain has left
"""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

from schemas.codec import decode_output, encode
from schemas.topics import BLOCKS_DONE, MARKET_LOG, PUBLIC_OUTPUTS
from streams.engine import enforcement, risk
from streams.engine.output import Output
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

    async def blind(self: shell.Shell, unit: shell.Unit, run: shell.Run) -> list[shell.Record]:
        return list(run.records)

    shell.Shell._judge = blind  # type: ignore[method-assign]


def repeats_applied() -> None:
    risk.Risk._is_repeat = lambda self, header, raw: False  # type: ignore[method-assign]


def dedupe_off() -> None:
    right = enforcement.Enforcement.steps

    def again(
        self: enforcement.Enforcement, topic: str, partition: int, offset: int, value: bytes | None, headers: Any = ()
    ) -> Iterator[list[Output]]:
        if topic != MARKET_LOG:
            self.taken[topic, partition] = decode_output(value or b"{}")["seq"] - 1
        return right(self, topic, partition, offset, value, headers)

    enforcement.Enforcement.steps = again  # type: ignore[method-assign]


def done_early() -> None:
    right = risk.Risk._evaluate

    def early(self: risk.Risk, header: Any) -> Iterator[list[Output]]:
        outputs = [output for step in right(self, header) for output in step]
        done = next(output for output in outputs if output.topic == BLOCKS_DONE)
        outputs.remove(done)
        yield [done._replace(value=encode(decode_output(done.value or b"") | {"calls": 0}))]
        yield outputs

    risk.Risk._evaluate = early  # type: ignore[method-assign]


def rollback_ignored() -> None:
    right = risk.Risk._go_back

    def kept(self: risk.Risk, header: Any, rollback: Any) -> list[Output]:
        book = copy.deepcopy(self.book)
        outputs = right(self, header, rollback)
        self.book = book
        self.lines.fit_to(len(book.accounts))
        return outputs

    risk.Risk._go_back = kept  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    made.__name__: made
    for made in (
        late_and_again,
        early_checkpoint,
        guard_off,
        repeats_applied,
        dedupe_off,
        done_early,
        rollback_ignored,
    )
}
# What to do to whom, so that the mistake shows in a few seconds; checkpoints at every block where they matter.
SCRIPTS = {
    "late_and_again": "kill all:risk,kill:sequencer,kill:enforcement,kill all:risk",
    "early_checkpoint": "kill all:risk,kill:risk,kill all:risk",
    "guard_off": "kill all:risk,kill all:risk,kill all:risk",
    "repeats_applied": "kill:sequencer,kill:sequencer,kill:sequencer",
    "dedupe_off": "kill all:risk,kill all:risk,kill all:risk",
    "done_early": "kill:risk",
    "rollback_ignored": "kill:risk,kill:risk",
}
CHECKPOINT_EVERY = {"late_and_again": 1, "early_checkpoint": 1, "guard_off": 1}
REORGANISES = ("rollback_ignored",)
END_LIMIT_S = {"dedupe_off": 3.0, "done_early": 3.0}  # liquidations that never come

if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)]()
    sys.exit(workers.main())
