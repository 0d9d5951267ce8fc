"""The node: connections, topics, records, commits; a handler an API, on aiokafka's own schemas, one version of each."""

import asyncio
import contextlib
import logging
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
from aiokafka import errors
from aiokafka.protocol import admin, commit, coordination, fetch, group, metadata, offset, produce, transaction

from .groups import Answer, Group
from .log import PartitionLog

HOST, NODE = "127.0.0.1", 0
MAX_FRAME_BYTES = 100 * 1024 * 1024  # Apache Kafka's socket.request.max.bytes
TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
# what follows the error's code where a whole request is refused
EMPTY: dict[Any, Answer] = {
    group.JoinGroupRequest_v5: (-1, "", "", "", []),
    group.SyncGroupRequest_v3: (b"",),
    transaction.InitProducerIdRequest_v0: (-1, -1),
}
log = logging.getLogger(__name__)


class State(msgspec.Struct):
    """Everything that is kept beside the records, as one JSON file."""

    producers: int = 0
    topics: dict[str, tuple[int, dict[str, str]]] = {}  # number of partitions, configuration
    groups: dict[str, Group] = {}


def attempt(failed: Answer, function: Callable[..., Answer], *given: Any) -> Answer:
    """Error code and result of what a request asks of one topic or partition; `failed` follows a refusal's code."""
    try:
        return 0, *function(*given)
    except errors.BrokerResponseError as error:
        log.warning("%s%s refused: %s", function.__name__, given[:2], error)
        return error.errno, *failed


def each(request: Any, failed: Answer, function: Callable[..., Answer]) -> list[Answer]:
    """The answers to a request topic by topic and partition by partition."""
    return [(t, [(p, *attempt(failed, function, t, p, *rest)) for p, *rest in asked]) for t, asked in request.topics]


class Broker:
    """All state of the node, kept in `folder`: a log file a partition, and state.json."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.port = folder, folder / "state.json", 0
        self.saved = self.file.read_bytes() if self.file.exists() else b"{}"
        self.state = msgspec.json.decode(self.saved, type=State)
        self.logs: dict[tuple[str, int], PartitionLog] = {}  # those in use
        handlers: dict[Any, Callable[[Any], Any]] = {
            produce.ProduceRequest_v7: self._produce,
            fetch.FetchRequest_v4: self._fetch,
            offset.OffsetRequest_v2: self._list_offsets,
            metadata.MetadataRequest_v5: self._metadata,
            commit.OffsetCommitRequest_v3: self._commit,
            commit.OffsetFetchRequest_v3: self._committed,
            coordination.FindCoordinatorRequest_v1: lambda asked: (0, 0, None, NODE, HOST, self.port),
            group.JoinGroupRequest_v5: lambda asked: self._group(asked.group).join(asked),
            group.SyncGroupRequest_v3: lambda asked: self._group(asked.group).sync(asked),
            group.HeartbeatRequest_v1: lambda asked: self._group(asked.group).heartbeat(asked),
            group.LeaveGroupRequest_v1: lambda asked: self._group(asked.group).leave(asked),
            admin.DescribeGroupsRequest_v0: lambda asked: ([self._describe(name) for name in asked.groups],),
            admin.CreateTopicsRequest_v3: self._create_topics,
            admin.DeleteTopicsRequest_v3: self._delete_topics,
            admin.DescribeConfigsRequest_v2: self._describe_configs,
            transaction.InitProducerIdRequest_v0: self._init_producer,
            admin.ApiVersionRequest_v0: lambda asked: (0, [(key, version, version) for key, version in self.spoken]),
        }
        self.spoken = {(api.API_KEY, api.API_VERSION): (api, handler) for api, handler in handlers.items()}

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
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        except Exception as error:
            log.warning("connection closed: %r", error)
        finally:
            writer.close()

    async def _answer(self, frame: bytes) -> bytes | None:
        key, version, correlation_id, client_id_length = struct.unpack_from(">hhih", frame)
        if (key, version) not in self.spoken:
            raise ValueError(f"API {key} version {version} is not supported: use Apache Kafka for it")
        api, handler = self.spoken[key, version]
        request = api.decode(frame[10 + max(client_id_length, 0) :])
        try:
            answer = handler(request)
            answer = await answer if asyncio.iscoroutine(answer) else answer
        except errors.BrokerResponseError as error:
            log.warning("%s refused: %s", api.__name__, error)
            answer = 0, error.errno, *EMPTY.get(api, ())
        if api not in (produce.ProduceRequest_v7, fetch.FetchRequest_v4):
            self._save()
        return None if answer is None else struct.pack(">i", correlation_id) + api.RESPONSE_TYPE.SCHEMA.encode(answer)

    def _save(self) -> None:
        """Keeps the state if it has changed; a kill leaves the old file or the new one."""
        if (state := msgspec.json.encode(self.state)) != self.saved:
            self.file.with_suffix(".new").write_bytes(state)
            self.file.with_suffix(".new").replace(self.file)
            self.saved = state

    def _partition(self, topic: str, partition: int) -> PartitionLog:
        count, configs = self.state.topics.get(topic, (0, {}))
        if not 0 <= partition < count:
            raise errors.UnknownTopicOrPartitionError(f"{topic}/{partition}: create the topic first")
        if (topic, partition) not in self.logs:
            self.logs[topic, partition] = PartitionLog(self.folder / "topics" / topic / f"{partition}.log", configs)
        return self.logs[topic, partition]

    def _metadata(self, request: Any) -> Answer:
        topics: list[Answer] = []
        for name in self.state.topics if request.topics is None else request.topics:
            count, _ = self.state.topics.get(name, (0, {}))
            partitions: list[Answer] = [(0, partition, NODE, [NODE], [NODE], []) for partition in range(count)]
            topics.append((0 if count else errors.UnknownTopicOrPartitionError.errno, name, False, partitions))
        return 0, [(NODE, HOST, self.port, None)], "dpme-development-broker", NODE, topics

    def _create_topics(self, request: Any) -> Answer:
        def create(name: str, count: int, replicas: int, assigned: list[Answer], given: list[Answer]) -> Answer:
            configs = {key: value for key, value in given if value is not None}
            if name in self.state.topics:
                raise errors.TopicAlreadyExistsError(name)
            if not TOPIC_NAME.fullmatch(name) or not configs.get("max.message.bytes", "1").isdigit():
                raise errors.InvalidTopicError("the name or max.message.bytes")
            if not 1 <= count <= 10_000 or replicas not in (-1, 1) or assigned or request.validate_only:
                raise errors.InvalidRequestError("1 to 10000 partitions, 1 replica, no assignment, no dry run")
            shutil.rmtree(self.folder / "topics" / name, ignore_errors=True)  # left by a deletion that was cut short
            self.state.topics[name] = count, configs
            return (None,)

        return 0, [(asked[0], *attempt((None,), create, *asked)) for asked in request.create_topic_requests]

    def _delete_topics(self, request: Any) -> Answer:
        def delete(name: str) -> Answer:
            self._partition(name, 0)
            for partition in range(self.state.topics.pop(name)[0]):
                if used := self.logs.pop((name, partition), None):
                    used.close()
            for known in self.state.groups.values():
                known.offsets.pop(name, None)
            shutil.rmtree(self.folder / "topics" / name)
            return ()

        return 0, [(name, *attempt((), delete, name)) for name in request.topics]

    def _describe_configs(self, request: Any) -> Answer:
        def describe(kind: int, name: str, wanted: list[str] | None) -> Answer:
            self._partition(name, 0)
            configs = {"cleanup.policy": "delete", **self.state.topics[name][1]}
            told: list[Answer] = [(k, v, False, 1, False, []) for k, v in configs.items() if k in (wanted or configs)]
            return None, kind, name, told

        return 0, [attempt((None, *asked[:2], []), describe, *asked) for asked in request.resources]

    def _init_producer(self, request: Any) -> Answer:
        if request.transactional_id:
            raise errors.UnsupportedVersionError("transactions are not supported: use Apache Kafka")
        self.state.producers += 1
        return 0, 0, self.state.producers, 0

    def _produce(self, request: Any) -> Answer | None:
        def append(topic: str, partition: int, batch: bytes | None) -> Answer:
            return self._partition(topic, partition).append(batch or b""), -1, 0

        topics = each(request, (-1, -1, -1), append)
        return (topics, 0) if request.required_acks else None

    async def _fetch(self, request: Any) -> Answer:
        """Long poll: waits up to max_wait_time until a partition answers with records or an error."""
        arrived, deadline = asyncio.Event(), monotonic() + request.max_wait_time / 1000

        def read(topic: str, partition: int, offset: int, max_bytes: int) -> Answer:
            found = self._partition(topic, partition)
            found.waiting.add(arrived)
            if not 0 <= offset <= found.end_offset:
                raise errors.OffsetOutOfRangeError(f"offset {offset}, the log ends at {found.end_offset}")
            return found.end_offset, found.end_offset, [], found.read(offset, max_bytes)

        while True:
            topics = each(request, (-1, -1, [], b""), read)
            answered = any(answer[1] or answer[-1] for _, partitions in topics for answer in partitions)
            if answered or (remaining_s := deadline - monotonic()) <= 0:
                return 0, topics
            arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(arrived.wait(), remaining_s)

    def _list_offsets(self, request: Any) -> Answer:
        def list_offset(topic: str, partition: int, time_ms: int) -> Answer:
            if time_ms >= 0:
                raise errors.UnsupportedVersionError("search by time is not supported: use Apache Kafka")
            return -1, self._partition(topic, partition).end_offset if time_ms == -1 else 0

        return 0, each(request, (-1, -1), list_offset)

    def _group(self, name: str) -> Group:
        return self.state.groups.setdefault(name, Group())

    def _describe(self, name: str) -> Answer:
        of = self.state.groups.get(name, Group())
        of.advance()
        members = [(member.id, member.instance or member.id, HOST, b"", b"") for member in of.members.values()]
        return 0, name, of.state.capitalize(), "consumer", of.protocol, members

    def _commit(self, request: Any) -> Answer:
        of = self._group(request.consumer_group)

        def commit_offset(topic: str, partition: int, offset: int, text: str | None) -> Answer:
            if of.members or request.consumer_group_generation_id >= 0:  # anyone may while the group has no members
                of.member(request.consumer_id, request.consumer_group_generation_id)
            self._partition(topic, partition)
            of.offsets.setdefault(topic, {})[partition] = offset, text or ""
            return ()

        return 0, each(request, (), commit_offset)

    def _committed(self, request: Any) -> Answer:
        kept = self._group(request.consumer_group).offsets
        asked = kept.items() if request.topics is None else request.topics
        return 0, [(t, [(p, *kept.get(t, {}).get(p, (-1, "")), 0) for p in parts]) for t, parts in asked], 0
