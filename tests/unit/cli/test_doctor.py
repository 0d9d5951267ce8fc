"""Checks of the doctor that depend on the machine, on a machine made for them."""

from __future__ import annotations

import socket

import pytest

from streams.cli import doctor


def test_missing_java_and_maven_are_optional_and_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for check in (doctor.check_java, doctor.check_maven):
        found = check()
        assert found.verdict == doctor.OPTIONAL
        assert "apt install" in found.advice


def test_port_in_use_by_something_that_is_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("DPME_KAFKA_PORT", str(port))
        found = doctor.check_kafka_port()
    assert found.verdict == doctor.OPTIONAL
    assert "DPME_KAFKA_PORT" in found.advice
    assert doctor.check_kafka_port().verdict == doctor.OK


def test_gateway_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(doctor, "GATEWAY_PORT", taken.getsockname()[1])
        assert doctor.check_gateway_port().verdict == doctor.OPTIONAL
    assert doctor.check_gateway_port().verdict == doctor.OK


def test_old_python_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PYTHONS", ((3, 99), (3, 100)))
    found = doctor.check_python()
    assert found.verdict == doctor.BAD
    assert found.advice
