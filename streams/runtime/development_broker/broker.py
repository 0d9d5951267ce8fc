"""The node: connections, topics, records, groups; a handler an API, on aiokafka's own schemas, one version of each."""

import asyncio
import contextlib
import logging
import re
import shutil
import sqlite3
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
from aiokafka import errors
from aiokafka.protocol import admin, commit, coordination, fetch, group, metadata, offset, produce, transaction
from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.types import Array, Bytes, String

from .groups import Answer, Group
from .log import PartitionLog

HOST, NODE = "127.0.0.1", 0
MAX_FRAME_BYTES = 100 * 1024 * 1024  # Apache Kafka's socket.request.max.bytes
TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
NO_TRANSACTIONS = errors.UnsupportedVersionError("transactions are not supported: use Apache Kafka")
TABLES = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;  -- safe over a kill of this process, as the logs are
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, partitions INT, configs BLOB);
CREATE TABLE IF NOT EXISTS offsets (name TEXT, topic TEXT, part INT, offset INT, text TEXT, UNIQUE (name, topic, part));
CREATE TABLE IF NOT EXISTS groups (name TEXT PRIMARY KEY, state BLOB);
CREATE TABLE IF NOT EXISTS producers (id INTEGER PRIMARY KEY AUTOINCREMENT);
"""
log = logging.getLogger(__name__)


def refusal(request: Any, error: errors.BrokerResponseError) -> Answer:
    """A refusal of a whole request in the form of its response: the error's code, a member's id where it has one."""
    member_id = error.args[0] if isinstance(error, errors.MemberIdRequired) else getattr(request, "member_id", "")
    filled = {"error_code": error.errno, "member_id": member_id}
    empty: dict[Any, Any] = {Array: [], String: "", Bytes: b""}
    fields = zip(request.RESPONSE_TYPE.SCHEMA.names, request.RESPONSE_TYPE.SCHEMA.fields)
    return tuple(filled.get(name, empty.get(kind, empty.get(type(kind), 0))) for name, kind in fields)


def attempt(failed: Answer, function: Callable[..., Answer], *given: Any) -> Answer:
    """Error code and result of what a request asks of one topic or partition; `failed` follows a refusal's code."""
    try:
        return 0, *function(*given)
    except errors.BrokerResponseError as error:
        log.warning("%s%s refused: %s", function.__name__.strip("_"), given[:2], error)
        return error.errno, *failed


def each(request: Any, failed: Answer, function: Callable[..., Answer]) -> list[Answer]:
    """The answers to a request topic by topic and partition by partition."""
    return [
        (topic, [(partition, *attempt(failed, function, topic, partition, *rest)) for partition, *rest in asked])
        for topic, asked in request.topics
    ]


class Broker:
    """All state of the node, kept in `folder`: a log file a partition, everything else in a small database."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        self.kept = sqlite3.connect(folder / "state.db", isolation_level=None)
        self.kept.executescript(TABLES)
        self.topics: dict[str, list[PartitionLog]] = {}
        self.configs: dict[str, dict[str, str]] = {}
        for name, partitions, configs in self.kept.execute("SELECT * FROM topics"):
            self._open(name, partitions, msgspec.msgpack.decode(configs))
        self.groups: dict[str, Group] = {}
        for name, state in self.kept.execute("SELECT * FROM groups"):
            self.groups[name] = Group(self._save_group(name), msgspec.msgpack.decode(state))
        handlers: dict[type[RequestStruct], Callable[[Any], Any]] = {
            produce.ProduceRequest_v7: self._produce, fetch.FetchRequest_v4: self._fetch,
            offset.OffsetRequest_v2: self._list_offsets, metadata.MetadataRequest_v5: self._metadata,
            commit.OffsetCommitRequest_v3: self._commit, commit.OffsetFetchRequest_v3: self._committed,
            coordination.FindCoordinatorRequest_v1: self._find_coordinator,
            group.JoinGroupRequest_v5: lambda asked: self._group(asked.group).join(asked),
            group.SyncGroupRequest_v3: lambda asked: self._group(asked.group).sync(asked),
            group.HeartbeatRequest_v1: lambda asked: self._group(asked.group).heartbeat(asked),
            group.LeaveGroupRequest_v1: lambda asked: self._group(asked.group).leave(asked),
            admin.CreateTopicsRequest_v3: self._create_topics, admin.DeleteTopicsRequest_v3: self._delete_topics,
            admin.DescribeConfigsRequest_v2: self._describe_configs,
            transaction.InitProducerIdRequest_v0: self._init_producer,
            admin.ApiVersionRequest_v0: lambda asked: (0, self.versions),
        }
        self.spoken = {(api.API_KEY, api.API_VERSION): (api, handler) for api, handler in handlers.items()}
        self.versions = [(key, version, version) for key, version in sorted(self.spoken)]

    def expire_sessions(self) -> None:
        """To be called a few times a second."""
        for each_group in self.groups.values():
            each_group.expire()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection one after the other. What cannot be answered closes it, as in Apache Kafka."""
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4))
                if size > MAX_FRAME_BYTES:
                    raise ValueError(f"a frame of {size} bytes")
                if answer := await self._answer(await reader.readexactly(size)):
                    writer.write(struct.pack(">i", len(answer)) + answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or this broker stops
        except Exception as error:
            log.warning("connection closed: %r", error)
        finally:
            writer.close()

    async def _answer(self, frame: bytes) -> bytes | None:
        key, version, correlation_id, client_id_length = struct.unpack_from(">hhih", frame)
        head = struct.pack(">i", correlation_id)
        if key == admin.ApiVersionRequest_v0.API_KEY and version:  # a newer client, which then steps down
            code = errors.UnsupportedVersionError.errno
            return head + bytes(admin.ApiVersionResponse_v0(code, self.versions).encode())
        if (key, version) not in self.spoken:
            raise ValueError(f"API {key} version {version} is not supported: use Apache Kafka for it")
        api, handler = self.spoken[key, version]
        request = api.decode(BytesIO(frame[10 + max(client_id_length, 0) :]))
        try:
            answer = handler(request)
            answer = await answer if asyncio.iscoroutine(answer) else answer
        except errors.BrokerResponseError as error:
            if not isinstance(error, errors.MemberIdRequired):
                log.warning("%s refused: %s", api.__name__, error)
            answer = refusal(request, error)
        return None if answer is None else head + bytes(api.RESPONSE_TYPE(*answer).encode())

    # --- topics

    def _open(self, name: str, partitions: int, configs: dict[str, str]) -> None:
        folder = self.folder / "topics" / name
        folder.mkdir(parents=True, exist_ok=True)
        self.configs[name] = configs
        self.topics[name] = [PartitionLog(folder / f"{partition}.log", configs) for partition in range(partitions)]

    def _partition(self, topic: str, partition: int) -> PartitionLog:
        if partition not in range(len(self.topics.get(topic, ()))):
            raise errors.UnknownTopicOrPartitionError(f"{topic}/{partition}: create the topic first")
        return self.topics[topic][partition]

    def _metadata(self, request: Any) -> Answer:
        names = list(self.topics) if request.topics is None else request.topics
        sizes = [(name, len(self.topics.get(name, ()))) for name in names]
        topics: list[Answer] = [
            (0 if size else errors.UnknownTopicOrPartitionError.errno, name, False,
             [(0, partition, NODE, [NODE], [NODE], []) for partition in range(size)])
            for name, size in sizes
        ]
        return 0, [(NODE, HOST, self.port, None)], "dpme-development-broker", NODE, topics

    def _create_topics(self, request: Any) -> Answer:
        def create(name: str, count: int, replicas: int, assigned: list[Answer], given: list[Answer]) -> Answer:
            count, configs = len(assigned) or (1 if count == -1 else count), {k: v for k, v in given if v is not None}
            for wrong, error in (
                (not TOPIC_NAME.fullmatch(name), errors.InvalidTopicError("not a topic name")),
                (name in self.topics, errors.TopicAlreadyExistsError(name)),
                (not 1 <= count <= 10_000, errors.InvalidPartitionsError(f"{count} partitions")),
                (replicas not in (-1, 1), errors.InvalidReplicationFactorError("this broker is a single node")),
                (not configs.get("max.message.bytes", "1").isdigit(), errors.InvalidConfigurationError("not a number")),
            ):
                if wrong:
                    raise error
            if not request.validate_only:
                shutil.rmtree(self.folder / "topics" / name, ignore_errors=True)  # of a creation that was cut short
                self._open(name, count, configs)
                self.kept.execute("INSERT INTO topics VALUES (?, ?, ?)", (name, count, msgspec.msgpack.encode(configs)))
            return (None,)

        return 0, [(asked[0], *attempt((None,), create, *asked)) for asked in request.create_topic_requests]

    def _delete_topics(self, request: Any) -> Answer:
        def delete(name: str) -> Answer:
            self._partition(name, 0)
            self.kept.execute("DELETE FROM topics WHERE name = ?", (name,))
            self.kept.execute("DELETE FROM offsets WHERE topic = ?", (name,))
            for partition in self.topics.pop(name):
                partition.close()
            shutil.rmtree(self.folder / "topics" / name)
            return ()

        return 0, [(name, *attempt((), delete, name)) for name in request.topics]

    def _describe_configs(self, request: Any) -> Answer:
        def describe(kind: int, name: str, wanted: list[str] | None) -> Answer:
            self._partition(name, 0)
            configs = {"cleanup.policy": "delete", **self.configs[name]}
            told: list[Answer] = [(k, v, False, 1, False, []) for k, v in configs.items() if k in (wanted or configs)]
            return None, kind, name, told

        return 0, [attempt((None, *asked[:2], []), describe, *asked) for asked in request.resources]

    # --- records

    def _init_producer(self, request: Any) -> Answer:
        if request.transactional_id:
            raise NO_TRANSACTIONS
        return 0, 0, self.kept.execute("INSERT INTO producers DEFAULT VALUES").lastrowid, 0

    def _produce(self, request: Any) -> Answer | None:
        def append(topic: str, partition: int, batch: bytes | None) -> Answer:
            return *self._partition(topic, partition).append(batch or b""), 0

        topics = each(request, (-1, -1, -1), append)
        return (topics, 0) if request.required_acks else None

    async def _fetch(self, request: Any) -> Answer:
        """Long poll: waits up to max_wait_time until min_bytes are there or a partition answers with an error."""
        arrived, deadline = asyncio.Event(), monotonic() + request.max_wait_time / 1000
        while True:
            topics = each(request, (-1, -1, [], b""), self._reader(request.max_bytes))
            answers = [answer for _, partitions in topics for answer in partitions]
            size, failed = sum(len(answer[-1]) for answer in answers), any(answer[1] for answer in answers)
            remaining_s = deadline - monotonic()
            if failed or size >= request.min_bytes or remaining_s <= 0:
                return 0, topics
            logs = [self._partition(topic, p) for topic, asked in request.topics for p, *_ in asked]
            arrived.clear()
            for partition in logs:
                partition.waiting.add(arrived)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(arrived.wait(), remaining_s)
            for partition in logs:
                partition.waiting.discard(arrived)

    def _reader(self, room: int) -> Callable[..., Answer]:
        """A function that reads partitions up to `room` bytes together."""
        def read(topic: str, partition: int, offset: int, max_bytes: int) -> Answer:
            nonlocal room
            found = self._partition(topic, partition)
            if not 0 <= offset <= found.end_offset:
                raise errors.OffsetOutOfRangeError(f"offset {offset}, the log ends at {found.end_offset}")
            data = found.read(offset, min(max_bytes, room)) if room > 0 else b""
            room -= len(data)
            return found.end_offset, found.end_offset, [], data

        return read

    def _list_offsets(self, request: Any) -> Answer:
        def list_offset(topic: str, partition: int, time_ms: int) -> Answer:
            if time_ms >= 0:
                raise errors.UnsupportedVersionError("search by time is not supported: use Apache Kafka")
            return -1, self._partition(topic, partition).end_offset if time_ms == -1 else 0

        return 0, each(request, (-1, -1), list_offset)

    # --- groups

    def _group(self, name: str) -> Group:
        return self.groups.setdefault(name, Group(self._save_group(name)))

    def _save_group(self, name: str) -> Callable[[Answer], object]:
        statement = "INSERT OR REPLACE INTO groups VALUES (?, ?)"
        return lambda state: self.kept.execute(statement, (name, msgspec.msgpack.encode(state)))

    def _find_coordinator(self, request: Any) -> Answer:
        if request.coordinator_type != 0:
            raise NO_TRANSACTIONS
        return 0, 0, None, NODE, HOST, self.port

    def _commit(self, request: Any) -> Answer:
        name = request.consumer_group
        of = self._group(name)

        def commit_offset(topic: str, partition: int, offset: int, text: str | None) -> Answer:
            of.check_commit(request.consumer_group_generation_id, request.consumer_id)
            self._partition(topic, partition)
            row = (name, topic, partition, offset, text or "")
            self.kept.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?, ?)", row)
            return ()

        return 0, each(request, (), commit_offset)

    def _committed(self, request: Any) -> Answer:
        rows = self.kept.execute("SELECT * FROM offsets WHERE name = ?", (request.consumer_group,))
        known = {(topic, partition): (offset, text) for _, topic, partition, offset, text in rows}
        named = [(topic, partition) for topic, partitions in request.topics or () for partition in partitions]
        asked = known if request.topics is None else named
        answers = [(topic, [(partition, *known.get((topic, partition), (-1, "")), 0)]) for topic, partition in asked]
        return 0, answers, 0
