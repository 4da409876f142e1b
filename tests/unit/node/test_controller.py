"""Groups on their way to a node that dies are sent elsewhere, and keep no others from being moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import MockClock

from cluster.assignment import Assignment
from cluster.catalogue import METADATA_GROUP
from cluster.commands import AddNode, Bootstrap, ChangeNode, Command, CreateTopic, Reassign, RegisterNode, WentOver
from node.controller import MOVES_MAX, Controller, ControllerSettings
from replication.actor import Host, Promise, rejected
from tests.unit.cluster.test_catalogue import House
from tests.unit.replication.test_actor import TrioClock


class Cluster:
    """A catalogue of four nodes that node 1 leads. Groups go over when the test says so."""

    def __init__(self, host: Host) -> None:
        self.house = House(founded=False)
        self.house.do(Bootstrap("here", 1, {1: 11, 2: 22, 3: 33}))
        self.house.do(AddNode(44, "n4", "n4:2", "n4:1", "", 1, 2))
        for node in (1, 2, 3, 4):
            self.house.do(RegisterNode(node, f"n{node}", 2, 1, f"n{node}:1", f"n{node}:2", "", 1))
        self.go_over(METADATA_GROUP)
        self.up = {1, 2, 3, 4}
        self.controller = Controller(
            host, self.house.catalogue, 1, self.up.__contains__, self.submit, ControllerSettings(dead_after_ms=500)
        )

    def submit(self, command: Command) -> Promise[Any]:
        result = self.house.do(command)
        self.controller.look()
        if result.error is not None:
            return rejected(result.error)
        promise: Promise[Any] = Promise()
        promise.resolve(result.value)
        return promise

    def assignment(self, group: int) -> Assignment:
        found = self.house.catalogue.assignment(group)
        assert found is not None
        return found

    def go_over(self, group: int) -> None:
        self.house.value(WentOver(group, self.assignment(group).epoch, 2))

    def move(self, group: int, *nodes: int) -> None:
        self.house.value(Reassign(group, self.assignment(group).epoch, [[node, 1] for node in nodes], [], 3))

    def create(self, count: int) -> list[int]:
        """That many groups, on the first three nodes."""
        topic = self.house.value(CreateTopic("topic", "t", {"partitions": count, "replicas": 3}, 3, [4]))
        return list(topic.groups)


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    async with trio.open_nursery() as nursery:
        host = Host(TrioClock(), lambda actor, error: None)
        nursery.start_soon(host.run)
        yield Cluster(host)
        nursery.cancel_scope.cancel()


async def test_groups_on_their_way_to_a_node_that_dies_go_elsewhere(autojump_clock: MockClock) -> None:
    async with cluster() as it:
        groups = it.create(2 * MOVES_MAX)
        for group in groups[:MOVES_MAX]:
            it.move(group, 1, 2, 4)
        it.up.discard(4)
        it.controller.standing(True)
        await trio.sleep(30)
        assert all(sorted(it.assignment(group).nodes) == [1, 2, 3] for group in groups)
        assert all(it.assignment(group).replica_on(3).replica <= 3 for group in groups), "the one that it has"
        for group in groups[:MOVES_MAX]:
            it.go_over(group)
        assert it.house.catalogue.assignments.replicas_on(4) == 1, "of the catalogue, which every node has"


async def test_groups_on_their_way_to_a_node_that_is_to_leave_go_elsewhere(autojump_clock: MockClock) -> None:
    async with cluster() as it:
        (group,) = it.create(1)
        it.move(group, 1, 2, 4)
        it.house.value(ChangeNode(4, "leaving", 5))
        it.controller.standing(True)
        await trio.sleep(30)
        assert sorted(it.assignment(group).nodes) == [1, 2, 3]


async def test_groups_on_their_way_to_nodes_that_serve_are_left_alone(autojump_clock: MockClock) -> None:
    async with cluster() as it:
        (group,) = it.create(1)
        it.move(group, 1, 2, 4)
        before = it.assignment(group)
        it.up.discard(3)
        it.controller.standing(True)
        await trio.sleep(30)
        assert it.house.catalogue.node(3).dead
        assert it.assignment(group) == before
