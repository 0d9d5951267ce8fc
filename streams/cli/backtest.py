"""`dpme backtest`: models walked forward over bars, tested, compared, reported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.cli.errors import CommandError
from streams.cli.output import emit_json, error_console
from streams.sink.current_run import DEFAULT_DATA

if TYPE_CHECKING:
    from oracles.backtest.evaluation import Evaluation
    from streams.backtest.inputs import History
    from streams.backtest.reference import Row
    from streams.backtest.run import Backtest
    from streams.sink.clickhouse_store import ClickHouseStore
    from streams.sink.store import ChdbStore

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

REFERENCE_HORIZONS = ("1h", "24h")
SAMPLE_HORIZON = "24h"


@app.command()
def backtest(
    bars: Annotated[
        list[str] | None, typer.Option("--bars", metavar="ASSET=FILE", help="Bars of one asset; may be repeated.")
    ] = None,
    horizon: Annotated[
        str | None, typer.Option("--horizon", help="How long a loss is: 1h, 24h, 30m, 7d. Default 24h.")
    ] = None,
    models: Annotated[str, typer.Option("--models", help="Names with commas between; all without it.")] = "",
    volatility: Annotated[
        Path | None,
        typer.Option(
            "--volatility", metavar="FILE", help="Index of the first asset's implied volatility: option books."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="DIR", help="The recorded data: both horizons, and the table to beat."),
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write the report to this HTML file.")] = None,
    card: Annotated[Path | None, typer.Option("--card", help="Write the model card to this Markdown file.")] = None,
    data: Annotated[
        str, typer.Option("--data", help="Data folder whose store gets the results, or a ClickHouse server's URL.")
    ] = DEFAULT_DATA,
    store: Annotated[bool, typer.Option("--store/--no-store", help="Whether results go to the store.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")] = False,
) -> None:
    """Value-at-risk and expected shortfall of every model against what happened; without --bars on a small sample.

    Every forecast uses what was known when it was made. The page infra/docs/backtest.md says what each column means.

    Examples:

    - `dpme backtest --bars BTC=btc.csv --bars ETH=eth.csv --horizon 1h --report report.html`
    - `dpme backtest --reference ../shared/data --json`
    """
    from streams.backtest.inputs import BacktestError, read_index
    from streams.backtest.reference import INDEX, reference_rows

    if reference is not None and (bars or horizon or models):
        raise typer.BadParameter(
            "--reference runs all models at both horizons: give neither --bars, --horizon, --models"
        )
    notes = error_console()
    try:
        histories = _histories(bars or [], reference, notes)
        index_file = reference / "vol" / INDEX if reference is not None else volatility
        index = read_index(index_file) if index_file is not None else None
        horizons = [horizon or SAMPLE_HORIZON] if reference is None else list(REFERENCE_HORIZONS)
        done = _run(notes, histories, horizons, models, index)
    except BacktestError as error:
        raise CommandError(str(error)) from error
    rows = reference_rows(done) if reference is not None else []
    console = notes if as_json else Console(highlight=False)
    for one in done:
        _show(console, one)
    if rows:
        _show_rows(console, rows)
    _write(done, rows, report, card, notes)
    stored = _store(done, data, notes) if store else []
    if as_json:
        from streams.backtest.document import document

        emit_json({**document(done, rows), "stored": stored, "report": str(report or ""), "card": str(card or "")})


def _histories(given: list[str], reference: Path | None, notes: Console) -> list[History]:
    from streams.backtest.inputs import SAMPLE, read_history
    from streams.backtest.reference import read_panel

    notes.print("reading and checking bars", style="dim")
    if reference is not None:
        return list(read_panel(reference))
    if not given:
        notes.print("no --bars: the daily bars of BTC that ship with DPME (streams/backtest/samples/NOTICE.md)")
        return [read_history("BTC", SAMPLE)]
    named = [text.partition("=") for text in given]
    for asset, equals, file in named:
        if not (asset and equals and file):
            raise typer.BadParameter(f"--bars {asset}{equals}{file}: ASSET=FILE is wanted, like BTC=btc.csv")
    assets = [asset for asset, _, _ in named]
    if len(set(assets)) != len(assets):
        raise typer.BadParameter("--bars: an asset is named twice")
    return [read_history(asset, Path(file)) for asset, _, file in named]


def _run(
    notes: Console, histories: list[History], horizons: list[str], models: str, index: History | None
) -> list[Backtest]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from oracles.risk_model.forecasts import MODELS
    from streams.backtest.inputs import horizon_ms_of
    from streams.backtest.run import check_models, run, steps

    names = check_models([name.strip() for name in models.split(",")] if models else list(MODELS))
    lengths = [horizon_ms_of(text) for text in horizons]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as bar:
        total = sum(steps(histories, names, length, index) for length in lengths)
        task = bar.add_task("walking forward", total=total)

        def listen(what: str) -> None:
            bar.update(task, advance=1, description=what)
            if not notes.is_terminal:
                notes.print(what, style="dim")

        return [run(histories, length, names, listen, index) for length in lengths]


def _show(console: Console, one: Backtest) -> None:
    from streams.market_data.findings import utc

    evaluation = one.evaluation
    span = f"{utc(evaluation.first_ms)[:10]} to {utc(evaluation.last_ms)[:10]}"
    counts = ", ".join(f"{asset} {count:,}" for asset, count in evaluation.observations.items())
    title = f"Horizon {one.horizon_ms / 3_600_000:g} h, forecasts {span}: {counts}"
    console.print(_table(title, evaluation, one.chosen))
    for name, books in (("Spread books", one.spreads), ("Option books", one.options)):
        if books is not None:
            console.print(_table(f"{name}: {len(books.observations)}", books, ""))
    _show_months(console, one)
    console.print(f"run {one.run_id}", style="dim")


def _show_months(console: Console, one: Backtest) -> None:
    """What fewer exceedances in the worst month cost."""
    from streams.backtest.card import perfect_text

    steps = ", ".join(f"x {step.multiplier_e6 / 1e6:g} {100 * step.worst_month:.1f} %" for step in one.months.steps)
    console.print(f"Worst month of {one.chosen}, VaR times: {steps}")
    console.print(perfect_text(one), style="dim")


def _table(title: str, evaluation: Evaluation, chosen: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    table.add_column("Model", no_wrap=True)
    level = f"{100 * max(evaluation.levels):g} %"
    for name in ("FZ0", level, "Z2", "Kupiec", "ES", "1 day", "worst month"):
        table.add_column(name, justify="right", no_wrap=True)
    for summary in evaluation.summaries:
        worst = summary.worst_month
        table.add_row(
            Text(summary.model, "bold" if summary.model == chosen else ""), f"{summary.fissler_ziegel:.4f}",
            f"{100 * summary.rate:.2f} %", f"{summary.z2:+.3f}", f"{summary.kupiec_passed}/{summary.kupiec_tests}",
            f"{100 * summary.mean_margin:.2f} %", f"{100 * summary.rise_1_day:+.0f} %",
            f"{worst.name} {100 * worst.rate:.1f} %",
        )  # fmt: skip
    return table


def _show_rows(console: Console, rows: list[Row]) -> None:
    table = Table(title="Reproduce or beat", title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in ("Row", "Wanted", "Found", ""):
        table.add_column(name)
    for row in rows:
        table.add_row(row.name, row.wanted, row.found, Text("ok", "green") if row.ok else Text("no", "bold red"))
    console.print(table)
    console.print(f"{sum(row.ok for row in rows)} of {len(rows)} rows ok")


def _write(done: list[Backtest], rows: list[Row], report: Path | None, card: Path | None, notes: Console) -> None:
    from streams.backtest import card as model_card
    from streams.backtest.page import page

    texts = []
    if report is not None:
        texts.append((report, page(done, rows)))
    if card is not None:
        texts.append((card, "\n".join(model_card.card(one) for one in done)))
    for path, text in texts:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror or error}") from error
        notes.print(f"written: {path}", style="dim")


def _store(done: list[Backtest], data: str, notes: Console) -> list[str]:
    """Ids of the runs the store has now; a store that cannot be written costs a remark, not the backtest."""
    from streams.backtest.results_store import write
    from streams.sink.current_run import store_of
    from streams.sink.errors import StoreError

    try:
        store = _opened(store_of(data))
        try:
            for one in done:
                write(store, one)
        finally:
            store.close()
    except StoreError as error:
        notes.print(f"not stored: {error}", style="yellow", markup=False)
        return []
    question = f"SELECT * FROM {store.database}.backtest_models WHERE run_id = '{done[0].run_id}'"
    notes.print(f'stored: dpme query sql "{question}"', markup=False)
    return [one.run_id for one in done]


def _opened(target: str) -> ChdbStore | ClickHouseStore:
    """A store to append results to; on a server the sink's claim stays as it is."""
    from streams.runtime.security import Secret
    from streams.sink.clickhouse_store import ClickHouseStore
    from streams.sink.store import ChdbStore, is_server

    if not is_server(target):
        return ChdbStore(target)
    return ClickHouseStore(target, Secret(os.environ.get("DPME_STORE_PASSWORD", "")), writer=True, fenced=False)
