"""Two groups of risk and enforcement workers: one group at a time is disturbed, and outputs are those of a calm run."""

from __future__ import annotations

from chaos_command import chaos

from streams.runtime.kafka_process import Broker

ACTS = "kill:risk,freeze:enforcement,kill all:risk,freeze:risk,kill:enforcement,stop:risk,rolling restart:risk"


def test_either_group_writes_what_the_other_would_have(broker: Broker) -> None:
    code, found = chaos(broker, "--groups", "2", "--seed", "6", "--acts", ACTS)
    assert (code, found["equal"], found["lost"], found["doubled"], found["failure"]) == (0, True, 0, 0, ""), found
    assert found["repeats"] > found["records"] / 3, "the second group has written nothing"
    assert found["stops"] == 7, "one by the script, six by the rolling restart"
    restarted = set(found["lives"])
    assert restarted >= {
        "risk-0",
        "risk-1",
        "risk-standby1-0",
        "risk-standby1-1",
        "enforcement",
        "enforcement-standby1",
    }
