"""`dpme doctor`: what DPME needs on this machine, checked, with what to do about what is missing."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.cli.findings import BAD, OK, OPTIONAL, Finding
from streams.cli.output import emit_json, error_console

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

PYTHONS = ((3, 11), (3, 13))
LEAST_VERSIONS = {"faust-streaming": (0, 15), "aiokafka": (0, 14), "numpy": (2, 4), "numba": (0, 68), "chdb": (4, 0)}
SPACE_WANTED_MB = 500
KAFKA_PORT, GATEWAY_PORT = 9092, 8765
STYLES = {OK: "green", OPTIONAL: "yellow", BAD: "bold red"}


@app.command()
def doctor(
    data: Annotated[Path, typer.Option("--data", help="Data folder to check.")] = Path(".dpme"),
    config: Annotated[
        Path | None, typer.Option("--config", help="Of `dpme run`: check its broker, topics, store, ports.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")] = False,
) -> None:
    """Check versions, numba, chDB, the data folder, disk, ports, Java and Maven; with --config an installation too.

    Exit code 1 if something needed is missing or wrong. Example: `dpme doctor`, `dpme doctor --config live.json`.
    """
    findings = [check() for check in CHECKS] + [check_data_folder(data)]
    if config is not None:
        from streams.cli.doctor_installation import check_installation

        findings += check_installation(config)
    _show(error_console() if as_json else Console(highlight=False), findings)
    healthy = all(finding.verdict != BAD for finding in findings)
    if as_json:
        emit_json({"healthy": healthy, "checks": [finding._asdict() for finding in findings]})
    raise typer.Exit(0 if healthy else 1)


def check_python() -> Finding:
    """A version that the project supports."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Finding("Python", OK, found)
    return Finding("Python", BAD, found, "use Python 3.11 to 3.13: python3.11 -m venv .venv")


def check_versions() -> Finding:
    """The libraries whose inner workings this project relies on, at the least version it was tested with."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = {name: version(name) for name in LEAST_VERSIONS}
    except PackageNotFoundError as error:
        return Finding("libraries", BAD, f"{error.name} is not installed", "make setup")
    said = ", ".join(f"{name} {number}" for name, number in found.items())
    old = [name for name, least in LEAST_VERSIONS.items() if _number(found[name]) < least]
    if old:
        return Finding("libraries", BAD, f"{said}: {', '.join(old)} too old", "make setup, see constraints.txt")
    return Finding("libraries", OK, said)


def _number(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "2.4.6rc1" -> (2, 4)."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def check_numba() -> Finding:
    """Compiling and caching works."""
    try:
        import numba

        if numba.njit(lambda x: x + 1)(1) != 2:
            return Finding("numba", BAD, numba.__version__, "it computes wrong numbers: install it anew")
    except Exception as error:
        return Finding("numba", BAD, f"{type(error).__name__}: {error}", "pip install numba, see constraints.txt")
    folder = Path(os.environ.get("NUMBA_CACHE_DIR", Path(__file__).parents[2] / "kernels"))
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        return Finding("numba", OPTIONAL, f"{numba.__version__}, cache not writable: {folder}",
                       "set NUMBA_CACHE_DIR to a writable folder, or every start compiles half a minute")  # fmt: skip
    return Finding("numba", OK, numba.__version__)


def check_chdb() -> Finding:
    """The embedded store answers (in a process of its own: it allows one folder a process)."""
    import subprocess

    code = "import chdb; print(str(chdb.query('SELECT version()', 'CSV')).strip().strip(chr(34)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode == 0:
        return Finding("chDB (store)", OK, done.stdout.strip())
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return Finding("chDB (store)", BAD, last, "pip install chdb, see constraints.txt")


def check_memory() -> Finding:
    """Room for a broker and a few workers."""
    pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    total_mb, cores = os.sysconf("SC_PHYS_PAGES") * size >> 20, os.cpu_count() or 1
    found = f"{cores} cores, {total_mb:,} MB memory, {pages * size >> 20:,} MB of it unused"
    if total_mb < 2_000:
        return Finding("machine", OPTIONAL, found, "below 2 GB use --scenarios 1024 and one risk worker")
    return Finding("machine", OK, found)


def check_java() -> Finding:
    return _program("java", "Java (Apache Kafka)", "default-jre-headless")


def check_maven() -> Finding:
    return _program("mvn", "Maven (Apache Kafka)", "maven")


def check_kafka_port() -> Finding:
    """Whether something listens on Kafka's port."""
    port = int(os.environ.get("DPME_KAFKA_PORT", KAFKA_PORT))
    from streams.runtime.kafka_process import answers

    if answers(port):
        return Finding("Kafka port", OK, f"a broker answers on 127.0.0.1:{port}")
    if is_free(port):
        return Finding("Kafka port", OK, f"{port} is free")
    return Finding("Kafka port", OPTIONAL, f"{port} is in use, by no broker",
                   "for Apache Kafka set DPME_KAFKA_PORT to a free port")  # fmt: skip


def check_gateway_port() -> Finding:
    """The documented port of the gateway."""
    if is_free(GATEWAY_PORT):
        return Finding("gateway port", OK, f"{GATEWAY_PORT} is free")
    return Finding("gateway port", OPTIONAL, f"{GATEWAY_PORT} is in use",
                   "a run takes another port; `dpme watch` finds it by --data")  # fmt: skip


def check_data_folder(data: Path) -> Finding:
    """Can be written, and has room."""
    folder = data.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free_mb = shutil.disk_usage(existing).free >> 20
    except OSError as error:
        return Finding("data folder", BAD, f"{folder}: {error.strerror}", "choose a writable folder with --data")
    if free_mb < SPACE_WANTED_MB:
        advice = f"free {SPACE_WANTED_MB} MB, or choose another folder with --data"
        return Finding("data folder", BAD, f"{folder}: {free_mb} MB left", advice)
    return Finding("data folder", OK, f"{folder}: {free_mb:,} MB left")


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python, check_versions, check_numba, check_chdb, check_memory, check_java, check_maven, check_kafka_port,
    check_gateway_port,
)  # fmt: skip


def is_free(port: int) -> bool:
    """Nothing listens on this port of loopback."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _program(program: str, name: str, package: str) -> Finding:
    found = shutil.which(program)
    if found:
        return Finding(name, OK, found)
    return Finding(
        name, OPTIONAL, "not found", f"only for --broker kafka: apt install --no-install-recommends {package}"
    )


def _show(console: Console, findings: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        advice = f"\n→ {finding.advice}" if finding.advice else ""
        table.add_row(Text(finding.verdict, STYLES[finding.verdict]), finding.name, Text(finding.found + advice))
    console.print(table)
