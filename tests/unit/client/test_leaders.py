"""The client of a cluster: it finds whoever leads, and its promises hold on the way."""

from __future__ import annotations

from random import Random

import anyio
import pytest
import trio
import trio.testing

import plait
from plait.client.connection import DEAD_OF_SEVERAL_S
from plait.client.outside import Outside
from plait.client.route import Route
from plait.wire import Buffer
from plait.wire.errors import NotLeader
from plait.wire.messages import Consume, Publish, Settle, ok
from tests.unit.client.peer import PeerCluster


def connect(cluster: PeerCluster, address: str = "node1,node2,node3", deadline_s: float = 30.0) -> plait.connect:
    outside = Outside(cluster.connect, Random(1), lambda: 1_700_000_000_000)
    return plait.connect(address, deadline_s=deadline_s, outside=outside)


@pytest.mark.parametrize("address", ["node1,node2,node3", "node2"])
async def test_the_leader_is_found_through_any_broker(
    address: str, autojump_clock: trio.testing.MockClock
) -> None:
    cluster = PeerCluster(3)
    cluster.leader = cluster.peers[2]
    async with connect(cluster, address) as client:
        queue = await client.queue("orders")
        assert (await queue.publish(b"one")).offset == 0
    assert cluster.connects == [address.split(",", maxsplit=1)[0], "node3"]


async def test_without_an_address_in_the_answer_the_list_is_gone_through(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cluster = PeerCluster(3, point=False)
    cluster.leader = cluster.peers[2]
    async with connect(cluster) as client:
        await client.queue("orders")
    assert cluster.connects == ["node1", "node2", "node3"]


@pytest.mark.parametrize("kill", [True, False])
async def test_publishes_follow_the_leader_in_order_and_none_is_doubled(
    kill: bool, autojump_clock: trio.testing.MockClock
) -> None:
    cluster = PeerCluster(3)
    values = [b"%d" % number for number in range(400)]
    async with connect(cluster) as client:
        queue = await client.queue("orders")
        async with queue.producer(batch_bytes=200, linger_ms=1) as producer:
            for number, value in enumerate(values):
                await producer.send(value)
                if number % 100 == 50:
                    leader = cluster.peers[number // 100 % 3]
                    former = cluster.leader
                    cluster.lead(leader)
                    if kill and former is not None:
                        former.break_all()
                await anyio.sleep(0.001)
    assert cluster.peers[0].values("orders") == values
    assert sum(peer.count(Publish) for peer in cluster.peers) > 0


async def test_an_election_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    cluster = PeerCluster(3)
    async with connect(cluster) as client, anyio.create_task_group() as tasks:
        queue = await client.queue("orders")
        cluster.lead(None)
        cluster.peers[0].break_all()
        tasks.start_soon(queue.publish, b"one")
        await anyio.sleep(0.7)
        cluster.lead(cluster.peers[2])
        began_s = trio.current_time()
        await queue.publish(b"two")
        assert trio.current_time() - began_s < 0.5
    assert cluster.peers[0].values("orders") == [b"one", b"two"]


async def test_a_leaderless_cluster_is_an_error_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    cluster = PeerCluster(3)
    async with connect(cluster, deadline_s=5) as client:
        queue = await client.queue("orders")
        cluster.lead(None)
        began_s = trio.current_time()
        with pytest.raises(plait.TimedOut):  # nobody even gave it a producer id
            await queue.publish(b"one")
        with pytest.raises(plait.NotLeader):
            await client.describe("orders")
        assert trio.current_time() - began_s == pytest.approx(10, abs=2.5)
    assert set(cluster.connects) == {"node1", "node2", "node3"}


async def test_consumers_follow_the_leader(autojump_clock: trio.testing.MockClock) -> None:
    cluster = PeerCluster(3)
    async with connect(cluster) as client:
        queue = await client.queue("orders")
        await queue.publish_many([b"1", b"2", b"3"])
        async with queue.consume(prefetch=2) as consumer:
            first = await anext(consumer)
            await first.ack()
            held = await anext(consumer)
            cluster.lead(cluster.peers[1])
            await anyio.sleep(0.1)
            again = await anext(consumer)
            assert (again.value, again.deliveries) == (b"2", 2)
            with pytest.raises(plait.LeaseLost):
                await held.ack()
            await again.ack()
            await (await anext(consumer)).ack()
    assert cluster.peers[0].logs["orders"].acked == {0, 1, 2}
    assert cluster.peers[1].count(Consume) == 1


async def test_a_settlement_that_was_refused_says_that_the_message_comes_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cluster = PeerCluster(2)
    async with connect(cluster, "node1,node2") as client:
        queue = await client.queue("orders")
        await queue.publish(b"1")
        async with queue.consume() as consumer:
            message = await anext(consumer)
            cluster.leader = cluster.peers[1]  # and its consumers have not heard of it yet
            with pytest.raises(plait.LeaseLost):
                await message.ack()
            cluster.peers[0].logs["orders"].leased.clear()
            await (await anext(consumer)).ack()
    assert cluster.peers[0].count(Settle) == 1


async def test_subscriptions_go_on_at_their_position(autojump_clock: trio.testing.MockClock) -> None:
    cluster = PeerCluster(3)
    async with connect(cluster) as client:
        topic = await client.topic("events")
        await topic.publish_many([b"1", b"2"])
        seen = []
        async with topic.subscribe("billing") as subscription:
            async for message in subscription:
                seen.append(message.value)
                if len(seen) == 2:
                    cluster.lead(cluster.peers[2])
                    await topic.publish(b"3")
                if len(seen) == 3:
                    break
    assert seen == [b"1", b"2", b"3"]
    assert cluster.peers[0].committed["billing", "events"] == {0: 3}


async def test_a_broker_that_falls_silent_is_left_for_another(autojump_clock: trio.testing.MockClock) -> None:
    cluster = PeerCluster(3)
    async with connect(cluster) as client:
        queue = await client.queue("orders")
        cluster.peers[0].script = lambda _: "ignore"
        cluster.leader = cluster.peers[1]
        began_s = trio.current_time()
        await queue.publish(b"one")
        assert trio.current_time() - began_s < DEAD_OF_SEVERAL_S + 1


async def test_what_is_under_way_is_answered_before_the_broker_is_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cluster = PeerCluster(2)
    one, two = cluster.peers
    async with connect(cluster, "node1,node2") as client, anyio.create_task_group() as tasks:
        await client.queue("orders")
        queue = await client.queue("other")
        held: list[Publish] = []

        def script(request: object) -> str | plait.PlaitError:
            if isinstance(request, Publish) and request.name == "other":
                held.append(request)
                return "ignore"
            return "carry out"

        one.script = script
        receipts = []

        async def publish() -> None:
            receipts.append(await queue.publish(b"late"))

        tasks.start_soon(publish)
        await anyio.sleep(0.01)
        error = plait.NotLeader("moved", leader=2, address="node2:4150")
        one.script = lambda request: error
        cluster.leader = two
        tasks.start_soon(client.describe, "orders")
        await anyio.sleep(0.1)
        assert cluster.connects == ["node1"], "one answer is still owed"
        one.streams[0].reply(_published(held[0].correlation))
        await anyio.sleep(0.1)
        assert cluster.connects == ["node1", "node2"]
        assert [receipt.offset for receipt in receipts] == [7]


def _published(correlation: int) -> list[Buffer]:
    return ok(correlation, 0, 7, -1, 0, False)


def test_a_broker_that_looked_for_a_leader_in_vain_is_left_at_once() -> None:
    route = Route([("node1", 1), ("node2", 2)], Random(1))
    route.next()
    route.came_up(1, 0.0)
    assert not route.refused(NotLeader("nobody is known yet", leader=0), 0.0), "it may know in a moment"
    assert route.refused(NotLeader("nobody was found", leader=0, searched_ms=5_000), 0.1)
    assert route.next()[0] == ("node2", 2)
