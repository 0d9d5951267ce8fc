"""Consumer groups by Apache Kafka's classic protocol: rounds of joining, sessions, static membership (KIP-345)."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
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
        self.deadline = monotonic() + self.session_s

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

    def __init__(self, save: Callable[[Answer], object], kept: Answer = (0, "", "", "", ())) -> None:
        """`kept`: what `save` got last. The members go on within a fresh session and notice nothing of a restart."""
        self.save = save
        self.generation, self.leader, self.protocol, self.type, members = kept
        self.members = {member[0]: Member(*member) for member in members}
        for each in self:
            each.renew()
        self.state = "stable" if members else "empty"
        self.announced: set[str] = set()  # ids given out by MEMBER_ID_REQUIRED
        self.round_ends = 0.0

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self.members.values()))

    def _save(self) -> None:
        members = [(m.id, m.instance, m.session_s, m.rebalance_s, m.protocols, m.assignment) for m in self]
        self.save((self.generation, self.leader, self.protocol, self.type, members))

    # --- JoinGroup

    async def join(self, request: Any) -> Answer:
        """Answer to JoinGroup v5; may wait for the other members up to the rebalance timeout."""
        if request.session_timeout not in SESSION_MS:
            raise errors.InvalidSessionTimeoutError(f"{request.session_timeout} ms")
        protocols = dict(request.group_protocols)
        others = [member for member in self if member.id != request.member_id]
        common = any(all(name in member.protocols for member in others) for name in protocols)
        if not common or (others and request.protocol_type != self.type):
            raise errors.InconsistentGroupProtocolError("nothing in common with the other members")
        present = self._instance(request.group_instance_id, request.member_id)
        if present and not request.member_id:
            return await self._replace(present, request, protocols)
        member = self.members.get(request.member_id) or self._add(request, protocols)
        member.protocols = protocols
        return await self._join_round(member)

    def _instance(self, instance: str | None, member_id: str) -> Member | None:
        """The static member of that name. Raises if the request names it with an id that is not (any more) its own."""
        found = next((member for member in self if instance and member.instance == instance), None)
        if found and member_id and found.id != member_id:
            raise FencedInstanceIdError(f"instance {instance} has been replaced")
        return found

    def _add(self, request: Any, protocols: dict[str, bytes]) -> Member:
        member_id, instance = request.member_id, request.group_instance_id
        if not member_id:
            member_id = f"{instance or 'member'}-{uuid.uuid4()}"
            self.announced.add(member_id)
            if not instance:  # a dynamic member gets an id and joins again (KIP-394): a lost answer leaves no member
                raise errors.MemberIdRequired(member_id)
        if member_id not in self.announced:
            raise errors.UnknownMemberIdError(f"{member_id} is not a member")
        self.announced.remove(member_id)
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
        self._save()
        # the old leader's id: a leader that is back must not assign, a stable group would not hear of it (as Kafka)
        return 0, 0, self.generation, self.protocol, leader, member.id, []

    async def _join_round(self, member: Member) -> Answer:
        self._start_round()
        waiting = member.wait()
        self._end_round_if_all_joined()
        return await waiting

    def _start_round(self) -> None:
        if self.state != "joining":
            for member in self:
                member.answer(errors.RebalanceInProgressError("a member joined or left"))
            self.state, self.round_ends = "joining", monotonic() + max(member.rebalance_s for member in self)

    def _end_round_if_all_joined(self) -> None:
        if self.state == "joining" and all(member.waiting for member in self):
            self._end_round()

    def _end_round(self) -> None:
        """Whoever has not joined is out, but static members have until their session ends."""
        self.members = {member.id: member for member in self if member.waiting or member.instance}
        joined = [member for member in self if member.waiting]
        if not self.members:
            self._become_empty()
        elif joined:
            self.generation, self.state = self.generation + 1, "syncing"
            self.leader = self.leader if self.leader in (member.id for member in joined) else joined[0].id
            offered = self.members[self.leader].protocols
            self.protocol = next(name for name in offered if all(name in member.protocols for member in self))
            everyone = [(member.id, member.instance, member.protocols[self.protocol]) for member in self]
            for member in joined:
                told = everyone if member.id == self.leader else []
                member.answer((0, 0, self.generation, self.protocol, self.leader, member.id, told))

    def _become_empty(self) -> None:
        self.generation, self.state, self.leader = self.generation + 1, "empty", ""
        self._save()

    # --- the other requests of members

    def member(self, member_id: str, generation: int | None = None, instance: str | None = None) -> Member:
        """The member, its session renewed. Raises if it is none, or of another generation than the group."""
        self._instance(instance, member_id)
        if member_id not in self.members:
            raise errors.UnknownMemberIdError(f"{member_id} is not a member")
        if generation not in (None, self.generation):
            raise errors.IllegalGenerationError(f"generation {generation}, the group has {self.generation}")
        self.members[member_id].renew()
        return self.members[member_id]

    async def sync(self, request: Any) -> Answer:
        """Answer to SyncGroup v3; a follower waits for the leader's assignment."""
        member = self.member(request.member_id, request.generation_id, request.group_instance_id)
        if self.state == "joining":
            raise errors.RebalanceInProgressError("the group is joining")
        if self.state == "syncing" and member.id != self.leader:
            return await member.wait()
        if self.state == "syncing":
            assignment, self.state = dict(request.group_assignment), "stable"
            for each in self:
                each.assignment = assignment.get(each.id, b"")
                each.answer((0, 0, each.assignment))
            self._save()
        return 0, 0, member.assignment

    def heartbeat(self, request: Any) -> Answer:
        self.member(request.member_id, request.generation_id)
        return 0, errors.RebalanceInProgressError.errno if self.state == "joining" else 0

    def leave(self, request: Any) -> Answer:
        self._remove([self.member(request.member_id)])
        return 0, 0

    def check_commit(self, generation: int, member_id: str) -> None:
        """Raises unless a member of this generation commits, or anyone while the group has no members."""
        if generation >= 0 or self.members:
            self.member(member_id, generation)
            if self.state == "syncing":
                raise errors.RebalanceInProgressError("the group is being assigned")

    def expire(self) -> None:
        """Ends sessions and rounds whose time is over; members that wait for an answer are in our hands."""
        now = monotonic()
        self._remove([member for member in self if member.deadline < now and not member.waiting])
        if self.state == "joining" and self.round_ends < now:
            self._end_round()

    def _remove(self, gone: list[Member]) -> None:
        for member in gone:
            del self.members[member.id]
            member.answer(errors.UnknownMemberIdError("left the group"))
        if gone and self.members:
            self._start_round()
            self._end_round_if_all_joined()
        elif gone:
            self._become_empty()
