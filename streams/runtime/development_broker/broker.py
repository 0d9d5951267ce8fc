"""The node: connections, topics, records, groups; a handler an API."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import sqlite3
import struct
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import errors

from .groups import Answer, Group
from .log import PartitionLog
from .wire import MAX_FRAME_BYTES, VERSIONS, Unspoken, decode_request, encode_response, refusal

HOST, NODE, TOPIC = "127.0.0.1", 0, 2
TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
NO_TRANSACTIONS = errors.UnsupportedVersionError("transactions are not supported: use Apache Kafka")
TABLES = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;  -- safe over a kill of this process, as the logs are
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, partitions INT, configs BLOB);
CREATE TABLE IF NOT EXISTS offsets (name TEXT, topic TEXT, part INT, offset INT, text TEXT, PRIMARY KEY (name, topic, part));
CREATE TABLE IF NOT EXISTS groups (name TEXT PRIMARY KEY, entry BLOB);
CREATE TABLE IF NOT EXISTS producers (id INTEGER PRIMARY KEY AUTOINCREMENT);
"""
log = logging.getLogger(__name__)


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
        for name, entry in self.kept.execute("SELECT * FROM groups"):
            self._group(name).restore(msgspec.msgpack.decode(entry))
        self.handlers: dict[int, Callable[[Any], Any]] = {
            18: lambda r: (r.API_VERSION and errors.UnsupportedVersionError.errno, VERSIONS), 0: self._produce, 1: self._fetch, 2: self._list_offsets, 3: self._metadata, 8: self._commit, 9: self._committed,
            10: self._find_coordinator, 11: lambda r: self._group(r.group).join(r),
            12: lambda r: self._group(r.group).heartbeat(r), 13: lambda r: self._group(r.group).leave(r),
            14: lambda r: self._group(r.group).sync(r), 19: self._create_topics, 20: self._delete_topics,
            22: self._init_producer, 32: self._describe_configs,
        }

    async def serve(self, port: int) -> asyncio.Server:
        server = await asyncio.start_server(self._connection, HOST, port, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        for group in self.groups.values():
            for member in group.members.values():
                member.renew()
        return server

    async def expire_sessions(self) -> None:
        """Runs for ever."""
        while True:
            await asyncio.sleep(0.1)
            for group in self.groups.values():
                group.expire(asyncio.get_running_loop().time())

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection one after the other, as Apache Kafka does."""
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                if not 0 < size <= MAX_FRAME_BYTES:
                    raise Unspoken(f"a frame of {size} bytes")
                if (answer := await self._answer(await reader.readexactly(size))) is not None:
                    writer.write(answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Unspoken as error:
            log.warning("connection closed: %s", error)
        except Exception:
            log.exception("connection closed by a fault of this broker")
        finally:
            writer.close()

    async def _answer(self, frame: bytes) -> bytes | None:
        correlation_id, request = decode_request(frame)
        try:
            answer = self.handlers[request.API_KEY](request)
            answer = await answer if asyncio.iscoroutine(answer) else answer
        except errors.BrokerResponseError as error:
            if not isinstance(error, errors.MemberIdRequired):
                log.warning("%s refused: %s", type(request).__name__, error)
            answer = refusal(request, error)
        return None if answer is None else encode_response(correlation_id, request.RESPONSE_TYPE, answer)

    def _attempt(self, what: str, part_of_request: Callable[..., Any], *given: Any) -> tuple[int, Any, str | None]:
        """Error code, result and reason of what one topic or partition of a request asks for."""
        try:
            return 0, part_of_request(*given), None
        except errors.BrokerResponseError as error:
            log.warning("%s refused: %s", what, error)
            return error.errno, None, str(error)

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
        unknown = errors.UnknownTopicOrPartitionError.errno
        topics = [
            (0 if name in self.topics else unknown, name, False,
             [(0, partition, NODE, [NODE], [NODE], []) for partition in range(len(self.topics.get(name, ())))])
            for name in (list(self.topics) if request.topics is None else request.topics)
        ]
        return 0, [(NODE, HOST, self.port, None)], "dpme-development-broker", NODE, topics

    def _create_topics(self, request: Any) -> Answer:
        answers = []
        for name, *rest in request.create_topic_requests:
            code, _, reason = self._attempt(f"topic {name}", self._create, name, *rest, request.validate_only)
            answers.append((name, code, reason))
        return 0, answers

    def _create(self, name: str, count: int, replicas: int, assigned: list[Any], configs: Any, check_only: bool) -> None:
        configs = {key: value for key, value in configs if value is not None}
        count = len(assigned) or (1 if count == -1 else count)
        if not TOPIC_NAME.fullmatch(name or ""):
            raise errors.InvalidTopicError(f"{name!r} is no topic name")
        if name in self.topics:
            raise errors.TopicAlreadyExistsError(name)
        if not 1 <= count <= 10_000:
            raise errors.InvalidPartitionsError(f"{count} partitions")
        if replicas not in (-1, 1):
            raise errors.InvalidReplicationFactorError("this broker is a single node")
        if not configs.get("max.message.bytes", "1").isdigit():
            raise errors.InvalidConfigurationError("max.message.bytes is a number")
        if not check_only:
            shutil.rmtree(self.folder / "topics" / name, ignore_errors=True)
            self._open(name, count, configs)
            self.kept.execute("INSERT INTO topics VALUES (?, ?, ?)", (name, count, msgspec.msgpack.encode(configs)))

    def _delete_topics(self, request: Any) -> Answer:
        return 0, [(name, self._attempt(f"deletion of {name}", self._delete, name)[0]) for name in request.topics]

    def _delete(self, name: str) -> None:
        self._partition(name, 0)
        self.kept.execute("DELETE FROM topics WHERE name = ?", (name,))
        self.kept.execute("DELETE FROM offsets WHERE topic = ?", (name,))
        for partition in self.topics.pop(name):
            partition.close()
        shutil.rmtree(self.folder / "topics" / name)

    def _describe_configs(self, request: Any) -> Answer:
        def describe(kind: int, name: str, wanted: list[str] | None) -> list[Answer]:
            if kind != TOPIC:
                raise errors.InvalidRequestError("only topics have configurations here")
            self._partition(name, 0)
            configs = {"cleanup.policy": "delete", **self.configs[name]}
            return [(key, value, False, 1, False, []) for key, value in configs.items() if wanted is None or key in wanted]

        answers = []
        for kind, name, wanted in request.resources:
            code, entries, reason = self._attempt(f"configuration of {name}", describe, kind, name, wanted)
            answers.append((code, reason, kind, name, entries or []))
        return 0, answers

    # --- records

    def _init_producer(self, request: Any) -> Answer:
        if request.transactional_id:
            raise NO_TRANSACTIONS
        return 0, 0, self.kept.execute("INSERT INTO producers DEFAULT VALUES").lastrowid, 0

    def _produce(self, request: Any) -> Answer | None:
        def append(topic: str, partition: int, batch: bytes | None) -> tuple[int, int]:
            if request.transactional_id:
                raise NO_TRANSACTIONS
            if request.required_acks not in (-1, 0, 1):
                raise errors.InvalidRequiredAcksError(f"acks={request.required_acks}")
            return self._partition(topic, partition).append(batch or b"")

        topics = []
        for topic, parts in request.topics:
            done = [(p, *self._attempt(f"produce to {topic}/{p}", append, topic, p, batch)) for p, batch in parts]
            topics.append((topic, [(p, code, *(placed or (-1, -1)), 0) for p, code, placed, _ in done]))
        return (topics, 0) if request.required_acks else None

    async def _fetch(self, request: Any) -> Answer:
        """Long poll: waits up to max_wait_time until min_bytes are there or a partition answers with an error."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        deadline = loop.time() + request.max_wait_time / 1000
        while True:
            topics, size, failed = self._read(request)
            if failed or size >= request.min_bytes or loop.time() >= deadline:
                return 0, topics
            logs = [self._partition(topic, p) for topic, asked in request.topics for p, *_ in asked]
            arrived.clear()
            timer = loop.call_at(deadline, arrived.set)
            for partition in logs:
                partition.waiting.add(arrived)
            try:
                await arrived.wait()
            finally:
                timer.cancel()
                for partition in logs:
                    partition.waiting.discard(arrived)

    def _read(self, request: Any) -> tuple[list[Answer], int, bool]:
        """Topics of a Fetch response, their bytes, and whether a partition answers with an error."""
        def read(topic: str, partition: int, offset: int, max_bytes: int) -> tuple[int, bytes]:
            found = self._partition(topic, partition)
            if not 0 <= offset <= found.end_offset:
                raise errors.OffsetOutOfRangeError(f"offset {offset}, the log ends at {found.end_offset}")
            return found.end_offset, found.read(offset, max_bytes) if max_bytes > 0 else b""

        topics, size, failed = [], 0, False
        for topic, asked in request.topics:
            answers = []
            for partition, offset, max_bytes in asked:
                room = min(max_bytes, request.max_bytes - size)
                code, found, _ = self._attempt(f"fetch of {topic}/{partition}", read, topic, partition, offset, room)
                end, data = found or (-1, b"")
                answers.append((partition, code, end, end, [], data))
                size, failed = size + len(data), failed or code != 0
            topics.append((topic, answers))
        return topics, size, failed

    def _list_offsets(self, request: Any) -> Answer:
        def find(topic: str, partition: int, time_ms: int) -> int:
            if time_ms >= 0:
                raise errors.UnsupportedVersionError("search by time is not supported: use Apache Kafka")
            return self._partition(topic, partition).end_offset if time_ms == -1 else 0

        topics = []
        for topic, asked in request.topics:
            found = [(p, *self._attempt(f"offset of {topic}/{p}", find, topic, p, ms)) for p, ms in asked]
            topics.append((topic, [(p, code, -1, -1 if code else offset) for p, code, offset, _ in found]))
        return 0, topics

    # --- groups

    def _group(self, name: str) -> Group:
        if not name:
            raise errors.InvalidGroupIdError("empty group id")
        if name not in self.groups:
            statement = "INSERT OR REPLACE INTO groups VALUES (?, ?)"
            self.groups[name] = Group(lambda e: self.kept.execute(statement, (name, msgspec.msgpack.encode(e))))
        return self.groups[name]

    def _find_coordinator(self, request: Any) -> Answer:
        if request.coordinator_type != 0:
            raise NO_TRANSACTIONS
        return 0, 0, None, NODE, HOST, self.port

    def _commit(self, request: Any) -> Answer:
        def commit(topic: str, partition: int, offset: int, text: str | None) -> None:
            self._partition(topic, partition)
            group.check_commit(request.consumer_group_generation_id, request.consumer_id)
            row = (request.consumer_group, topic, partition, offset, text or "")
            self.kept.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?, ?)", row)

        group = self._group(request.consumer_group)
        return 0, [(t, [(p[0], self._attempt(f"commit of {t}", commit, t, *p)[0]) for p in ps]) for t, ps in request.topics]

    def _committed(self, request: Any) -> Answer:
        statement = "SELECT topic, part, offset, text FROM offsets WHERE name = ?"
        known = {(t, p): (offset, text) for t, p, offset, text in self.kept.execute(statement, (request.consumer_group,))}
        wanted = defaultdict(list, request.topics or {})
        if request.topics is None:
            for topic, partition in known:
                wanted[topic].append(partition)
        return 0, [(t, [(p, *known.get((t, p), (-1, "")), 0) for p in parts]) for t, parts in wanted.items()], 0
