"""Two sequencers: either one is killed, frozen or stopped; the other decides, and outputs are those of a calm run."""

from __future__ import annotations

from chaos_command import chaos

from streams.runtime.kafka_process import Broker

ACTS = (
    "kill:sequencer,freeze:sequencer,stop:sequencer,kill twice:sequencer,freeze long:sequencer,kill all:sequencer,"
    "kill:sequencer"
)


def test_either_sequencer_decides_what_the_other_would_have(broker: Broker) -> None:
    code, found = chaos(broker, "--sequencers", "2", "--seed", "8", "--no-sink", "--acts", ACTS, "--session", "2")
    assert (code, found["equal"], found["lost"], found["doubled"], found["failure"]) == (0, True, 0, 0, ""), found
    assert found["log_repeats"] > 0, "only one of them has written"
    assert found["lives"]["sequencer"] + found["lives"]["sequencer-standby1"] > 5
    assert not [death for death in found["deaths"] if "taken over" not in death and "membership" not in death], found
