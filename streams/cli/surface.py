"""`dpme surface`: a volatility surface drawn, from a file of quotes, the shipped chain or a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.cli.errors import CommandError
from streams.cli.output import emit_json, moment
from streams.cli.running import DataOption, explained

if TYPE_CHECKING:
    from oracles.surface import FittedExpiry
    from streams.cli.surface_source import Surface

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

LEVEL_DAYS = 30.0
FINDINGS_SHOWN = 8


@app.command()
def surface(
    source: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Quotes file or recorded chain; without it, a shipped one.")
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="The recorded slices of the run in --data instead.")] = False,
    data: DataOption = Path(".dpme"),
    block: Annotated[int | None, typer.Option("--block", min=0, help="With --run: as of this block.")] = None,
    underlying: Annotated[str | None, typer.Option("--underlying", "-u", help="Of several; else the first.")] = None,
    expiry: Annotated[
        str | None,
        typer.Option("--expiry", help="Expiry to plot, as the table names it; else the one nearest 30 days."),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a self-contained page.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write the picture alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")] = False,
) -> None:
    """A volatility surface: SVI slices of every expiry, their arbitrage verdicts, their distance from bid and ask.

    FILE is CSV (or .csv.gz): columns time_ms,underlying,expiry_ms,kind,strike,bid,ask,mark in USD, optionally forward;
    or a Deribit options snapshot; or a Deribit book summary.

    Example: `dpme surface snapshot.csv.gz -u BTC --html surface.html`.
    """
    if run and source is not None:
        raise typer.BadParameter("--run reads the run in --data: give no FILE with it")
    if block is not None and not run:
        raise typer.BadParameter("--block is for --run")
    with explained():
        from streams.cli.surface_source import of_file, of_run

        found = of_run(data, underlying, block) if run else of_file(source, underlying)
    title = f"{found.underlying}, {moment(found.time_ms)} UTC, {found.origin}"
    _write(title, found.expiries, html, svg)
    if as_json:
        emit_json(_plain(found))
    else:
        show(Console(highlight=False), title, found, _chosen(found.expiries, expiry))


def _plain(found: Surface) -> dict[str, Any]:
    from streams.cli.surface_table import plain

    return {
        "underlying": found.underlying,
        "time_ms": found.time_ms,
        "origin": found.origin,
        "expiries": [plain(e) for e in found.expiries],
        "reporters": [heard._asdict() for heard in found.heard],
    }


def _write(title: str, expiries: list[FittedExpiry], html: Path | None, svg: Path | None) -> None:
    if html is None and svg is None:
        return
    from streams.cli.surface_svg import page_of, svg_of

    for path, make in ((html, page_of), (svg, svg_of)):
        if path is None:
            continue
        try:
            path.write_text(make(title, expiries), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror}") from error
        typer.echo(f"written: {path}", err=True)


def _chosen(expiries: list[FittedExpiry], name: str | None) -> FittedExpiry:
    from streams.cli.surface_table import expiry_name

    if name is None:
        drawable = [e for e in expiries if e.smile.slice_e9 is not None] or expiries
        return min(drawable, key=lambda e: abs(e.years * 365 - LEVEL_DAYS))
    for expiry in expiries:
        if expiry_name(expiry) == name:
            return expiry
    raise CommandError(f"--expiry {name!r}: there are {', '.join(expiry_name(e) for e in expiries)}")


def show(console: Console, title: str, found: Surface, chosen: FittedExpiry) -> None:
    """Table of all expiries, plot of one, what was found in the quotes."""
    from oracles.surface import findings_by_name
    from streams.cli.surface_plot import text_plot
    from streams.cli.surface_table import cells_of, expiry_name, headings

    console.print(title, style="bold", soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in headings():
        table.add_column(name, justify="left" if name in ("Expiry", "Verdict") else "right", no_wrap=True)
    for expiry in found.expiries:
        *cells, verdict = cells_of(expiry)
        style = "green" if expiry.verdict is not None and expiry.verdict.free and verdict != "degraded" else "red"
        table.add_row(*cells, Text(verdict, style))
    console.print(table)
    console.print(f"\n[bold]{expiry_name(chosen)}[/bold]: volatility in %, over strike. ⠒ slice, │ bid to ask, · mark")
    for line in text_plot(chosen, height=min(16, max(8, console.height - len(found.expiries) - 10))):
        console.print(line, highlight=False, markup=False, no_wrap=True)
    names = findings_by_name([f for e in found.expiries for f in e.smile.findings])
    if names:
        said = ", ".join(f"{name} {count}" for name, count in list(names.items())[:FINDINGS_SHOWN])
        console.print(f"found in the quotes: {said}", style="dim")
    for heard in found.heard:
        said = f"{moment(heard.expiry_ms) if heard.expiry_ms else 'the index'}: {', '.join(heard.counted) or 'nobody'}"
        said += f", far off: {', '.join(heard.outliers)}" if heard.outliers else ""
        console.print(f"reporters of {said}{'; refused' if heard.refused else ''}", style="dim")
    console.print("RMS of slice against marks (core: within 1.5 standard deviations), median half spread: vol points, "
                  "0.01 of volatility. Inside: share of two-sided quotes within 2.5 standard deviations that hold the "
                  "slice between bid and ask.", style="dim")  # fmt: skip
