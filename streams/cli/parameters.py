"""`dpme parameters`: the risk parameter document, and concentration tiers and collateral factors from recorded bars."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.errors import CommandError
from streams.cli.output import emit_json

if TYPE_CHECKING:
    from oracles.liquidity import Liquidity
    from schemas.risk_parameters import RiskParameters

app = typer.Typer(
    help="The risk parameter document: what is in force without one (show), what recorded markets suggest (suggest).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)

HORIZON_HOURS, FLOOR, CAP, REFERENCE_USD = 24, 0.5, 0.98, 1_000_000.0

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")]


@app.command()
def show(as_json: JsonOption = False) -> None:
    """The default document, as a venue would send it (type `parameters`, topic `instruments`).

    Example: `dpme parameters show --json > parameters.json`
    """
    from schemas.risk_parameters import RiskParameters, parameters_document

    document = parameters_document(RiskParameters())
    if as_json:
        emit_json(document)
        return
    table = Table("Parameter", "Value", box=None, pad_edge=False)
    for name, value in document.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{len(value)} rows")
    Console(highlight=False).print(table)


@app.command()
def suggest(
    bars: Annotated[
        list[str] | None,
        typer.Option("--bars", metavar="ASSET=FILE", help="Bars as `dpme data import` writes them; may be repeated."),
    ] = None,
    open_interest: Annotated[
        list[str] | None, typer.Option("--open-interest", metavar="ASSET=USD", help="Recorded open interest.")
    ] = None,
    depth: Annotated[
        list[str] | None,
        typer.Option("--depth", metavar="ASSET=USD", help="What the book takes at once, free of charge."),
    ] = None,
    unmodelled: Annotated[
        list[str] | None,
        typer.Option("--unmodelled", metavar="ASSET", help="No scenario factor: its factor carries its whole fall."),
    ] = None,
    reference_usd: Annotated[float, typer.Option("--lot", help="A collateral lot sold at once, USD.")] = REFERENCE_USD,
    floor: Annotated[float, typer.Option("--floor", help="Least collateral factor.")] = FLOOR,
    cap: Annotated[float, typer.Option("--cap", help="Greatest collateral factor.")] = CAP,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="An installation with a risk model: open interest from what it has recorded."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Concentration tiers and collateral factors from what was traded: a document to be proposed, not yet in force.

    A position pays what closing it would cost by the square-root law of market impact, beyond what the book takes at
    once. An asset with less than a week of bars gets the floor and no tiers, and is named.

    Example: `dpme parameters suggest --bars BTC=btc.csv --open-interest BTC=900000000 --json`
    """
    from schemas.risk_parameters import parameters_document

    if not bars:
        raise CommandError("give --bars ASSET=FILE; `dpme data import --help` shows how such files are made")
    if not 0.0 <= floor <= cap <= 1.0:
        raise CommandError(f"--floor {floor:g} and --cap {cap:g}: 0 <= floor <= cap <= 1 must hold")
    if not 0.0 < reference_usd < math.inf:
        raise CommandError(f"--lot: {reference_usd:g} is not a positive amount of USD")
    given = {
        "interest": _recorded_interest(config) | _amounts(open_interest, "--open-interest"),
        "depth": _amounts(depth, "--depth"),
    }
    found, short = _markets(_named(bars, "--bars"), given, set(unmodelled or []), reference_usd, (floor, cap))
    document = _document(found)
    if as_json:
        emit_json({"document": parameters_document(document), "too_short": sorted(short)})
        return
    _print(found, short)


Row = tuple["Liquidity | None", int]


def _markets(
    files: dict[str, str],
    given: dict[str, dict[str, float]],
    unmodelled: set[str],
    reference_usd: float,
    bounds: tuple[float, float],
) -> tuple[dict[str, Row], list[str]]:
    """(liquidity, collateral factor) by asset, and a reason for each asset whose history is too short."""
    from oracles.liquidity import HistoryTooShort, collateral_factor_e6, liquidity_of, price_fall
    from oracles.risk_model.bars import read_bars

    floor_e6, cap_e6 = (round(bound * 1e6) for bound in bounds)
    found: dict[str, Row] = {}
    short = []
    for asset, name in files.items():
        try:
            bars = read_bars(Path(name), asset)
            market = liquidity_of(bars, given["interest"].get(asset, math.inf), given["depth"].get(asset, 0.0))
        except HistoryTooShort as reason:
            found[asset] = (None, floor_e6)
            short.append(str(reason))
            continue
        except OSError as error:
            raise CommandError(f"--bars {asset}={name}: {error.strerror}") from error
        except ValueError as error:
            raise CommandError(f"--bars {asset}: {error}") from error
        horizon = max(1, HORIZON_HOURS * 3_600_000 // bars.interval_ms)
        fall = price_fall(bars, horizon) if asset in unmodelled else 0.0
        found[asset] = (market, collateral_factor_e6(market, reference_usd, fall, floor_e6, cap_e6))
    return found, short


def _document(found: dict[str, Row]) -> RiskParameters:
    from oracles.liquidity import concentration_tiers
    from schemas.risk_parameters import CollateralFactor, Concentration, RiskParameters

    return RiskParameters(
        version=2,
        concentration=tuple(
            Concentration(underlying=asset, tiers=concentration_tiers(market))
            for asset, (market, _) in found.items()
            if market is not None
        ),
        collateral_factors=tuple(
            CollateralFactor(instrument=asset, factor_e6=factor_e6) for asset, (_, factor_e6) in found.items()
        ),
    )


def _print(found: dict[str, Row], short: list[str]) -> None:
    from oracles.liquidity import concentration_tiers

    console = Console(highlight=False)
    table = Table("Asset", "Factor", "Volume a day", "Volatility a day", "Charge per size", box=None, pad_edge=False)
    for asset, (market, factor_e6) in found.items():
        if market is None:
            table.add_row(asset, f"{factor_e6 / 1e6:.3f}", "", "", "too short a history", style="yellow")
            continue
        tiers = concentration_tiers(market)
        told = ", ".join(
            f"{t.rate_e6 / 1e4:.2f} % above {t.above_usd6 / 1e12:,.4g} m" for t in tiers[:: len(tiers) // 3 or 1]
        )
        table.add_row(
            asset, f"{factor_e6 / 1e6:.3f}", f"{market.daily_volume_usd / 1e6:,.1f} m",
            f"{market.daily_volatility * 100:.2f} %", told,
        )  # fmt: skip
    console.print(table)
    for reason in short:
        console.print(reason, style="yellow")


def _recorded_interest(config: Path | None) -> dict[str, float]:
    """Mean open interest by underlying as the risk model of an installation has it."""
    if config is None:
        return {}
    import asyncio

    from streams.cli.run import read
    from streams.cli.running import explained
    from streams.pipeline.model_state import mean_open_interest_usd, newest_model

    with explained():
        model = asyncio.run(newest_model(read(config).settings()))
    if model is None:
        raise CommandError(f"{config}: no risk model has written a checkpoint yet (dpme run model)")
    return mean_open_interest_usd(model)


def _named(pairs: list[str], option: str) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise CommandError(f"{option}: {pair!r} is not ASSET=VALUE")
        if name in found:
            raise CommandError(f"{option}: {name} is given twice")
        found[name] = value
    return found


def _amounts(pairs: list[str] | None, option: str) -> dict[str, float]:
    found: dict[str, Any] = _named(pairs or [], option)
    for name, value in found.items():
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not 0.0 < found[name] < math.inf:
            raise CommandError(f"{option}: {name}={value} is not a positive amount of USD")
    return found
