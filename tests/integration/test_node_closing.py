"""A node that ends in good order: what others have sent it is not refused for it, it goes elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from node.publishing import Publish
from node.routes import passes
from plait.wire.batch import read_header
from plait.wire.errors import Unavailable
from tests.integration.clusters import patiently, running_cluster
from tests.integration.nodes import batch_of
from tests.integration.test_node import read_all
from tests.integration.test_routing import follower


async def test_publishes_of_clients_elsewhere_go_to_the_next_leader_and_are_stored_once(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {}))
        via = await follower(cluster, "events")
        leader = await cluster.leader("events")
        values = [b"%d" % number for number in range(400)]
        limiter = trio.CapacityLimiter(50)

        async def publish(value: bytes) -> None:
            async with limiter:
                await via.broker.publish("events", 0, batch_of(value), "c").wait()

        async with trio.open_nursery() as nursery:
            for value in values[:200]:
                nursery.start_soon(publish, value)
            await via.broker.publish("events", 0, batch_of(b"begun"), "c").wait()
            for value in values[200:]:
                nursery.start_soon(publish, value)
            await leader.close()
            await cluster.kill(leader.node_id)
        assert sorted(await read_all(via.broker, "events")) == sorted([*values, b"begun"])


async def test_what_a_node_has_not_begun_when_it_ends_is_for_the_next_leader(tmp_path: Path) -> None:
    """Another code would be the last word for whoever has sent it, though an earlier try may be stored."""
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {}))
        leader = await cluster.leader("events")
        batch = batch_of(b"x")
        message = Publish(batch, read_header(batch), "client elsewhere")
        cluster.replica(leader.node_id, "events").post(message)
        await leader.close()
        with pytest.raises(Unavailable, match="ask another") as caught:
            await message.promise.wait()
        assert passes(caught.value)
        await cluster.kill(leader.node_id)
