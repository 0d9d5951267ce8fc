"""What the workers of one installation must agree on; written once as JSON, read by every process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from streams.runtime.settings import RuntimeSettings


class PipelineConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every worker is started with.

    `folder` holds logs and pid files of the workers; `store` is the analytics store, "" for no sink; `gateway_port` is
    0 for no gateway. `groups` above 1 is hot standby: every group has enforcement and `risk_workers` risk workers of
    its own, owns all partitions and writes the same bytes, which readers take once.
    """

    bootstrap: str
    prefix: str
    folder: str
    partitions: int = 4
    risk_workers: int = 1
    groups: Annotated[int, Meta(ge=1, le=4)] = 1
    store: str = ""
    gateway_port: int = 0
    session_s: float = 6.0
    checkpoint_every: int = 10
    stall_s: float | None = None

    def settings(self, group: int = 0) -> RuntimeSettings:
        """Timings of a worker of one group."""
        return RuntimeSettings(
            bootstrap=self.bootstrap,
            prefix=self.prefix,
            session_s=self.session_s,
            checkpoint_every=self.checkpoint_every,
            stall_s=self.stall_s,
            idle_allowed=True,
            group=group,
            groups=self.groups,
        )


def write_config(path: Path, config: PipelineConfig) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(config)) + b"\n")


def read_config(path: Path) -> PipelineConfig:
    """Raises msgspec.ValidationError naming the field."""
    return msgspec.json.decode(path.read_bytes(), type=PipelineConfig)
