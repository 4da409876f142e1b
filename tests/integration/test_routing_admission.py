"""Limits apply at the leader, and count for the real producer, whichever node it is connected to."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import trio

from cluster.waiting import WAITING_PUBLISHES_PER_PRODUCER_MAX
from cluster.waiting_room import LONG_WAITS_DIVISOR, THROUGH_PUBLISHES_MAX
from node.origins import ORIGIN_WINDOW
from node.publishing import Published
from plait.wire.errors import Closed, Overloaded
from replication.actor import Promise
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
        waiting: list[Promise[Published]] = []
        for number, client in product(range(partitions), range(clients)):
            for turn in range(WAITING_PUBLISHES_PER_PRODUCER_MAX):
                batch = batch_of(b"%d" % turn)
                waiting.append(via.publish("full", number, batch, f"client {number}.{client}"))
            await trio.lowlevel.checkpoint()
        assert len(waiting) > PeerSettings().asks_max
        for number in range(20):
            stored = await via.publish("other", 0, batch_of(b"%d" % number), "c").wait()
            assert stored.base_offset == number
        await until(lambda: any(reason_of(each) == "link_queue" for each in waiting))
        share = leader.pressure.room.nodes[via.node_id]
        assert share.publishes <= THROUGH_PUBLISHES_MAX // LONG_WAITS_DIVISOR


async def test_a_publish_that_finds_no_place_in_its_lane_is_refused_when_its_time_is_over(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {**FULL, "overflow": "block"}))
        via = (await follower(cluster, "jobs")).broker
        await via.publish("jobs", 0, batch_of(b"first"), "c").wait()
        waiting = [
            via.publish("jobs", 0, batch_of(b"x"), f"client {number % 10}") for number in range(ORIGIN_WINDOW)
        ]
        late = via.publish("jobs", 0, batch_of(b"late"), "client 9", 100)
        with pytest.raises(Overloaded) as refused:
            await late.wait()
        assert refused.value.details["reason"] == "lane"
        assert not any(each.done for each in waiting)


def reason_of(publish: Promise[Published]) -> str:
    """Why it was refused; "" while it was not."""
    if publish.error is None:
        return ""
    assert isinstance(publish.error, Overloaded)
    return str(publish.error.details["reason"])


async def test_a_node_remembers_nothing_of_deleted_queues_publishes(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        for turn in range(3):
            await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {"partitions": 3}))
            for node in cluster.nodes:
                for number in range(3):
                    await node.broker.publish("jobs", number, batch_of(b"%d" % turn), "c").wait()
            assert any(node.door.streams for node in cluster.nodes)
            await cluster.node(1).broker.delete("jobs").wait()
            await until(lambda: all(node.door.streams == 0 for node in cluster.nodes))
