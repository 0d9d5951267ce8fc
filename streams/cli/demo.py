"""`dpme demo`: the demo world through the whole pipeline, shown live or reported as JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from streams.cli.errors import CommandError
from streams.cli.live import LinePrinter, LiveView
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
    tapped,
)
from streams.replay.pricing import Pricing

if TYPE_CHECKING:
    from streams.pipeline.run import RunOptions, RunReport
    from streams.replay.world import World

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

BLOCK_MS = 1_000
ENDLESS = 10**9


@app.command()
def demo(
    blocks: Annotated[
        int, typer.Option("--blocks", min=0, help="Blocks of a second of world time; 0: until Ctrl-C.")
    ] = 60,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, another world.")] = 7,
    accounts: Annotated[int, typer.Option("--accounts", min=20, max=200_000, help="Accounts of the venue.")] = 500,
    scenarios: ScenariosOption = 4_096,
    pricing: Annotated[Pricing, typer.Option("--pricing", help="Model of the options' prices.")] = Pricing.BLACK76,
    speed: Annotated[float, typer.Option("--speed", min=0, help="Blocks a second; 0: as fast as it goes.")] = 1.0,
    broker: BrokerOption = "dev",
    risk_workers: WorkersOption = 1,
    data: DataOption = Path(".dpme"),
    as_json: JsonOption = False,
) -> None:
    """A venue with options and perpetuals on BTC, ETH and SOL lives through a crash.

    Every block has fills, prices and volatility surfaces. They go through the whole pipeline on a broker: sequencer,
    risk workers, enforcement, store, gateway. You see accounts near their line, warnings between blocks, margin calls
    and liquidations at blocks. The crash begins about block 22 and is over by block 30. Ctrl-C ends with a summary.

    While it runs, `dpme watch margin.calls` and `dpme query latest` work in a second terminal; afterwards
    `dpme trace ACCOUNT` tells what happened to an account.

    Examples:

    - `dpme demo`
    - `dpme demo --blocks 0 --speed 2`
    - `dpme demo --blocks 60 --seed 7 --json`
    - `dpme demo --broker kafka --risk-workers 3 --accounts 10000 --json`
    """
    if as_json and not blocks:
        raise CommandError("--json needs an end: give --blocks a number above 0")
    from streams.pipeline.run import RunOptions
    from streams.simulate.demo_world import demo_world

    paced_ms = None if as_json or not speed else round(BLOCK_MS / speed)
    options = RunOptions(broker=broker, data=data, risk_workers=risk_workers, paced_ms=paced_ms)
    notes = error_console() if as_json else Console(highlight=False)
    with explained(), stopped_early(notes):
        notes.print(f"making a world of {accounts:,} accounts, {scenarios:,} scenarios, seed {seed}", style="dim")
        world = demo_world(seed, blocks or ENDLESS, accounts, scenarios, pricing)
        report = _run(world, options, notes, as_json, live=not as_json and sys.stdout.isatty())
        finish(notes, report, as_json, seed)
        _farewell(notes, report, data)


def _run(world: World, options: RunOptions, console: Console, as_json: bool, live: bool) -> RunReport:
    """The run under the view that fits."""
    if as_json:
        bar, listen = progress(console, world)
        with bar:
            return run(world, options, listen)
    if not live:
        printer = LinePrinter(console, world)
        return run(tapped(world, printer.on_block), options, printer.listen)
    view = LiveView(console, world, options.risk_workers)
    with view:
        return run(tapped(world, view.on_block), options, view.listen)


def _farewell(console: Console, report: RunReport, data: Path) -> None:
    account = next((row["account"] for row in report.nearest if row["state"] != "healthy"), None)
    account = account or (report.nearest[0]["account"] if report.nearest else "ACCOUNT")
    where = "" if data == Path(".dpme") else f" --data {data}"
    console.print(f"next: dpme trace {account}{where}, dpme query latest{where}", style="dim")
