"""`dpme gate`: the answers are those of the engine's gate on the machine of the block; wrong input is named."""

from __future__ import annotations

import io
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from demo_runs import PARTITIONS, small_demo_run
from rich.console import Console
from typer.testing import CliRunner

from schemas.topics import ACCOUNT_LOG
from streams.cli import gate as command
from streams.cli.as_of import AsOf, machine_as_of
from streams.cli.gate import app
from streams.engine import gate
from streams.engine.margin import HEALTHY
from streams.engine.sequence import partition_of

LAST = 44


def machine_of_partition(partition: int, block: int | None) -> AsOf:
    run = small_demo_run()
    log = list(enumerate(run.pipeline.logs[ACCOUNT_LOG, partition]))
    return machine_as_of(log, partition, {run.world.scenario_set.digest: run.world.scenario_set}, block)


def machine_of(account: str, block: int | None) -> AsOf:
    return machine_of_partition(partition_of(account, PARTITIONS), block)


@pytest.fixture(autouse=True)
def logs_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_of_block(data: Path, config: Path | None, block: int | None, account: str) -> AsOf:
        return machine_of(account, block)

    monkeypatch.setattr(command, "as_of_block", as_of_block)


def asked(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.exception
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


@lru_cache
def account_in(healthy: bool) -> str:
    """An account at the end of the run, healthy or not."""
    for partition in range(PARTITIONS):
        risk = machine_of_partition(partition, LAST).risk
        for row, state in enumerate(risk.margins.state.tolist()):
            if (state == HEALTHY) == healthy:
                return risk.book.accounts[row]
    raise AssertionError("no such account")


def test_a_withdrawal_up_to_the_margin_is_allowed_and_one_more_is_not() -> None:
    account = account_in(healthy=True)
    before = asked("withdraw", account, "0.000001")["before"]
    free = before["nlv_usd6"] - before["initial_margin_usd6"]
    assert free > 0
    allowed = asked("withdraw", account, f"{free / 1e6:.6f}")
    refused = asked("withdraw", account, f"{(free + 1) / 1e6:.6f}")
    assert (allowed["allowed"], allowed["reason"], allowed["block"]) == (True, "", LAST)
    assert (refused["allowed"], refused["reason"], refused["missing_usd6"]) == (False, "initial_margin", 1)
    assert refused["after"]["nlv_usd6"] == before["nlv_usd6"] - free - 1


def test_it_is_the_engines_answer_as_of_the_block() -> None:
    account = account_in(healthy=True)
    for block in (12, 30):
        expected = gate.gate(machine_of(account, block).risk, gate.Order(account, "BTC-PERP", -3, 43_000_500_000_000))
        found = asked("order", account, "BTC-PERP:-3@43000.5", "--block", str(block))
        assert (found["block"], found["allowed"], found["reason"]) == (block, expected.allowed, expected.reason)
        assert expected.after is not None
        assert found["after"]["initial_margin_usd6"] == expected.after.initial_margin_usd6


def test_in_a_call_only_what_reduces_risk_passes() -> None:
    account = account_in(healthy=False)
    assert asked("withdraw", account, "1")["reason"] == "in_margin_call"
    text = CliRunner().invoke(app, ["withdraw", account, "1"]).output
    for word in ("refused", "the account is in a margin call", "Before", "After", "above IM"):
        assert word in text


def test_an_answer_is_printed() -> None:
    account = account_in(healthy=True)
    file = io.StringIO()
    command.show(Console(file=file, width=80), account, gate.gate(machine_of(account, LAST).risk,
                                                                  gate.CashWithdrawal(account, 1)))  # fmt: skip
    assert "allowed" in file.getvalue()
    assert "missing" not in file.getvalue()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("withdraw", "0"), "a withdrawal is more than 0"),
        (("withdraw", "much"), "AMOUNT must be USD"),
        (("withdraw", "ETH:-2"), "of more than 0 lots, without price"),
        (("withdraw", "ETH:2@5"), "of more than 0 lots, without price"),
        (("order", "BTC-PERP:2"), "it needs a limit price above 0"),
        (("order", "BTC-PERP@2"), "instrument or lots are missing"),
        (("order", "BTC-PARP:2@1"), "BTC-PERP"),
    ],
)
def test_wrong_input_is_named(arguments: tuple[str, str], said: str) -> None:
    kind, what = arguments
    result = CliRunner().invoke(app, [kind, account_in(healthy=True), what])
    assert said in str(result.exception)
