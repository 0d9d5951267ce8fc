"""`dpme stress`: what the venue's insurance fund would have to pay, and what it would take to exhaust it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from streams.cli.errors import CommandError
from streams.cli.output import emit_json, error_console
from streams.cli.recorded_run import ConfigOption, Source, reading, source_of
from streams.cli.running import DataOption, explained

if TYPE_CHECKING:
    from streams.cli.as_of import AsOf

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

CONFIDENCE_E6 = 999_000
CONFIDENCE_LEAST, CONFIDENCE_END = 50.0, 100.0


@app.command()
def stress(
    fund: Annotated[
        str | None, typer.Option("--fund", metavar="USD", help="The insurance fund that there is. [default: cover 2]")
    ] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="PERCENT", help="Confidence of the fund's size.")
    ] = CONFIDENCE_E6 / 1e4,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Also search the least unlikely scenario that exhausts the fund.")
    ] = False,
    block: Annotated[
        int | None, typer.Option("--block", "-b", min=0, help="As of this block; else the newest.")
    ] = None,
    from_store: Annotated[
        bool, typer.Option("--from-store", help="What the pipeline itself said last, from its store.")
    ] = False,
    data: DataOption = Path(".dpme"),
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")] = False,
) -> None:
    """Every account of the last run under the scenario set and the stress rows: what is left for the insurance fund.

    An account pays from its own equity first; a second column takes its maintenance margin instead, as if everybody
    stood on the line at which liquidation begins. Cover 1 and cover 2 are the largest loss beyond that of one account,
    and of two, in one scenario. Nobody is liquidated on the way: this is one jump of the market.

    Example: `dpme stress --fund 250000 --reverse`
    """
    from streams.cli.margin_input import scaled
    from streams.cli.stress_views import stress_view

    if from_store:
        if fund is not None or reverse or confidence != CONFIDENCE_E6 / 1e4:
            raise CommandError("--from-store shows what was said: leave out --fund, --confidence and --reverse")
        _show(_stored(data, config, block), as_json)
        return
    confidence_e6 = _confidence_e6(confidence)
    fund_usd6 = scaled(fund, 6, "--fund") if fund is not None else None
    if fund_usd6 is not None and fund_usd6 < 0:
        raise CommandError("--fund: an insurance fund is not negative")
    machines = _machines(data, config, block)
    with Progress(console=error_console(), transient=True, disable=not reverse) as progress:
        task = progress.add_task("searching the nearest exhausting scenario", total=1.0)
        view = stress_view(
            machines, confidence_e6, fund_usd6, reverse, lambda done: progress.update(task, completed=done)
        )  # fmt: skip
    _show(view, as_json)


def _show(view: dict[str, Any], as_json: bool) -> None:
    from streams.cli.stress_tables import show_stress

    if as_json:
        emit_json(view)
    else:
        show_stress(Console(highlight=False), view)


def _stored(data: Path, config: Path | None, block: int | None) -> dict[str, Any]:
    from streams.pipeline.config import ConfigError, read_config
    from streams.sink.current_run import store_of
    from streams.sink.errors import StoreError
    from streams.sink.query_socket import QueryClient

    try:
        target = read_config(config, os.environ).store if config is not None else store_of(str(data))
        with QueryClient(target) as client:
            found: dict[str, Any] = client.ask("venue", block=block)
            return found
    except (ConfigError, StoreError, OSError) as error:
        raise CommandError(f"--from-store: {error}") from error


def _confidence_e6(percent: float) -> int:
    if not CONFIDENCE_LEAST <= percent < CONFIDENCE_END:
        raise CommandError(f"--confidence: {percent:g} is not from {CONFIDENCE_LEAST:g} to below {CONFIDENCE_END:g}")
    return min(round(percent * 10_000), 999_999)


def _machines(data: Path, config: Path | None, block: int | None) -> list[AsOf]:
    with explained(), source_of(data, config) as source:
        return asyncio.run(_read(source, block))


async def _read(source: Source, block: int | None) -> list[AsOf]:
    from streams.cli.recorded_machines import all_as_of

    async with reading(source) as reader:
        with Progress(console=error_console(), transient=True) as progress:
            task = progress.add_task("running the risk machines over the log", total=source.partitions)
            return await all_as_of(reader, block, lambda done: progress.update(task, completed=done + 1))
