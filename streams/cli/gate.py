"""`dpme gate`: may this withdrawal or order be done? The engine's own gate, as of a block."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.cli.errors import CommandError
from streams.cli.margin import AccountArgument, BlockOption, JsonOption, as_of_block, plain
from streams.cli.output import emit_json, moment, usd
from streams.cli.recorded_run import ConfigOption
from streams.cli.running import DataOption

if TYPE_CHECKING:
    from streams.cli.as_of import AsOf
    from streams.engine.gate import Answer, Request

app = typer.Typer(
    help="May a withdrawal or an order be done? The margin before and after, and why not.",
    no_args_is_help=True,
    add_completion=False,
)

SHOWN = (("NLV", "nlv_usd6"), ("IM", "initial_margin_usd6"), ("MM", "maintenance_margin_usd6"))
WHY = {
    "initial_margin": "it would not leave the initial margin",
    "collateral_halted": "it would lean on a coin that is halted",
    "in_margin_call": "the account is in a margin call",
    "no_margin_yet": "nothing has been margined yet",
    "instrument_unpriced": "no price",
    "unknown_instrument": "not listed",
    "wrong_kind": "no collateral",
    "out_of_range": "the size",
}


@app.command()
def withdraw(
    account: AccountArgument,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="USD, or INSTRUMENT:LOTS of a collateral coin.")],
    block: BlockOption = None,
    data: DataOption = Path(".dpme"),
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """May cash, or a collateral coin, leave ACCOUNT at a block's market?

    Example:  dpme gate withdraw retail-0012 250;  dpme gate withdraw retail-0012 ETH:20
    """
    from streams.engine.gate import CashWithdrawal, CollateralWithdrawal

    request: Request
    if ":" in amount:
        from streams.cli.margin_input import parse_trade

        coins = parse_trade(amount, "AMOUNT")
        if coins.price_usd9 is not None or coins.lots < 0:
            raise CommandError(
                f"AMOUNT {amount!r}: a withdrawal is INSTRUMENT:LOTS, of more than 0 lots, without price"
            )
        request = CollateralWithdrawal(account, coins.instrument, coins.lots)
    else:
        from streams.cli.margin_input import scaled

        request = CashWithdrawal(account, scaled(amount, 6, "AMOUNT"))
        if request.amount_usd6 <= 0:
            raise CommandError(f"AMOUNT {amount}: a withdrawal is more than 0")
    _answer(as_of_block(data, config, block, account), request, as_json)


@app.command()
def order(
    account: AccountArgument,
    what: Annotated[str, typer.Argument(metavar="INSTRUMENT:LOTS@LIMIT", help="Negative lots are sold.")],
    block: BlockOption = None,
    data: DataOption = Path(".dpme"),
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """May ACCOUNT place this order at a block's market? It is judged as if filled whole at its limit.

    An order that reduces risk is always taken. Nothing is sent anywhere.

    Example:  dpme gate order retail-0012 BTC-PERP:-3@43000.5
    """
    from streams.cli.margin_input import parse_trade
    from streams.engine.gate import Order

    wanted = parse_trade(what, "order")
    if wanted.price_usd9 is None or wanted.price_usd9 <= 0:
        raise CommandError(f"order {what!r}: it needs a limit price above 0, such as BTC-PERP:-3@43000.5")
    request = Order(account, wanted.instrument, wanted.lots, wanted.price_usd9)
    _answer(as_of_block(data, config, block, account), request, as_json)


def _answer(found: AsOf, request: Request, as_json: bool) -> None:
    from streams.cli.margin_input import check_listed
    from streams.engine.gate import gate

    named = getattr(request, "instrument", None)
    check_listed([named] if named is not None else [], found.catalogue)
    answer = gate(found.risk, request)
    if as_json:
        asked = {"type": type(request).__name__, **msgspec.to_builtins(request)}
        emit_json(plain({"account": request.account, "request": asked, **msgspec.to_builtins(answer)}))
    else:
        show(Console(highlight=False), request.account, answer)


def show(console: Console, account: str, answer: Answer) -> None:
    """The answer for people."""
    verdict = Text("allowed", "green") if answer.allowed else Text("refused", "red")
    when = f"block {answer.block}, {moment(answer.time_ms)[:19]} UTC"
    console.print(Text.assemble((account, "bold"), f" at {when}: ", verdict), soft_wrap=True)
    if not answer.allowed:
        console.print(f"{WHY.get(answer.reason, answer.reason)}: {answer.detail}", soft_wrap=True)
    if answer.before is None or answer.after is None:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("USD", "Before", "After"):
        table.add_column(name, justify="left" if name == "USD" else "right", no_wrap=True)
    rows: list[tuple[str, Any]] = [(short, lambda margin, f=field: getattr(margin, f)) for short, field in SHOWN]
    for short, value in [*rows, ("above IM", lambda m: m.nlv_usd6 - m.initial_margin_usd6)]:
        table.add_row(short, usd(value(answer.before)), usd(value(answer.after)))
    console.print(table)
    if answer.missing_usd6:
        console.print(f"missing to the initial margin after it: {usd(answer.missing_usd6)}", style="cyan")
