"""`dpme schema`: the public contract as JSON Schema and AsyncAPI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.errors import CommandError

app = typer.Typer(add_completion=False)


@app.command()
def schema(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A topic; without it, their list.")] = None,
    asyncapi: Annotated[bool, typer.Option("--asyncapi", help="Print the AsyncAPI 3 document of everything.")] = False,
    as_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print JSON Schema: of NAME (the default), or all by their names.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--write", metavar="DIR", help="Write every document to a folder.")
    ] = None,
) -> None:
    """What inputs and outputs look like: JSON Schema (2020-12) of each topic, AsyncAPI 3 of all.

    Example: `dpme schema account.fills > fills.schema.json`.
    """
    from streams import contract

    if asyncapi and (name is not None or as_schema):
        raise typer.BadParameter("--asyncapi is one document of everything: give neither NAME nor --json-schema")
    if name is not None and name not in contract.schema_names():
        raise typer.BadParameter(f"{name!r} has no schema: choose one of {', '.join(contract.schema_names())}")
    if folder is not None:
        _write(folder)
    elif asyncapi:
        _print(contract.text(contract.asyncapi()))
    elif name is not None:
        _print(contract.text(contract.json_schema(name)))
    elif as_schema:
        _print(contract.text({known: contract.json_schema(known) for known in contract.schema_names()}))
    else:
        print("\n".join(contract.schema_names()))


def _write(folder: Path) -> None:
    from streams import contract

    try:
        written = contract.write(folder)
    except OSError as error:
        raise CommandError(f"cannot write to {folder}: {error.strerror}") from error
    print(f"{len(written)} documents in {folder}")


def _print(document: bytes) -> None:
    sys.stdout.buffer.write(document)
