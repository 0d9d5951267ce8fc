"""The chaos command on a running broker: right workers pass whatever is done to them, broken ones make it fail."""

from __future__ import annotations

import pytest
from chaos_command import chaos

from streams.runtime.kafka_process import Broker


def test_outputs_are_those_of_a_calm_run_whatever_is_killed(broker: Broker) -> None:
    code, found = chaos(broker, "--short", "--reorgs", "--seed", "4")
    assert (code, found["equal"], found["lost"], found["doubled"], found["failure"]) == (0, True, 0, 0, ""), found
    assert found["store"] == found["differences"] == {}
    assert found["kills"] >= 5
    assert found["rejected_checkpoints"] >= 1, "no restore has met a damaged checkpoint"
    assert any("output not acknowledged" in death for death in found["deaths"])
    assert found["rollbacks"]["count"] >= 2
    assert found["rollbacks"]["deepest"] > 10, "across checkpoints"
    assert found["freezes"] == found["stops"] == 1
    assert found["sent_again"] > 0 < found["garbage"]
    assert found["repeats"] > 0 < found["log_repeats"], "nothing was written twice: the run has shown nothing"


@pytest.mark.kafka
def test_members_come_and_go_versions_change_and_a_halted_partition_holds_nobody_back(kafka_process: Broker) -> None:
    script = "rebalance storm,upgrade,halt partition,kill:enforcement"
    code, found = chaos(kafka_process, "--no-sink", "--seed", "2", "--acts", script)
    assert (code, found["equal"], found["lost"], found["doubled"], found["failure"]) == (0, True, 0, 0, ""), found
    assert len(found["halted"]) == 1
    [left] = found["outdated"]
    assert any(death.startswith(f"{left}: ") and "upgrade it" in death for death in found["deaths"]), found["deaths"]


def test_slow_and_repetitive_workers_that_keep_the_rules_pass(dev_process: Broker) -> None:
    code, found = chaos(dev_process, "--mutant", "late_and_again")
    assert (code, found["equal"], found["failure"]) == (0, True, ""), found
    assert found["repeats"] > 0


@pytest.mark.parametrize(
    ("mutant", "sign"),
    [
        ("early_checkpoint", "lost"),
        ("guard_off", "failure"),
        ("repeats_applied", "failure"),
        ("dedupe_off", "doubled"),
        ("done_early", "doubled"),
        ("rollback_ignored", "doubled"),
    ],
)
def test_broken_workers_make_it_fail(dev_process: Broker, mutant: str, sign: str) -> None:
    code, found = chaos(dev_process, "--mutant", mutant)
    assert (code, found["equal"]) == (1, False), found
    assert found[sign], found
