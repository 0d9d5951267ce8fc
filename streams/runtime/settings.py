"""Timings, names and limits of a worker. The defaults are those measured in infra/docs/recovery.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from schemas.topics import OF_A_GENERATION
from streams.runtime.security import BrokerSecurity


@dataclass(frozen=True)
class RuntimeSettings:
    """One frozen value per process. Optional limits are derived from the session where they are None.

    bootstrap: "host:port[,host:port...]"; prefix: put before every topic and group name;
    generation: how often the number of partitions has changed, part of the names of all that begins anew with it;
    group of groups: hot standby, every group of workers owns all partitions (0 <= group < groups).
    """

    bootstrap: str = "127.0.0.1:9092"
    security: BrokerSecurity = field(default_factory=BrokerSecurity)
    prefix: str = "dpme."
    generation: int = 0
    session_s: float = 6.0  # how long a silent member keeps its partitions; 2 on one's own brokers
    rebalance_s: float | None = None  # how long the others wait for a member to join again: 1.5 sessions
    heartbeat_s: float | None = None  # a fifth of the session
    static_membership: bool = True  # the worker's name is its group.instance.id: one process a name
    group: int = 0
    groups: int = 1
    checkpoint_every: int = 10  # marks (blocks) between checkpoints of one unit, times `groups`
    checkpoint_chunk_bytes: int = 500_000  # below the broker's max.message.bytes
    request_timeout_ms: int = 40_000  # one request of the producer and of plain readers: what a frozen broker costs
    delivery_limit_s: float = 120.0  # an output not acknowledged by then ends the worker
    consumer_request_timeout_ms: int | None = None  # must exceed rebalance_s: JoinGroup waits for the others
    fetch_wait_ms: int = 200  # a waiting fetch keeps resumed partitions out; Faust's constant is 1500
    metadata_age_ms: int = 10_000
    isolation: str = "read_committed"  # inputs may come from transactional producers
    takeover_s: float = 0.15  # a standby sequencer claims the log after so long without a decision that is due
    inbox_records: int = 64  # read ahead per unit
    stream_buffer: int = 8  # runs of records read ahead of the Faust stream
    kernel_threads: int = 2  # long records of different units run side by side
    stall_s: float | None = None  # > rebalance + 2 sessions, and > the longest restore
    restore_s: float | None = None  # 3 sessions; raise it with the size of the state
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0  # of /healthz, /readyz, /metrics; 0: none
    ready_lag_records: int = 1000  # a worker further behind the end of one of its logs is not ready
    idle_allowed: bool = False  # True: a worker without partitions is a spare, not a fault

    @property
    def rebalance_limit_s(self) -> float:
        return 1.5 * self.session_s if self.rebalance_s is None else self.rebalance_s

    @property
    def heartbeat_interval_s(self) -> float:
        return self.session_s / 5 if self.heartbeat_s is None else self.heartbeat_s

    @property
    def stall_limit_s(self) -> float:
        return self.rebalance_limit_s + 2.5 * self.session_s if self.stall_s is None else self.stall_s

    @property
    def restore_limit_s(self) -> float:
        return 3 * self.session_s if self.restore_s is None else self.restore_s

    @property
    def faust_request_timeout_s(self) -> float:
        """Faust refuses less than the session; the broker answers JoinGroup only after the others have joined."""
        return max(self.rebalance_limit_s + 3.0, 2 * self.session_s)

    def client_options(self) -> dict[str, Any]:
        """Where the brokers are and how to connect to them, for any aiokafka client."""
        return {"bootstrap_servers": self.bootstrap, **self.security.client_options()}

    def topic(self, name: str) -> str:
        """Full name of a topic on the broker."""
        return self.prefix + name + (self._suffix if name in OF_A_GENERATION else "")

    def short(self, topic: str) -> str:
        """The name without prefix and generation, as machines know it."""
        return topic.removeprefix(self.prefix).removesuffix(self._suffix)

    def group_id(self, role: str) -> str:
        return self.prefix + role + (f"-standby{self.group}" if self.group else "") + self._suffix

    @property
    def _suffix(self) -> str:
        return f".g{self.generation}" if self.generation else ""
