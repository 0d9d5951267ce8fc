"""Consumer groups over a restart of the development broker: what state.json holds is where the group goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from aiokafka import errors
from aiokafka.protocol.group import HeartbeatRequest_v1, JoinGroupRequest_v5, SyncGroupRequest_v3

from streams.runtime.development_broker.groups import Group
from tests.waiting import wait_until


def join(group: Group, member_id: str = "", instance: str | None = None) -> Any:
    return group.join(JoinGroupRequest_v5("g", 6000, 6000, member_id, instance, "consumer", [("range", b"topics")]))


async def assigned(group: Group, instance: str | None = None) -> str:
    """The id of a lone member that has gone through a whole round."""
    _, code, generation, protocol, leader, member_id, members = await join(group, instance=instance)
    assert (code, protocol, leader, members) == (0, "range", member_id, [(member_id, instance, b"topics")])
    answer = await group.sync(SyncGroupRequest_v3("g", generation, member_id, instance, [(member_id, b"partitions")]))
    assert answer == (0, 0, b"partitions")
    return member_id


def restarted(group: Group) -> Group:
    return msgspec.json.decode(msgspec.json.encode(group), type=Group)


async def test_a_stable_group_goes_on_after_a_restart() -> None:
    group = Group()
    member_id = await assigned(group)
    again = restarted(group)
    again.advance()
    assert again.heartbeat(HeartbeatRequest_v1("g", 1, member_id)) == (0, 0)


async def test_an_open_round_begins_anew_after_a_restart() -> None:
    group = Group()
    first = await assigned(group)
    second = asyncio.create_task(join(group))
    await wait_until(lambda: group.state == "joining")
    again = restarted(group)
    second.cancel()
    assert again.heartbeat(HeartbeatRequest_v1("g", 1, first)) == (0, errors.RebalanceInProgressError.errno)
    rejoined = await asyncio.gather(*(join(again, member_id) for member_id in again.members))
    assert [answer[1:3] for answer in rejoined] == [(0, 2), (0, 2)]


async def test_a_static_member_takes_the_place_of_its_earlier_process() -> None:
    """The generation stays, and the earlier process is told at its next heartbeat."""
    group = Group()
    old = await assigned(group, "static")
    _, code, generation, _, leader, new, _ = await join(group, instance="static")
    assert (code, generation, leader) == (0, 1, old)
    assert await group.sync(SyncGroupRequest_v3("g", 1, new, "static", [])) == (0, 0, b"partitions")
    with pytest.raises(errors.UnknownMemberIdError):
        group.heartbeat(HeartbeatRequest_v1("g", 1, old))
