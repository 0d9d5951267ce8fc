"""The typed configuration: file, environment over it, errors that name field and origin, passwords that stay hidden."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from streams.cli import run
from streams.pipeline.config import ConfigError, PipelineConfig, read_config, write_config
from streams.runtime.security import BrokerSecurity, Secret

LEAST: dict[str, Any] = {"bootstrap": "b:1", "prefix": "p.", "folder": "f"}


def config_file(folder: Path, **fields: Any) -> Path:
    path = folder / "live.json"
    path.write_text(json.dumps({**LEAST, **fields}))
    return path


def test_the_environment_wins_over_the_file_and_text_stands_for_numbers(tmp_path: Path) -> None:
    path = config_file(tmp_path, partitions=2, session_s=3)
    environment = {
        "DPME_PARTITIONS": "8",
        "DPME_STALL_S": "2.5",
        "HOME": "/",
        "DPME_KAFKA_PORT": "9",
        "DPME_DEBUG": "1",
    }
    config = read_config(path, environment)
    assert (config.partitions, config.stall_s, config.session_s) == (8, 2.5, 3.0)
    assert read_config(path).partitions == 2


def test_what_is_written_is_read(tmp_path: Path) -> None:
    config = PipelineConfig(**LEAST, store="clickhouse://u@h:9000/d", security_protocol="SSL", ready_lag_records=5)
    write_config(tmp_path / "new" / "config.json", config)
    assert read_config(tmp_path / "new" / "config.json") == config


@pytest.mark.parametrize(
    ("fields", "environment", "said"),
    [
        ({"partitions": "4"}, {}, r"live.json: field partitions: Expected `int`, got `str`, not '4'"),
        ({"partitions": 0}, {}, r"live.json: field partitions: .*>= 1"),
        ({}, {"DPME_PARTITIONS": "four"}, r"environment variable DPME_PARTITIONS: field partitions: .*'four'"),
        ({}, {"DPME_GATEWAY_PORT": "70000"}, r"environment variable DPME_GATEWAY_PORT: field gateway_port: .*65535"),
        ({"log_format": "xml"}, {}, r"live.json: field log_format: .*'xml'"),
        ({"security_protocol": "TLS"}, {}, r"live.json: field security_protocol: .*'TLS'"),
        ({"partition": 4}, {}, r"live.json: field partition is unknown; did you mean partitions\?"),
        (
            {},
            {"DPME_PREFIKS": "x"},
            r"environment variable DPME_PREFIKS: field prefiks is unknown; did you mean prefix",
        ),
        (
            {"sasl_password": "geheim"},
            {},
            r"field sasl_password: a password does not belong here: .*DPME_SASL_PASSWORD",
        ),
    ],
)
def test_a_wrong_field_is_named_with_where_it_came_from(
    tmp_path: Path, fields: dict[str, Any], environment: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        read_config(config_file(tmp_path, **fields), environment)
    assert "geheim" not in str(raised.value)


def test_a_missing_field_and_what_is_no_object(tmp_path: Path) -> None:
    path = tmp_path / "live.json"
    for text, said in (("{}", "bootstrap"), ("[1]", "not a JSON object"), ("{", "live.json")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_config(path)


def test_a_password_comes_from_environment_or_file_and_shows_itself_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("from the file\n")
    config = PipelineConfig(
        **LEAST, security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password_file=str(tmp_path / "password")
    )
    assert config.security().password.reveal() == "from the file"
    monkeypatch.setenv("DPME_SASL_PASSWORD", "from the environment")
    settings = config.settings()
    assert settings.security.password.reveal() == "from the environment"
    shown = f"{settings} {settings!r} {config!r} {settings.security.password:}"
    assert "from the" not in shown
    assert "Secret(hidden)" in shown
    with pytest.raises(TypeError):
        pickle.dumps(settings)
    with pytest.raises(TypeError):
        json.dumps(settings.security.password)


def test_what_sasl_and_tls_need_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPME_SASL_PASSWORD", raising=False)
    for fields, said in (
        ({"security_protocol": "SASL_SSL"}, "field sasl_username"),
        ({"security_protocol": "SASL_SSL", "sasl_username": "u"}, "field sasl_password: .*DPME_SASL_PASSWORD"),
        ({"security_protocol": "SSL", "ca_file": "no-such.pem"}, "field ca_file: there is no file no-such.pem"),
        ({"sasl_password_file": str(tmp_path)}, "field sasl_password_file: cannot read"),
    ):
        with pytest.raises(ConfigError, match=said):
            PipelineConfig(**LEAST, **fields).settings()  # type: ignore[arg-type]


def test_every_client_gets_the_same_security() -> None:
    security = BrokerSecurity("SASL_SSL", "SCRAM-SHA-512", "user", Secret("geheim"))
    options = security.client_options()
    assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("user", "geheim")
    from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

    of_faust = credentials_to_aiokafka_auth(security.faust_credentials())
    contexts = of_faust.pop("ssl_context"), options.pop("ssl_context")
    assert all(context.check_hostname for context in contexts)
    assert of_faust == options
    assert credentials_to_aiokafka_auth(BrokerSecurity().faust_credentials()) == BrokerSecurity().client_options()
    assert BrokerSecurity("SSL").faust_credentials().context.check_hostname


def test_the_command_says_it_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPME_RISK_WORKERS", "many")
    told = CliRunner().invoke(run.app, ["risk", "--config", str(config_file(tmp_path))])
    assert told.exit_code == 2
    assert "DPME_RISK_WORKERS: field risk_workers" in " ".join(told.stderr.replace("│", " ").split())
