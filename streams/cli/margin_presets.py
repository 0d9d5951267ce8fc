"""Margin presets for `dpme margin`: read documents and cases, apply one to the other, say it as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from oracles.presets.case import Case, CaseError, parse_cases
from oracles.presets.document import (
    NAMES,
    DocumentError,
    PresetDocument,
    document_digest,
    parse_document,
    preset,
)
from oracles.presets.evaluate import Assessment, evaluate
from oracles.presets.exact import evaluate_exactly
from schemas.quantities import USD6_PER_USD
from streams.cli.as_of import AsOf
from streams.cli.errors import CommandError
from streams.cli.margin_views import account_alone, margin_view
from streams.cli.recorded_run import near_matches
from streams.engine.output import Fault
from streams.engine.shadow import shadow_cases
from streams.engine.what_if import Refused

REFERENCE = "es"
PORTFOLIOS = "portfolios.json"


def read_document(name: str | None, path: Path | None) -> PresetDocument:
    """The preset of this name, or the document in this file; give one of them.

    Raises:
        CommandError: no such preset, or which field of the file is wrong.
    """
    if (name is None) == (path is None):
        raise CommandError("give either --preset NAME or --document FILE; `dpme margin presets` lists the names")
    try:
        if path is not None:
            return parse_document(_bytes("--document", path))
        return preset(name or "")
    except DocumentError as error:
        if path is not None:
            raise CommandError(f"--document {path}: {error}") from error
        near = near_matches(name or "", NAMES)
        raise CommandError(f"--preset: {error}; near: {near}; `dpme margin presets` explains them") from error


def document_text(name: str) -> bytes:
    """A preset's document as it ships. Raises CommandError: no such preset."""
    read_document(name, None)
    return files("oracles.presets.documents").joinpath(f"{name}.json").read_bytes()


def read_cases(path: Path | None) -> tuple[Case, ...]:
    """The cases of a file; without one the named portfolios that ship with DPME.

    Raises:
        CommandError: the file cannot be read, or which field is missing or wrong.
    """
    if path is None:
        return parse_cases(files("oracles.presets.documents").joinpath(PORTFOLIOS).read_bytes())
    try:
        return parse_cases(_bytes("--cases", path))
    except CaseError as error:
        raise CommandError(f"--cases {path}: {error}") from error


def _bytes(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{option} {path}: {error.strerror}") from error


def presets_view() -> list[dict[str, Any]]:
    """Every preset: name, version, digest, rows, summary, source."""
    return [{**_head(document), "rows": _row_count(document), "summary": document.summary, "source": document.source}
            for document in map(preset, NAMES)]  # fmt: skip


def _row_count(document: PresetDocument) -> int:
    return sum(group.draw.scenarios if group.draw else len(group.rows) for group in document.groups)


def _head(document: PresetDocument) -> dict[str, Any]:
    return {"preset": document.preset, "version": document.version, "digest": document_digest(document)}


def cases_view(document: PresetDocument, cases: Sequence[Case], integers: bool = False) -> dict[str, Any]:
    """Balances of every case, by the float twin or by the integer path."""
    return {**_head(document), "cases": [_case_view(document, case, integers) for case in cases]}


def _case_view(document: PresetDocument, case: Case, integers: bool) -> dict[str, Any]:
    initial, maintenance = _balances(document, case, integers)
    return {"id": case.id, "initial_margin_balance": initial, "maintenance_margin_balance": maintenance}


def _balances(document: PresetDocument, case: Case, integers: bool) -> tuple[float, float]:
    if integers:
        exact = explained(document, case, evaluate_exactly)
        amounts = (exact.initial_margin_balance_usd6, exact.maintenance_margin_balance_usd6)
        return amounts[0] / USD6_PER_USD, amounts[1] / USD6_PER_USD
    found = explained(document, case, evaluate)
    return found.initial_margin_balance, found.maintenance_margin_balance


def explained(document: PresetDocument, case: Case, rule: Any) -> Any:
    """Apply a rule; what cannot be applied names the case."""
    try:
        return rule(case, document)
    except (DocumentError, CaseError) as error:
        raise CommandError(f"--cases: {error}") from error


def details_view(document: PresetDocument, cases: Sequence[Case], integers: bool = False) -> dict[str, Any]:
    """For people: balances, what the file expects of them, the binding term."""
    rows = []
    for case in cases:
        found: Assessment = explained(document, case, evaluate)
        expected = None if case.expected is None else msgspec.to_builtins(case.expected)
        balances = _case_view(document, case, integers)
        rows.append({**msgspec.to_builtins(found), **balances, "expected": expected})
    own = [case.id for case in cases if case.parameters is not None or case.scenarios is not None]
    return {**_head(document), "summary": document.summary, "cases": rows, "case_rules": document.case_rules,
            "cases_with_rules": len(own)}  # fmt: skip


def shadow_view(found: AsOf, account: str, document: PresetDocument) -> dict[str, Any]:
    """What a preset asks of an account of a run, beside what the run itself asks."""
    single = account_alone(found, account)
    try:
        cases = shadow_cases(single, found.catalogue, found.tables)
        own = margin_view(found, account)
    except (Refused, Fault) as error:
        raise CommandError(f"{account} cannot be valued by a preset: {error}") from error
    parts = [explained(document, case, evaluate) for case in cases]
    cash = int(single.cash_usd6[0]) / USD6_PER_USD
    view = {**_head(document), "summary": document.summary, "account": account}
    view |= {"block": found.risk.block, "cash": cash, "cases": [msgspec.to_builtins(part) for part in parts]}
    for name in ("initial_margin_balance", "maintenance_margin_balance"):
        view[name] = cash + sum(getattr(part, name) for part in parts)
    for name in ("initial_requirement", "maintenance_requirement"):
        view[name] = sum(getattr(part, name) for part in parts)
    return {**view, "run_margin": own["margin"], "run_state": own["state"]}


def comparison_view(documents: Sequence[PresetDocument], cases: Sequence[Case]) -> dict[str, Any]:
    """Initial requirement of every case under every preset, and its ratio to the first one's."""
    rows = []
    for case in cases:
        asked = {d.preset: explained(d, case, evaluate).initial_requirement for d in documents}
        base = asked[documents[0].preset]
        ratios = {name: amount / base if base > 0 else None for name, amount in asked.items()}
        rows.append({"id": case.id, "initial_requirement": asked, "ratio": ratios})
    return {
        "reference": documents[0].preset,
        "presets": [_head(document) for document in documents],
        "portfolios": rows,
        "equal_coverage": False,
    }
