"""Limits apply at the leader, and count for the real producer, whichever node it is connected to."""

from __future__ import annotations

from pathlib import Path

import pytest

from plait.wire.errors import Closed, Overloaded
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
