"""`dpme trace`: one account of the last run, from fill to liquidation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.cli.output import emit_json, error_console, moment, plural, price, state_text, usd
from streams.cli.recorded_run import (
    ConfigOption,
    Record,
    Source,
    liquidations_of,
    reading,
    source_of,
    unknown_account,
)
from streams.cli.running import DataOption, explained

if TYPE_CHECKING:
    from oracles.scenario_set import ScenarioSet

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

GREEKS = (("delta", "delta_usd6"), ("gamma", "gamma_usd6"), ("vega", "vega_usd6"), ("theta", "theta_usd6"))
STEP_STYLES = {"warning": "yellow", "call": "red", "liquidation": "bold red", "margin": "dim", "events": "cyan"}


@app.command()
def trace(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account of the last run, as the views name it.")],
    data: DataOption = Path(".dpme"),
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")] = False,
) -> None:
    """Why an account got where it is: fill, Greeks, breach, expected shortfall, call, liquidation.

    Reads the account's log of the last run and runs the risk machine over it again: the numbers are those of the run,
    to the bit. If the run's embedded broker has ended, it is started on its data for the reading.

    Example: `dpme trace retail-0012`.
    """
    notes = error_console()
    with explained(), source_of(data, config) as source:
        log, liquidations, sets, genesis = asyncio.run(_read(source, account))
        story = _follow(notes, source.partitions, account, log, sets, genesis)
    from streams.cli.tracing import with_liquidations

    story = with_liquidations(story, liquidations)
    if as_json:
        emit_json({"account": account, "world": source.settings.prefix.split("-")[0], "steps": story})
    else:
        show(Console(highlight=False), account, story)


def _follow(
    notes: Console,
    partitions: int,
    account: str,
    log: list[Record],
    sets: dict[str, ScenarioSet],
    genesis: bytes | None = None,
) -> list[dict[str, Any]]:
    from streams.cli.tracing import Tracer, accounts_in
    from streams.engine.sequence import partition_of

    tracer = Tracer(account, partition_of(account, partitions), sets, genesis)
    names = {*accounts_in(log), *tracer.risk.book.accounts}
    if account not in names:
        raise unknown_account(account, names)
    with notes.status("running the risk machine over the log") as status:
        return tracer.follow(log, lambda block: status.update(f"block {block}"))


async def _read(
    source: Source, account: str
) -> tuple[list[Record], list[dict[str, Any]], dict[str, ScenarioSet], bytes | None]:
    """-> (records of the account's partition, its liquidation events, scenario sets by digest, what the log begins
    with)."""
    from schemas.topics import ACCOUNT_LOG, LIQUIDATIONS
    from streams.engine.sequence import partition_of

    partition = partition_of(account, source.partitions)
    async with reading(source) as reader:
        log = await reader.log(ACCOUNT_LOG, partition)
        liquidations = liquidations_of(account, await reader.log(LIQUIDATIONS, 0))
        return log, liquidations, await reader.scenario_sets(), await reader.genesis(partition)


# -- showing


def show(console: Console, account: str, story: list[dict[str, Any]]) -> None:
    """The story as a table of steps; margins where something happened."""
    from streams.cli.tracing import told

    table = Table(title=f"{account}, USD", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("Block", justify="right", no_wrap=True)
    table.add_column("Time", no_wrap=True)
    table.add_column("Step", no_wrap=True)
    table.add_column("What", overflow="fold")
    block = None
    for step in told(story):
        is_new, block = step["block"] != block, step["block"]
        time = moment(step["time_ms"])[11:]
        name, lines = describe(step)
        head = Text(name, STEP_STYLES[step["step"]])
        table.add_row(str(block) if is_new else "", time, head, Text("\n").join(lines))
    console.print(table)
    console.print(
        "delta: per +100 % of the price; vega: per 1.00 of volatility; theta: a day. estimate: NLV by Greeks between "
        "blocks; ES: expected shortfall of the whole book.",
        style="dim",
    )


def describe(step: dict[str, Any]) -> tuple[str, list[Text]]:
    """(name, lines) of a step."""
    if step["step"] == "events":
        return "fill" if any(e["kind"] == "fill" for e in step["events"]) else "transfer", _event_lines(step)
    if step["step"] == "margin":
        lines = [Text.assemble(state_text(step["state"]), ": ", _margin(step["margin"]))]
        return "margin", [*lines, *(_greek_line(greeks) for greeks in step["greeks"])]
    event = step["event"]
    if step["step"] == "warning":
        return "breach", _warning_lines(step, event)
    if step["step"] == "call":
        return {"margin_call": "call", "healthy": "release"}.get(event["to"], "flag"), _call_lines(event)
    said = f"{event['state']}: the whole portfolio, {plural(len(event['positions']), 'position')}"
    lines = [Text(f"{said}, shortfall {usd(event['shortfall_usd6'])}, cash {usd(event['cash_usd6'])}")]
    return "liquidation", lines + [Text(f"{p['instrument']} {p['lots']:+,} lots, value {usd(p['value_usd6'])}")
                                   for p in event["positions"]]  # fmt: skip


def _event_lines(step: dict[str, Any]) -> list[Text]:
    lines = [Text(_event(event)) for event in step["events"]]
    before = {greeks["underlying"]: greeks for greeks in step["greeks_before"]}
    for after in step["greeks_after"]:
        was = before.get(after["underlying"])
        if after != was and any(greeks[field] for greeks in (after, was or {}) for _, field in GREEKS if greeks):
            lines.append(_greek_line(after, was))
    return lines


def _event(event: dict[str, Any]) -> str:
    if event["kind"] == "cash":
        return f"cash {usd(event['cash_usd6'])}"
    units = abs(event["lots"]) * 10.0 ** event["lot_exponent"]
    if event["kind"] != "fill":
        return f"{event['kind']} {event['instrument']} {'+' if event['lots'] >= 0 else '-'}{units:,g}"
    side = "bought" if event["lots"] > 0 else "sold"
    return f"{side} {units:,g} {event['instrument']} at {price(event['price_usd9'])}"


def _greek_line(after: dict[str, Any], before: dict[str, Any] | None = None) -> Text:
    parts = []
    for name, field in GREEKS:
        now, was = usd(after[field]), usd(before[field]) if before is not None else ""
        if after[field] or (before is not None and before[field]):
            parts.append(f"{name} {was} → {now}" if was not in ("", now) else f"{name} {now}")
    return Text(f"Greeks {after['underlying']}: " + ", ".join(parts), "dim")


def _margin(margin: dict[str, Any]) -> str:
    lines = (("NLV", "nlv"), ("IM", "initial_margin"), ("MM", "maintenance_margin"))
    return ", ".join(f"{short} {usd(margin[f'{name}_usd6'])}" for short, name in lines) + f" ({_terms(margin)})"


def _terms(margin: dict[str, Any]) -> str:
    names = {"expected_shortfall": "ES", "stress_loss": "stress", "short_option_minimum": "short options"}
    terms = ", ".join(f"{short} {usd(margin[f'{name}_usd6'])}" for name, short in names.items())
    return f"{terms}, add-ons {usd(margin['add_ons_usd6'])}; binding: {margin['binding'].replace('_', ' ')}"


def _warning_lines(step: dict[str, Any], event: dict[str, Any]) -> list[Text]:
    margin = event["margin"]
    line_usd6 = margin["initial_margin_usd6" if event["line"] == "IM" else "maintenance_margin_usd6"]
    was = f"{usd(step['estimate_before_usd6'])} → " if step["estimate_before_usd6"] is not None else ""
    first = f"on a {event['trigger']} the estimate went {was}{usd(event['estimate_usd6'])}, through {event['line']}"
    return [
        Text(first, "yellow"),
        Text(f"exact at once: NLV {usd(margin['nlv_usd6'])} < {event['line']} {usd(line_usd6)} ({_terms(margin)})"),
        *(_greek_line(greeks) for greeks in event["greeks"]),
    ]


def _call_lines(event: dict[str, Any]) -> list[Text]:
    arrow = Text.assemble(state_text(event["from"]), " → ", state_text(event["to"]), ": ", _margin(event["margin"]))
    cure = event.get("cure")
    if not cure:
        return [arrow]
    close = f"{cure['close_fraction_e6'] / 10_000:.1f} % of every position"
    return [arrow, Text(f"cure: deposit {usd(cure['deposit_usd6'])} or close {close}", "cyan")]
