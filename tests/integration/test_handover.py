"""A node that is about to end hands over what it leads, and is given nothing any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.catalogue import METADATA_GROUP
from node.node import Node
from plait.wire.errors import Unavailable
from replication.machine import Role
from tests.integration.clusters import Cluster, patiently, running_cluster, until
from tests.integration.nodes import batch_of, running_node


def led(node: Node) -> list[int]:
    """The groups that a node leads."""
    return sorted(number for number, group in node.groups.opened.items() if group.role is Role.LEADER)


def leaders(cluster: Cluster, group: int) -> list[int]:
    return [node.node_id for node in cluster.nodes if node.groups.opened[group].ready]


async def test_all_of_it_goes_to_others_and_stays_there(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, spread_leaders=True) as cluster:
        leader = await cluster.leader()
        await patiently(lambda: leader.broker.create("topic", "events", {"partitions": 12}))
        await until(lambda: all(node.node_id and led(node) for node in cluster.nodes))
        assert METADATA_GROUP in led(leader)
        groups = sorted(leader.groups.opened)
        await leader.hand_over()
        assert led(leader) == []
        others = [node for node in cluster.nodes if node is not leader]
        await until(lambda: all(len(leaders(cluster, group)) == 1 for group in groups))
        assert all(led(node) for node in others)
        assert not any(node.handover.may_lead(leader.node_id) for node in others)
        taken = others[0].groups.opened[groups[-1]], others[1].groups.opened[groups[-1]]
        given = next(group for group in taken if group.role is Role.LEADER)
        with pytest.raises(Unavailable):  # it does not take over even what it is handed
            await given.transfer(leader.groups.opened[groups[-1]].replica).wait()
        assert led(leader) == []
        await patiently(lambda: others[0].broker.publish("events", 7, batch_of(b"x"), "test"))


async def test_a_node_that_came_back_is_given_leadership_again(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, spread_leaders=True) as cluster:
        leader = await cluster.leader()
        await patiently(lambda: leader.broker.create("topic", "events", {"partitions": 12}))
        await until(lambda: all(led(node) for node in cluster.nodes))
        node_id = leader.node_id
        await leader.hand_over()
        await cluster.kill(node_id)
        await cluster.start(node_id)
        await until(lambda: bool(led(cluster.node(node_id))))


async def test_whoever_is_alone_has_nobody_to_hand_over_to(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.broker.create("topic", "events", {}).wait()
        await node.hand_over()
        assert len(led(node)) == 3
        await node.broker.publish("events", 0, batch_of(b"x"), "test").wait()


async def test_what_nobody_can_take_over_is_led_on(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, spread_leaders=True) as cluster:
        leader = await cluster.leader()
        await patiently(lambda: leader.broker.create("topic", "events", {}))
        for node in [node for node in cluster.nodes if node is not leader]:
            await cluster.kill(node.node_id)
        await until(lambda: not leader.peers.nodes_up())
        await leader.hand_over()
