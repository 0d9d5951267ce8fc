"""`dpme margin`: one account's margin as of a block, why it is what it is, and what it would be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from streams.cli.errors import CommandError
from streams.cli.output import emit_json, error_console
from streams.cli.recorded_run import ConfigOption, RunReader, Source, reading, source_of, unknown_account
from streams.cli.running import DataOption, explained

if TYPE_CHECKING:
    from streams.cli.as_of import AsOf

app = typer.Typer(
    help="An account's margin as of a block: the numbers (show), why (explain), and what it would be (what-if).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)

INT64_MAX = 2**63 - 1
TAIL_SHOWN = 8

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account of the run, as the views name it.")]
BlockOption = Annotated[int | None, typer.Option("--block", "-b", min=0, help="As of this block; else the newest.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")]


@app.command()
def show(
    account: AccountArgument,
    block: BlockOption = None,
    data: DataOption = Path(".dpme"),
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The margin of ACCOUNT as of a block: NLV, IM, MM, their terms, positions and Greeks, and the cure of a call.

    Example: `dpme margin show retail-0012 --block 20`.
    """
    found = as_of_block(data, config, block, account)
    from streams.cli.margin_tables import show_margin
    from streams.cli.margin_views import margin_view

    view = margin_view(found, account)
    if as_json:
        emit_json(plain(view))
    else:
        show_margin(Console(highlight=False), view)


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
    from schemas.topics import ACCOUNT_LOG
    from streams.cli.as_of import machine_as_of
    from streams.engine.sequence import partition_of

    partition = partition_of(account, source.partitions) if account is not None else 0
    async with reading(source) as reader:
        state, begin = await _start(reader, partition, block)
        log = await reader.log(ACCOUNT_LOG, partition, begin)
        sets = await reader.scenario_sets()
        with error_console().status("running the risk machine over the log") as status:
            found = machine_as_of(log, partition, sets, block, state, lambda at: status.update(f"block {at}"))
        if account is not None and account not in found.risk.book.row_of:
            raise _missing(account, await _accounts(reader), found.risk.block)
        return found


async def _start(reader: RunReader, partition: int, block: int | None) -> tuple[bytes | None, int]:
    """(state, next offset) of the newest checkpoint, unless it is later than the block: then the beginning's."""
    from schemas.topics import ACCOUNT_LOG

    newest = await reader.checkpoint(partition)
    if newest is None or (block is not None and newest.mark > block):
        return await reader.genesis(partition), 0
    return newest.state, newest.positions[ACCOUNT_LOG, partition]


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
