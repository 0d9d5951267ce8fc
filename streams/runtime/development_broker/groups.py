"""Consumer groups by Apache Kafka's classic protocol: rounds of joining, sessions, static membership (KIP-345)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiokafka import errors

SESSION_MS = range(1_000, 1_800_001)
Answer = tuple[Any, ...]


class FencedInstanceIdError(errors.BrokerResponseError):
    """Another process has taken the place of this static member."""

    errno = 82


@dataclass
class Member:
    """One member, and the answer to JoinGroup or SyncGroup that it waits for."""

    id: str
    instance: str | None
    session_s: float
    rebalance_s: float
    protocols: dict[str, bytes]
    assignment: bytes = b""
    deadline: float = 0.0
    waiting: asyncio.Future[Answer] | None = None

    def renew(self) -> None:
        self.deadline = asyncio.get_running_loop().time() + self.session_s

    def wait(self) -> asyncio.Future[Answer]:
        self.answer(errors.UnknownMemberIdError("replaced by a later request"))
        self.waiting = asyncio.get_running_loop().create_future()
        return self.waiting

    def answer(self, answer: Answer | Exception) -> None:
        """Ends the wait, if there is one; the session starts anew."""
        future, self.waiting = self.waiting, None
        if future and not future.done():
            self.renew()
            future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)


class Group:
    """States: empty, joining (waits for all members), syncing (waits for the leader's assignment), stable."""

    def __init__(self, save: Callable[[dict[str, Any]], object]) -> None:
        self.save = save
        self.members: dict[str, Member] = {}
        self.announced: set[str] = set()  # ids given out by MEMBER_ID_REQUIRED
        self.state, self.generation, self.leader, self.protocol, self.type = "empty", 0, "", "", ""
        self.round_end: asyncio.TimerHandle | None = None

    # --- for the journal

    def entry(self) -> dict[str, Any]:
        members = [(m.id, m.instance, m.session_s, m.rebalance_s, m.protocols, m.assignment) for m in self.members.values()]
        return {"state": (self.generation, self.leader, self.protocol, self.type), "members": members}

    def restore(self, entry: dict[str, Any]) -> None:
        """After a restart of the broker the members go on within a fresh session and notice nothing."""
        self.generation, self.leader, self.protocol, self.type = entry["state"]
        self.members = {member[0]: Member(*member) for member in entry["members"]}
        self.state = "stable" if self.members else "empty"

    # --- JoinGroup

    async def join(self, request: Any) -> Answer:
        """Answer to JoinGroup v5; may wait for the other members up to the rebalance timeout."""
        if request.session_timeout not in SESSION_MS:
            raise errors.InvalidSessionTimeoutError(f"{request.session_timeout} ms")
        protocols = dict(request.group_protocols)
        self._check_protocols(request, protocols)
        present = self._instance(request.group_instance_id, request.member_id)
        if present and not request.member_id:
            return await self._replace(present, request, protocols)
        member = self.members.get(request.member_id)
        if member is None:
            member = self._add(request, protocols)
        elif self.state == "syncing" or (self.state == "stable" and member.id != self.leader):
            if member.protocols == protocols:
                return self._joined(member)
        member.protocols = protocols
        return await self._join_round(member)

    def _check_protocols(self, request: Any, protocols: dict[str, bytes]) -> None:
        others = [member for member in self.members.values() if member.id != request.member_id]
        common = any(all(name in member.protocols for member in others) for name in protocols)
        if not common or (others and request.protocol_type != self.type):
            raise errors.InconsistentGroupProtocolError("no protocol in common with the group")

    def _instance(self, instance: str | None, member_id: str) -> Member | None:
        """The static member of that name. Raises if the request names it with an id that is not (any more) its own."""
        found = next((m for m in self.members.values() if instance and m.instance == instance), None)
        if instance and member_id and found is None:
            raise errors.UnknownMemberIdError(f"{instance} is not a member")
        if found and member_id and found.id != member_id:
            raise FencedInstanceIdError(f"instance {instance} has been replaced")
        return found

    def _add(self, request: Any, protocols: dict[str, bytes]) -> Member:
        member_id, instance = request.member_id, request.group_instance_id
        if not member_id:
            member_id = f"{instance or 'member'}-{uuid.uuid4()}"
            if not instance:  # a dynamic member gets an id and joins again (KIP-394): a lost answer leaves no member
                self.announced.add(member_id)
                raise errors.MemberIdRequired(member_id)
        elif member_id not in self.announced:
            raise errors.UnknownMemberIdError(f"{member_id} is not a member")
        self.announced.discard(member_id)
        self.type = request.protocol_type
        session_s, rebalance_s = request.session_timeout / 1000, request.rebalance_timeout / 1000
        self.members[member_id] = Member(member_id, instance, session_s, rebalance_s, protocols)
        return self.members[member_id]

    async def _replace(self, old: Member, request: Any, protocols: dict[str, bytes]) -> Answer:
        """A static member is back without its id: it keeps its assignment, and in a stable group nobody notices."""
        del self.members[old.id]
        old.answer(FencedInstanceIdError("replaced by a later process"))
        member, leader = self._add(request, protocols), self.leader
        member.assignment = old.assignment
        self.leader = member.id if leader == old.id else leader
        if self.state != "stable" or self.protocol not in protocols:
            return await self._join_round(member)
        member.renew()
        self.save(self.entry())
        # the old leader's id: a leader that is back must not assign, a stable group would not hear of it (as Kafka)
        return 0, 0, self.generation, self.protocol, leader, member.id, []

    async def _join_round(self, member: Member) -> Answer:
        self._start_round()
        waiting = member.wait()
        self._end_round_if_all_joined()
        return await waiting

    def _start_round(self) -> None:
        if self.state == "joining":
            return
        for member in self.members.values():
            member.answer(errors.RebalanceInProgressError("a member joined or left"))
        self.state = "joining"
        self._set_round_timer()

    def _set_round_timer(self) -> None:
        timeout_s = max(member.rebalance_s for member in self.members.values())
        self.round_end = asyncio.get_running_loop().call_later(timeout_s, self._end_round)

    def _end_round_if_all_joined(self) -> None:
        if self.state == "joining" and all(member.waiting for member in self.members.values()):
            self._end_round()

    def _end_round(self) -> None:
        """Whoever has not joined is out, but static members have until their session ends."""
        self._cancel_round_timer()
        self.members = {m.id: m for m in self.members.values() if m.waiting or m.instance}
        joined = [member for member in self.members.values() if member.waiting]
        if not self.members:
            self._become_empty()
        elif not joined:
            self._set_round_timer()
        else:
            self.generation, self.state = self.generation + 1, "syncing"
            self.leader = self.leader if self.leader in (member.id for member in joined) else joined[0].id
            offered = self.members[self.leader].protocols
            self.protocol = next(n for n in offered if all(n in m.protocols for m in self.members.values()))
            for member in joined:
                member.answer(self._joined(member))

    def _joined(self, member: Member) -> Answer:
        leads = member.id == self.leader
        members = [(m.id, m.instance, m.protocols[self.protocol]) for m in self.members.values()] if leads else []
        return 0, 0, self.generation, self.protocol, self.leader, member.id, members

    def _cancel_round_timer(self) -> None:
        if self.round_end:
            self.round_end.cancel()

    def _become_empty(self) -> None:
        self._cancel_round_timer()
        self.generation, self.state, self.leader = self.generation + 1, "empty", ""
        self.save(self.entry())

    # --- the other requests of members

    def _member(self, member_id: str, generation: int, instance: str | None = None) -> Member:
        self._instance(instance, member_id)
        if member_id not in self.members:
            raise errors.UnknownMemberIdError(f"{member_id} is not a member")
        if generation != self.generation:
            raise errors.IllegalGenerationError(f"generation {generation}, the group has {self.generation}")
        self.members[member_id].renew()
        return self.members[member_id]

    async def sync(self, request: Any) -> Answer:
        """Answer to SyncGroup v3; a follower waits for the leader's assignment."""
        member = self._member(request.member_id, request.generation_id, request.group_instance_id)
        if self.state == "joining":
            raise errors.RebalanceInProgressError("the group is joining")
        if self.state == "syncing" and member.id != self.leader:
            return await member.wait()
        if self.state == "syncing":
            assignment, self.state = dict(request.group_assignment), "stable"
            for each in self.members.values():
                each.assignment = assignment.get(each.id, b"")
                each.answer((0, 0, each.assignment))
            self.save(self.entry())
        return 0, 0, member.assignment

    def heartbeat(self, request: Any) -> Answer:
        self._member(request.member_id, request.generation_id)
        return 0, errors.RebalanceInProgressError.errno if self.state == "joining" else 0

    def check_commit(self, generation: int, member_id: str) -> None:
        """Raises unless a member of this generation commits, or anyone while the group has no members."""
        if generation >= 0 or self.members:
            self._member(member_id, generation)
            if self.state == "syncing":
                raise errors.RebalanceInProgressError("the group is being assigned")

    def leave(self, request: Any) -> Answer:
        if request.member_id not in self.members:
            raise errors.UnknownMemberIdError(f"{request.member_id} is not a member")
        self._remove([self.members[request.member_id]])
        return 0, 0

    def expire(self, now: float) -> None:
        """Removes the members whose session has ended; those that wait for an answer are in our hands."""
        self._remove([m for m in self.members.values() if m.deadline < now and not m.waiting])

    def _remove(self, gone: list[Member]) -> None:
        for member in gone:
            del self.members[member.id]
            member.answer(errors.UnknownMemberIdError("left the group"))
        if gone and self.members:
            self._start_round()
            self._end_round_if_all_joined()
        elif gone:
            self._become_empty()
