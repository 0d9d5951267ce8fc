"""Consumer groups by Apache Kafka's classic protocol: rounds of joining, sessions, static membership (KIP-345)."""

import asyncio
import uuid
from time import monotonic
from typing import Any

import msgspec
from aiokafka import errors

Answer = tuple[Any, ...]
POLL_S = 0.01  # how often a waiting member looks at its group


class Member(msgspec.Struct):
    """A member as it is kept on disk."""

    id: str
    instance: str | None
    session_s: float
    rebalance_s: float
    protocols: dict[str, bytes]
    assignment: bytes = b""


class Group(msgspec.Struct, dict=True):
    """States: empty, joining (waits for all members), syncing (waits for the leader's assignment), stable."""

    state: str = "empty"
    generation: int = 0
    leader: str = ""
    protocol: str = ""
    members: dict[str, Member] = {}
    offsets: dict[str, dict[int, tuple[int, str]]] = {}  # committed: topic, partition; offset and the client's text

    def __post_init__(self) -> None:
        """A restart: the members have fresh sessions, a stable group notices nothing, an open round begins anew."""
        self.deadlines: dict[str, float] = {}  # of the members' sessions
        if self.state in ("joining", "syncing"):
            self.state = "syncing"
            self._start_round()

    async def join(self, request: Any) -> Answer:
        """Answer to JoinGroup v5; waits for the other members up to the rebalance timeout."""
        protocols, instance, generation = dict(request.group_protocols), request.group_instance_id, self.generation
        others = [member for member in self.members.values() if member.id != request.member_id]
        if not any(all(name in member.protocols for member in others) for name in protocols):
            raise errors.InconsistentGroupProtocolError("no protocol in common with the other members")
        if request.member_id:
            member, old = self.member(request.member_id), None
            member.protocols = protocols
        else:
            member_id, session_s = f"{instance or 'member'}-{uuid.uuid4()}", request.session_timeout / 1000
            member = Member(member_id, instance, session_s, request.rebalance_timeout / 1000, protocols)
            old = next((other for other in others if instance and other.instance == instance), None)
            self.members[member_id] = member
        if old:  # a static member is back as a new process, which takes its place
            leader, member.assignment = self.leader, self.members.pop(old.id).assignment
            self.leader = member.id if leader == old.id else leader
            if self.state == "stable" and self.protocol in protocols:
                # the old leader's id: one that is back must not assign, a stable group would not hear of it (as Kafka)
                return 0, 0, self.generation, self.protocol, leader, member.id, []
        self._start_round()
        self.joined.add(member.id)
        self.advance()
        await self._leaves("joining", generation, member)
        told = self.members.values() if self.leader == member.id else ()
        everyone = [(each.id, each.instance, each.protocols.get(self.protocol)) for each in told]
        return 0, 0, self.generation, self.protocol, self.leader, member.id, everyone

    async def _leaves(self, state: str, generation: int, member: Member) -> None:
        """Returns when the group is beyond this state. Raises if the member, which waits, is none any more."""
        while self.member(member.id) and (self.state, self.generation) == (state, generation):
            await asyncio.sleep(POLL_S)

    def _start_round(self) -> None:
        if self.state != "joining":
            self.state, self.joined = "joining", set[str]()
            self.round_ends = monotonic() + max((member.rebalance_s for member in self.members.values()), default=0)

    def advance(self) -> None:
        """Ends sessions that are over, and the round if its time is over or all have joined."""
        now = monotonic()
        for member in list(self.members.values()):
            if self.deadlines.setdefault(member.id, now + member.session_s) < now:
                del self.members[member.id]
                self._start_round()
        if self.state != "joining" or (self.round_ends > now and not self.joined >= self.members.keys()):
            return
        # whoever has not joined is out, but static members have until their session ends
        members = [member for member in self.members.values() if member.id in self.joined or member.instance]
        self.members = {member.id: member for member in members}
        joined = [member.id for member in members if member.id in self.joined]
        if not members:
            self.generation, self.state, self.leader = self.generation + 1, "empty", ""
        elif joined:
            self.generation, self.state = self.generation + 1, "syncing"
            self.leader = self.leader if self.leader in joined else joined[0]
            offered = self.members[self.leader].protocols
            self.protocol = next(name for name in offered if all(name in member.protocols for member in members))

    def member(self, member_id: str, generation: int | None = None) -> Member:
        """The member, its session renewed. Raises if it is none, or of another generation than the group."""
        if member_id not in self.members:
            raise errors.UnknownMemberIdError(f"{member_id} is not a member")
        if generation not in (None, self.generation):
            raise errors.IllegalGenerationError(f"generation {generation}, the group has {self.generation}")
        self.deadlines[member_id] = monotonic() + self.members[member_id].session_s
        return self.members[member_id]

    async def sync(self, request: Any) -> Answer:
        """Answer to SyncGroup v3; a follower waits for the leader's assignment."""
        member = self.member(request.member_id, request.generation_id)
        if self.state == "syncing" and member.id == self.leader:
            assignment, self.state = dict(request.group_assignment), "stable"
            for each in self.members.values():
                each.assignment = assignment.get(each.id, b"")
        elif self.state == "syncing":
            await self._leaves("syncing", self.generation, member)
        if self.state != "stable" or self.generation != request.generation_id:
            raise errors.RebalanceInProgressError("a member joined or left")
        return 0, 0, member.assignment

    def heartbeat(self, request: Any) -> Answer:
        self.member(request.member_id, request.generation_id)
        return 0, errors.RebalanceInProgressError.errno if self.state == "joining" else 0

    def leave(self, request: Any) -> Answer:
        del self.members[self.member(request.member_id).id]
        self._start_round()
        self.advance()
        return 0, 0
