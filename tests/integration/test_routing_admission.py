"""Limits apply at the leader, and count for the real producer, whichever node it is connected to."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.waiting import WAITING_PUBLISHES_PER_PRODUCER_MAX
from cluster.waiting_room import LONG_WAITS_DIVISOR, THROUGH_PUBLISHES_MAX
from plait.wire.errors import Closed, Overloaded
from replication.peers.settings import PeerSettings
from tests.integration.clusters import patiently, running_cluster, until
from tests.integration.nodes import batch_of, consume
from tests.integration.test_routing import follower
from tests.integration.test_routing_consumers import arrived

FULL = {"max_backlog_records": 1}


async def test_a_full_queue_refuses_through_any_node(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", FULL))
        via = (await follower(cluster, "jobs")).broker
        await via.publish("jobs", 0, batch_of(b"a"), "c").wait()
        with pytest.raises(Overloaded) as refused:
            await via.publish("jobs", 0, batch_of(b"b"), "c").wait()
        assert refused.value.details["reason"] == "backlog"


async def test_a_publish_waits_for_room_at_the_leader_and_others_go_past_it(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {**FULL, "overflow": "block"}))
        await patiently(lambda: cluster.node(1).broker.create("queue", "other", {}))
        via = (await follower(cluster, "jobs")).broker
        await via.publish("jobs", 0, batch_of(b"a"), "c").wait()
        waiting = via.publish("jobs", 0, batch_of(b"b"), "c")
        for _ in range(20):
            await via.publish("other", 0, batch_of(b"x"), "c").wait()
        assert not waiting.done
        inbox, attachment = await consume(via, "jobs")
        await arrived(inbox, 1)
        await attachment.settle(0, "ack", 0, [(inbox.items[0][1], 0, 0)]).wait()
        assert (await waiting.wait()).base_offset == 1


async def test_what_waits_for_a_client_or_a_node_that_is_gone_is_dropped(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {**FULL, "overflow": "block"}))
        node = await follower(cluster, "jobs")
        via, leader = node.broker, await cluster.leader("jobs")
        admission = cluster.replica(leader.node_id, "jobs").admission
        await via.publish("jobs", 0, batch_of(b"a"), "c").wait()
        gone, stays = via.publish("jobs", 0, batch_of(b"b"), "gone"), via.publish("jobs", 0, batch_of(b"c"), "c")
        await until(lambda: admission.waiting == 2)
        via.client_gone("gone")
        await until(lambda: admission.waiting == 1)
        with pytest.raises(Closed):
            await gone.wait()
        assert not stays.done
        await cluster.kill(node.node_id)
        await until(lambda: admission.waiting == 0)


async def test_full_partitions_leave_room_on_the_link_for_the_leaders_others(tmp_path: Path) -> None:
    """As many waiting publishes as the link between two nodes takes questions, and more."""
    partitions, clients = 17, 8
    async with running_cluster(tmp_path) as cluster:
        full = {**FULL, "overflow": "block", "partitions": partitions}
        await patiently(lambda: cluster.node(1).broker.create("queue", "full", full))
        await patiently(lambda: cluster.node(1).broker.create("queue", "other", {}))
        leader = await cluster.gather("other", "full")
        via = next(node for node in cluster.nodes if node is not leader).broker
        for number in range(partitions):
            await via.publish("full", number, batch_of(b"first"), "c").wait()
        waiting = [
            via.publish("full", number, batch_of(b"%d" % turn), f"client {number}.{client}")
            for number in range(partitions)
            for client in range(clients)
            for turn in range(WAITING_PUBLISHES_PER_PRODUCER_MAX)
        ]
        assert len(waiting) > PeerSettings().asks_max
        for number in range(20):
            stored = await via.publish("other", 0, batch_of(b"%d" % number), "c").wait()
            assert stored.base_offset == number
        most = THROUGH_PUBLISHES_MAX // LONG_WAITS_DIVISOR
        await until(lambda: sum(not each.done for each in waiting) == most)
        errors = [each.error for each in waiting if each.done]
        assert {each.details["reason"] for each in errors if isinstance(each, Overloaded)} == {"link_queue"}
        assert all(isinstance(each, Overloaded) for each in errors)


async def test_a_node_remembers_nothing_of_deleted_queues_publishes(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        for turn in range(3):
            await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {"partitions": 3}))
            for node in cluster.nodes:
                for number in range(3):
                    await node.broker.publish("jobs", number, batch_of(b"%d" % turn), "c").wait()
            assert sum(node.door.streams for node in cluster.nodes) == 6
            await cluster.node(1).broker.delete("jobs").wait()
            await until(lambda: all(node.door.streams == 0 for node in cluster.nodes))
