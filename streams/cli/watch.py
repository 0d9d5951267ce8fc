"""`dpme watch`: follow a channel of the gateway, through lost connections, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.text import Text

from streams.cli.query import usd
from streams.gateway.client import PATIENCE_S, Follower, GatewayRefusal, GatewayUnreachable
from streams.gateway.hub import CHANNELS
from streams.gateway.server import DEFAULT_PORT
from streams.sink.current_run import DEFAULT_DATA, read_current_run

app = typer.Typer(help="Follow a channel of the gateway.")

_STYLES = {"healthy": "green", "margin_call": "yellow", "liquidatable": "red", "insolvent": "bold red"}


@app.command()
def watch(
    channel: Annotated[str, typer.Argument(help=f"One of: {', '.join(CHANNELS)}.")],
    data: Annotated[str, typer.Option(help="Data folder of the run: says where its gateway is.")] = DEFAULT_DATA,
    url: Annotated[str, typer.Option("--url", help="Address of the gateway, instead of the one in --data.")] = "",
    replay: Annotated[bool, typer.Option("--replay", help="Begin with the oldest event the gateway keeps.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line: the params of the event.")] = False,
    count: Annotated[int, typer.Option("--count", min=0, help="End after so many events; 0: never.")] = 0,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to wait for a lost gateway.")] = PATIENCE_S,
) -> None:
    """Follow CHANNEL: every event once and in order, also over lost connections. Ctrl-C ends it."""
    if channel not in CHANNELS:
        raise _end(f"there is no channel {channel!r}: take one of {', '.join(CHANNELS)}")
    follower = Follower(url or _address(data), channel, replay, patience, _notice)
    show = _show_json if as_json else _printer(Console(highlight=False))
    try:
        asyncio.run(_follow(follower, show, count))
    except GatewayUnreachable as error:
        raise _end(str(error)) from error
    except GatewayRefusal as error:
        raise _end(f"the gateway at {follower.url} refuses: {error}") from error
    except BrokenPipeError:  # whoever read our stdout has gone
        with contextlib.suppress(OSError):
            sys.stdout.close()


async def _follow(follower: Follower, show: Callable[[dict[str, Any]], None], count: int) -> None:
    """Show events until `count` of them, SIGINT or SIGTERM."""
    showing = asyncio.create_task(_show_events(follower, show, count))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, showing.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await showing


async def _show_events(follower: Follower, show: Callable[[dict[str, Any]], None], count: int) -> None:
    shown = 0
    async with contextlib.aclosing(follower.events()) as events:
        async for params in events:
            show(params)
            shown += 1
            if shown == count:
                return


def _address(data: str) -> str:
    run = read_current_run(data)
    return run.gateway if run is not None and run.gateway else f"ws://127.0.0.1:{DEFAULT_PORT}"


def _notice(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"dpme watch: {text}", markup=False)


def _end(text: str) -> typer.Exit:
    _notice(text)
    return typer.Exit(1)


def _show_json(params: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(params) + b"\n")
    sys.stdout.buffer.flush()


def _printer(console: Console) -> Callable[[dict[str, Any]], None]:
    def show(params: dict[str, Any]) -> None:
        console.print(line(params), soft_wrap=True)

    return show


def line(params: dict[str, Any]) -> Text:
    """One event for people."""
    data = params["data"]
    head = Text.assemble((f"{params['partition']}/{params['seq']:<6}", "dim"), f" block {data['block']:<8} ")
    if data.get("type") == "retraction":
        return head + Text(f"{data['account']} retracted: {data['retracts']}", "dim")
    return head + _LINES[params["channel"]](data)


def _warning(data: dict[str, Any]) -> Text:
    name = (f"{data['account']} ", "bold")
    crossed = f"crossed its {data['line']} line ({data['trigger']}): estimate {usd(data['estimate_usd6'])}"
    return Text.assemble(name, (crossed, "yellow"), f", {_margin(data)}")


def _call(data: dict[str, Any]) -> Text:
    found = Text.assemble((f"{data['account']} ", "bold"), f"{data['from']} -> ", (data["to"], _STYLES[data["to"]]))
    found.append(f"  {_margin(data)}")
    if data.get("cure"):
        cure = data["cure"]
        close = f"{cure['close_fraction_e6'] / 10_000:.1f} %"
        found.append(f"  cure: deposit {usd(cure['deposit_usd6'])} or close {close}", "cyan")
    return found


def _liquidation(data: dict[str, Any]) -> Text:
    size = f"  {len(data['positions'])} positions, shortfall {usd(data['shortfall_usd6'])}, {_margin(data)}"
    return Text.assemble((f"{data['account']} ", "bold"), (data["state"], "red"), size)


def _block(data: dict[str, Any]) -> Text:
    states = ", ".join(f"{count} {name}" for name, count in data["states"].items() if count)
    said = f"{data['accounts']} accounts ({states}), {data['warnings']} warnings, {data['calls']} calls"
    stages = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in data.get("stages", {}).items())
    said += f"; {stages}" if stages else ""
    halted = (f"  HALTED: {data['halted']}", "bold red") if data["halted"] else ""
    back = (f"  ROLLED BACK from block {data['rollback_from']}", "bold yellow") if "rollback_from" in data else ""
    return Text.assemble(said, back, halted)


def _margin(data: dict[str, Any]) -> str:
    margin = data["margin"]
    names = (("NLV", "nlv_usd6"), ("IM", "initial_margin_usd6"), ("MM", "maintenance_margin_usd6"))
    return ", ".join(f"{short} {usd(margin[name])}" for short, name in names)


_LINES: dict[str, Callable[[dict[str, Any]], Text]] = {
    "margin.warnings": _warning,
    "margin.calls": _call,
    "liquidations": _liquidation,
    "risk.blocks": _block,
}
