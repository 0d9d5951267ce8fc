"""What demo and replay share: options of a run, errors of the outside as one line, progress, the report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.cli.errors import CommandError
from streams.cli.live import COUNTED, count
from streams.cli.output import emit_json, short_name, state_text, usd

if TYPE_CHECKING:
    from streams.pipeline.run import RunOptions, RunReport
    from streams.replay.world import BlockInputs, World

BrokerOption = Annotated[
    str,
    typer.Option(
        "--broker", help="dev: embedded, no Java. kafka: Apache Kafka (started if none answers). Or HOST:PORT."
    ),
]
WorkersOption = Annotated[int, typer.Option("--risk-workers", min=1, max=64, help="Risk worker processes.")]
DataOption = Annotated[Path, typer.Option("--data", help="Folder of the run: logs, store, broker data.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Unpaced; one JSON object as the last line of stdout.")]
Listener = Callable[[str, dict[str, Any]], None]
LEADING_FIGURES = ("blocks", "accounts", "fills", "warnings", "margin_calls", "liquidations", "quarantined")


def check_scenarios(scenarios: int) -> int:
    """The size of a scenario set must be a power of two."""
    if scenarios < 2 or scenarios & (scenarios - 1):
        raise typer.BadParameter(f"{scenarios} is no power of two: take 1024 or 4096")
    return scenarios


ScenariosOption = Annotated[
    int, typer.Option("--scenarios", help="Scenarios of a margin, a power of two.", callback=check_scenarios)
]


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What fails outside becomes a CommandError; a bug stays what it is."""
    try:
        yield
    except Exception as error:
        explanation = _explanation(error)
        if explanation is None:
            raise
        raise CommandError(explanation) from error


@contextlib.contextmanager
def stopped_early(console: Console) -> Iterator[None]:
    """Ctrl-C before the first block ends the command quietly (later the run itself ends after its block)."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped before the first block")
        raise typer.Exit from None


def _explanation(error: Exception) -> str | None:
    """What to tell people of an error of the outside; None for a bug."""
    from aiokafka.errors import KafkaError

    from streams.engine.output import OlderState
    from streams.pipeline.observe import PartitionHalted
    from streams.pipeline.run import RunError
    from streams.replay.files import ReplayError
    from streams.runtime.broker_access import BrokerUnreachable
    from streams.runtime.kafka_process import BrokerError
    from streams.runtime.topics_admin import TopicsError
    from streams.sink.errors import StoreError

    outside = RunError | ReplayError | BrokerError | BrokerUnreachable | StoreError | TopicsError | PartitionHalted
    if isinstance(error, outside):
        return str(error)
    if isinstance(error, OlderState):
        return f"{error}: start this release's workers first, they make new ones (infra/docs/operations.md, Upgrades)"
    if isinstance(error, KafkaError):
        return f"the broker fails: {str(error) or type(error).__name__}; `dpme doctor --config FILE` asks it more"
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}; `dpme doctor` checks this machine"
    return None


def tapped(world: World, on_block: Callable[[BlockInputs], None]) -> World:
    """The same world; `on_block` sees every block's inputs as they are sent."""

    def blocks() -> Iterator[BlockInputs]:
        for inputs in world.blocks:
            on_block(inputs)
            yield inputs

    return replace(world, blocks=blocks())


def run(world: World, options: RunOptions, listener: Listener) -> RunReport:
    """`run_world`, imported when it is needed."""
    from streams.pipeline.run import run_world

    return run_world(world, options, listener)


def progress(console: Console, world: World) -> tuple[Any, Listener]:
    """A progress bar on stderr (some lines where it is no terminal), to be entered, and its listener."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=False, disable=not console.is_terminal)
    task = bar.add_task("starting", total=world.block_count)
    counts = dict.fromkeys(COUNTED, 0)
    every = max(world.block_count // 10, 1)
    done = 0

    def listen(kind: str, what: dict[str, Any]) -> None:
        nonlocal done
        count(counts, kind, what)
        if kind == "phase":
            bar.update(task, description=what["name"])
            if not console.is_terminal:
                console.print(what["name"])
        elif kind == "block_done":
            done += 1
            said = ", ".join(f"{number} {name}" for name, number in counts.items())
            bar.update(task, completed=done, description=said)
            if not console.is_terminal and (done % every == 0 or done == world.block_count):
                console.print(f"block {what['block']} ({done} of {world.block_count}): {said}")

    return bar, listen


def finish(console: Console, report: RunReport, as_json: bool, seed: int) -> None:
    """The report: tables for people, with --json on stderr, and the JSON object."""
    show_nearest(console, report.nearest)
    show_figures(console, report.figures)
    if as_json:
        emit_json({**report.figures, "seed": seed, "facts": report.facts})


def show_figures(console: Console, figures: dict[str, Any]) -> None:
    """Counts in one line, latencies and digests below."""
    counts = ", ".join(f"{figures[name]:,} {name.replace('_', ' ')}" for name in LEADING_FIGURES if name in figures)
    console.print(Text(counts, "bold"))
    first, last = figures["barrier_to_last_call_ms_p50"], figures["barrier_to_last_call_ms_p99"]
    console.print(
        f"barrier to last call: {first} ms median, {last} ms p99; block: {figures['block_ms_p50']} ms median; "
        f"{figures.get('blocks_per_s')} blocks/s; risk worker {figures['risk_worker_rss_mb']} MB"
    )
    if "wide_share" in figures:
        console.print(f"on the wide path: {figures['wide_share']:.2%} of the accounts")
    console.print(f"state {figures['state_digest']}  output {figures['output_digest']}", style="dim")


def show_nearest(console: Console, rows: list[dict[str, Any]]) -> None:
    """Accounts nearest their initial margin."""
    table = Table(title="Nearest their line, USD", title_justify="left", title_style="bold")
    table.add_column("Account", no_wrap=True)
    table.add_column("State", no_wrap=True)
    for name in ("NLV", "IM", "MM", "NLV / IM"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        money = (usd(row[name]) for name in ("nlv_usd6", "initial_margin_usd6", "maintenance_margin_usd6"))
        table.add_row(short_name(row["account"]), state_text(row["state"]), *money, f"{row['ratio']:.3f}")
    console.print(table)
