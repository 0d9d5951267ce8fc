"""`dpme schema` prints and writes the documents of streams/contract.py."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from streams import contract
from streams.cli.schema import app


def output_of(*arguments: str) -> bytes:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout_bytes


def test_names() -> None:
    assert tuple(output_of().decode().split()) == contract.schema_names()


@pytest.mark.parametrize("arguments", [("account.fills",), ("account.fills", "--json-schema")])
def test_one_schema(arguments: tuple[str, ...]) -> None:
    assert output_of(*arguments) == contract.text(contract.json_schema("account.fills"))


def test_all_schemas_and_asyncapi() -> None:
    assert set(orjson.loads(output_of("--json-schema"))) == set(contract.schema_names())
    assert output_of("--asyncapi") == contract.text(contract.asyncapi())


def test_write(tmp_path: Path) -> None:
    output_of("--write", str(tmp_path / "new"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == contract.files()


@pytest.mark.parametrize("arguments", [("nothing",), ("account.fills", "--asyncapi"), ("--asyncapi", "--json-schema")])
def test_wrong_wishes(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, list(arguments)).exit_code == 2


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = CliRunner().invoke(app, ["--write", str(tmp_path / "file")])
    assert "cannot write to" in str(result.exception)
