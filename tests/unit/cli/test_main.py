"""The dpme command itself: lazy, quick to explain, one line for every error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.cli.main import COMMANDS, EXAMPLES, overview

HEAVY = ("numpy", "numba", "pyarrow", "faust", "aiokafka", "chdb", "scipy", "msgspec")


def dpme(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "streams.cli.main", *arguments], capture_output=True, text=True)


def test_help_loads_no_command_and_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from streams.cli.main import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; print('\\n'.join(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {*HEAVY, *(entry.module for entry in COMMANDS.values())}


def test_help_names_every_command_with_an_example() -> None:
    told = dpme("--help").stdout
    assert told == overview()
    for name in COMMANDS:
        assert f"  {name} " in told
    assert {example.split()[1] for example, _ in EXAMPLES} <= set(COMMANDS)
    assert max(map(len, told.splitlines())) <= 120


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    found = dpme(name, "--help")
    assert found.returncode == 0
    assert f"dpme {name}" in found.stdout
    assert "--help" in found.stdout


def test_replay_help_states_the_seeding_rules() -> None:
    told = " ".join(dpme("replay", "hyperliquid", "--help").stdout.split())
    assert told.count("k, drawn by the seed: 3 % of the accounts uniform in 0.60-0.80") == 3
    assert "startPosition" in told


def test_wrong_options_are_refused_with_code_2() -> None:
    for arguments in (["dmo"], ["demo", "--scenarios", "1000"], ["demo", "--accounts", "3"], ["replay", "nasdaq"]):
        found = dpme(*arguments)
        assert found.returncode == 2, arguments
        assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--blocks", "0", "--json"], "--json needs an end"),
        (
            ["demo", "--broker", "nonsense", "--accounts", "20", "--scenarios", "64"],
            "--broker is dev, kafka or host:port",
        ),
        (["replay", "chainlink", "--source", "nowhere.csv"], "nowhere.csv does not exist: give --source"),
        (["trace", "somebody"], "there is no run in"),
        (["margin", "explain", "somebody"], "there is no run in"),
        (["margin", "what-if", "somebody", "--trade", "X"], "instrument or lots are missing"),
        (["query", "latest"], "there is no store in"),
        (["watch", "margin.calls", "--patience", "0", "--url", "ws://127.0.0.1:1"], "no gateway answers at"),
        (["margin", "what-if"], "give either ACCOUNT or --portfolio FILE"),
    ],
)
def test_what_fails_outside_is_one_line_that_says_what_to_do(tmp_path: Path, arguments: list[str], said: str) -> None:
    where = ["--data", str(tmp_path)]
    found = dpme(*arguments, *where)
    assert found.returncode == 1
    assert found.stdout == "" or "--json" not in arguments
    last = found.stderr.splitlines()[-1]
    assert last.startswith(("dpme: ", f"dpme {arguments[0]}: "))
    assert said in last
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read live.json: No such file"),
        ('{"bootstrap', "live.json: Input data was truncated"),
        ("[1]", "live.json: not a JSON object"),
        ('{"prefix": "p."}', "live.json: Object missing required field `bootstrap`"),
        ('{"partitons": 4}', "live.json: field partitons is unknown; did you mean partitions?"),
    ],
)
def test_a_wrong_configuration_is_refused_with_code_2(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "live.json").write_text(text)
    command = [sys.executable, "-m", "streams.cli.main", "gate", "withdraw", "x", "1", "--config", "live.json"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "COLUMNS": "200"})
    assert found.returncode == 2
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_a_store_that_does_not_answer_is_one_line() -> None:
    found = dpme("query", "latest", "--data", "clickhouse://u@127.0.0.1:1/d")
    assert (found.returncode, found.stdout) == (1, "")
    assert "127.0.0.1:1" in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_unwritable_data_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = ["--accounts", "20", "--scenarios", "64", "--blocks", "2", "--json"]
    found = dpme("demo", *options, "--data", str(tmp_path / "file" / "below"))
    assert found.returncode == 1
    assert "choose another folder with --data" in found.stderr.splitlines()[-1]
    assert "Traceback" not in found.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    found = dpme("--debug", "trace", "somebody", "--data", str(tmp_path))
    assert found.returncode == 1
    assert "Traceback" in found.stderr
    assert found.stderr.splitlines()[-1].startswith("dpme: there is no run")


def test_version() -> None:
    assert dpme("--version").stdout.startswith("dpme 0.")


def test_doctor_finds_this_machine_healthy_and_a_bad_folder_not(tmp_path: Path) -> None:
    found = dpme("doctor", "--data", str(tmp_path), "--json")
    told = json.loads(found.stdout.splitlines()[-1])
    assert (found.returncode, told["healthy"]) == (0, True)
    assert {"Python", "numba", "chDB (store)", "data folder"} <= {check["name"] for check in told["checks"]}
    (tmp_path / "file").touch()
    found = dpme("doctor", "--data", str(tmp_path / "file"), "--json")
    told = json.loads(found.stdout.splitlines()[-1])
    assert (found.returncode, told["healthy"]) == (1, False)
    assert [check["name"] for check in told["checks"] if check["verdict"] == "bad"] == ["data folder"]
