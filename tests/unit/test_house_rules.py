"""The house rules as tests: sizes, words, paths, and the direction of imports. They may only be made stricter."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("kernels", "schemas", "oracles", "streams")
MODULE_LINES_MAX = 500
FUNCTION_LINES_MEDIAN_MAX = 15
SCREEN_LINES, SCREEN_SHARE = 50, 0.9
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
HOSTS = re.compile(
    r"\b(?:pypi\.(?:org|python\.org)|files\.pythonhosted\.org|registry\.npmjs\.org|repo1?\.maven\.(?:org|apache\.org)"
    r"|proxy\.golang\.org|index\.crates\.io)\b"
)
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:work|home|root|Users|farm|tmp/w)/[\w.]")


@cache
def tracked() -> tuple[Path, ...]:
    """Files under version control that still exist."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: what is tracked cannot be known")
    names = listed.stdout.decode().split("\0")
    return tuple(path for name in names if name and (path := ROOT / name).is_file())


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def modules() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py"]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines from `def` to the end without the docstring) of every function of a module."""
    for node in ast.walk(ast.parse(text_of(path))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            lines -= (first.end_lineno or first.lineno) - first.lineno + 1
        yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", lines


def test_no_module_is_long() -> None:
    sizes = {str(path.relative_to(ROOT)): len(text_of(path).splitlines()) for path in modules()}
    assert {name: size for name, size in sizes.items() if size > MODULE_LINES_MAX} == {}


def test_functions_are_short() -> None:
    sizes = [size for path in modules() if path.relative_to(ROOT).parts[0] in PACKAGES for _, size in functions(path)]
    assert statistics.median(sizes) <= FUNCTION_LINES_MEDIAN_MAX
    assert sum(size <= SCREEN_LINES for size in sizes) >= SCREEN_SHARE * len(sizes)


def test_nothing_is_left_for_later() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in tracked()
        if path.suffix in (".py", ".md", ".toml", ".sql", ".sh", ".yml", ".yaml", "")
        for line in text_of(path).splitlines()
        if UNFINISHED.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("forbidden", [HOSTS, MACHINE_PATHS], ids=["registry hosts", "paths of a machine"])
def test_no_file_names_a_registry_or_a_machine(forbidden: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if path != Path(__file__)
        for match in forbidden.finditer(text_of(path))
    ]
    assert found == []


def test_imports_go_one_way() -> None:
    """The contracts of pyproject.toml; import-linter says which import breaks which."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_functional_core_is_pure() -> None:
    """Import-linter sees imports of modules; this one sees calls that need none: files, input, environment, clocks."""
    impure = re.compile(
        r"\b(open|input|print|exec|eval)\(|\bos\.environ|\bnp\.random\b|\.now\(\)|fastmath|parallel=True"
    )
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in modules()
        if path.relative_to(ROOT).parts[:1] in (("kernels",), ("schemas",))
        or path.relative_to(ROOT).parts[:2] == ("streams", "engine")
        if path != ROOT / "kernels" / "__init__.py"  # names the folder of compiled code
        for line in text_of(path).splitlines()
        if impure.search(line)
    ]
    assert found == []
