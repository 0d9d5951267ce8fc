"""`dpme data`: recorded market data into documented files, with every flaw by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.errors import CommandError
from streams.cli.output import emit_json, error_console, plural

if TYPE_CHECKING:
    from streams.market_data.importing import Imported

app = typer.Typer(help="Recorded market data: import it, check it.", no_args_is_help=True, add_completion=False)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")]
Asset = Annotated[str | None, typer.Option("--asset", help="Name of the series written; the file's name without it.")]
KeepWicks = Annotated[bool, typer.Option("--keep-wicks", help="Report false wicks, but leave them as recorded.")]


@app.command("import")
def import_data(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A recorded file, or a folder of them.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the documented files are written.")],
    asset: Asset = None,
    keep_wicks: KeepWicks = False,
    as_json: AsJson = False,
) -> None:
    """Turn recorded bars, quotes, trades, fills and funding into the documented formats, and report what was wrong.

    Files that are none of these are named and passed over. The formats: infra/docs/data.md.

    Example: `dpme data import recorded/ --out bars/ --json`
    """
    from streams.market_data.columns import MarketDataError
    from streams.market_data.importing import import_source, sources_in

    try:
        sources = sources_in(source)
    except MarketDataError as error:
        raise CommandError(str(error)) from error
    if asset and len(sources) > 1:
        raise CommandError(
            f"--asset {asset} names one series, but {source} holds {len(sources)} files: import one file"
        )
    notes, done, skipped = error_console(), [], []
    with _bar(notes, len(sources)) as advance:
        for path in sources:
            try:
                done.extend(import_source(path, out, asset, keep_wicks))
            except MarketDataError as error:
                skipped.append({"source": str(path), "reason": str(error)})
            except OSError as error:
                raise CommandError(f"cannot write to {out}: {error.strerror or error}") from error
            advance(path.name)
    _show(notes if as_json else Console(highlight=False), done, skipped)
    if not done:
        raise CommandError(f"nothing in {source} could be imported: {skipped[0]['reason']}")
    if as_json:
        emit_json({"imported": [_plain(report) for report in done], "skipped": skipped, **_totals(done)})


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A documented or recorded file.")],
    as_json: AsJson = False,
) -> None:
    """Check one file, write nothing. The exit code is 0 whatever is found; `findings` in the JSON counts it.

    Example: `dpme data check bars/bars/BTC.csv`
    """
    from streams.market_data.columns import MarketDataError
    from streams.market_data.importing import read_source

    try:
        reports = [series.report for series in read_source(file)]
    except MarketDataError as error:
        raise CommandError(f"{file}: {error}") from error
    _show(error_console() if as_json else Console(highlight=False), reports, [])
    if as_json:
        emit_json({"checked": [_plain(report) for report in reports], **_totals(reports)})


def _plain(report: Imported) -> dict[str, Any]:
    from msgspec import to_builtins

    return dict(to_builtins(report))


def _totals(reports: list[Imported]) -> dict[str, Any]:
    """Sums over all series: rows, and flaws by name."""
    findings: dict[str, int] = {}
    for report in reports:
        for finding in report.findings:
            findings[finding.name] = findings.get(finding.name, 0) + finding.count
    return {
        "rows_read": sum(report.rows_read for report in reports),
        "rows_kept": sum(report.rows_kept for report in reports),
        "findings": findings,
    }


def _show(console: Console, reports: list[Imported], skipped: list[dict[str, str]]) -> None:
    for report in reports:
        table = Table(title=_title(report), title_justify="left", title_style="bold", box=None, show_header=False)
        for finding in report.findings:
            table.add_row(f"  {finding.name}", f"{finding.count:,}", finding.action, "; ".join(finding.examples))
        console.print(table if report.findings else f"[bold]{_title(report)}[/]\n  nothing found")
    for passed in skipped:
        console.print(f"passed over {passed['source']}: {passed['reason']}", style="dim", markup=False)


def _title(report: Imported) -> str:
    kept = plural(report.rows_kept, "row")
    dropped = f", {report.rows_read - report.rows_kept:,} dropped" if report.rows_read > report.rows_kept else ""
    return f"{report.kind} {report.name}: {kept}{dropped}, {report.first[:16]} to {report.last[:16]}"


class _bar:
    """A progress bar over files on stderr; nothing where that is no terminal."""

    def __init__(self, console: Console, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task("reading", total=total)

    def __enter__(self) -> Any:
        self.progress.start()
        return lambda name: self.progress.update(self.task, advance=1, description=name[:40])

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
