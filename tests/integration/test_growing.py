"""Nodes that join and leave: the catalogue, the replicas, and what is in them go along, without a stop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from cluster.catalogue import METADATA_GROUP
from node.groups import FOUNDER
from node.node import Node, NodeSettings
from node.partition import Partition
from node.publishing import Publish, Published
from plait.wire.batch import read_header
from plait.wire.errors import BadRequest, PlaitError
from replication.actor import Promise
from tests.integration.clusters import patiently, until
from tests.integration.fleets import Fleet, running_fleet
from tests.integration.nodes import batch_of


def group_of(node: Node, name: str, partition: int = 0) -> int:
    topic = node.metadata.catalogue.topic(name)
    assert topic is not None
    return topic.groups[partition]


def replica(node: Node, group: int) -> Partition | None:
    return node.replicas._by_group.get(group)


async def publish(fleet: Fleet, name: str, count: int) -> None:
    """At whoever leads."""
    batch = batch_of(b"x")

    def at(node: Node) -> Promise[Published]:
        partition = replica(node, group_of(node, name))
        assert partition is not None
        message = Publish(batch, read_header(batch), "test")
        partition.post(message)
        return message.promise

    for _ in range(count):
        node = await leader_of(fleet, name)
        await patiently(partial(at, node))


async def leader_of(fleet: Fleet, name: str) -> Node:
    group = group_of(fleet.nodes[0], name)
    await until(lambda: fleet.leader(group) is not None)
    node = fleet.leader(group)
    assert node is not None
    return node


async def all_have(fleet: Fleet, name: str, end: int, nodes: list[int]) -> None:
    """Until these nodes' replicas have applied everything up to `end`."""

    def look() -> bool:
        found = {node.node_id: replica(node, group_of(node, name)) for node in fleet.nodes}
        return all((each := found.get(node)) is not None and each.state.next_offset == end for node in nodes)

    await until(look)


async def test_a_broker_that_ran_alone_grows_into_a_cluster_with_its_data(tmp_path: Path) -> None:
    async with running_fleet(tmp_path) as fleet:
        first = await fleet.start(1)
        await first.broker.create("topic", "events", {}).wait()
        await publish(fleet, "events", 5)
        group = group_of(first, "events")
        assert fleet.members(group) == ([1], [])
        second = await fleet.start(2, join=1)
        assert second.node_id == 2
        assert second.broker.cluster_id == first.broker.cluster_id
        await fleet.has_members(group, [1], [2])
        await fleet.has_members(METADATA_GROUP, [1], [2])
        await publish(fleet, "events", 5)
        third = await fleet.start(3, join=2)
        assert third.node_id == 3
        await fleet.has_members(group, [1, 2, 3], [])
        await fleet.has_members(METADATA_GROUP, [1, 2, 3], [])
        await publish(fleet, "events", 5)
        await all_have(fleet, "events", 15, [1, 2, 3])
        await fleet.kill(1)
        await publish(fleet, "events", 5)
        await all_have(fleet, "events", 20, [2, 3])


async def test_a_node_that_joined_comes_back_as_it_was(tmp_path: Path) -> None:
    async with running_fleet(tmp_path) as fleet:
        first = await fleet.start(1)
        await first.broker.create("topic", "events", {}).wait()
        await fleet.start(2, join=1)
        await fleet.start(3, join=1)
        await fleet.has_members(group_of(first, "events"), [1, 2, 3], [])
        await fleet.kill(2)
        await publish(fleet, "events", 3)
        again = await fleet.start(2, join=1)
        assert (again.node_id, again.metadata.incarnation) == (2, 2)
        await all_have(fleet, "events", 3, [1, 2, 3])
        for number in (1, 2, 3):
            await fleet.kill(number)
        for number in (1, 2, 3):
            fleet.begin(number)
        await until(lambda: len(fleet.nodes) == 3)
        await all_have(fleet, "events", 3, [1, 2, 3])


async def test_new_topics_are_spread_over_nodes_and_leaders_are_even(tmp_path: Path) -> None:
    async with running_fleet(tmp_path) as fleet:
        for number in (1, 2, 3, 4):
            fleet.begin(number, initial=(1, 2, 3, 4))
        await until(lambda: len(fleet.nodes) == 4)
        node = fleet.node(1)
        await patiently(lambda: node.broker.create("topic", "events", {"partitions": 8}))
        catalogue = node.metadata.catalogue
        topic = catalogue.topic("events")
        assert topic is not None
        held = [assignment.nodes for group in topic.groups if (assignment := catalogue.assignment(group))]
        assert sorted(sum(number in nodes for nodes in held) for number in (1, 2, 3, 4)) == [6, 6, 6, 6]
        groups = topic.groups

        def led() -> list[int]:
            leaders = [fleet.leader(group) for group in groups]
            return sorted(sum(leader is each for leader in leaders) for each in fleet.nodes)

        await until(lambda: led() == [2, 2, 2, 2])


async def test_a_dead_node_is_replaced_and_what_it_had_is_elsewhere(tmp_path: Path) -> None:
    async with running_fleet(tmp_path) as fleet:
        for number in (1, 2, 3):
            fleet.begin(number, initial=(1, 2, 3))
        await until(lambda: len(fleet.nodes) == 3)
        await patiently(lambda: fleet.node(1).broker.create("topic", "events", {}))
        group = group_of(fleet.node(1), "events")
        await publish(fleet, "events", 4)
        await fleet.kill(2)
        await fleet.start(4, join=1)
        await fleet.has_members(group, [1, 3, 4], [])
        await until(lambda: fleet.members(METADATA_GROUP) == ([1, 3, 4], [2]))
        await publish(fleet, "events", 4)
        await all_have(fleet, "events", 8, [1, 3, 4])
        await fleet.start(2)
        await until(lambda: not any(each.dead for each in fleet.node(1).metadata.catalogue.nodes()))
        await until(lambda: FOUNDER not in fleet.node(2).groups.replicas_of(group))


async def test_a_node_that_is_to_leave_hands_over_what_it_has_and_is_removed(tmp_path: Path) -> None:
    async with running_fleet(tmp_path) as fleet:
        for number in (1, 2, 3, 4):
            fleet.begin(number, initial=(1, 2, 3, 4))
        await until(lambda: len(fleet.nodes) == 4)
        await patiently(lambda: fleet.node(1).broker.create("topic", "events", {"partitions": 4}))
        await publish(fleet, "events", 3)
        await fleet.node(1).metadata.change_node(2, "leaving")
        await until(lambda: fleet.node(1).metadata.catalogue.node_was_removed(2))
        for partition in range(4):
            await fleet.has_members(group_of(fleet.node(1), "events", partition), [1, 3, 4], [])
        await fleet.has_members(METADATA_GROUP, [1, 3, 4], [])
        await all_have(fleet, "events", 3, [1, 3, 4])
        await fleet.kill(2)


async def test_a_node_of_another_cluster_is_told_so(tmp_path: Path) -> None:
    async with running_fleet(tmp_path) as fleet:
        await fleet.start(1)
        await fleet.start(2)
        await fleet.kill(2)
        stranger = fleet.machine(2)
        settings = NodeSettings(peer_listen=stranger.peer, peer=stranger.peer, join=[fleet.machine(1).peer])
        stranger.begin()
        error: BaseException | None = None
        try:
            await stranger.run(settings)
        except ExceptionGroup as group:
            error = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, BadRequest)
        assert "of another cluster" in error.message
        assert "empty data directory" in error.message


async def test_partitions_are_added_and_replicas_changed(tmp_path: Path) -> None:
    async with running_fleet(tmp_path) as fleet:
        for number in (1, 2, 3):
            fleet.begin(number, initial=(1, 2, 3))
        await until(lambda: len(fleet.nodes) == 3)
        node = fleet.node(1)
        await patiently(lambda: node.broker.create("topic", "events", {"replicas": 1}))
        group = group_of(node, "events")
        with trio.fail_after(20):
            topic = await node.metadata.resize("events", 3, 3)
        assert len(topic.groups) == 3
        for each in topic.groups:
            await fleet.has_members(each, [1, 2, 3], [])
        with pytest.raises(PlaitError, match="cannot have fewer"):
            await node.metadata.resize("events", 2, 0)
        await node.metadata.resize("events", 0, 1)
        await until(lambda: len(fleet.members(group)[0]) == 1)
