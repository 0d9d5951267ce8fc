"""One handler an API: topics, records, producers, groups. Plain answers in, protocol out."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .groups import Answer, Group, MemberIdRequired
from .journal import Journal
from .log import PartitionLog, compact
from .wire import (
    API_VERSIONS,
    MAX_REQUEST_BYTES,
    REQUESTS,
    VERSIONS,
    ErrorCode,
    Refusal,
    Unspoken,
    decode_request,
    encode_response,
)

HOST = "127.0.0.1"
NODE = 0
TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
PRODUCER_IDS = 1_000  # reserved at a time, so that no id is given twice over a kill
log = logging.getLogger("development_broker")


class Broker:
    """All state of the node, restored from `folder`."""

    def __init__(self, folder: Path, auto_create_partitions: int = 0) -> None:
        self.folder, self.auto_create_partitions, self.port = folder, auto_create_partitions, 0
        self.topics: dict[str, list[PartitionLog]] = {}
        self.configs: dict[str, dict[str, str]] = {}
        self.groups: dict[str, Group] = {}
        self.next_producer_id = self.reserved_producer_id = 0
        self.journal = Journal(folder / "journal")
        self._restore()
        self.handlers: dict[int, Callable[[Any], Any]] = {
            0: self._produce, 1: self._fetch, 2: self._list_offsets, 3: self._metadata, 8: self._commit_offsets,
            9: self._fetch_offsets, 10: self._find_coordinator, 11: self._join, 12: self._heartbeat, 13: self._leave,
            14: self._sync, 19: self._create_topics, 20: self._delete_topics, 22: self._init_producer,
            32: self._describe_configs,
        }

    # --- what outlives a kill

    def _restore(self) -> None:
        partitions: dict[str, int] = {}
        for entry in self.journal.entries():
            match entry:
                case {"topic": name, "partitions": count}:
                    partitions[name], self.configs[name] = count, entry["configs"]
                case {"deleted": name}:
                    self._forget(name)
                    partitions.pop(name, None)
                case {"offsets": offsets}:
                    group = self._group(entry["of"])
                    group.offsets.update({(topic, part): (offset, text) for topic, part, offset, text in offsets})
                case {"group": name}:
                    self._group(name).restore(entry)
                case {"producer_ids": next_id}:
                    self.next_producer_id = self.reserved_producer_id = next_id
        (self.folder / "topics").mkdir(exist_ok=True)
        for path in (self.folder / "topics").iterdir():
            if path.name not in partitions:
                shutil.rmtree(path)
        for name, count in partitions.items():
            self._open(name, count)
        self.journal.rewrite(self._entries())

    def _entries(self) -> list[dict[str, Any]]:
        topics = [self._topic_entry(name) for name in self.topics]
        offsets = [{"of": g.name, "offsets": [[*k, *v] for k, v in g.offsets.items()]} for g in self.groups.values()]
        groups = [group.to_entry() for group in self.groups.values()]
        return [{"producer_ids": self.reserved_producer_id}, *topics, *offsets, *groups]

    def _topic_entry(self, name: str) -> dict[str, Any]:
        return {"topic": name, "partitions": len(self.topics[name]), "configs": self.configs[name]}

    def _open(self, name: str, count: int) -> None:
        folder = self.folder / "topics" / name
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{partition}.log" for partition in range(count)]
        if "compact" in self.configs[name].get("cleanup.policy", ""):
            for path in filter(Path.exists, paths):
                compact(path)
        self.topics[name] = [PartitionLog(path, self.configs[name]) for path in paths]
        for path, part in zip(paths, self.topics[name]):
            if part.torn_bytes:
                log.warning("%s: cut off %d torn bytes at the end", path, part.torn_bytes)

    def _forget(self, name: str) -> None:
        for part in self.topics.pop(name, ()):
            part.close()
        self.configs.pop(name, None)
        for group in self.groups.values():
            group.offsets = {key: value for key, value in group.offsets.items() if key[0] != name}

    def _group(self, name: str) -> Group:
        if not name:
            raise Refusal(ErrorCode.INVALID_GROUP_ID, "empty group id")
        if name not in self.groups:
            self.groups[name] = Group(name, lambda group: self.journal.append(group.to_entry()))
        return self.groups[name]

    # --- connections

    async def serve(self, port: int) -> asyncio.Server:
        server = await asyncio.start_server(self._connection, HOST, port, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        now = asyncio.get_running_loop().time()
        for member in (m for group in self.groups.values() for m in group.members.values()):
            member.deadline = now + member.session_s
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
                if not 8 <= size <= MAX_REQUEST_BYTES:
                    raise Unspoken(f"a frame of {size} bytes")
                if (answer := await self._answer(await reader.readexactly(size))) is not None:
                    writer.write(answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except Unspoken as error:
            log.warning("connection from port %s closed: %s", writer.get_extra_info("peername")[1], error)
        except Exception:
            log.exception("connection closed by a fault of this broker")
        finally:
            writer.close()

    async def _answer(self, frame: bytes) -> bytes | None:
        correlation_id, request = decode_request(frame)
        if request.API_KEY == API_VERSIONS:
            code = ErrorCode.NONE if request.API_VERSION == 0 else ErrorCode.UNSUPPORTED_VERSION
            return encode_response(correlation_id, REQUESTS[API_VERSIONS].RESPONSE_TYPE, (code, VERSIONS))
        try:
            answer = self.handlers[request.API_KEY](request)
            if asyncio.iscoroutine(answer):
                answer = await answer
        except MemberIdRequired as given:
            answer = (0, ErrorCode.MEMBER_ID_REQUIRED, -1, "", "", str(given), [])
        except Refusal as refusal:
            log.warning("%s refused: %s (%s)", type(request).__name__, refusal.code.name, refusal)
            answer = self._refused(request, refusal.code)
        return None if answer is None else encode_response(correlation_id, request.RESPONSE_TYPE, answer)

    def _refused(self, request: Any, code: ErrorCode) -> Answer:
        """A refusal of a whole request in the shape of its response."""
        shapes: dict[int, Answer] = {
            9: (0, [], code), 10: (0, code, None, -1, "", -1), 11: (0, code, -1, "", "", getattr(request, "member_id", ""), []),
            12: (0, code), 13: (0, code), 14: (0, code, b""), 22: (0, code, -1, -1),
        }
        return shapes[request.API_KEY]

    # --- topics

    def _metadata(self, request: Any) -> Answer:
        names = list(self.topics) if request.topics is None else request.topics
        for name in names:
            if self.auto_create_partitions and request.allow_auto_topic_creation and name not in self.topics:
                self._create((name, self.auto_create_partitions, 1, [], []), False)
        missing = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        topics = [
            (0 if name in self.topics else missing, name, False,
             [(0, partition, NODE, [NODE], [NODE], []) for partition in range(len(self.topics.get(name, ())))])
            for name in names
        ]
        return 0, [(NODE, HOST, self.port, None)], "dpme-development-broker", NODE, topics

    def _create_topics(self, request: Any) -> Answer:
        return 0, [self._create(topic, request.validate_only) for topic in request.create_topic_requests]

    def _create(self, topic: Answer, validate_only: bool) -> Answer:
        name, count, replicas, assigned, configs = topic
        count = len(assigned) or (1 if count == -1 else count)
        bad_number = any(k == "max.message.bytes" and not str(v).isdigit() for k, v in configs)
        for failed, code, reason in (
            (not TOPIC_NAME.fullmatch(name or ""), ErrorCode.INVALID_TOPIC, "not a topic name"),
            (name in self.topics, ErrorCode.TOPIC_ALREADY_EXISTS, f"topic {name} exists"),
            (not 1 <= count <= 10_000, ErrorCode.INVALID_PARTITIONS, f"{count} partitions"),
            (replicas not in (-1, 1), ErrorCode.INVALID_REPLICATION_FACTOR, "this broker is a single node"),
            (bad_number, ErrorCode.INVALID_CONFIG, "max.message.bytes is a number"),
        ):
            if failed:
                return name, code, reason
        if not validate_only:
            self.configs[name] = {key: value for key, value in configs if value is not None}
            self._open(name, count)
            self.journal.append(self._topic_entry(name))
        return name, 0, None

    def _delete_topics(self, request: Any) -> Answer:
        answers = []
        for name in request.topics:
            known = name in self.topics
            answers.append((name, 0 if known else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
            if known:
                self.journal.append({"deleted": name})
                self._forget(name)
                shutil.rmtree(self.folder / "topics" / name)
        return 0, answers

    def _describe_configs(self, request: Any) -> Answer:
        answers = []
        for kind, name, wanted in request.resources:
            if kind != 2 or name not in self.topics:
                code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if kind == 2 else ErrorCode.INVALID_REQUEST
                answers.append((code, "only topics have configurations here", kind, name, []))
                continue
            configs = {"cleanup.policy": "delete", **self.configs[name]}
            entries = [(k, v, False, 1, False, []) for k, v in configs.items() if wanted is None or k in wanted]
            answers.append((0, None, kind, name, entries))
        return 0, answers

    def _part(self, topic: str, partition: int) -> PartitionLog | None:
        parts = self.topics.get(topic, [])
        return parts[partition] if 0 <= partition < len(parts) else None

    # --- records

    def _init_producer(self, request: Any) -> Answer:
        if request.transactional_id:
            raise Refusal(ErrorCode.UNSUPPORTED_VERSION, "transactions are not supported: use Apache Kafka")
        if self.next_producer_id == self.reserved_producer_id:
            self.reserved_producer_id += PRODUCER_IDS
            self.journal.append({"producer_ids": self.reserved_producer_id})
        self.next_producer_id += 1
        return 0, 0, self.next_producer_id - 1, 0

    def _produce(self, request: Any) -> Answer | None:
        topics = [
            (topic, [self._append(request, topic, partition, batch) for partition, batch in parts])
            for topic, parts in request.topics
        ]
        return (topics, 0) if request.required_acks else None

    def _append(self, request: Any, topic: str, partition: int, batch: bytes | None) -> Answer:
        try:
            if request.transactional_id:
                raise Refusal(ErrorCode.UNSUPPORTED_VERSION, "transactions are not supported: use Apache Kafka")
            if request.required_acks not in (-1, 0, 1):
                raise Refusal(ErrorCode.INVALID_REQUIRED_ACKS, f"acks={request.required_acks}")
            if (part := self._part(topic, partition)) is None:
                raise Refusal(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "no auto-creation: create the topic first")
            return partition, 0, *part.append(batch or b""), 0
        except Refusal as refusal:
            log.warning("produce to %s/%d refused: %s (%s)", topic, partition, refusal.code.name, refusal)
            return partition, refusal.code, -1, -1, -1

    async def _fetch(self, request: Any) -> Answer:
        """Long poll: waits up to max_wait_time until min_bytes are there or a partition answers with an error."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        deadline = loop.time() + request.max_wait_time / 1000
        logs = [part for topic, asked in request.topics for p, *_ in asked if (part := self._part(topic, p))]
        for part in logs:
            part.waiting.add(arrived)
        try:
            while True:
                arrived.clear()
                topics, size, failed = self._read(request)
                if failed or size >= request.min_bytes or loop.time() >= deadline:
                    return 0, topics
                timer = loop.call_at(deadline, arrived.set)
                await arrived.wait()
                timer.cancel()
        finally:
            for part in logs:
                part.waiting.discard(arrived)

    def _read(self, request: Any) -> tuple[list[Answer], int, bool]:
        """Topics of a Fetch response, their bytes, and whether a partition has an error."""
        topics, size, failed = [], 0, False
        for topic, asked in request.topics:
            answers: list[Answer] = []
            for partition, offset, max_bytes in asked:
                part = self._part(topic, partition)
                if part is None or not 0 <= offset <= part.end_offset:
                    code = ErrorCode.OFFSET_OUT_OF_RANGE if part else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                    answers.append((partition, code, -1, -1, [], b""))
                    failed = True
                    continue
                room = request.max_bytes - size
                data = part.read(offset, min(max_bytes, room)) if room > 0 else b""
                size += len(data)
                answers.append((partition, 0, part.end_offset, part.end_offset, [], data))
            topics.append((topic, answers))
        return topics, size, failed

    def _list_offsets(self, request: Any) -> Answer:
        def of(part: PartitionLog | None, time_ms: int) -> Answer:
            if part is None:
                return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1
            if time_ms < 0:
                return 0, -1, part.end_offset if time_ms == -1 else 0
            return 0, *part.offset_at(time_ms)

        return 0, [(topic, [(p, *of(self._part(topic, p), ms)) for p, ms in asked]) for topic, asked in request.topics]

    # --- groups

    def _find_coordinator(self, request: Any) -> Answer:
        if request.coordinator_type != 0:
            raise Refusal(ErrorCode.UNSUPPORTED_VERSION, "transactions are not supported: use Apache Kafka")
        return 0, 0, None, NODE, HOST, self.port

    async def _join(self, request: Any) -> Answer:
        return await self._group(request.group).join(request)

    async def _sync(self, request: Any) -> Answer:
        return await self._group(request.group).sync(request)

    def _heartbeat(self, request: Any) -> Answer:
        return self._group(request.group).heartbeat(request)

    def _leave(self, request: Any) -> Answer:
        return self._group(request.group).leave(request.member_id)

    def _commit_offsets(self, request: Any) -> Answer:
        refused = ErrorCode.NONE
        try:
            group = self._group(request.consumer_group)
            group.check_commit(request.consumer_group_generation_id, request.consumer_id)
        except Refusal as refusal:
            refused = refusal.code
            log.warning("offset commit refused: %s (%s)", refusal.code.name, refusal)
        kept, answers = [], []
        for topic, parts in request.topics:
            known = [(p, refused or (0 if self._part(topic, p) else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)) for p, *_ in parts]
            answers.append((topic, known))
            kept += [[topic, p, offset, text or ""] for (p, offset, text), (_, code) in zip(parts, known) if not code]
        if kept:
            self.journal.append({"of": group.name, "offsets": kept})
            group.offsets.update({(topic, p): (offset, text) for topic, p, offset, text in kept})
        return 0, answers

    def _fetch_offsets(self, request: Any) -> Answer:
        offsets = self._group(request.consumer_group).offsets
        wanted: dict[str, list[int]] = dict(request.topics or [])
        if request.topics is None:
            for topic, partition in offsets:
                wanted.setdefault(topic, []).append(partition)
        return 0, [(t, [(p, *offsets.get((t, p), (-1, "")), 0) for p in parts]) for t, parts in wanted.items()], 0
