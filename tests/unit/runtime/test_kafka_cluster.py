"""Three nodes: what their settings say. That they run is shown by `python -m tests.chaos --brokers 3`."""

from __future__ import annotations

from pathlib import Path

from streams.runtime.kafka_process import KafkaCluster, new_cluster_id


def test_nodes_differ_in_number_ports_and_data_and_agree_on_the_voters(tmp_path: Path) -> None:
    cluster = KafkaCluster(tmp_path, library=tmp_path / "lib")
    found = []
    for node in cluster.nodes:
        lines = node._settings_text().splitlines()
        found.append(dict(line.split("=", 1) for line in lines))
    assert [settings["node.id"] for settings in found] == ["1", "2", "3"]
    for name in ("listeners", "advertised.listeners", "log.dirs"):
        assert len({settings[name] for settings in found}) == 3
    [voters] = {settings["controller.quorum.voters"] for settings in found}
    assert voters == ",".join(f"{n.number}@127.0.0.1:{n.port + 1}" for n in cluster.nodes)
    assert {settings["min.insync.replicas"] for settings in found} == {"2"}
    assert cluster.address.split(",") == [node.address for node in cluster.nodes]


def test_a_cluster_id_is_sixteen_bytes_and_no_option() -> None:
    made = {new_cluster_id() for _ in range(200)}
    assert len(made) == 200
    assert {len(one) for one in made} == {22}
    assert not any(one.startswith("-") for one in made)
