"""`dpme margin` for people: tables that read well at 100 columns."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.cli.output import moment, percent, plural, price, state_text, usd

BAR, NARROW_BAR = 14, 8
WIDE = 100  # columns; on less, some are left out
NAMES = (
    ("expected_shortfall", "Expected shortfall", "expected_shortfall_usd6"),
    ("stress", "Worst stress row", "stress_loss_usd6"),
    ("short_option_minimum", "Short-option minimum", "short_option_minimum_usd6"),
)


# -- show


def show_margin(console: Console, view: dict[str, Any]) -> None:
    """The numbers of one account."""
    _headline(console, view, view)
    _terms(console, view["margin"])
    table = _table("Positions, USD", ("Instrument", "left"), ("Units", "right"), ("Lots", "right"), ("Mark", "right"),
                   ("Value", "right"))  # fmt: skip
    table.add_row("cash", "", "", "", usd(view["cash_usd6"]))
    for row in view["positions"]:
        mark = price(row["mark_price_usd9"])
        table.add_row(row["instrument"], units(row), f"{row['lots']:+,}", mark, usd(row["value_usd6"]))
    console.print(table)
    for greeks in view["greeks"]:
        parts = ", ".join(f"{name} {usd(greeks[f'{name}_usd6'])}" for name in ("delta", "gamma", "vega", "theta"))
        console.print(f"Greeks {greeks['underlying']}: {parts}", style="dim")


def units(row: dict[str, Any]) -> str:
    """Signed units of the underlying."""
    return f"{row['lots'] * 10.0 ** row['lot_exponent']:+,.6g}"


def _headline(console: Console, view: dict[str, Any], assessment: dict[str, Any]) -> None:
    """Who, when, how it stands, and what would cure it."""
    margin = assessment["margin"]
    when = f"block {view['block']}, {moment(view['time_ms'])[:19]} UTC"
    console.print(Text.assemble((view["account"], "bold"), f" at {when}: ", state_text(assessment["state"])))
    nlv, initial, maintenance = (margin[f"{name}_usd6"] for name in ("nlv", "initial_margin", "maintenance_margin"))
    console.print(f"NLV {usd(nlv)}   IM {usd(initial)}   MM {usd(maintenance)}   headroom over IM {usd(nlv - initial)}")
    if assessment["cure"]:
        console.print(_cure(assessment["cure"]), style="cyan")


def _cure(cure: dict[str, Any]) -> str:
    share = cure["close_fraction_e6"] / 10_000
    return f"cure: deposit {usd(cure['deposit_usd6'])}, or close {share:.1f} % of every position and coin"


def _terms(console: Console, margin: dict[str, Any]) -> None:
    """Every term's value; the one that binds is marked."""
    parts = []
    for binding, name, field in NAMES:
        stress = f" ({margin['stress']})" if binding == "stress" and margin["stress"] else ""
        is_binding = margin["binding"] == binding
        parts.append(Text(f"{name}{stress} {usd(margin[field])}{' ← binds' if is_binding else ''}",
                          "bold" if is_binding else "dim"))  # fmt: skip
    parts.append(Text(f"Add-ons {usd(margin['add_ons_usd6'])}", "dim"))
    console.print(Text("\n").join(parts))


# -- explain


def show_explanation(console: Console, view: dict[str, Any], tail: int) -> None:
    """Rows by contribution, what equity is made of, the tail, one more lot."""
    assessment = view["assessment"]
    _headline(console, view, assessment)
    _terms(console, assessment["margin"])
    console.print()
    console.print(_contributions(view, BAR if console.width >= WIDE else NARROW_BAR))
    if view["collateral_maintenance_usd6"]:
        share = usd(view["collateral_maintenance_usd6"])
        console.print(f"of this, collateral coins falling with the book: {share}", style="dim")
    console.print()
    console.print(_holdings(view, console.width >= WIDE))
    if tail and view["tail"]:
        console.print()
        console.print(_tail(view, tail, console.width >= WIDE))
        _tail_note(console, view, tail)
    if view["one_more_lot"]:
        console.print()
        console.print(_one_more_lot(view))


def _contributions(view: dict[str, Any], width: int) -> Table:
    margin = view["assessment"]["margin"]
    (binding,) = [name for key, name, _ in NAMES if key == margin["binding"]]
    title = f"What the margin is made of: {binding.lower()} and add-ons, USD"
    table = _table(title, ("Row", "left"), ("Units", "right"), ("MM", "right"), ("IM", "right"), ("Share", "left"))
    held = {row["name"]: row for row in view["holdings"] if row["lots"]}
    rows = view["contributions"]
    parts = sorted((r for r in rows if r["kind"] in ("leg", "expiry")), key=lambda r: -r["maintenance_usd6"])
    rest = [r for r in rows if r["kind"] not in ("leg", "expiry")]
    scale = max((abs(r["maintenance_usd6"]) for r in rows), default=0) or 1
    for row in parts + rest:
        size = units(held[row["name"]]) if row["kind"] == "leg" else ""
        style = "dim" if row["kind"] == "rounding" else ""
        amounts = [exact_usd(row[f"{name}_usd6"]) for name in ("maintenance", "initial")]
        table.add_row(Text(_row_name(row), style), size, *amounts, bar(row["maintenance_usd6"] / scale, width))
    table.add_section()
    total = (exact_usd(margin["maintenance_margin_usd6"]), exact_usd(margin["initial_margin_usd6"]))
    table.add_row("margin", "", *total, "", style="bold")
    return table


def _row_name(row: dict[str, Any]) -> str:
    if row["kind"] != "expiry":
        return row["name"]
    underlying, _, expiry_ms = row["name"].rpartition(" ")
    return f"{underlying} options of {moment(int(expiry_ms))[:10]}, net short"


def bar(share: float, width: int) -> Text:
    """A share of -1..1 of the largest row: what adds to the margin, or (a hedge) takes from it."""
    size = round(abs(share) * width)
    return Text(("█" if share > 0 else "▒") * size, "red" if share > 0 else "green")


def exact_usd(amount_usd6: int) -> str:
    """All six decimals: the rows can be added up by hand."""
    sign = "-" if amount_usd6 < 0 else ""
    return f"{sign}{abs(amount_usd6) // 10**6:,}.{abs(amount_usd6) % 10**6:06d}"


def _holdings(view: dict[str, Any], is_wide: bool) -> Table:
    margin = view["assessment"]["margin"]
    names = ("Units", *(("Entered for",) if is_wide else ()), "Equity", "NLV", "Haircut")
    table = _table("What equity and NLV are made of, USD", ("Part", "left"), *((name, "right") for name in names))
    for row in view["holdings"]:
        haircut = row["equity_usd6"] - row["nlv_usd6"]
        style = "dim" if row["kind"] == "rounding" else ""
        amounts = (exact_usd(row["equity_usd6"]), exact_usd(row["nlv_usd6"]), usd(haircut) if haircut > 1 else "")
        entered = (usd(row["entry_usd6"]) if row["entry_usd6"] else "",) if is_wide else ()
        table.add_row(Text(row["name"], style), units(row) if row["lots"] else "", *entered, *amounts)
    table.add_section()
    equity, nlv = margin["equity_usd6"], margin["nlv_usd6"]
    blank = ("", "") if is_wide else ("",)
    table.add_row("equity and NLV", *blank, exact_usd(equity), exact_usd(nlv), usd(equity - nlv), style="bold")
    return table


def _tail(view: dict[str, Any], count: int, is_wide: bool) -> Table:
    """Those that weigh most in the shortfall: the very largest losses may be far too rare to matter.

    Where there is room, with every factor of the surface that moves most.
    """
    tail = view["tail"]
    shown = _heaviest(tail, count)
    names = _main_underlyings(tail, 4 if is_wide else 2)
    surfaces = [name for name in names if name in tail[0]["volatility_log"]]
    shaped = surfaces[: int(is_wide)]
    title = f"The tail: {plural(len(tail), 'scenario')}, the {len(shown)} that weigh most"
    table = _table(title, ("Scenario", "right"), ("Weight", "right"), ("Loss, USD", "right"), ("Of ES", "right"),
                   ("", "left"), *((f"{name}\nspot", "right") for name in names),
                   *((f"{name}\nvol", "right") for name in surfaces),
                   *((f"{name}\n{kind}", "right") for name in shaped for kind in _SHAPES))  # fmt: skip
    whole = _weighted(tail)
    largest = abs(_weighted(shown[:1])) or 1
    for row in shown:
        moves = [percent(math.expm1(row["spot_log_return"][name])) for name in names]
        vols = [percent(math.expm1(row["volatility_log"][name]), 0) for name in surfaces]
        vols += [text for name in shaped for text in _shape(row, name)]
        weight = f"{row['weight'] / view['tail_mass'] * 100:.2f} %"
        share = f"{_weighted([row]) / whole * 100:.1f} %" if whole > 0 else ""
        strength = bar(_weighted([row]) / largest, BAR // 2)
        table.add_row(str(row["scenario"]), weight, usd(row["loss_usd6"]), share, strength, *moves, *vols)
    return table


_SHAPES = ("skew", "curv", "term")


def _shape(row: dict[str, Any], name: str) -> list[str]:
    """Skew, curvature and term as the set states them, at 30 days; nothing where it has no such factor."""
    moves = row["surface"][name]
    return [f"{moves[kind]:+.2f}" if kind in moves else "" for kind in ("skew", "curvature", "term")]


def _weighted(tail: list[dict[str, Any]]) -> int:
    return sum(row["weight"] * row["loss_usd6"] for row in tail)


def _heaviest(tail: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return sorted(tail, key=lambda row: -row["weight"] * row["loss_usd6"])[:count]


def _main_underlyings(tail: list[dict[str, Any]], count: int) -> list[str]:
    """The underlyings that move most over the tail, weighted."""
    size: dict[str, float] = {}
    for row in tail:
        for name, move in row["spot_log_return"].items():
            size[name] = size.get(name, 0.0) + row["weight"] * abs(move)
    return sorted(size, key=lambda name: (-size[name], name))[:count]


def _tail_note(console: Console, view: dict[str, Any], count: int) -> None:
    whole, shown = _weighted(view["tail"]), _weighted(_heaviest(view["tail"], count))
    share = f"; those shown make up {shown / whole * 100:.0f} % of it" if whole > 0 else ""
    mean = usd(whole / view["tail_mass"])
    console.print(f"weighted mean of the whole tail = expected shortfall {mean}{share}", style="dim")
    stress = view["stress"]
    if stress:
        weight = stress["weight_e6"] / 10_000
        said = f"worst stress row: {stress['name']} loses {usd(stress['loss_usd6'])}, counted at {weight:g} %"
        console.print(f"{said} ({stress['reason']})", style="dim")


def _one_more_lot(view: dict[str, Any]) -> Table:
    table = _table("One more lot, USD of margin", ("Instrument", "left"), ("A lot", "right"), ("Held lots", "right"),
                   ("Buy: MM", "right"), ("IM", "right"), ("Sell: MM", "right"), ("IM", "right"))  # fmt: skip
    for row in view["one_more_lot"]:
        amounts = [row[f"{margin}_{side}_usd6"] for side in ("long", "short") for margin in ("maintenance", "initial")]
        lot = f"{10.0 ** row['lot_exponent']:g}"
        table.add_row(row["instrument"], lot, f"{row['held_lots']:+,}", *(_change(amount) for amount in amounts))
    return table


def _change(amount_usd6: int) -> Text:
    """A change of a requirement: red where it rises."""
    text = f"{amount_usd6 / 1e6:+,.4f}" if abs(amount_usd6) < 10**8 else f"{amount_usd6 / 1e6:+,.0f}"
    return Text(text, "red" if amount_usd6 > 0 else "green" if amount_usd6 < 0 else "dim")


# -- what-if


def show_what_if(console: Console, view: dict[str, Any]) -> None:
    """Before and after side by side; of a portfolio without trades its margin alone."""
    is_changed = bool(view["trades"]) or bool(view["deposit_usd6"])
    if not is_changed:
        _headline(console, view, view["before"])
        _terms(console, view["before"]["margin"])
        return
    when = f"block {view['block']}, {moment(view['time_ms'])[:19]} UTC"
    what = [_trade(trade) for trade in view["trades"]]
    what += [f"deposit {usd(view['deposit_usd6'])}"] if view["deposit_usd6"] else []
    console.print(Text.assemble((view["account"], "bold"), f" at {when}, if: {'; '.join(what)}"))
    console.print(_before_and_after(view))
    if view["after"]["cure"]:
        console.print(_cure(view["after"]["cure"]), style="cyan")
    _bound(console, view)


def _trade(trade: dict[str, Any]) -> str:
    side = "buys" if trade["lots"] > 0 else "sells"
    size = f"{abs(trade['lots']) * 10.0 ** trade['lot_exponent']:,.6g}"
    return f"{side} {size} {trade['instrument']} ({plural(abs(trade['lots']), 'lot')}) at {price(trade['price_usd9'])}"


def _before_and_after(view: dict[str, Any]) -> Table:
    before, after = view["before"]["margin"], view["after"]["margin"]
    table = _table("", ("USD", "left"), ("Now", "right"), ("Then", "right"), ("Change", "right"))
    lines = [("NLV", "nlv_usd6"), ("Equity", "equity_usd6"), ("IM", "initial_margin_usd6"),
             ("MM", "maintenance_margin_usd6")]  # fmt: skip
    lines += [(f"  {name}", field) for _, name, field in NAMES] + [("  Add-ons", "add_ons_usd6")]
    for name, field in lines:
        change = after[field] - before[field]
        table.add_row(name, usd(before[field]), usd(after[field]), f"{'+' if change > 0 else ''}{usd(change)}",
                      style="" if not name.startswith(" ") else "dim")  # fmt: skip
    room = [margin["nlv_usd6"] - margin["initial_margin_usd6"] for margin in (before, after)]
    change = room[1] - room[0]
    table.add_row("Headroom over IM", *map(usd, room), f"{'+' if change > 0 else ''}{usd(change)}", style="bold")
    table.add_row("Binding", *(margin["binding"].replace("_", " ") for margin in (before, after)), "")
    table.add_row("State", *(state_text(view[when]["state"]) for when in ("before", "after")), "")
    return table


def _bound(console: Console, view: dict[str, Any]) -> None:
    bound = view["bound"]
    if bound is None:
        return
    said = "so healthy for certain" if bound["surely_healthy"] else "which alone does not clear it"
    exact = usd(view["after"]["margin"]["initial_margin_usd6"])
    most = usd(bound["initial_margin_usd6"])
    console.print(f"pre-trade bound, without any scenario: IM at most {most} (exact: {exact}), {said}", style="dim")


def _table(title: str, *columns: tuple[str, Any]) -> Table:
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)
    return table
