"""`dpme quarantine`: inputs that were not taken: which, why, and sending them again."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.topics import INPUTS, QUARANTINE
from streams.cli.errors import CommandError
from streams.cli.output import emit_json, moment, plural
from streams.cli.quarantined import WHAT_TO_DO, Entry, Wanted, as_text, cannot_send, entries
from streams.cli.recorded_run import ConfigOption, source_of
from streams.cli.running import DataOption, explained

if TYPE_CHECKING:
    from streams.runtime.settings import RuntimeSettings

app = typer.Typer(
    help="Inputs that were not taken: which, why, and sending them again.", no_args_is_help=True, add_completion=False
)

SHOW_BYTES = 4_000
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only this reason, for example late_tick.")]
Topic = Annotated[str | None, typer.Option("--topic", help="Only this input topic.")]
Time = Annotated[datetime.datetime | None, typer.Option(help="Of the event, UTC, inclusive.")]
Block = Annotated[int | None, typer.Option(help="Of the event, inclusive.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it: topic/partition/offset/index.")]


@app.command("list")
def list_entries(
    reason: Reason = None,
    topic: Topic = None,
    block_from: Block = None,
    block_to: Block = None,
    since: Time = None,
    until: Time = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest, at most.")] = 50,
    data: DataOption = Path(".dpme"),
    config: ConfigOption = None,
    as_json: AsJson = False,
) -> None:
    """What is in quarantine, oldest first.

    Example: `dpme quarantine list --reason unknown_instrument --block-from 20`.
    """
    wanted = Wanted(_reason(reason), _topic(topic), block_from, block_to, _ms(since), _ms(until))
    with _installation(data, config) as settings:
        found = [entry for entry in asyncio.run(_read(settings)) if wanted.admits(entry)]
    shown = found[-limit:]
    if as_json:
        emit_json({"count": len(found), "entries": [entry.plain() for entry in shown]})
        return
    console = Console(highlight=False)
    if shown:
        console.print(_table(shown))
    by_reason = ", ".join(f"{count} {name}" for name, count in Counter(e.what.reason for e in found).most_common())
    console.print(f"{plural(len(found), 'input')} in quarantine{': ' if by_reason else ''}{by_reason}")


@app.command()
def show(entry_id: Id, data: DataOption = Path(".dpme"), config: ConfigOption = None, as_json: AsJson = False) -> None:
    """One input: its own bytes, what is wrong with them, what to do."""
    with _installation(data, config) as settings:
        (entry,) = _chosen(asyncio.run(_read(settings)), [entry_id])
    if as_json:
        emit_json({**entry.plain(), "what_to_do": WHAT_TO_DO.get(entry.what.reason, "")})
        return
    what = entry.what
    lines = {
        "reason": what.reason,
        "field": what.field or "-",
        "detail": what.detail,
        "topic": what.topic,
        "partition": str(what.partition),
        "offset": f"{what.offset}, event {what.index} of the record",
        "bytes": as_text(entry.raw, SHOW_BYTES),
        "to do": WHAT_TO_DO.get(what.reason, "upgrade this command: it does not know the reason"),
    }
    console = Console(highlight=False)
    for name, text in lines.items():
        console.print(f"{name:<10} {text}", markup=False, soft_wrap=True)


@app.command()
def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `list` shows them.")] = None,
    reason: Reason = None,
    topic: Topic = None,
    edit: Annotated[Path | None, typer.Option("--edit", help="Send this file's bytes instead (one ID only).")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Send. Without it, only say what would be sent.")] = False,
    data: DataOption = Path(".dpme"),
    config: ConfigOption = None,
    as_json: AsJson = False,
) -> None:
    """Send quarantined inputs to their topic again, byte for byte or corrected.

    The sequencer judges them as any input: the same event again is recognised as a repeat and dropped, another content
    under an id that counts is refused; nothing is ever applied twice.

    Example: `dpme quarantine show ID --json`, correct a file, `dpme quarantine replay ID --edit event.json --yes`.
    """
    if not ids and reason is None and topic is None:
        raise typer.BadParameter("name IDs, or --reason, or --topic")
    if edit is not None and len(ids or ()) != 1:
        raise typer.BadParameter("--edit corrects one input: name exactly one ID")
    wanted = Wanted(_reason(reason), _topic(topic))
    edited = _edited(edit)
    with _installation(data, config) as settings:
        found = asyncio.run(_read(settings))
        chosen = [e for e in (_chosen(found, ids) if ids else found) if wanted.admits(e)]
        plan = [(entry, cannot_send(entry, edited)) for entry in chosen]
        sent = asyncio.run(_send(settings, [e for e, why in plan if why is None], edited)) if yes else {}
    _tell(plan, sent, yes, as_json)


def _tell(plan: list[tuple[Entry, str | None]], sent: dict[str, int], yes: bool, as_json: bool) -> None:
    usable = sum(why is None for _, why in plan)
    console = Console(highlight=False, stderr=as_json)
    for entry, why in plan:
        place = f"{entry.what.topic}, partition {entry.what.partition}"
        at = f"sent to {place} at offset {sent[entry.id]}" if entry.id in sent else f"to send to {place}"
        console.print(f"{entry.id}: {escape(at if why is None else 'not sent: ' + why)}", soft_wrap=True)
    if not yes and usable:
        console.print(f"nothing was sent; --yes sends {plural(usable, 'input')}")
    if as_json:
        rows = [{"id": e.id, "not_sent": why, "offset": sent.get(e.id)} for e, why in plan]
        emit_json({"sent": len(sent), "inputs": rows})
    if plan and not usable:
        raise CommandError("none of these can be taken as it is")


def _table(shown: list[Entry]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("Id", "Reason", "Field"):
        table.add_column(name, no_wrap=True)
    table.add_column("Block", justify="right", no_wrap=True)
    table.add_column("Time, UTC", no_wrap=True)
    table.add_column("Detail", overflow="fold")
    for entry in shown:
        time = moment(entry.time_ms) if entry.time_ms is not None and 0 <= entry.time_ms < 2**43 else ""
        block = "" if entry.block is None else str(entry.block)
        what = entry.what
        table.add_row(entry.id, what.reason, escape(what.field), block, time, escape(what.detail))
    return table


# -- options


def _reason(reason: str | None) -> str | None:
    if reason is not None and reason not in WHAT_TO_DO:
        raise typer.BadParameter(f"{reason!r} is no reason: choose one of {', '.join(sorted(WHAT_TO_DO))}")
    return reason


def _topic(topic: str | None) -> str | None:
    if topic is not None and topic not in INPUTS:
        raise typer.BadParameter(f"{topic!r} is no input topic: choose one of {', '.join(INPUTS)}")
    return topic


def _ms(at: datetime.datetime | None) -> int | None:
    return None if at is None else round(at.replace(tzinfo=datetime.UTC).timestamp() * 1000)


def _edited(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes().strip()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}") from error


def _chosen(found: list[Entry], ids: list[str]) -> list[Entry]:
    by_id = {entry.id: entry for entry in found}
    for entry_id in ids:
        if entry_id not in by_id:
            raise CommandError(f"{entry_id} is not in quarantine; `dpme quarantine list` shows what is")
    return [by_id[entry_id] for entry_id in ids]


# -- broker


@contextlib.contextmanager
def _installation(data: Path, config: Path | None) -> Iterator[RuntimeSettings]:
    """How to reach the topics."""
    with explained(), source_of(data, config) as source:
        yield source.settings


async def _read(settings: RuntimeSettings) -> list[Entry]:
    """The whole quarantine."""
    from streams.runtime.log_reader import LogReader

    reader = LogReader(settings)
    await reader.start()
    try:
        topic = settings.topic(QUARANTINE)
        if topic not in await reader.topics():
            where = settings.bootstrap
            raise CommandError(f"the broker at {where} has no topic {topic}: is this the right installation?")
        records = await reader.read(topic, 0, *await reader.bounds(topic, 0))
    finally:
        await reader.stop()
    return entries(record.value for record in records)


async def _send(settings: RuntimeSettings, chosen: list[Entry], edited: bytes | None) -> dict[str, int]:
    """Ids -> offsets at which the inputs now stand again."""
    from streams.runtime.broker_access import connected
    from streams.runtime.producer import new_producer

    producer = new_producer(settings)
    await connected(producer, settings)
    try:
        sent = {}
        for entry in chosen:
            raw = entry.raw if edited is None else edited
            what = entry.what
            at = await producer.send_and_wait(settings.topic(what.topic), raw, partition=what.partition)
            sent[entry.id] = at.offset
    finally:
        await producer.stop()
    return sent
