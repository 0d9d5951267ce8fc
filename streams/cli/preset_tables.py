"""`dpme margin` with presets for people: tables that read well at 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from streams.cli.output import state_text, usd

NAME_WIDTH = 30
EQUAL = 1e-8


def amount(value: float) -> str:
    """USD for people."""
    return usd(value * 1e6)


def show_presets(console: Console, presets: Sequence[dict[str, Any]]) -> None:
    """One line each."""
    table = _table(("Preset", "left"), ("Rows", "right"), ("What it is", "left"))
    table.columns[2].no_wrap = False
    for row in presets:
        table.add_row(row["preset"], f"{row['rows']:,}", row["summary"])
    console.print(table)
    console.print(
        "\n`dpme margin presets NAME > my.json` writes a document to edit; --document my.json then takes its place",
        style="dim",
    )


def show_cases(console: Console, view: dict[str, Any]) -> None:
    """Balances, with what the file expects and the difference where it says so."""
    console.print(f"{view['preset']} version {view['version']}: {view['summary']}")
    if view["cases_with_rules"] and not view["case_rules"]:
        remark = "the cases' own scenarios and parameters are not this preset's: the document's are used"
        console.print(remark, style="dim")
    expects = any(case["expected"] for case in view["cases"])
    columns = [("Case", "left"), ("IM balance", "right"), ("MM balance", "right")]
    columns += [("Expected IM", "right"), ("MM", "right"), ("Off by", "right")] if expects else [("Binding", "left")]
    table = _table(*columns)
    for case in view["cases"]:
        cells = [_short(case["id"]), amount(case["initial_margin_balance"]), amount(case["maintenance_margin_balance"])]
        table.add_row(*cells, *(_expected(case) if expects else [case["binding"]]))
    console.print(table)
    if expects:
        _verdict(console, view["cases"])


def _expected(case: dict[str, Any]) -> list[str]:
    expected = case["expected"]
    if expected is None:
        return ["", "", ""]
    amounts = [amount(expected[f"{name}_margin_balance"]) for name in ("initial", "maintenance")]
    return [*amounts, f"{relative_difference(case):.1e}"]


def relative_difference(case: dict[str, Any]) -> float:
    """Largest relative difference of the two balances from what is expected."""
    pairs = [(case[name], case["expected"][name]) for name in ("initial_margin_balance", "maintenance_margin_balance")]
    return max(abs(found - expected) / max(abs(expected), 1.0) for found, expected in pairs)


def _verdict(console: Console, cases: Sequence[dict[str, Any]]) -> None:
    known = [relative_difference(case) for case in cases if case["expected"]]
    agree = sum(difference <= EQUAL for difference in known)
    console.print(f"{agree} of {len(known)} cases agree to 1e-8 relative; largest difference {max(known):.1e}")


def show_shadow(console: Console, view: dict[str, Any]) -> None:
    """One account under a preset, beside the run's own margin."""
    console.print(f"{view['account']} at block {view['block']} under {view['preset']} version {view['version']}:")
    console.print(view["summary"], style="dim")
    table = _table(("Underlying", "left"), ("Equity", "right"), ("IM", "right"), ("MM", "right"), ("Binding", "left"))
    table.add_row("cash", amount(view["cash"]), "", "", "")
    for case in view["cases"]:
        asked = (amount(case[f"{name}_requirement"]) for name in ("initial", "maintenance"))
        table.add_row(case["id"].split()[-1], amount(case["equity"]), *asked, case["binding"])
    equity = view["cash"] + sum(case["equity"] for case in view["cases"])
    asked = (amount(view[f"{name}_requirement"]) for name in ("initial", "maintenance"))
    table.add_row("all", amount(equity), *asked, "", style="bold")
    console.print(table)
    balances = (amount(view[f"{name}_margin_balance"]) for name in ("initial", "maintenance"))
    console.print("IM balance {}, MM balance {} (met where not below 0)".format(*balances))
    asked = (usd(view["run_margin"][f"{name}_margin_usd6"]) for name in ("initial", "maintenance"))
    console.print("the run itself asks IM {}, MM {}:".format(*asked), state_text(view["run_state"]))


def show_comparison(console: Console, view: dict[str, Any]) -> None:
    """Initial requirement by preset; below each the ratio to the reference's."""
    names = [head["preset"] for head in view["presets"]]
    table = _table(("Initial requirement, USD", "left"), *((name, "right") for name in names))
    for row in view["portfolios"]:
        table.add_row(_short(row["id"]), *(amount(row["initial_requirement"][name]) for name in names))
        table.add_row(f"  ratio to {view['reference']}", *(_ratio(row["ratio"][name]) for name in names), style="dim")
    console.print(table)
    console.print(
        "These ratios are NOT at equal coverage: a preset that asks less may simply cover less. "
        "Capital efficiency at equal coverage is a question for the backtest."
    )


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _short(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…"


def _table(*columns: tuple[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)
    return table
