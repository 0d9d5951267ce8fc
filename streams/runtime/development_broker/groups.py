"""Consumer groups as Apache Kafka's classic protocol has them: rounds of joining, sessions, static membership (KIP-345)."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .wire import ErrorCode, Refusal

MIN_SESSION_MS, MAX_SESSION_MS = 1_000, 1_800_000
Answer = tuple[Any, ...]


@dataclass
class Member:
    """One member; while it waits for an answer to JoinGroup or SyncGroup, the future of that answer."""

    id: str
    instance: str | None
    session_s: float
    rebalance_s: float
    protocols: dict[str, bytes]
    assignment: bytes = b""
    deadline: float = 0.0
    joining: asyncio.Future[Answer] | None = None
    syncing: asyncio.Future[Answer] | None = None

    def renew(self) -> None:
        self.deadline = asyncio.get_running_loop().time() + self.session_s

    def fail(self, code: ErrorCode) -> None:
        """Answers what the member waits for with an error."""
        self.answer_join((0, code, -1, "", "", self.id, []))
        self.answer_sync((0, code, b""))

    def answer_join(self, answer: Answer) -> None:
        future, self.joining = self.joining, None
        if future and not future.done():
            future.set_result(answer)

    def answer_sync(self, answer: Answer) -> None:
        future, self.syncing = self.syncing, None
        if future and not future.done():
            future.set_result(answer)


class Group:
    """States: empty, joining (waits for all members), syncing (waits for the leader's assignment), stable."""

    def __init__(self, name: str, save: Callable[[Group], None]) -> None:
        self.name, self.save = name, save
        self.members: dict[str, Member] = {}
        self.instances: dict[str, str] = {}
        self.announced: set[str] = set()  # ids given out by MEMBER_ID_REQUIRED
        self.state, self.generation, self.leader, self.protocol, self.type = "empty", 0, "", "", ""
        self.round_end: asyncio.TimerHandle | None = None
        self.offsets: dict[tuple[str, int], tuple[int, str]] = {}

    async def join(self, request: Any) -> Answer:
        """Answer to JoinGroup v5; may wait for the other members up to the rebalance timeout."""
        protocols = dict(request.group_protocols)
        self._check_join(request, protocols)
        instance, known = request.group_instance_id, self.members.get(request.member_id)
        if instance and not request.member_id and instance in self.instances:
            return await self._replace(request, protocols)
        if known is None:
            known = self._add(request, protocols)
        elif known.protocols == protocols and self.state in ("syncing", "stable"):
            if self.state == "syncing" or known.id != self.leader:
                return self._joined(known)
        known.protocols = protocols
        return await self._wait_for_round(known)

    def _check_join(self, request: Any, protocols: dict[str, bytes]) -> None:
        if not MIN_SESSION_MS <= request.session_timeout <= MAX_SESSION_MS:
            raise Refusal(ErrorCode.INVALID_SESSION_TIMEOUT, f"session of {request.session_timeout} ms")
        others = [m for m in self.members.values() if m.id != request.member_id]
        common = [name for name in protocols if all(name in member.protocols for member in others)]
        if not common or (others and request.protocol_type != self.type):
            raise Refusal(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, f"no protocol in common in group {self.name}")
        self._check_instance(request.group_instance_id, request.member_id)

    def _check_instance(self, instance: str | None, member_id: str) -> None:
        if instance and member_id and instance not in self.instances:
            raise Refusal(ErrorCode.UNKNOWN_MEMBER_ID, f"instance {instance} is not in group {self.name}")
        if instance and member_id and self.instances[instance] != member_id:
            raise Refusal(ErrorCode.FENCED_INSTANCE_ID, f"instance {instance} has been replaced")

    def _add(self, request: Any, protocols: dict[str, bytes]) -> Member:
        member_id, instance = request.member_id, request.group_instance_id
        if not member_id:
            member_id = f"{instance or 'member'}-{uuid.uuid4()}"
            if not instance:
                self.announced.add(member_id)
                raise MemberIdRequired(member_id)
        elif member_id not in self.announced:
            raise Refusal(ErrorCode.UNKNOWN_MEMBER_ID, f"{member_id} is not in group {self.name}")
        self.announced.discard(member_id)
        if instance:
            self.instances[instance] = member_id
        self.type = request.protocol_type
        rebalance_s = request.rebalance_timeout / 1000
        member = Member(member_id, instance, request.session_timeout / 1000, rebalance_s, protocols)
        self.members[member_id] = member
        return member

    async def _replace(self, request: Any, protocols: dict[str, bytes]) -> Answer:
        """A static member is back without its id: it keeps its assignment, and in a stable group nobody notices."""
        old = self.members.pop(self.instances[request.group_instance_id])
        old.fail(ErrorCode.FENCED_INSTANCE_ID)
        member, leader = self._add(request, protocols), self.leader
        member.assignment = old.assignment
        if leader == old.id:
            self.leader = member.id
        if self.state != "stable" or self.protocol not in protocols:
            return await self._wait_for_round(member)
        member.renew()
        self.save(self)
        # the old leader id, so that a returning leader does not assign what a stable group would not hear (as Kafka)
        return 0, 0, self.generation, self.protocol, leader, member.id, []

    async def _wait_for_round(self, member: Member) -> Answer:
        member.answer_join((0, ErrorCode.UNKNOWN_MEMBER_ID, -1, "", "", member.id, []))
        future = member.joining = asyncio.get_running_loop().create_future()
        self._start_round()
        self._end_round_if_all_joined()
        return await future

    def _start_round(self) -> None:
        if self.state == "joining":
            return
        self.state = "joining"
        for member in self.members.values():
            if member.syncing:
                member.answer_sync((0, ErrorCode.REBALANCE_IN_PROGRESS, b""))
                member.renew()
        self._set_round_timer()

    def _set_round_timer(self) -> None:
        timeout_s = max(member.rebalance_s for member in self.members.values())
        self.round_end = asyncio.get_running_loop().call_later(timeout_s, self._end_round)

    def _end_round_if_all_joined(self) -> None:
        if self.state == "joining" and all(member.joining for member in self.members.values()):
            self._end_round()

    def _end_round(self) -> None:
        if self.round_end:
            self.round_end.cancel()
        for member in [m for m in self.members.values() if not m.joining and not m.instance]:
            del self.members[member.id]
        joined = [member for member in self.members.values() if member.joining]
        if self.members and not joined:  # only absent static members: they have until their session ends
            self._set_round_timer()
            return
        self.generation += 1
        if not joined:
            self._become_empty()
            return
        self.state = "syncing"
        if self.leader not in (member.id for member in joined):
            self.leader = joined[0].id
        choices = self.members[self.leader].protocols
        self.protocol = next(name for name in choices if all(name in m.protocols for m in self.members.values()))
        for member in joined:
            member.renew()
            member.answer_join(self._joined(member))

    def _joined(self, member: Member) -> Answer:
        leads = member.id == self.leader
        members = [(m.id, m.instance, m.protocols[self.protocol]) for m in self.members.values()] if leads else []
        return 0, 0, self.generation, self.protocol, self.leader, member.id, members

    def _become_empty(self) -> None:
        self.state, self.leader = "empty", ""
        self.save(self)

    def _member(self, request: Any) -> Member:
        self._check_instance(getattr(request, "group_instance_id", None), request.member_id)
        member = self.members.get(request.member_id)
        if member is None:
            raise Refusal(ErrorCode.UNKNOWN_MEMBER_ID, f"{request.member_id} is not in group {self.name}")
        if request.generation_id != self.generation:
            raise Refusal(ErrorCode.ILLEGAL_GENERATION, f"generation {request.generation_id} of {self.generation}")
        return member

    async def sync(self, request: Any) -> Answer:
        """Answer to SyncGroup v3; a follower waits for the leader's assignment."""
        member = self._member(request)
        if self.state == "joining":
            raise Refusal(ErrorCode.REBALANCE_IN_PROGRESS, "the group is joining")
        if self.state == "syncing" and member.id != self.leader:
            member.answer_sync((0, ErrorCode.UNKNOWN_MEMBER_ID, b""))
            future = member.syncing = asyncio.get_running_loop().create_future()
            return await future
        if self.state == "syncing":
            assignment = dict(request.group_assignment)
            self.state = "stable"
            for each in self.members.values():
                each.assignment = assignment.get(each.id, b"")
                if each.syncing:
                    each.renew()
                each.answer_sync((0, 0, each.assignment))
            self.save(self)
        member.renew()
        return 0, 0, member.assignment

    def heartbeat(self, request: Any) -> Answer:
        self._member(request).renew()
        return 0, ErrorCode.REBALANCE_IN_PROGRESS if self.state == "joining" else 0

    def leave(self, member_id: str) -> Answer:
        if member_id not in self.members:
            raise Refusal(ErrorCode.UNKNOWN_MEMBER_ID, f"{member_id} is not in group {self.name}")
        self._remove([self.members[member_id]])
        return 0, 0

    def expire(self, now: float) -> None:
        """Removes the members whose session has ended; those that wait for an answer are in our hands."""
        self._remove([m for m in self.members.values() if m.deadline < now and not m.joining and not m.syncing])

    def _remove(self, gone: list[Member]) -> None:
        for member in gone:
            del self.members[member.id]
            if member.instance:
                del self.instances[member.instance]
            member.fail(ErrorCode.UNKNOWN_MEMBER_ID)
        if gone and self.members:
            self._start_round()
            self._end_round_if_all_joined()
        elif gone:
            if self.round_end:
                self.round_end.cancel()
            self.generation += 1
            self._become_empty()

    def check_commit(self, generation: int, member_id: str) -> None:
        """Raises Refusal unless a member of this generation, or nobody's group, commits."""
        if generation < 0 and not self.members:
            return
        if member_id not in self.members:
            raise Refusal(ErrorCode.UNKNOWN_MEMBER_ID, f"{member_id} is not in group {self.name}")
        if generation != self.generation:
            raise Refusal(ErrorCode.ILLEGAL_GENERATION, f"generation {generation} of {self.generation}")
        if self.state == "syncing":
            raise Refusal(ErrorCode.REBALANCE_IN_PROGRESS, "the group is being assigned")
        self.members[member_id].renew()

    def to_entry(self) -> dict[str, Any]:
        """The stable group for the journal."""
        members = [
            [m.id, m.instance, m.session_s, m.rebalance_s, {n: _text(b) for n, b in m.protocols.items()}, _text(m.assignment)]
            for m in self.members.values()
        ]
        return {"group": self.name, "generation": self.generation, "leader": self.leader, "protocol": self.protocol,
                "type": self.type, "members": members}

    def restore(self, entry: dict[str, Any]) -> None:
        """From the journal after a restart: members go on within a fresh session and notice nothing."""
        self.generation, self.leader, self.protocol = entry["generation"], entry["leader"], entry["protocol"]
        self.type = entry["type"]
        self.members = {
            member_id: Member(member_id, instance, session_s, rebalance_s,
                              {n: base64.b64decode(t) for n, t in protocols.items()}, base64.b64decode(assignment))
            for member_id, instance, session_s, rebalance_s, protocols, assignment in entry["members"]
        }
        self.instances = {m.instance: m.id for m in self.members.values() if m.instance}
        self.state = "stable" if self.members else "empty"


class MemberIdRequired(Exception):
    """A dynamic member joins without an id: it gets one and joins again (KIP-394), so that a lost answer leaves none."""


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
