"""`dpme margin`: one account's margin as of a block, why it is what it is, what it would be, and by whose rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console

from streams.cli.errors import CommandError
from streams.cli.output import emit_json, error_console
from streams.cli.recorded_run import ConfigOption, RunReader, Source, reading, source_of, unknown_account
from streams.cli.running import DataOption, explained

if TYPE_CHECKING:
    from streams.cli.as_of import AsOf

app = typer.Typer(
    help="An account's margin as of a block: the numbers (show), why (explain), and what it would be (what-if); "
    "and other venues' rules: which there are (presets), what they ask (show --preset), side by side (compare).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)

INT64_MAX = 2**63 - 1
TAIL_SHOWN = 8

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account of the run, as the views name it.")]
BlockOption = Annotated[int | None, typer.Option("--block", "-b", min=0, help="As of this block; else the newest.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")]


PresetOption = Annotated[
    str | None, typer.Option("--preset", metavar="NAME", help="By the rules of a preset: `dpme margin presets`.")
]
DocumentOption = Annotated[
    Path | None,
    typer.Option("--document", metavar="FILE", help="By a preset's document of your own, in place of NAME."),
]


@app.command()
def show(
    account: Annotated[str | None, typer.Argument(metavar="[ACCOUNT]", help="Account of the run.")] = None,
    name: PresetOption = None,
    document: DocumentOption = None,
    cases: Annotated[
        Path | None,
        typer.Option("--cases", metavar="FILE", help="Value the portfolios of a file, in place of ACCOUNT."),
    ] = None,
    integers: Annotated[
        bool, typer.Option("--integers", help="Cases by the integer path: never above the float balances.")
    ] = False,
    block: BlockOption = None,
    data: DataOption = Path(".dpme"),
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The margin of ACCOUNT as of a block: NLV, IM, MM, their terms, positions and Greeks, and the cure of a call.

    With --preset it is valued by the rules of another margin model, beside the run's own; with --cases FILE the
    portfolios of a file are, without any run.

    Examples: `dpme margin show retail-0012 --block 20`; `dpme margin show retail-0012 --preset derive-pm2`;
    `dpme margin show --preset derive-pm2 --cases portfolios.json --json`.

    A file of cases has one object a portfolio, in one underlying: `{"cases": [{"id": "short put", "market": {"spot":
    60000}, "expiries": [{"seconds_to_expiry": 2592000, "forward": 60100, "rate": 0.05}], "positions": {"cash": 1000,
    "options": [{"seconds_to_expiry": 2592000, "strike": 54000, "type": "put", "quantity": -1, "mark_vol": 0.6}]}}]}`.
    Positions may also hold perp_quantity (with market.perp_price), futures and collateral; a balance of 0 or more means
    that the margin is met. With `"expected": {"initial_margin_balance", "maintenance_margin_balance"}` the difference
    is shown. A case may bring `scenarios` and `parameters` of its own (derive-pm2 takes them).
    """
    if (account is None) == (cases is None):
        raise CommandError("give either ACCOUNT or --cases FILE; `dpme margin show --help` shows both")
    if integers and cases is None:
        raise CommandError("--integers goes with --cases FILE: the run's own margin is an integer anyway")
    if cases is not None:
        _show_cases(name, document, cases, integers, as_json)
    elif name is not None or document is not None:
        _show_shadow(account or "", name, document, _Where(data, config, block), as_json)
    else:
        _show_account(account or "", _Where(data, config, block), as_json)


class _Where(NamedTuple):
    """Folder of a run or configuration of an installation, and as of which block."""

    data: Path
    config: Path | None
    block: int | None


def _show_account(account: str, where: _Where, as_json: bool) -> None:
    found = as_of_block(*where, account)
    from streams.cli.margin_tables import show_margin
    from streams.cli.margin_views import margin_view

    _say(margin_view(found, account), as_json, show_margin)


def _show_shadow(account: str, name: str | None, document: Path | None, where: _Where, as_json: bool) -> None:
    from streams.cli.margin_presets import read_document, shadow_view
    from streams.cli.preset_tables import show_shadow

    rules = read_document(name, document)
    _say(shadow_view(as_of_block(*where, account), account, rules), as_json, show_shadow)


def _show_cases(name: str | None, document: Path | None, cases: Path, integers: bool, as_json: bool) -> None:
    from streams.cli.margin_presets import cases_view, details_view, read_cases, read_document
    from streams.cli.preset_tables import show_cases

    rules, found = read_document(name, document), read_cases(cases)
    if as_json:
        emit_json(cases_view(rules, found, integers))
    else:
        show_cases(Console(highlight=False), details_view(rules, found, integers))


def _say(view: dict[str, Any], as_json: bool, show_to_people: Callable[[Console, dict[str, Any]], None]) -> None:
    if as_json:
        emit_json(plain(view))
    else:
        show_to_people(Console(highlight=False), view)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this preset's document.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The margin presets, one line each; with NAME its document: scenario rows, rules and parameters, to read or edit.

    Example: `dpme margin presets derive-pm2 > mine.json`, edit, `dpme margin show --document mine.json --cases FILE`.
    """
    from streams.cli.margin_presets import document_text, presets_view
    from streams.cli.preset_tables import show_presets

    if name is not None:
        print(document_text(name).decode(), end="")
    elif as_json:
        emit_json({"presets": presets_view()})
    else:
        show_presets(Console(highlight=False), presets_view())


@app.command()
def compare(
    cases: Annotated[
        Path | None, typer.Option("--cases", metavar="FILE", help="Portfolios of a file, in place of the named ones.")
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--preset", metavar="NAME", help="Only these, the first is the reference; may be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What each preset asks of named portfolios (long call, covered call, ... market maker), and the ratio to `es`.

    The ratios are not at equal coverage: a rule that asks less may simply cover less.

    Example: `dpme margin compare --preset es --preset derive-pm2 --preset isolated`.
    """
    from oracles.presets.document import NAMES
    from streams.cli.margin_presets import comparison_view, read_cases, read_document
    from streams.cli.preset_tables import show_comparison

    documents = [read_document(name, None) for name in names or NAMES]
    _say(comparison_view(documents, read_cases(cases)), as_json, show_comparison)


@app.command()
def explain(
    account: AccountArgument,
    block: BlockOption = None,
    instruments: Annotated[
        list[str] | None,
        typer.Option("--instrument", "-i", help="Also say what one more lot of this one asks; may be repeated."),
    ] = None,
    tail: Annotated[
        int, typer.Option("--tail", min=0, help="Tail scenarios shown, those that weigh most.")
    ] = TAIL_SHOWN,
    data: DataOption = Path(".dpme"),
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why the margin of ACCOUNT is what it is: rows that sum to it exactly, its tail scenarios, what one more lot asks.

    Each position's row is its share of the term that binds: of the expected shortfall (its mean loss over the tail
    scenarios), or of the worst stress row. A hedge has a negative row.

    Example: `dpme margin explain retail-0012 --instrument BTC-PERP`.
    """
    found = as_of_block(data, config, block, account)
    from streams.cli.margin_input import check_listed
    from streams.cli.margin_tables import show_explanation
    from streams.cli.margin_views import explanation_view

    check_listed(instruments or [], found.catalogue)
    view = explanation_view(found, account, instruments or [])
    if as_json:
        emit_json(plain(view))
    else:
        show_explanation(Console(highlight=False), view, tail)


@app.command(name="what-if")
def what_if(
    account: Annotated[str | None, typer.Argument(metavar="[ACCOUNT]", help="Account of the run.")] = None,
    trades: Annotated[
        list[str] | None,
        typer.Option(
            "--trade",
            "-t",
            metavar="INSTRUMENT:LOTS[@PRICE]",
            help="A fill; negative lots are sold; at the mark without a price. May be repeated.",
        ),
    ] = None,
    deposit: Annotated[str, typer.Option("--deposit", metavar="USD", help="Cash in; negative: out.")] = "0",
    portfolio: Annotated[
        Path | None, typer.Option("--portfolio", metavar="FILE", help="JSON of a portfolio, in place of ACCOUNT.")
    ] = None,
    block: BlockOption = None,
    data: DataOption = Path(".dpme"),
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the margin of ACCOUNT would be after trades and a deposit at a block's market; or that of a portfolio.

    Nothing is sent anywhere: this is the engine's own decision on a copy of the account. Lots are the instrument's
    smallest traded size (`dpme margin show` tells them).

    Example: `dpme margin what-if retail-0012 --trade BTC-PERP:-3 --trade ETH-PERP:10@2250.5 --deposit 500`

    A portfolio is a file like this, any part of which may be left out: `{"cash_usd": "1000", "positions":
    [{"instrument": "BTC-PERP", "lots": 5, "entry_price_usd": "43000"}], "collateral": [{"instrument": "ETH", "lots":
    20}]}`; then `dpme margin what-if --portfolio FILE`.
    """  # fmt: skip
    if (account is None) == (portfolio is None):
        raise CommandError("give either ACCOUNT or --portfolio FILE; `dpme margin what-if --help` shows both")
    from streams.cli.margin_input import check_listed, parse_trade, portfolio_of, read_portfolio, scaled
    from streams.cli.margin_tables import show_what_if
    from streams.cli.margin_views import account_alone, what_if_view

    wanted = [parse_trade(text) for text in trades or []]
    deposit_usd6 = scaled(deposit, 6, "--deposit")
    written = read_portfolio(portfolio) if portfolio is not None else None
    if written is None and not wanted and not deposit_usd6:
        raise CommandError("nothing would change: give --trade INSTRUMENT:LOTS[@PRICE] or --deposit USD")
    found = as_of_block(data, config, block, account)
    check_listed([trade.instrument for trade in wanted], found.catalogue)
    if written is not None:
        start = portfolio_of(written, found.catalogue, found.tables)
    else:
        start = account_alone(found, account or "")
    view = what_if_view(found, start, wanted, deposit_usd6)
    if as_json:
        emit_json(plain(view))
    else:
        show_what_if(Console(highlight=False), view)


# -- reading


def as_of_block(data: Path, config: Path | None, block: int | None, account: str | None) -> AsOf:
    """The machine of the account's partition (of the first one without an account) right after a block."""
    with explained(), source_of(data, config) as source:
        return asyncio.run(_read(source, block, account))


async def _read(source: Source, block: int | None, account: str | None) -> AsOf:
    from streams.cli.recorded_machines import partition_as_of
    from streams.engine.sequence import partition_of

    partition = partition_of(account, source.partitions) if account is not None else 0
    async with reading(source) as reader:
        sets = await reader.scenario_sets()
        with error_console().status("running the risk machine over the log") as status:
            found = await partition_as_of(reader, partition, sets, block, lambda at: status.update(f"block {at}"))
        if account is not None and account not in found.risk.book.row_of:
            raise _missing(account, await _accounts(reader), found.risk.block)
        return found


async def _accounts(reader: RunReader) -> set[str]:
    """Every account of the run."""
    from schemas.topics import ACCOUNT_LOG
    from streams.cli.tracing import accounts_in

    logs = [await reader.log(ACCOUNT_LOG, partition) for partition in range(reader.partitions)]
    return {name for log in logs for name in accounts_in(log)}


def _missing(account: str, known: set[str], block: int) -> CommandError:
    if account in known:
        return CommandError(f"{account} has no event up to block {block}: name a later --block")
    return unknown_account(account, known)


def plain(value: Any) -> Any:
    """The same for JSON: an integer that does not fit 64 bits becomes a decimal string."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, int) and abs(value) > INT64_MAX else value
