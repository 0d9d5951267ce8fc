"""`dpme query`: margins and events from the store, also while a sink is writing it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from streams.sink.current_run import DEFAULT_DATA, read_current_run, store_of
from streams.sink.errors import StoreError
from streams.sink.query_socket import QueryClient

app = typer.Typer(help="Ask the store: margins now, as of a block, of an account; or any SELECT.", no_args_is_help=True)

Data = Annotated[str, typer.Option("--data", help="Data folder of the run, or clickhouse://user@host:port/database.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of a table.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="Rows at most.")]

_STATE_STYLES = {"healthy": "green", "margin_call": "yellow", "liquidatable": "red", "insolvent": "bold red"}
_CALL_COLUMNS = ("block", "from_state", "to_state", "nlv_usd6", "initial_margin_usd6", "cure_deposit_usd6", "stress")
_WARNING_COLUMNS = ("block", "line", "trigger", "estimate_usd6", "nlv_usd6", "initial_margin_usd6", "stress")
_LIQUIDATION_COLUMNS = ("block", "state", "shortfall_usd6", "nlv_usd6", "maintenance_margin_usd6")


@app.command()
def latest(data: Data = DEFAULT_DATA, as_json: AsJson = False, limit: Limit = 20) -> None:
    """Margins at the newest block that all partitions have done: the accounts nearest their line first."""
    _answer(data, as_json, _show_margins, "latest", limit=limit, partitions=_partitions(data))


@app.command()
def asof(
    block: Annotated[int, typer.Argument(help="Block number.", min=0)],
    data: Data = DEFAULT_DATA,
    as_json: AsJson = False,
    limit: Limit = 20,
) -> None:
    """Margins as of BLOCK, as they were."""
    _answer(data, as_json, _show_margins, "asof", block=block, limit=limit, partitions=_partitions(data))


@app.command()
def account(
    name: Annotated[str, typer.Argument(metavar="ID", help="Account.")],
    data: Data = DEFAULT_DATA,
    as_json: AsJson = False,
    limit: Limit = 20,
) -> None:
    """The last margins of one account, its warnings, calls and liquidations; newest first."""
    _answer(data, as_json, _show_account, "account", name=name, limit=limit)


@app.command()
def sql(
    text: Annotated[str, typer.Argument(metavar="SELECT", help="One reading statement; tables are dpme.margins, ...")],
    data: Data = DEFAULT_DATA,
    as_json: AsJson = False,
    limit: Limit = 1000,
) -> None:
    """Any SELECT over the tables of streams/sink/schema.sql."""
    _answer(data, as_json, _show_rows, "sql", text=text, limit=limit)


def usd(amount_usd6: int) -> str:
    """Micro-USD for people: 1,234.57."""
    cents = (abs(amount_usd6) + 5_000) // 10_000
    sign = "-" if amount_usd6 < 0 and cents else ""
    return f"{sign}{cents // 100:,}.{cents % 100:02d}"


def _partitions(data: str) -> int | None:
    run = read_current_run(data)
    return run.partitions or None if run is not None else None


def _answer(data: str, as_json: bool, show: Callable[[Console, Any], None], question: str, **params: Any) -> None:
    """Ask, then print a table or one JSON object; an error becomes one line on stderr and exit code 1."""
    try:
        with QueryClient(store_of(data)) as client:
            found = client.ask(question, **params)
    except StoreError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"dpme query: {error}", markup=False)
        raise typer.Exit(1) from error
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(found) + b"\n")
        sys.stdout.flush()
    else:
        show(Console(), found)


def _show_margins(console: Console, found: dict[str, Any]) -> None:
    states = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(found["states"].items()))
    console.print(f"Block {found['block']}: {found['accounts']} accounts ({states}). Nearest their line, USD:")
    console.print(_margin_table(found["margins"], "account"))
    for halt in found["halted"]:
        where = f"partition {halt['partition']} stands still since block {halt['block']}"
        console.print(f"{where}: {halt['reason']}", style="bold red", markup=False)


def _margin_table(rows: list[dict[str, Any]], first: str) -> Table:
    table = Table(first.capitalize(), "State")
    for name in ("NLV", "IM", "MM", "NLV - IM", "NLV / IM"):
        table.add_column(name, justify="right")
    table.add_column("Binding")
    for row in rows:
        money = ("nlv_usd6", "initial_margin_usd6", "maintenance_margin_usd6", "headroom_usd6")
        state = f"[{_STATE_STYLES[row['state']]}]{row['state'].replace('_', ' ')}[/]"
        amounts = [usd(row[name]) for name in money]
        table.add_row(str(row[first]), state, *amounts, _ratio(row), row["binding"].replace("_", " "))
    return table


def _ratio(row: dict[str, Any]) -> str:
    initial = row["initial_margin_usd6"]
    return f"{row['nlv_usd6'] / initial:.3f}" if initial > 0 else "-"


def _show_account(console: Console, found: dict[str, Any]) -> None:
    console.print(f"Account {found['account']}, USD:", markup=False)
    console.print(_margin_table(found["margins"], "block"))
    for name, columns in (
        ("margin_calls", _CALL_COLUMNS),
        ("margin_warnings", _WARNING_COLUMNS),
        ("liquidations", _LIQUIDATION_COLUMNS),
    ):
        console.print(f"{name.replace('_', ' ').capitalize()}: {len(found[name]) or 'none'}")
        if found[name]:
            console.print(_plain_table(found[name], columns))


def _show_rows(console: Console, found: dict[str, Any]) -> None:
    rows = found["rows"]
    console.print(_plain_table(rows, tuple(rows[0])) if rows else "no rows")


def _plain_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> Table:
    table = Table()
    for name in columns:
        heading = name.removesuffix("_usd6").replace("_", " ")
        table.add_column(heading, justify="right" if isinstance(rows[0][name], int | float) else "left")
    for row in rows:
        table.add_row(*(usd(row[name]) if name.endswith("_usd6") else str(row[name]) for name in columns))
    return table
