"""`dpme`: finds the command's module, loads nothing else, and turns what fails outside into one line."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import textwrap
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperGroup

from streams.cli.errors import CommandError

INTERRUPTED = 130
FAILED = 1
UNEXPECTED = 70
LOUD = ("aiokafka", "clickhouse_driver")  # they log what they try again; what fails for good is raised, and told once


class Entry(NamedTuple):
    """Module of a command, and what the overview says about it."""

    module: str
    summary: str


COMMANDS = {
    "demo": Entry("streams.cli.demo", "A seeded venue lives through a crash: margins, warnings, calls, liquidations."),
    "replay": Entry(
        "streams.cli.replay", "Recorded markets through the same pipeline: hyperliquid, deribit, chainlink."
    ),
    "watch": Entry("streams.cli.watch", "Follow a channel of the running gateway over the WebSocket."),
    "query": Entry("streams.cli.query", "Ask the store: margins now, as of a block, of an account; or any SELECT."),
    "trace": Entry(
        "streams.cli.trace", "Why an account got where it is: fill, Greeks, breach, shortfall, call, liquidation."
    ),
    "margin": Entry(
        "streams.cli.margin",
        "One account's margin as of a block: show, explain, what if; and what other venues' presets ask.",
    ),
    "stress": Entry("streams.cli.stress", "The whole venue under stress: what its insurance fund would have to pay."),
    "parameters": Entry("streams.cli.parameters", "Risk parameters: the document, and what recorded markets suggest."),
    "surface": Entry("streams.cli.surface", "A volatility surface drawn: slices, arbitrage verdicts, bid and ask."),
    "quarantine": Entry("streams.cli.quarantine", "Inputs that were not taken: which, why, and sending them again."),
    "data": Entry("streams.cli.data", "Recorded bars, quotes, trades, fills: import and check them."),
    "backtest": Entry("streams.cli.backtest", "Risk models against what happened: coverage, scores, a report."),
    "gate": Entry("streams.cli.gate", "May a withdrawal or an order be done? The margin before and after."),
    "schema": Entry("streams.cli.schema", "What inputs and outputs look like: JSON Schema, AsyncAPI."),
    "run": Entry("streams.cli.run", "The workers on a broker of your own, for inputs from your own producers."),
    "restart": Entry("streams.cli.restart", "Rolling restart of the workers: with hot standby no block is late."),
    "scenarios": Entry("streams.cli.scenarios", "Scenario sets of an installation: publish one, list them."),
    "partitions": Entry("streams.cli.partitions", "Over how many partitions accounts are spread, and changing it."),
    "doctor": Entry("streams.cli.doctor", "Check what DPME needs on this machine, and say what to do."),
}
EXAMPLES = (
    ("dpme demo", "watch it live, a block a second"),
    ("dpme demo --json | tail -1", "the same as fast as it goes, one JSON object at the end"),
    ("dpme watch margin.calls", "in a second terminal, while a demo runs"),
    ("dpme query latest", "the accounts nearest their line, from the store"),
    ("dpme trace retail-0012", "everything that happened to one account of the last run"),
    ("dpme margin explain retail-0012", "why its margin is what it is, to the micro-USD"),
    ("dpme replay hyperliquid", "recorded fills (a sample without --source FILE)"),
)


class LazyGroup(TyperGroup):
    """Commands by name; a module is imported when its command is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(importlib.import_module(COMMANDS[cmd_name].module).app)
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The overview, without importing any command."""
        formatter.write(overview())


def overview() -> str:
    """What `dpme --help` says."""
    width = max(len(example) for example, _ in EXAMPLES)
    return textwrap.dedent(
        """\
        Usage: dpme [--debug] COMMAND [OPTIONS]

        DPME computes portfolio margins of every account at every block, from a stream of fills and prices, and says
        who is warned, called and liquidated. Begin with `dpme demo`.

        Commands:
        {commands}

        Examples:
        {examples}

        Options:
          --debug    Show the traceback of an error.
          --version  Show the version.
          --help     Show this message; `dpme COMMAND --help` explains a command.

        Every command ends with 0 if it did what it was asked, 1 if it could not (one line on stderr says why and what
        to do), 2 for a wrong option. With --json the last line of stdout is one JSON object.
        """
    ).format(
        commands="\n".join(f"  {name:<10} {entry.summary}" for name, entry in COMMANDS.items()),
        examples="\n".join(f"  {example:<{width}}  {meaning}" for example, meaning in EXAMPLES),
    )


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"dpme {version('dpme')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    if debug:
        os.environ["DPME_DEBUG"] = "1"


def main() -> NoReturn:
    """The console script."""
    for library in LOUD:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        typer.main.get_command(app)(prog_name="dpme")
    except CommandError as error:
        _explain(str(error), FAILED)
    except KeyboardInterrupt:
        _explain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # whoever read our stdout has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        _explain(f"unexpected {what}; `dpme --debug ...` shows where, please report it", UNEXPECTED)
    sys.exit(0)


def _explain(text: str, code: int) -> NoReturn:
    if os.environ.get("DPME_DEBUG"):
        import traceback

        traceback.print_exc()
    print(f"dpme: {text}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
