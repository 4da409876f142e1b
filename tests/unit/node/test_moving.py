"""A replica that has lost what it vouched for is replaced, however often that has to be asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import trio
from trio.testing import MockClock

from cluster.assignment import Assignment
from cluster.commands import Bootstrap, Command, CreateTopic, Reassign, RegisterNode, WentOver
from node.moving import STEPS, Moving
from plait.wire.errors import PlaitError, Unavailable
from replication.actor import Host, Promise, rejected
from replication.group import Group
from tests.sim.environment import sim_environment
from tests.unit.cluster.test_catalogue import House
from tests.unit.replication.test_actor import TrioClock
from tests.unit.replication.test_failed_disk import Told
from tests.unit.storage.world import new_disk, opened


class Cluster:
    """Three nodes' catalogue, as the first node of a group asks it, and that node's replica of it."""

    def __init__(self, group: Group, replicas: int) -> None:
        self.house = House(founded=False)
        self.house.do(Bootstrap("here", 1, {1: 11, 2: 22, 3: 33}))
        for node in (1, 2, 3):
            self.house.do(RegisterNode(node, f"n{node}", 2, 1, f"n{node}:1", f"n{node}:2", "", 1))
        topic = self.house.value(CreateTopic("queue", "q", {"replicas": replicas}, 3))
        self.group = group
        self.group.group = topic.groups[0]
        own = self.assignment.wanted[0]
        self.node, self.group.replica = own.node, own.replica
        self.answers = 0
        """Commands that are refused, before one is heard."""
        self.asked: list[Command] = []
        self.moving = Moving(group.host, self.house.catalogue, self.node, self.submit)

    @property
    def assignment(self) -> Any:
        return self.house.catalogue.assignment(self.group.group)

    def submit(self, command: Command) -> Promise[Any]:
        self.asked.append(command)
        if self.answers:
            self.answers -= 1
            return rejected(Unavailable("nobody leads the catalogue"))
        result = self.house.do(command)
        promise: Promise[Any] = Promise()
        if isinstance(result.error, PlaitError):
            return rejected(result.error)
        promise.resolve(result.value)
        return promise

    def lose(self) -> None:
        """The replica is fenced, since its disk is older than it was."""
        self.group.lost = True
        self.moving.standing(self.group, False)


@asynccontextmanager
async def cluster(replicas: int = 3) -> AsyncIterator[Cluster]:
    disk = new_disk()
    async with opened(disk) as store, trio.open_nursery() as nursery:
        host = Host(TrioClock(), lambda actor, error: None)
        nursery.start_soon(host.run)
        tasks = sim_environment(nursery, 1, disk).environment.tasks
        yield Cluster(Group(host, 9, 1, store.create(9), Told(), tasks, Random(1)), replicas)
        nursery.cancel_scope.cancel()


async def test_a_lost_replica_is_replaced_by_another_on_its_node(autojump_clock: MockClock) -> None:
    async with cluster() as it:
        it.lose()
        await trio.sleep(10)
        assert it.assignment.replica_on(it.node).replica > 7
        assert len(it.asked) == 1, "once is enough"


async def test_it_is_asked_for_again_when_nobody_has_heard_it(autojump_clock: MockClock) -> None:
    async with cluster() as it:
        it.answers = 3
        it.lose()
        await trio.sleep(10)
        assert it.assignment.replica_on(it.node).replica > 7
        assert len(it.asked) == 4


async def test_it_is_replaced_also_while_its_group_is_on_its_way_elsewhere(autojump_clock: MockClock) -> None:
    async with cluster() as it:
        places = [[node, int(votes)] for node, votes in it.assignment.places]
        it.house.value(Reassign(it.group.group, 1, places, [places[1][0]], 4))  # another one is being replaced
        it.lose()
        await trio.sleep(10)
        assert [each.replica for each in it.assignment.wanted] == [9, 8, 3]
        assert sorted(each.replica for each in it.assignment.leaving) == [1, 2]


async def test_one_that_has_to_go_anyway_is_not_replaced(autojump_clock: MockClock) -> None:
    async with cluster() as it:
        places = [[node, int(votes)] for node, votes in it.assignment.places]
        it.house.value(Reassign(it.group.group, 1, places[1:], [], 4))
        it.lose()
        await trio.sleep(10)
        it.house.value(WentOver(it.group.group, 2, 5))
        await trio.sleep(10)
        assert it.asked == []


async def test_groups_that_cannot_go_on_keep_no_others_waiting(autojump_clock: MockClock) -> None:
    stepped: set[int] = set()

    class Looking(Moving):
        """Takes no step."""

        def _step(self, group: Group, assignment: Assignment) -> None:
            stepped.add(group.group)

    async with cluster() as it:
        topic = it.house.value(CreateTopic("topic", "t", {"partitions": 2 * STEPS, "replicas": 3}, 4))
        moving = Looking(it.group.host, it.house.catalogue, it.node, it.submit)
        for number in topic.groups:
            group = Group(it.group.host, number, 1, it.group._log, Told(), it.group._tasks, Random(1))
            moving.standing(group, True)
        await trio.sleep(10)
        assert stepped == set(topic.groups)


async def test_the_only_replica_is_kept_as_it_is(autojump_clock: MockClock) -> None:
    async with cluster(replicas=1) as it:
        it.lose()
        await trio.sleep(10)
        assert it.asked == []
