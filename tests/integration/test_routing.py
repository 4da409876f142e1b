"""Any node takes any client: three nodes, asked through one that does not lead, while leaders come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from node.node import Node
from plait.wire.errors import NotFound
from tests.integration.clusters import Cluster, patiently, running_cluster
from tests.integration.nodes import batch_of, idempotent
from tests.integration.test_node import read_all

BIG = bytes(150_000)
"""More than one piece of a link: a small one that is sent behind it may overtake it there."""


async def test_a_node_that_does_not_lead_does_everything_a_leader_does(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {"partitions": 2}))
        broker = (await follower(cluster, "events")).broker
        for number in range(10):
            stored = await broker.publish("events", 0, batch_of(b"%d" % number), "c").wait()
            assert (stored.partition, stored.base_offset, stored.duplicate) == (0, number, False)
        assert await read_all(broker, "events") == [b"%d" % number for number in range(10)]
        assert (await broker.locate("events", 0, "end").wait()).offset == 10
        await broker.commit("billing", "events", [(0, 4)]).wait()
        assert await broker.committed("billing", "events").wait() == [(0, 4)]
        described = await broker.describe("events").wait()
        assert [each["end"] for each in described["partitions_detail"]] == [10, 0]
        (billing,) = await broker.subscriptions("events").wait()
        assert (billing["subscription"], billing["lag_records"]) == ("billing", 6)
        await broker.delete("events").wait()
        with pytest.raises(NotFound):
            await broker.publish("events", 0, batch_of(b"x"), "c").wait()


async def test_a_fetch_through_another_node_waits_for_what_comes(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {}))
        broker = (await follower(cluster, "events")).broker
        waiting = broker.fetch("events", 0, 0, 1_000, 20_000)
        await broker.publish("events", 0, batch_of(b"x"), "c").wait()
        assert (await waiting.wait()).next_offset == 1


async def test_publishes_of_a_client_keep_their_order_whatever_their_sizes(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {}))
        broker = (await follower(cluster, "events")).broker
        producer = await broker.new_producer().wait()
        batches = [
            idempotent(producer, number, (b"%d " % number) + (BIG if number % 3 == 0 else b""))
            for number in range(60)
        ]
        promises = [broker.publish("events", 0, batch, "c") for batch in batches]
        assert [(await promise.wait()).base_offset for promise in promises] == list(range(60))


async def test_a_publish_outlives_its_leader_and_counts_once(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {}))
        values: list[bytes] = []
        leader = await cluster.leader("events")
        via = next(node for node in cluster.nodes if node is not leader)
        for _ in range(3):
            limiter = trio.CapacityLimiter(20)
            async with trio.open_nursery() as nursery:
                for number in range(300):
                    values.append(b"%d" % len(values))
                    nursery.start_soon(publish_within, limiter, via, values[-1])
                    if number == 150:
                        await limiter.acquire_on_behalf_of(cluster)
                        leader = await other_leader(cluster, "events", via)
                        await cluster.kill(leader.node_id)
                        limiter.release_on_behalf_of(cluster)
            await cluster.start(leader.node_id)
        found = await read_all(via.broker, "events")
        assert len(found) == len(values), "none is lost and none is there twice"
        assert sorted(found) == sorted(values)
        await cluster.agreed("events")


async def publish_within(limiter: trio.CapacityLimiter, via: Node, value: bytes) -> None:
    """One record, which no producer vouches for."""
    async with limiter:
        await via.broker.publish("events", 0, batch_of(value), "c").wait()


async def follower(cluster: Cluster, name: str) -> Node:
    """A node that does not lead the first partition."""
    leader = await cluster.leader(name)
    return next(node for node in cluster.nodes if node is not leader)


async def other_leader(cluster: Cluster, name: str, not_this: Node) -> Node:
    """The node that leads, when it is not this one: leadership is handed on if need be."""
    while (leader := await cluster.leader(name)) is not_this:
        to = next(node for node in cluster.nodes if node is not not_this)
        group = cluster.replica(leader.node_id, name).group
        await cluster.handed_over(group, to)
    return leader
