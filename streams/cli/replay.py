"""`dpme replay`: recorded markets through the whole pipeline."""

from __future__ import annotations

import importlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from typer.core import TyperCommand

from streams.cli.errors import CommandError
from streams.cli.output import error_console
from streams.cli.running import (
    BrokerOption,
    DataOption,
    JsonOption,
    ScenariosOption,
    WorkersOption,
    explained,
    finish,
    progress,
    run,
    stopped_early,
)
from streams.replay.pricing import Pricing

if TYPE_CHECKING:
    from streams.replay.world import World

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


class Name(StrEnum):
    """The replays there are."""

    HYPERLIQUID = "hyperliquid"
    DERIBIT = "deribit"
    CHAINLINK = "chainlink"


class Replay(NamedTuple):
    """Module of a replay and what it replays."""

    module: str
    what: str


REPLAYS = {
    Name.HYPERLIQUID: Replay(
        "streams.replay.hyperliquid",
        "fills of an exchange's own chain, block by block; perpetuals, with spot coins as collateral",
    ),
    Name.DERIBIT: Replay(
        "streams.replay.deribit",
        "option chains, a block a snapshot; accounts drawn from the recorded open interest",
    ),
    Name.CHAINLINK: Replay(
        "streams.replay.chainlink",
        "oracle rounds, a block a slot that has one; seeded perpetuals and collateral",
    ),
}


class ReplayCommand(TyperCommand):
    """Adds the seeding rules to the help, which costs the import of the replays."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        rules = (f"**{name.value}**: {replay.what}. {_module(name).SEEDING_RULE}" for name, replay in REPLAYS.items())
        self.help = "\n\n".join([self.help or "", *rules])
        super().format_help(ctx, formatter)


def _module(name: Name) -> Any:
    return importlib.import_module(REPLAYS[name].module)


@app.command(cls=ReplayCommand)
def replay(
    name: Annotated[Name, typer.Argument(metavar="NAME", help="hyperliquid, deribit or chainlink.")],
    source: Annotated[
        Path | None, typer.Option("--source", help="Recorded file or folder. Without it: the sample that ships.")
    ] = None,
    blocks: Annotated[int | None, typer.Option("--blocks", min=1, help="Only so many recorded blocks.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of cash, seeded accounts and scenarios.")] = 7,
    scenarios: ScenariosOption = 4_096,
    pricing: Annotated[
        Pricing, typer.Option("--pricing", help="Model of the options' prices (deribit only: the others have none).")
    ] = Pricing.BLACK76,
    broker: BrokerOption = "dev",
    risk_workers: WorkersOption = 1,
    data: DataOption = Path(".dpme"),
    as_json: JsonOption = False,
) -> None:
    """Recorded markets through the whole pipeline, as fast as it goes.

    Book and cash are seeded before block 1 by the rules below; perpetuals enter at the first mark with zero value.
    The table at the end shows the accounts nearest their line.

    Examples:

    - `dpme replay hyperliquid`
    - `dpme replay deribit --source snapshots/ --json`
    """
    from streams.pipeline.run import RunOptions

    options = RunOptions(broker=broker, data=data, risk_workers=risk_workers)
    chosen = {"pricing": pricing} if name == Name.DERIBIT else {}
    if pricing != Pricing.BLACK76 and not chosen:
        raise CommandError(f"--pricing {pricing.value}: {name.value} has no options; only deribit takes it")
    notes = error_console()
    with explained(), stopped_early(notes):
        if source is None:
            notes.print(f"no --source: replaying the small sample of {name.value} data that ships with DPME")
        notes.print("reading and seeding", style="dim")
        world: World = getattr(_module(name), f"{name.value}_world")(source, seed, scenarios, blocks, **chosen)
        bar, listen = progress(notes, world)
        with bar:
            report = run(world, options, listen)
        console = notes if as_json else Console(highlight=False)
        _show_facts(console, report.facts)
        finish(console, report, as_json, seed)


def _show_facts(console: Console, facts: dict[str, Any]) -> None:
    """What was read, and what was drawn (the seeding rule itself is long: the help has it)."""
    others = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items() if name != "seeding_rule")
    console.print(f"{others}; seeding rule: dpme replay --help", style="dim", markup=False)
