"""`python -m tests.chaos --broker dev|kafka --seed N`: about four minutes; the last line of stdout is one JSON object.

Exit code 1 unless every deduplicated output is that of the pure engine over the recorded logs, and that of a calm run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from streams.runtime.kafka_process import Broker, BrokerError, DevelopmentBroker, KafkaBroker, KafkaCluster
from tests.chaos import arena
from tests.chaos.arena import Plan
from tests.chaos.expected import calm_outputs
from tests.chaos.faults import Script, listing, parse, span_s
from tests.chaos.mutant_workers import CHECKPOINT_EVERY, END_LIMIT_S, MUTANTS, REORGANISES, SCRIPTS
from tests.chaos.report import report
from tests.chaos.verdict import take
from tests.chaos.world import chaos_world

BLOCKS_PER_S = 6.0
SECONDS = 180.0
SHORT = parse(
    "kill:risk, kill twice:sequencer, freeze:risk, kill:enforcement, stop:sequencer, kill all:risk, "
    "failed acknowledgement:risk, lost acknowledgement:sequencer, clock jump:sequencer, corrupt checkpoint:risk"
)
LIST = "list"
BROKERS: dict[str, Callable[[Path], Broker]] = {"dev": DevelopmentBroker, "kafka": KafkaBroker}


def main() -> int:
    arguments = _arguments()
    if arguments.acts == LIST:
        print(listing())
        return 0
    with tempfile.TemporaryDirectory(prefix="dpme-chaos-") as temporary:
        folder = Path(arguments.keep or temporary)
        try:
            with own_broker(arguments.broker, arguments.brokers, folder) as broker:
                address = broker.address if broker else arguments.broker
                found = asyncio.run(chaos(address, broker, folder, arguments))
        except (BrokerError, arena.Impossible) as error:
            print(f"chaos: {error}", file=sys.stderr)
            return 2
    print(json.dumps(found))
    return 0 if found["equal"] else 1


@contextlib.contextmanager
def own_broker(kind: str, count: int, folder: Path) -> Iterator[Broker | KafkaCluster | None]:
    """A broker of our own, or three; None where one runs already at host:port."""
    if kind not in BROKERS:
        yield None
    elif count == 1:
        with BROKERS[kind](folder / "broker") as broker:
            yield broker
    elif kind == "kafka":
        with KafkaCluster(folder / "brokers") as cluster:
            yield cluster
    else:
        raise BrokerError("--brokers 3 needs --broker kafka: the development broker is one node")


async def chaos(
    address: str, broker: Broker | KafkaCluster | None, folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """The disturbed run, and with --calm an undisturbed one on the same broker."""
    script = arguments.acts or (SHORT if arguments.short else None)
    if script is None and arguments.mutant:
        script = parse(SCRIPTS[arguments.mutant])
    seconds = arguments.seconds or (span_s(script) if script else SECONDS)
    reorganises = arguments.reorgs or arguments.mutant in REORGANISES
    world = chaos_world(
        arguments.seed, max(2, int(seconds * BLOCKS_PER_S)), events=arguments.events, reorganises=reorganises
    )
    blocks = list(world.blocks)
    plan = Plan(
        seed=arguments.seed,
        interval_s=1 / BLOCKS_PER_S,
        session_s=arguments.session,
        checkpoint_every=CHECKPOINT_EVERY.get(arguments.mutant, 10),
        sink=arguments.sink and not arguments.mutant,
        mutant=arguments.mutant,
        script=script,
        groups=arguments.groups,
        sequencers=arguments.sequencers,
        risk_workers=3 if arguments.groups == 1 else 2,
        broker=broker,
        end_limit_s=END_LIMIT_S.get(arguments.mutant, Plan.end_limit_s),
    )
    print(f"chaos: {len(blocks)} blocks on {address}, seed {arguments.seed}", file=sys.stderr)
    outcome = await arena.run(world, blocks, address, folder / "run", plan)
    calm = calm_outputs(world, blocks, plan.partitions)
    found = {"broker": arguments.broker, "seed": arguments.seed}
    found |= report(world, blocks, outcome, calm, plan.partitions, plan.groups)
    if arguments.calm:
        quiet = Plan(arguments.seed, 0.0, disturbed=False, risk_workers=1)
        undisturbed = await arena.run(world, blocks, address, folder / "calm", quiet)
        found["calm_equal"] = not undisturbed.failure and take(undisturbed.recorded).values == calm
        found["equal"] = found["equal"] and found["calm_equal"]
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--broker", default="dev", help="dev, kafka, or host:port of one that runs")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="3: Apache Kafka, every record on three")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help=f"of feeding ({SECONDS:g}), at {BLOCKS_PER_S:g} blocks a second")
    parser.add_argument("--events", type=int, default=3_000, help="account events over all blocks")
    parser.add_argument("--reorgs", action="store_true", help="the chain reorganises, down to the finality depth")
    parser.add_argument("--session", type=float, default=6.0, help="seconds that a silent member keeps its partitions")
    parser.add_argument("--groups", type=int, default=1, help="2: hot standby, one group disturbed at a time")
    parser.add_argument("--sequencers", type=int, default=1, help="2: one follows, and takes over")
    parser.add_argument("--short", action="store_true", help="a list of ten faults in half a minute")
    parser.add_argument("--acts", type=_script, help="NAME:ROLE,NAME:ROLE... instead of chance; list: print all faults")
    parser.add_argument("--mutant", choices=tuple(MUTANTS), default="", help="workers broken on purpose")
    parser.add_argument("--calm", action="store_true", help="also an undisturbed run on the broker")
    parser.add_argument("--sink", action=argparse.BooleanOptionalAction, default=True, help="with the store's sink")
    parser.add_argument("--keep", default="", help="folder for logs and data, kept")
    return parser.parse_args()


def _script(text: str) -> Script | str:
    """Faults by name; argparse prints this error's text."""
    try:
        return LIST if text == LIST else parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
