"""A whole cluster and the SDK in one simulated loop: what sockets cannot be told to do, the same every time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import anyio
import pytest
import trio
import trio.abc

import plait
from gateways.native.server import NativeGateway
from node.node import Node, NodeSettings
from plait.client.outside import Outside
from plait.wire.errors import NotLeader, PlaitError
from tests.integration.nodes import batch_of
from tests.sim.disk import SimDisk
from tests.sim.environment import sim_environment
from tests.sim.network import Internet
from tests.sim.run import Trace, run_sim

HOSTS = {1: "one", 2: "two", 3: "three"}
PEER_PORT = 4151
NATIVE_PORT = 4150
CLIENT = "client"
ADDRESSES = ",".join(f"{host}:{NATIVE_PORT}" for host in HOSTS.values())


class ClientStream:
    """A simulated stream in anyio's words."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            raise anyio.BrokenResourceError from None
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        if not data:
            raise anyio.EndOfStream
        return bytes(data)

    async def send(self, item: bytes) -> None:
        try:
            await self._stream.send_all(item)
        except trio.BrokenResourceError:
            raise anyio.BrokenResourceError from None
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None

    async def aclose(self) -> None:
        await self._stream.aclose()


class World:
    """Three nodes, and whoever wants to be their client."""

    def __init__(self, random: Random, nursery: trio.Nursery) -> None:
        self.random = random
        self.internet = Internet(Random(random.getrandbits(64)))
        self.nodes: dict[int, Node] = {}
        self._nursery = nursery

    async def start(self) -> None:
        """All nodes, from empty disks."""
        async with trio.open_nursery() as opening:
            for node_id in HOSTS:
                opening.start_soon(self._open, node_id)

    async def _open(self, node_id: int) -> None:
        network = self.internet.network(HOSTS[node_id])
        disk = SimDisk(Random(self.random.getrandbits(64)))
        world = sim_environment(self._nursery, self.random.getrandbits(64), disk, network=network)
        settings = NodeSettings(
            name=HOSTS[node_id],
            node_id=node_id,
            initial={each: (host, PEER_PORT) for each, host in HOSTS.items()},
            native=(HOSTS[node_id], NATIVE_PORT),
        )
        node = self.nodes[node_id] = await Node.open(world.environment, settings)
        gateway = NativeGateway(world.environment, node.broker, HOSTS[node_id], NATIVE_PORT)
        await gateway.start()
        self._nursery.start_soon(gateway.run)

    def client(self) -> plait.connect:
        """An SDK client that reaches every node."""
        network = self.internet.network(CLIENT)

        async def connect(host: str, port: int) -> ClientStream:
            return ClientStream(await network.connect(host, port))

        outside = Outside(connect, Random(self.random.getrandbits(64)), lambda: round(trio.current_time() * 1e3))
        return plait.connect(ADDRESSES, outside=outside)

    def leader(self, name: str) -> int:
        """The node that serves the first partition; of several that believe so, the one of the latest term."""
        found: dict[int, int] = {}
        for node_id, node in self.nodes.items():
            topic = node.metadata.catalogue.topic(name)
            group = node.replicas.group(topic.groups[0]) if topic is not None else None
            if group is not None and group.ready:
                found[group.term] = node_id
        return found[max(found)]

    def cut_off(self, node_id: int) -> None:
        """The other nodes and this one do not hear each other; clients hear all."""
        for other in HOSTS:
            if other != node_id:
                self.internet.cut(HOSTS[node_id], HOSTS[other])
                self.internet.cut(HOSTS[other], HOSTS[node_id])


def simulate(seed: int, scenario: Callable[[World], Awaitable[None]]) -> str:
    """Run it; the fingerprint of the run."""
    trace = Trace()

    async def world(random: Random) -> None:
        async with trio.open_nursery() as nursery:
            made = World(random, nursery)
            await made.start()
            await scenario(made)
            nursery.cancel_scope.cancel()

    run_sim(seed, world, trace=trace)
    return trace.digest()


async def _publish_through_a_cut(world: World) -> None:
    values = [b"%d" % number for number in range(300)]
    async with world.client() as client:
        topic = await client.topic("events", partitions=2)
        async with topic.producer(batch_bytes=300, linger_ms=2) as producer:
            for number, value in enumerate(values):
                await producer.send(value, partition=0)
                if number in (100, 200):
                    world.internet.heal()
                    world.cut_off(world.leader("events"))
                await trio.sleep(0.005)
        world.internet.heal()
        found = [message.value async for message in topic.read(partition=0, to_end=True)]
    assert found == values


@pytest.mark.parametrize("seed", range(4))
def test_a_leader_that_is_cut_off_loses_and_doubles_nothing(seed: int) -> None:
    simulate(seed, _publish_through_a_cut)


def test_equal_seeds_give_equal_runs() -> None:
    assert simulate(7, _publish_through_a_cut) == simulate(7, _publish_through_a_cut)


async def _ask_a_stale_leader(world: World) -> None:
    async with world.client() as client:
        topic = await client.topic("events")
        queue = await client.queue("jobs")
        await topic.publish(b"before")
        await client.describe("events")
        old = world.leader("events")
        world.cut_off(old)
        broker = world.nodes[old].broker
        asked = [
            broker.locate("events", 0, "end"),
            broker.locate("events", 0, 0),
            broker.fetch("events", 0, 1, 1000, 0),
            broker.fetch("events", 0, 2, 1000, 0),
            broker.fetch("events", 0, 1, 1000, 300),
            broker.describe("events"),
            broker.names(""),
            broker.committed("billing", "events"),
            broker.subscriptions("events"),
            broker.publish("events", 0, batch_of(b"in vain"), "c"),
        ]
        fetched = await broker.fetch("events", 0, 0, 1000, 0).wait()
        assert fetched.next_offset == 1, "what is committed is committed"
        await topic.publish(b"after")
        await queue.publish(b"job")
        for number, promise in enumerate(asked):
            with pytest.raises(PlaitError) as refused:
                await promise.wait()  # type: ignore[attr-defined]  # promises of different things
            assert refused.value.retriable, number
            assert refused.value.unknown == (number == len(asked) - 1), "only the publish may be done"
        new = world.leader("events")
        assert new != old
        with pytest.raises(NotLeader):
            await broker.locate("events", 0, "end").wait()
        world.internet.heal()
        found = [message.value async for message in topic.read(to_end=True)]
        assert found in ([b"before", b"after"], [b"before", b"in vain", b"after"])


@pytest.mark.parametrize("seed", range(4))
def test_a_stale_leader_answers_nothing_about_the_present(seed: int) -> None:
    simulate(seed, _ask_a_stale_leader)


async def _consume_through_a_cut(world: World) -> None:
    async with world.client() as client:
        queue = await client.queue("jobs", lease_ms=60_000)
        await queue.publish_many([b"%d" % number for number in range(20)])
        seen: dict[bytes, int] = {}
        async with queue.consume(prefetch=5) as consumer:
            async for message in consumer:
                seen[message.value] = max(seen.get(message.value, 0), message.deliveries)
                if len(seen) == 10 and not world.internet.is_cut("one", "two"):
                    world.cut_off(world.leader("jobs"))
                try:
                    await message.ack()
                except plait.LeaseLost:
                    continue
                except plait.OutcomeUnknown:
                    continue
                if len(seen) >= 15:
                    break
        world.internet.heal()  # now the former leader's node can say that its consumer is gone
        began_s = trio.current_time()
        while (await queue.backlog()).records:
            async with queue.consume(prefetch=5) as consumer:
                message = await anext(consumer)
                seen[message.value] = message.deliveries
                await message.ack()
        assert len(seen) == 20
        assert trio.current_time() - began_s < 30, "nobody had to wait for the leases' deadlines"


@pytest.mark.parametrize("seed", range(4))
def test_leases_of_a_node_that_was_cut_off_come_back_when_it_is_heard_again(seed: int) -> None:
    simulate(seed, _consume_through_a_cut)
