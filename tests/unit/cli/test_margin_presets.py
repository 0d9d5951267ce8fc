"""`dpme margin show --preset`, `presets`, `compare`: JSON as promised, tables that fit, refusals by field."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from demo_runs import PARTITIONS
from rich.console import Console
from test_margin import as_of
from typer.testing import CliRunner

from oracles.presets.case import parse_cases
from oracles.presets.document import NAMES, PresetDocument, preset
from streams.cli.errors import CommandError
from streams.cli.margin import app
from streams.cli.margin_presets import (
    cases_view,
    comparison_view,
    details_view,
    document_text,
    presets_view,
    read_cases,
    read_document,
    shadow_view,
)
from streams.cli.preset_tables import show_cases, show_comparison, show_presets, show_shadow

PUBLISHED = Path(__file__).parents[2] / "reference" / "vectors" / "derive_pmrm2_portfolio_cases.json"


def last_line(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def shown(show: Any, *view: Any) -> str:
    out = io.StringIO()
    show(Console(file=out, width=100, highlight=False), *view)
    assert max(map(len, out.getvalue().splitlines())) <= 100
    return out.getvalue()


def test_the_published_cases_as_json() -> None:
    told = last_line("show", "--preset", "derive-pm2", "--cases", str(PUBLISHED), "--json")
    expected = {case.id: case.expected for case in parse_cases(PUBLISHED.read_bytes())}
    assert [case["id"] for case in told["cases"]] == list(expected)
    for case in told["cases"]:
        assert set(case) == {"id", "initial_margin_balance", "maintenance_margin_balance"}
        for name in ("initial_margin_balance", "maintenance_margin_balance"):
            assert case[name] == pytest.approx(getattr(expected[case["id"]], name), rel=1e-8)


def test_integers_are_never_above_the_floats() -> None:
    cases = read_cases(None)
    for name in NAMES:
        floats, integers = (cases_view(preset(name), cases, integers)["cases"] for integers in (False, True))
        for twin, exact in zip(floats, integers, strict=True):
            for field in ("initial_margin_balance", "maintenance_margin_balance"):
                assert exact[field] <= twin[field]
                assert exact[field] == pytest.approx(twin[field], abs=1e-2)


def test_a_table_with_what_is_expected_and_the_difference() -> None:
    told = shown(show_cases, details_view(preset("derive-pm2"), read_cases(PUBLISHED)))
    assert "49 of 49 cases agree to 1e-8 relative" in told
    assert "Off by" in told
    other = shown(show_cases, details_view(preset("stress"), read_cases(PUBLISHED)))
    assert "own scenarios and parameters are not this preset's" in other
    assert "Binding" in shown(show_cases, details_view(preset("es"), read_cases(None)))


def test_every_preset_has_a_line() -> None:
    told = shown(show_presets, presets_view())
    assert all(f"\n{name} " in f"\n{told}" for name in NAMES)
    assert [row["preset"] for row in last_line("presets", "--json")["presets"]] == list(NAMES)


def test_a_printed_document_is_one_to_edit(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    for name in NAMES:
        path.write_bytes(document_text(name))
        assert read_document(None, path) == preset(name)
    edited = json.loads(document_text("stress"))
    for row in edited["groups"][0]["rows"]:
        row["weight"] *= 2
    path.write_text(json.dumps(edited))
    cases = [case for case in read_cases(None) if case.id == "long call"]
    once, twice = (details_view(document, cases)["cases"][0]["risk"] for document in (preset("stress"), _own(path)))
    assert twice == pytest.approx(2 * once)


def _own(path: Path) -> PresetDocument:
    return read_document(None, path)


def test_the_comparison_says_that_it_is_not_at_equal_coverage() -> None:
    view = comparison_view([preset(name) for name in NAMES], read_cases(None))
    told = shown(show_comparison, view)
    assert "NOT at equal coverage" in told
    assert view["equal_coverage"] is False
    assert [row["id"] for row in view["portfolios"]] == [
        "long call", "covered call", "short put", "short strangle", "delta-hedged short straddle", "call spread",
        "iron condor", "calendar", "market maker",
    ]  # fmt: skip
    for row in view["portfolios"]:
        assert row["ratio"]["es"] == 1.0
        assert all(amount > 0 for amount in row["initial_requirement"].values())
        assert row["initial_requirement"]["isolated"] > row["initial_requirement"]["es"]
    assert last_line("compare", "--preset", "span-scan", "--preset", "es", "--json")["reference"] == "span-scan"


@pytest.mark.parametrize("partition", range(PARTITIONS))
def test_accounts_of_a_run_under_every_preset(partition: int) -> None:
    found = as_of(partition)
    for account in found.risk.book.accounts[:4]:
        for name in NAMES:
            view = shadow_view(found, account, preset(name))
            equity = view["cash"] + sum(case["equity"] for case in view["cases"])
            assert view["initial_margin_balance"] <= equity + 1e-6
            assert view["run_margin"]["initial_margin_usd6"] >= 0
        told = shown(show_shadow, shadow_view(found, account, preset("derive-pm2")))
        assert "the run itself asks IM" in told


# -- refusals


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda path: read_document("deribit", None), "no preset 'deribit'.*near: deribit-pm"),
        (lambda path: read_document(None, None), "either --preset NAME or --document FILE"),
        (lambda path: read_document("es", path), "either --preset NAME or --document FILE"),
        (lambda path: read_document(None, path), r"--document .*missing required field `preset`"),
        (lambda path: read_cases(path), r"--cases .*missing required field `cases`"),
        (lambda path: read_cases(path / "absent"), "--cases .*"),
    ],
)
def test_refusals_name_option_and_field(call: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    path.write_text("{}")
    with pytest.raises(CommandError, match=said):
        call(path)


@pytest.mark.parametrize("arguments", [["show"], ["show", "someone", "--cases", "x.json"]])
def test_show_needs_one_of_account_and_cases(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, CommandError)
    assert "give either ACCOUNT or --cases FILE" in str(result.exception)


def test_a_cases_row_without_its_rule_is_refused(tmp_path: Path) -> None:
    document = json.loads(document_text("derive-pm2"))
    document["groups"][0]["rows"] = [{"name": "fall", "reason": "a fall", "spot_multiplier": 0.8}]
    document["parameters"].pop("vol")
    path, cases = tmp_path / "mine.json", tmp_path / "cases.json"
    path.write_text(json.dumps(document))
    rows = [{"spot_multiplier": 0.8, "vol_shock": "up"}]
    cases.write_text(json.dumps({"cases": [{"id": "a", "positions": {}, "market": {"spot": 1}, "scenarios": rows}]}))
    with pytest.raises(CommandError, match=r"case a: scenarios\[0\].vol_shock: up needs parameters.vol"):
        cases_view(read_document(None, path), read_cases(cases))
