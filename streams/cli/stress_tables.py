"""`dpme stress` for people."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from streams.cli.output import moment, percent, plural, short_name, usd

ROWS_SHOWN, MOVES_SHOWN = 8, 10
TITLES = {"equity": "beyond equity", "margin": "beyond maintenance margin"}


def show_stress(console: Console, view: dict[str, Any]) -> None:
    """Fund sizes, covers, the worst stress rows, and the reverse scenario if it was asked for."""
    console.print(
        f"Venue at block {view['block']}, {moment(view['time_ms'])[:19]} UTC: {plural(view['accounts'], 'account')}, "
        f"{view['scenarios']:,} scenarios (set {view['scenario_digest'][:12]}…), USD"
    )
    how = "`fund_usd6` of the parameters' `venue_stress`" if "parameter_version" in view else "--fund"
    origin = "" if view["fund_given"] else f" (cover 2 beyond equity; name yours with {how})"
    console.print(f"Insurance fund {usd(view['fund_usd6'])}{origin}")
    _fund(console, view)
    _rows(console, view)
    if view["unpriced_accounts"]:
        names = ", ".join(map(short_name, view["unpriced_accounts"][:5]))
        console.print(f"left out, an instrument has no price: {names}", style="yellow")
    if "reverse" in view:
        _reverse(console, view["reverse"], view["fund_usd6"])


def _fund(console: Console, view: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("Losses left for the fund")
    for side in view["views"]:
        table.add_column(TITLES[side["resources"]], justify="right")
    confidence = f"{view['confidence_e6'] / 1e4:g} %"
    for title, field in (
        ("resources of all accounts", "resources_usd6"),
        ("uncovered already", "uncovered_now_usd6"),
        ("mean over the scenarios", "uncovered_mean_usd6"),
        (f"fund at {confidence} (quantile)", "fund_quantile_usd6"),
        (f"fund at {confidence} (expected shortfall)", "fund_shortfall_usd6"),
    ):
        table.add_row(title, *(usd(side[field]) for side in view["views"]))
    for title, name in (("cover 1", "cover_1"), ("cover 2", "cover_2")):
        table.add_row(title, *(usd(side[name]["uncovered_usd6"]) for side in view["views"]))
        table.add_row("", *(_where(side[name]) for side in view["views"]), style="dim")
    table.add_row(
        "chance that the fund is exhausted",
        *(f"{side['exhausted_probability_e6'] / 1e4:.3g} %" for side in view["views"]),
    )
    console.print(table)


def _where(cover: dict[str, Any]) -> str:
    names = " + ".join(map(short_name, cover["accounts"]))
    return f"{names}, {cover['scenario']}" if names else "nobody"


def _rows(console: Console, view: dict[str, Any]) -> None:
    sides = [side["rows"] for side in view["views"]]
    order = sorted(range(len(sides[0])), key=lambda r: (-sides[0][r]["uncovered_usd6"], -sides[1][r]["uncovered_usd6"]))
    table = Table(title="Worst stress rows, at full size", title_justify="left", box=None, pad_edge=False)
    table.add_column("Row")
    table.add_column("Reason", style="dim")
    for side in view["views"]:
        table.add_column(TITLES[side["resources"]], justify="right")
    for r in order[:ROWS_SHOWN]:
        table.add_row(sides[0][r]["name"], sides[0][r]["reason"], *(usd(side[r]["uncovered_usd6"]) for side in sides))
    console.print(table)


def _reverse(console: Console, found: dict[str, Any], fund_usd6: int) -> None:
    if not found["found"]:
        console.print(
            f"Reverse: no scenario within the factors' limits costs more than {usd(fund_usd6)}", style="green"
        )
        return
    hours = found["horizon_seconds"] / 3600
    console.print(
        f"Reverse: the nearest scenario found that exhausts the fund lies {found['distance']:.1f} standard deviations "
        f"away (a move so far in its direction: once in {_rarely(found['odds'])} horizons of {hours:g} h) "
        f"and costs {usd(found['uncovered_usd6'])}",
        style="bold",
    )
    table = Table(box=None, pad_edge=False)
    for name, justify in (("Factor", "left"), ("Move", "right"), ("Own deviations", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    largest = sorted(found["moves"], key=lambda row: -abs(row["deviations"]))[:MOVES_SHOWN]
    for row in largest:
        table.add_row(f"{row['underlying']} {row['factor']}", _move(row), f"{row['deviations']:+.1f}")
    console.print(table)


def _rarely(odds: float) -> str:
    return f"{1 / odds:,.0f}" if odds > 0 else "more than any number of"


def _move(row: dict[str, Any]) -> str:
    if row["factor"] == "rate":
        return f"{row['move'] * 1e4:+.0f} bp"
    return percent(row["move"] if row["factor"] in ("skew", "curvature") else math.expm1(row["move"]))
