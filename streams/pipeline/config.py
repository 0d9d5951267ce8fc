"""What the workers of one installation must agree on: one typed JSON file, and environment variables over it."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from streams.runtime.notes import Format
from streams.runtime.security import BrokerSecurity, Mechanism, Protocol, Secret
from streams.runtime.settings import RuntimeSettings

PREFIX = "DPME_"
# Passwords stand in no configuration: they come from the environment, or from the file that a field names.
SECRETS = {"sasl_password": "sasl_password_file", "store_password": "store_password_file"}
# Variables of this prefix that are no fields: of the shell, the test harness and the broker's start script.
OTHER_VARIABLES = frozenset({"DEBUG", "KAFKA_HOME", "KAFKA_LIB", "KAFKA_PORT", "SHARED", "CLICKHOUSE_ENGINE"})

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1, le=1024)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class ConfigError(Exception):
    """A field of the configuration is unknown or wrong; the message names it and where it came from."""


class PipelineConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every worker is started with.

    partitions, generation: changed together, by `dpme partitions change` alone.
    folder: logs and pid files of the workers. model: a worker draws scenario sets as the market moves, where the risk
    parameters ask for epochs (`scenario_model`). store: the analytics store, a folder (chDB) or
    clickhouse://user@host:port/database; "" for no sink. gateway_port: 0 for no gateway. metrics_port: /metrics,
    /healthz and /readyz of a worker started alone; under `dpme run all` the workers take this port and those above it,
    in their order; 0 for none. ready_lag_records: how far behind the end of a log a worker may be and still be ready.
    request_timeout_ms, consumer_request_timeout_ms: of one request of producers and of group members, what a silent
    broker costs; the second must exceed rebalance_s (None: 1.5 sessions), for which a joining member may have to wait.
    groups: above 1 is hot standby: every group has enforcement and `risk_workers` risk workers of its own, owns all
    partitions and writes the same bytes, which readers take once. sequencers: above 1 all but one follow, and one of
    them takes over when that one decides nothing any more.
    """

    bootstrap: str
    prefix: str
    folder: str
    partitions: Count = 4
    generation: Annotated[int, Meta(ge=0)] = 0
    risk_workers: Count = 1
    groups: Annotated[int, Meta(ge=1, le=4)] = 1
    sequencers: Annotated[int, Meta(ge=1, le=4)] = 1
    model: bool = False
    store: str = ""
    store_password_file: str = ""
    gateway_host: str = "127.0.0.1"
    gateway_port: Port = 0
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 0
    ready_lag_records: Annotated[int, Meta(ge=0)] = 1000
    log_format: Format = "text"
    replication_factor: Annotated[int, Meta(ge=1, le=15)] = 1
    security_protocol: Protocol = "PLAINTEXT"
    sasl_mechanism: Mechanism = "PLAIN"
    sasl_username: str = ""
    sasl_password_file: str = ""
    ca_file: str = ""
    session_s: Seconds = 6.0
    checkpoint_every: Annotated[int, Meta(ge=1)] = 10
    stall_s: Seconds | None = None
    rebalance_s: Seconds | None = None
    request_timeout_ms: Annotated[int, Meta(ge=100, le=600_000)] = 40_000
    consumer_request_timeout_ms: Annotated[int, Meta(ge=100, le=600_000)] | None = None

    def groups_of(self, role: str) -> int:
        """How many consumer groups of a role there are, each with everything the role owns."""
        return {"sequencer": self.sequencers, "risk": self.groups, "enforcement": self.groups}.get(role, 1)

    def settings(self, group: int = 0, role: str = "") -> RuntimeSettings:
        """Timings and connections of a worker of one group. Raises ConfigError where a password is missing."""
        return RuntimeSettings(
            bootstrap=self.bootstrap,
            security=self.security(),
            prefix=self.prefix,
            generation=self.generation,
            session_s=self.session_s,
            checkpoint_every=self.checkpoint_every,
            stall_s=self.stall_s,
            rebalance_s=self.rebalance_s,
            request_timeout_ms=self.request_timeout_ms,
            consumer_request_timeout_ms=self.consumer_request_timeout_ms,
            metrics_host=self.metrics_host,
            metrics_port=self.metrics_port,
            ready_lag_records=self.ready_lag_records,
            idle_allowed=True,
            group=group,
            groups=self.groups_of(role),
        )

    @property
    def run_name(self) -> str:
        """Of these logs, as stores and subscribers tell them from others."""
        return self.prefix + (f"g{self.generation}" if self.generation else "")

    def security(self) -> BrokerSecurity:
        """How to connect to the broker. Raises ConfigError."""
        password = self.secret("sasl_password")
        if self.security_protocol.startswith("SASL_"):
            if not self.sasl_username:
                raise ConfigError(f"field sasl_username: {self.security_protocol} needs one ({PREFIX}SASL_USERNAME)")
            if not password:
                wanted = f"name a file in sasl_password_file, or set {PREFIX}SASL_PASSWORD"
                raise ConfigError(f"field sasl_password: {self.security_protocol} needs one: {wanted}")
        if self.ca_file and not Path(self.ca_file).is_file():
            raise ConfigError(f"field ca_file: there is no file {self.ca_file}")
        return BrokerSecurity(self.security_protocol, self.sasl_mechanism, self.sasl_username, password, self.ca_file)

    def secret(self, name: str) -> Secret:
        """A password by its name in SECRETS; empty where there is none. Raises ConfigError for an unreadable file."""
        from_environment = os.environ.get(PREFIX + name.upper(), "")
        if from_environment:  # an empty variable is what an unset one becomes in a compose file
            return Secret(from_environment)
        file_field = SECRETS[name]
        path = getattr(self, file_field)
        if not path:
            return Secret()
        try:
            return Secret(Path(path).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(f"field {file_field}: cannot read {path}: {reason}") from error


def write_config(path: Path, config: PipelineConfig) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(config)) + b"\n")


def read_config(path: Path, environment: Mapping[str, str] | None = None) -> PipelineConfig:
    """The file with the environment's DPME_<FIELD> over it (None: the file alone, for workers of a running pipeline).

    Raises ConfigError naming the field and the file or variable its value came from; OSError for an unreadable file.
    """
    given = _given(path, environment or {})
    found = {}
    types = typing.get_type_hints(PipelineConfig, include_extras=True)
    for name, (value, origin) in given.items():
        if name in SECRETS:
            hint = f"name a file in {SECRETS[name]}, or set {PREFIX}{name.upper()}"
            raise ConfigError(f"{origin}: field {name}: a password does not belong here: {hint}")
        if name not in types:
            raise ConfigError(f"{origin}: field {name} is unknown{_nearest(name, types)}")
        found[name] = _converted(name, value, types[name], origin)
    try:
        return msgspec.convert(found, PipelineConfig)
    except msgspec.ValidationError as error:  # every value fits: a field is missing
        raise ConfigError(f"{path}: {error}") from error


def _given(path: Path, environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Field -> (value, where it came from); the environment wins."""
    try:
        values = msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a JSON object")
    given = {name: (value, str(path)) for name, value in values.items()}
    for variable, text in sorted(environment.items()):
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and name not in OTHER_VARIABLES and name.lower() not in SECRETS:
            given[name.lower()] = (text, f"environment variable {variable}")
    return given


def _converted(name: str, value: Any, kind: Any, origin: str) -> Any:
    """Text of the environment may stand for a number ("4"); JSON must have the type itself."""
    try:
        return msgspec.convert(value, kind, strict=not origin.startswith("environment"))
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: field {name}: {error}, not {value!r}") from error


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
