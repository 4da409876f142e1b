"""What the catalogue did not hear is said again in a while, not at once: perhaps nobody hears it for seconds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import trio
from trio.testing import MockClock

from cluster.catalogue import Catalogue
from cluster.commands import Bootstrap, Command, CreateTopic, Reassign, RegisterNode, WentOver
from node.moving import LOOK_AGAIN_MS, Moving
from plait.wire.errors import Unavailable
from replication.actor import Host, Promise, rejected
from replication.group import Group
from replication.raft.membership import Membership
from tests.unit.cluster.test_catalogue import House
from tests.unit.replication.test_actor import TrioClock


def unsettled() -> tuple[Catalogue, Group]:
    """A catalogue that has not heard that a group has gone over, and the group, which has."""
    house = House(founded=False)
    house.do(Bootstrap("here", 1, {1: 11, 2: 22, 3: 33}))
    for node in (1, 2, 3):
        house.do(RegisterNode(node, f"n{node}", 2, 1, f"n{node}:1", f"n{node}:2", "", 1))
    topic = house.value(CreateTopic("queue", "q", {"replicas": 2}, 3))
    group = topic.groups[0]
    house.value(Reassign(group, 1, [[1, 1]], [], 4))
    assignment = house.catalogue.assignment(group)
    members = Membership(assignment.voters, assignment.learners)
    return house.catalogue, cast(
        "Group", SimpleNamespace(group=group, membership=members, members_committed=True, lost=False)
    )


async def test_what_nobody_hears_is_said_again_in_a_while(autojump_clock: MockClock) -> None:
    asked: list[Command] = []

    def submit(command: Command) -> Promise[Any]:
        asked.append(command)
        return rejected(Unavailable("nobody leads the catalogue"))

    async with trio.open_nursery() as nursery:
        host = Host(TrioClock(), lambda actor, error: None)
        nursery.start_soon(host.run)
        catalogue, group = unsettled()
        Moving(host, catalogue, 1, submit).standing(group, True)
        await trio.sleep(2.05)
        nursery.cancel_scope.cancel()
    assert {type(command) for command in asked} == {WentOver}
    assert len(asked) == 1 + 2_000 // LOOK_AGAIN_MS
