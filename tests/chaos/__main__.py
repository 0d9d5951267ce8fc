"""`python -m tests.chaos --broker dev|kafka --seed N`: about two minutes; the last line of stdout is one JSON object.

Exit code 1 unless every deduplicated output is that of the pure engine over the recorded logs, and that of a calm run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from streams.runtime.kafka_process import Broker, BrokerError, DevelopmentBroker, KafkaBroker
from tests.chaos import arena
from tests.chaos.arena import Plan
from tests.chaos.expected import calm_outputs
from tests.chaos.mutant_workers import CHECKPOINT_EVERY, MUTANTS, SCRIPTS
from tests.chaos.report import report
from tests.chaos.verdict import take
from tests.chaos.world import chaos_world

BLOCKS_PER_S = 6.0
SECONDS, MUTANT_SECONDS = 75.0, 10.0


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="dpme-chaos-") as folder:
        made = Path(arguments.keep or folder)
        kind = DevelopmentBroker if arguments.broker == "dev" else KafkaBroker
        try:
            with kind(made / "broker") as broker:
                found = asyncio.run(chaos(broker, made, arguments))
        except BrokerError as error:
            print(f"chaos: {error}", file=sys.stderr)
            return 2
    print(json.dumps(found))
    return 0 if found["equal"] else 1


async def chaos(broker: Broker, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The disturbed run, and with --calm an undisturbed one on the same broker."""
    seconds = arguments.seconds or (MUTANT_SECONDS if arguments.mutant else SECONDS)
    world = chaos_world(arguments.seed, max(2, int(seconds * BLOCKS_PER_S)), events=arguments.events)
    blocks = list(world.blocks)
    plan = Plan(
        arguments.seed, 1 / BLOCKS_PER_S, session_s=arguments.session, sink=arguments.sink, mutant=arguments.mutant,
        script=SCRIPTS.get(arguments.mutant), checkpoint_every=CHECKPOINT_EVERY.get(arguments.mutant, 10),
    )  # fmt: skip
    print(f"chaos: {len(blocks)} blocks on {broker.address}, seed {arguments.seed}", file=sys.stderr)
    outcome = await arena.run(world, blocks, broker, folder / "run", plan)
    calm = calm_outputs(world, blocks, plan.partitions)
    found = {"broker": arguments.broker, "seed": arguments.seed}
    found |= report(world, blocks, outcome, calm, plan.partitions)
    if arguments.calm:
        quiet = Plan(arguments.seed, 0.0, disturbed=False, risk_workers=1)
        undisturbed = await arena.run(world, blocks, broker, folder / "calm", quiet)
        found["calm_equal"] = not undisturbed.failure and take(undisturbed.recorded).values == calm
        found["equal"] = found["equal"] and found["calm_equal"]
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--broker", choices=("dev", "kafka"), default="dev")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help=f"of feeding ({SECONDS:g}), at {BLOCKS_PER_S:g} blocks a second")
    parser.add_argument("--events", type=int, default=3_000, help="account events over all blocks")
    parser.add_argument("--session", type=float, default=6.0, help="seconds that a silent member keeps its partitions")
    parser.add_argument("--mutant", choices=tuple(MUTANTS), default="", help="workers broken on purpose")
    parser.add_argument("--calm", action="store_true", help="also an undisturbed run on the broker")
    parser.add_argument("--sink", action=argparse.BooleanOptionalAction, default=False, help="with the store's sink")
    parser.add_argument("--keep", default="", help="folder for logs and data, kept")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
