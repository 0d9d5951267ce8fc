"""`dpme restart`: a rolling restart of risk and enforcement workers, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.errors import CommandError
from streams.cli.output import emit_json
from streams.cli.run import read
from streams.pipeline.rolling_restart import RestartError, rolling_restart

app = typer.Typer(add_completion=False)


@app.command()
def restart(
    config: Annotated[Path, typer.Option("--config", help="Configuration that `dpme run all` was started with.")],
    limit_s: Annotated[float, typer.Option("--limit", help="Seconds that a worker may take to catch up.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")] = False,
) -> None:
    """Restart risk and enforcement workers one after the other, each when the one before has caught up.

    For a new version of the code or of the machine's settings. With hot standby (`"groups": 2` in the configuration) no
    block is late: the other group writes it. With one group each worker's accounts wait for its next life.

    Example:  dpme restart --config live.json
    """
    installation = read(config)
    if installation.groups == 1:
        typer.echo("one group: the accounts of each worker wait while it restarts (hot standby: groups 2)", err=True)
    taken_s = {}
    try:
        for name, seconds in rolling_restart(installation, limit_s):
            taken_s[name] = round(seconds, 2)
            typer.echo(f"{name}: back and caught up after {seconds:.1f} s", err=True)
    except RestartError as error:
        raise CommandError(str(error)) from error
    if as_json:
        emit_json({"restarted": taken_s})
