"""`dpme partitions`: over how many partitions accounts are spread, and changing it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streams.cli.errors import CommandError
from streams.cli.output import emit_json, error_console, plural
from streams.cli.run import read
from streams.cli.running import explained

app = typer.Typer(help="Over how many partitions accounts are spread.", no_args_is_help=True, add_completion=False)
ConfigOption = Annotated[Path, typer.Option("--config", help="Configuration of the installation.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")]


@app.command()
def show(config: ConfigOption, as_json: JsonOption = False) -> None:
    """The number of partitions, and how often it has changed.

    Example:  dpme partitions show --config live.json
    """
    installation = read(config)
    if as_json:
        emit_json({"partitions": installation.partitions, "generation": installation.generation})
    else:
        print(f"{plural(installation.partitions, 'partition')}, generation {installation.generation}")


@app.command()
def change(
    config: ConfigOption,
    to: Annotated[int, typer.Option("--to", min=1, max=1024, help="The number of partitions from now on.")],
    as_json: JsonOption = False,
) -> None:
    """Spread the accounts of a stopped installation over another number of partitions.

    Stop every worker first. The old logs are read to their end, every account goes to its new partition with all that
    is its own, and the configuration file is rewritten; then start the workers again. Inputs stay where they are, and
    go on meanwhile. If it is cut short, run it again.

    Example:  dpme partitions change --config live.json --to 8
    """
    installation = read(config)
    from streams.pipeline.partition_change import PartitionChangeError, change_partitions

    bar, tell = _progress()
    try:
        with explained(), bar:
            done = change_partitions(config, installation, to, tell)
    except PartitionChangeError as error:
        raise CommandError(str(error)) from error
    typer.echo(
        f"{plural(done.accounts, 'account')} in {plural(done.partitions, 'partition')} as of block {done.block} "
        f"(generation {done.generation}); start the workers: dpme run all --config {config}",
        err=True,
    )
    if done.store:
        typer.echo(f"the store of this generation: {done.store}", err=True)
    if as_json:
        emit_json(done._asdict())


def _progress() -> tuple[Progress, Callable[[str, int, int], None]]:
    """A bar on stderr (a line a phase where it is no terminal), and who moves it."""
    console = error_console()
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console,
                   disable=not console.is_terminal)  # fmt: skip
    task = bar.add_task("beginning")
    said = ""

    def tell(what: str, done: int, of: int) -> None:
        nonlocal said
        bar.update(task, description=what, completed=done, total=max(of, 1))
        if not console.is_terminal and what != said:
            console.print(what)
        said = what

    return bar, tell
