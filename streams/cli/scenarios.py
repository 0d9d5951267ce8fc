"""`dpme scenarios`: the scenario sets of an installation: which there are, and publishing one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.errors import CommandError
from streams.cli.output import emit_json, plural
from streams.cli.run import read
from streams.cli.running import ScenariosOption, explained

if TYPE_CHECKING:
    from oracles.scenario_set import ScenarioSet
    from streams.pipeline.scenario_inputs import ScenarioInputs
    from streams.runtime.settings import RuntimeSettings

app = typer.Typer(help="Scenario sets of an installation.", no_args_is_help=True, add_completion=False)
ConfigOption = Annotated[Path, typer.Option("--config", help="Configuration of the installation.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")]
DIGITS_SHOWN = 16
RECORDED = b"DPMESCN"  # how the bytes of a recorded set begin


@app.command()
def publish(
    config: ConfigOption,
    seed: Annotated[int, typer.Option("--seed", help="Any integer; the epoch's number on a venue.")] = 1,
    scenarios: ScenariosOption = 4096,
    underlyings: Annotated[
        list[str] | None,
        typer.Option(
            "--underlying",
            "-u",
            metavar="NAME[=VOLATILITY]",
            help="With its annual volatility (BTC=0.6); may be repeated. Without any: those that are listed.",
        ),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--with-options", metavar="NAME", help="It has a volatility surface.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="JSON of underlyings and volatilities, or a recorded set's own bytes."),
    ] = None,
    listed: Annotated[
        bool,
        typer.Option("--list/--no-list", help="Also list it on `instruments`: margins use it from the next block."),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Draw a scenario set and publish it, so that blocks can be margined. The same again changes nothing.

    Without a file, and without --underlying, it is drawn over the underlyings listed on `instruments`.

    A file is like `{"underlyings": {"BTC": {"volatility": 0.6, "options": true}, "USDC": {"stable": true}},
    "correlations": {"BTC/USDC": 0.1}}`; what is left out has defaults (infra/docs/scenarios.md).

    Example:  dpme scenarios publish --config live.json --seed 7
    """  # fmt: skip
    if file is not None and (underlyings or options):
        raise typer.BadParameter("give --file or --underlying, not both")
    settings = read(config).settings()
    with explained():
        made = _drawn(settings, file, underlyings or [], options or [], seed, scenarios)
        asyncio.run(_publish(settings, made, listed))
    said = "published, and listed: margins use it from the next block on" if listed else "published"
    typer.echo(f"scenario set {made.digest} of {plural(made.size, 'scenario')} {said}", err=True)
    if as_json:
        emit_json({**_plain(made), "listed": listed})


@app.command("list")
def list_sets(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Scenario sets on the broker, and which one is listed last.

    Example:  dpme scenarios list --config live.json
    """
    settings = read(config).settings()
    with explained():
        known, listings = asyncio.run(_read(settings))
    used = next((one["digest"] for one in reversed(listings) if one["type"] == "scenario_set"), "")
    if as_json:
        emit_json({"listed": used, "sets": [_plain(one) for one in known.values()]})
        return
    table = Table(box=None, pad_edge=False)
    for name in ("Set", "Scenarios", "Seed", "Horizon", "Underlyings", "Surface factors", ""):
        table.add_column(name, overflow="fold")
    for one in known.values():
        names = ", ".join(n + (" (surface)" if n in one.option_underlyings else "") for n in one.underlyings)
        horizon, mark = f"{one.horizon_seconds // 60} min", "listed" if one.digest == used else ""
        kinds = ", ".join(one.kinds if one.option_underlyings else ())
        table.add_row(one.digest[:DIGITS_SHOWN], f"{one.size:,}", str(one.seed), horizon, names, kinds, mark)
    console = Console(highlight=False)
    console.print(table)
    if used and used not in known:
        console.print(f"listed, but not there: {used}; margins wait for it", soft_wrap=True)
    elif not used:
        console.print(f"none is listed: dpme scenarios publish --config {config}", soft_wrap=True)


def _plain(one: ScenarioSet) -> dict[str, Any]:
    return {
        "digest": one.digest,
        "scenarios": one.size,
        "seed": one.seed,
        "horizon_seconds": one.horizon_seconds,
        "level_e6": one.level_e6,
        "underlyings": list(one.underlyings),
        "option_underlyings": list(one.option_underlyings),
        "version": one.version,
        "surface_factors": list(one.kinds) if one.option_underlyings else [],
    }


def _drawn(
    settings: RuntimeSettings, file: Path | None, underlyings: list[str], options: list[str], seed: int, scenarios: int
) -> ScenarioSet:
    from streams.pipeline.scenario_inputs import draw

    try:
        if file is not None and (raw := file.read_bytes()).startswith(RECORDED):
            return _recorded(raw)
        return draw(_inputs(settings, file, underlyings, options), seed, scenarios)
    except ValueError as error:  # msgspec's errors are ValueErrors
        raise CommandError(f"{file or '--underlying'}: {error}") from error


def _recorded(raw: bytes) -> ScenarioSet:
    """A set from its own bytes, which must be what its inputs draw."""
    from oracles.scenario_set import ScenarioSet, redraw

    recorded = ScenarioSet.from_bytes(raw)
    if redraw(recorded).digest != recorded.digest:
        raise ValueError("its scenarios are not those that its inputs draw")
    return recorded


def _inputs(settings: RuntimeSettings, file: Path | None, underlyings: list[str], options: list[str]) -> ScenarioInputs:
    from streams.pipeline.scenario_inputs import ScenarioInputs, UnderlyingInput, inputs_of_listings, read_inputs

    if file is not None:
        return read_inputs(file.read_bytes())
    if underlyings:
        given = dict(_parsed(text) for text in underlyings)
        if unknown := set(options) - given.keys():
            raise ValueError(f"--with-options {min(unknown)} is none of them")
        return ScenarioInputs({name: UnderlyingInput(v, options=name in options) for name, v in given.items()})
    found = inputs_of_listings(asyncio.run(_read(settings))[1])
    if found is None:
        raise CommandError("nothing is listed on instruments yet: name --underlying NAME=VOLATILITY, or --file FILE")
    return found


def _parsed(text: str) -> tuple[str, float | None]:
    name, _, volatility = text.partition("=")
    try:
        value = float(volatility) if volatility else None
    except ValueError:
        value = -1.0
    if not name or (value is not None and not 0 < value <= 100):
        raise ValueError(f"{text!r} is not NAME=VOLATILITY, as BTC=0.6 for 60 % a year")
    return name, value


async def _publish(settings: RuntimeSettings, made: ScenarioSet, listed: bool) -> None:
    from schemas.codec import encode
    from schemas.events import ScenarioSetListing
    from schemas.topics import INSTRUMENTS
    from streams.pipeline.scenario_store import publish_scenario_set
    from streams.runtime.broker_access import connected
    from streams.runtime.producer import new_producer

    sets = [one for one in (await _read(settings))[1] if one["type"] == "scenario_set"]
    await publish_scenario_set(settings, made)
    if not listed or (sets and sets[-1]["digest"] == made.digest):
        return
    producer = new_producer(settings)
    await connected(producer, settings)
    try:
        # an id of its own each time: one that was listed before may be listed again after others
        listing_id = f"scenario-set-{len(sets)}-{made.digest[:DIGITS_SHOWN]}"
        listing = ScenarioSetListing(version=1, id=listing_id, digest=made.digest)
        await producer.send_and_wait(settings.topic(INSTRUMENTS), encode(listing), partition=0)
    finally:
        await producer.stop()


async def _read(settings: RuntimeSettings) -> tuple[dict[str, ScenarioSet], list[dict]]:
    """-> (sets by digest, every valid listing on `instruments`)."""
    from schemas.codec import decode_inputs
    from schemas.topics import INSTRUMENTS, SCENARIO_SETS
    from streams.pipeline.scenario_store import load_scenario_sets
    from streams.runtime.log_reader import LogReader

    reader = LogReader(settings)
    await reader.start()
    try:
        if missing := {settings.topic(t) for t in (INSTRUMENTS, SCENARIO_SETS)} - (await reader.topics()).keys():
            raise CommandError(f"there is no topic {min(missing)} yet: dpme run topics --config FILE makes them")
        topic = settings.topic(INSTRUMENTS)
        found = await reader.read(topic, 0, *await reader.bounds(topic, 0))
    finally:
        await reader.stop()
    listings = [plain for r in found for _, refusal, plain in decode_inputs(INSTRUMENTS, r.value) if refusal is None]
    return await load_scenario_sets(settings), [plain for plain in listings if plain is not None]
