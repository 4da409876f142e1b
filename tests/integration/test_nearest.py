"""Reads from the nearest replica, and publishes straight to the leader: three nodes and real connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import plait
from gateways.native.limits import FETCH_WAIT_MS_MAX
from node.node import Node
from plait.client import fetcher
from plait.client.outside import Outside, Stream, connect_tcp
from tests.integration.clusters import Cluster, patiently, running_cluster, until
from tests.integration.nodes import batch_of
from tests.integration.test_routing import follower


class Wires:
    """The connections of one client, by address; some lead nowhere."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.cut: set[str] = set()

    async def connect(self, host: str, port: int) -> Stream:
        address = f"{host}:{port}"
        self.made.append(address)
        if address in self.cut:
            raise OSError("no way there from here")
        return await connect_tcp(host, port)


def address_of(node: Node) -> str:
    """Where clients reach it, as all nodes know."""
    found = node.metadata.catalogue.node(node.node_id)
    assert found is not None
    return found.native


@asynccontextmanager
async def client_of(node: Node, wires: Wires) -> AsyncIterator[plait.Client]:
    async with plait.connect(address_of(node), outside=Outside(wires.connect)) as client:
        yield client


async def with_topic(cluster: Cluster) -> tuple[Node, Node]:
    """A topic that all nodes have: its leader, and another node."""
    await patiently(lambda: cluster.node(1).broker.create("topic", "events", {}))
    other = await follower(cluster, "events")
    await until(lambda: all(cluster.has(node.node_id, "events") for node in cluster.nodes))
    return await cluster.leader("events"), other


async def test_a_nearest_fetch_is_answered_by_the_own_replica_and_waits_there(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader, other = await with_topic(cluster)
        await leader.broker.publish("events", 0, batch_of(b"x"), "c").wait()
        await cluster.agreed("events")
        asked = leader.broker.fetch("events", 0, 1, 1_000, 20_000)
        here = other.broker.fetch("events", 0, 1, 1_000, 20_000, True)
        replica = cluster.replica(other.node_id, "events")
        await until(lambda: replica.readers.next_deadline_ns is not None)
        await leader.broker.publish("events", 0, batch_of(b"y"), "c").wait()
        assert (await here.wait()).next_offset == (await asked.wait()).next_offset == 2
        again = await other.broker.fetch("events", 0, 0, 1_000, 0, True).wait()
        assert (again.start_offset, again.next_offset, len(again.batches)) == (0, 2, 2)
        empty = await other.broker.fetch("events", 0, 2, 1_000, 20, True).wait()
        assert (empty.next_offset, len(empty.batches)) == (2, 0)


async def test_what_the_own_replica_does_not_have_the_leader_is_asked_for(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader, other = await with_topic(cluster)
        await leader.broker.publish("events", 0, batch_of(b"x", b"y", b"z"), "c").wait()
        await cluster.agreed("events")
        replica = cluster.replica(other.node_id, "events")
        replica.state.next_offset = 1  # as if it were far behind
        found = await other.broker.fetch("events", 0, 2, 1_000, 0, True).wait()
        assert found.next_offset == 3
        replica.state.next_offset = 3
        replica._follows = False  # as if it were fenced
        assert (await other.broker.fetch("events", 0, 0, 1_000, 0, True).wait()).next_offset == 3


async def test_nearest_readers_read_on_while_leaders_change(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        _, other = await with_topic(cluster)
        values = [b"%d" % number for number in range(300)]
        async with client_of(other, Wires()) as client, trio.open_nursery() as nursery:
            topic = await client.topic("events", create=False)

            async def publish() -> None:
                for number, value in enumerate(values):
                    await topic.publish(value)
                    if number % 100 == 50:
                        await cluster.move("events")

            nursery.start_soon(publish)
            seen: list[bytes] = []
            with trio.fail_after(60):
                async with topic.subscribe("all", nearest=True) as subscription:
                    async for message in subscription:
                        seen.append(message.value)
                        if len(seen) == len(values):
                            break
            assert seen == values
            all_of_it = [message.value async for message in topic.read(to_end=True, nearest=True)]
            assert all_of_it == values, "the end is the leader's, however far this replica is"


async def test_a_producer_goes_straight_to_the_leader_and_after_it(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader, other = await with_topic(cluster)
        wires, values = Wires(), [b"%d" % number for number in range(600)]
        async with client_of(other, wires) as client:
            topic = await client.topic("events", create=False)
            for value in values[:30]:
                await topic.publish(value)
            assert wires.made == [address_of(other), address_of(leader)]
            async with topic.producer(batch_bytes=100) as producer:
                for number, value in enumerate(values[30:]):
                    await producer.send(value)
                    if number % 200 == 199:
                        await cluster.move("events")
            found = [message.value async for message in topic.read(to_end=True)]
            assert found == values


async def test_without_a_way_to_the_leader_publishes_stay_forwarded(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader, other = await with_topic(cluster)
        wires = Wires()
        wires.cut.add(address_of(leader))
        async with client_of(other, wires) as client:
            topic = await client.topic("events", create=False)
            for number in range(30):
                assert (await topic.publish(b"%d" % number)).offset == number
        assert wires.made == [address_of(other), address_of(leader)]


async def test_fetches_of_a_client_that_goes_are_called_off_at_the_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "FETCH_WAIT_MS", FETCH_WAIT_MS_MAX)
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {}))
        via, leader = await follower(cluster, "events"), await cluster.leader("events")
        waiting = leader.peers.link(via.node_id)
        async with client_of(via, Wires()) as client:
            topic = await client.topic("events", create=False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_for_ever, topic)
                await until(lambda: waiting.questions_served == 1)
                nursery.cancel_scope.cancel()
        await until(lambda: waiting.questions_served == 0)


async def read_for_ever(topic: plait.Topic) -> None:
    async for _ in topic.read():
        pass
