"""Publishing straight to the leader, which answers of the client's own node name: a hop less, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import anyio
import pytest
import trio.testing

import plait
from plait.client.leaders import LEADER_AFTER_ANSWERS, LEADER_RETRY_S
from plait.client.outside import Outside
from plait.wire.errors import NotLeader
from plait.wire.messages import Publish, Request
from tests.unit.client.peer import PeerCluster, Verdict


class Forwarding(PeerCluster):
    """Three brokers that all take everything, of which one leads; the client's own is the first."""

    def __init__(self) -> None:
        super().__init__(3)
        for peer in self.peers:
            peer.script = lambda _: "carry out"
        self.lead_at(2)

    def lead_at(self, number: int) -> None:
        """A broker leads from now on, and all say so."""
        for peer in self.peers:
            peer.forwards_to = None if peer.node_id == number else self.peers[number - 1]

    def published(self) -> list[int]:
        """Publishes that each broker was asked for."""
        return [peer.count(Publish) for peer in self.peers]

    @property
    def values(self) -> list[bytes]:
        """What is stored."""
        return self.peers[0].values("events")


@asynccontextmanager
async def topic_of(cluster: Forwarding) -> AsyncIterator[plait.Topic]:
    outside = Outside(cluster.connect, Random(1), lambda: 1_700_000_000_000)
    async with plait.connect("node1", outside=outside) as client:
        yield await client.topic("events")


async def publish(topic: plait.Topic, values: list[bytes]) -> None:
    """One after the other, each with its own answer."""
    for value in values:
        await topic.publish(value)
        await anyio.sleep(0.01)


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


async def test_a_client_publishes_straight_to_the_leader_once_that_is_worth_a_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cluster = Forwarding()
    async with topic_of(cluster) as topic:
        await publish(topic, numbers(0, LEADER_AFTER_ANSWERS - 1))
        assert cluster.connects == ["node1"]
        await publish(topic, numbers(LEADER_AFTER_ANSWERS - 1, 50))
        assert cluster.connects == ["node1", "node2"]
        assert cluster.published()[0] <= LEADER_AFTER_ANSWERS + 2
    assert cluster.values == numbers(0, 50)
    assert not cluster.peers[1].streams, "the further connection ends with the client"


async def test_a_leader_that_cannot_be_reached_is_published_to_by_way_of_the_own_node(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cluster = Forwarding()
    cluster.peers[1].unreachable = True
    async with topic_of(cluster) as topic:
        await publish(topic, numbers(0, 50))
        assert cluster.connects == ["node1", "node2"]
        cluster.peers[1].unreachable = False
        await anyio.sleep(LEADER_RETRY_S)
        await publish(topic, numbers(50, 100))
        assert cluster.connects == ["node1", "node2", "node2"]
        assert cluster.published()[1] > 40
    assert cluster.values == numbers(0, 100)


async def test_another_broker_at_the_leaders_address_gets_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cluster = Forwarding()
    cluster.peers[1].cluster_id = "other"
    async with topic_of(cluster) as topic:
        await publish(topic, numbers(0, 50))
    assert cluster.published() == [50, 0, 0]
    assert cluster.values == numbers(0, 50)


async def test_a_lost_leader_loses_and_doubles_nothing(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Forwarding()
    async with topic_of(cluster) as topic:
        await publish(topic, numbers(0, 20))
        mute = True

        def script(request: Request) -> Verdict:
            nonlocal mute
            if isinstance(request, Publish) and mute:
                mute = False
                return "mute"
            return "carry out"

        cluster.peers[1].script = script
        await publish(topic, numbers(20, 40))
        assert not mute, "an answer was lost"
        assert cluster.published()[0] > 20
    assert cluster.values == numbers(0, 40)


async def test_the_own_node_may_go_while_the_leader_stays(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Forwarding()
    async with topic_of(cluster) as topic:
        await publish(topic, numbers(0, 20))
        cluster.peers[0].unreachable = True
        cluster.peers[0].break_all()
        await publish(topic, numbers(20, 40))
        cluster.peers[0].unreachable = False
    assert cluster.values == numbers(0, 40)


async def test_a_leader_that_finds_no_leader_is_left_for_the_own_node(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cluster = Forwarding()
    async with topic_of(cluster) as topic:
        await publish(topic, numbers(0, 20))
        cluster.peers[1].script = lambda request: (
            NotLeader("nobody was found", leader=0, searched_ms=5_000)
            if isinstance(request, Publish)
            else "carry out"
        )
        before = cluster.published()[1]
        await publish(topic, numbers(20, 40))
        assert cluster.published()[1] == before + 1
    assert cluster.values == numbers(0, 40)


@pytest.mark.parametrize("idempotent", [True, False])
async def test_order_survives_leaders_that_come_and_go_under_a_stream(
    idempotent: bool, autojump_clock: trio.testing.MockClock
) -> None:
    cluster = Forwarding()
    async with (
        topic_of(cluster) as topic,
        topic.producer(batch_bytes=200, linger_ms=1, idempotent=idempotent) as producer,
    ):
        for number in range(2_000):
            await producer.send(b"%d" % number)
            if number % 100 == 50:
                cluster.lead_at(1 + number // 100 % 3)
            await anyio.sleep(0.001)
    assert cluster.values == numbers(0, 2_000)
    assert all(count > 50 for count in cluster.published()[1:])


async def test_nothing_goes_the_new_way_while_something_is_under_way_on_the_old_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cluster = Forwarding()
    async with topic_of(cluster) as topic:
        await publish(topic, numbers(0, 20))
        cluster.lead_at(1)
        producer = topic.producer(linger_ms=1, idempotent=False)  # which a gap does not hold up
        await producer.send(b"20")
        await producer.flush()
        cluster.lead_at(2)
        before = cluster.published()
        held = iter(["ignore"])
        cluster.peers[0].script = lambda request: (
            next(held, "carry out") if isinstance(request, Publish) else "carry out"
        )
        for value in numbers(21, 24):
            await producer.send(value)
            await anyio.sleep(0.1)
        assert cluster.published() == [before[0] + 2, *before[1:]], "21 has no answer, that to 22 says where to go"
        cluster.peers[0].break_all()
        with pytest.raises(plait.OutcomeUnknown):
            await producer.aclose()
    assert cluster.values == [*numbers(0, 21), b"22", b"23"]
