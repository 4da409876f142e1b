"""What producers see under overload, whichever node they are connected to: docs/admission.md has it as a table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import plait
from gateways.native.limits import PUBLISH_IN_FLIGHT_BYTES
from node.node import Node
from replication.environment import Memory
from tests.integration.clusters import Cluster, patiently, running_cluster, until
from tests.integration.nodes import batch_of
from tests.integration.scarcity import Machines
from tests.integration.test_nearest import address_of

WHERE = pytest.mark.parametrize("at_leader", [True, False], ids=["at the leader", "at another node"])
"""Where the producer is connected."""
FULL = {"max_backlog_records": 2}
SHORT_S = 3.0
"""A deadline that passes while a full queue lets a publish wait."""


@asynccontextmanager
async def producer_of(
    folder: Path, at_leader: bool, machines: Machines | None = None, **settings: object
) -> AsyncIterator[tuple[Cluster, Node, plait.Client]]:
    """A cluster with the queue "jobs" of these settings, and "other" and "dead" led by the same node; a client."""
    machines = machines or Machines()
    try:
        async with running_cluster(folder, adjust=machines.adjust) as cluster:
            for name in ("dead", "other"):
                await patiently(lambda name=name: cluster.node(1).broker.create("queue", name, {}))
            await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", dict(settings)))
            leader = await cluster.gather("jobs", "other", "dead")
            via = leader if at_leader else next(node for node in cluster.nodes if node is not leader)
            async with plait.connect(address_of(via), deadline_s=20) as client:
                yield cluster, leader, client
    finally:
        machines.mend()


def bystander(cluster: Cluster, leader: Node) -> Node:
    """A node that does not lead, and that the client is not connected to."""
    return [node for node in cluster.nodes if node is not leader][-1]


async def publish_all(queue: plait.Queue, *values: bytes) -> None:
    for value in values:
        await queue.publish(value)


async def take(queue: plait.Queue, count: int) -> list[bytes]:
    """Consume and acknowledge that many."""
    taken: list[bytes] = []
    with trio.fail_after(30):
        async with queue.consume(prefetch=1) as messages:
            async for message in messages:
                taken.append(message.value)
                await message.ack()
                if len(taken) == count:
                    break
    return taken


async def refused(queue: plait.Queue, value: bytes, deadline_s: float = SHORT_S) -> plait.PlaitError:
    """What a publish with that deadline is told in the end."""
    with pytest.raises(plait.PlaitError) as error:
        async with queue.producer(deadline_s=deadline_s) as producer:
            await producer.send(value)
    return error.value


async def goes_on(client: plait.Client) -> None:
    """Another queue of the same leader takes and gives."""
    other = await client.queue("other", create=False)
    await publish_all(other, b"x", b"y")
    assert await take(other, 2) == [b"x", b"y"]


# a queue at its limit


@WHERE
async def test_a_full_queue_that_refuses_is_an_error_at_the_deadline(tmp_path: Path, at_leader: bool) -> None:
    async with producer_of(tmp_path, at_leader, **FULL) as (_, _, client):
        jobs = await client.queue("jobs", create=False)
        await publish_all(jobs, b"a", b"b")
        error = await refused(jobs, b"no")
        assert (error.code, error.details["reason"]) == ("overloaded", "backlog")
        assert error.retry_after_s > 0
        await goes_on(client)
        assert await take(jobs, 1) == [b"a"]
        await jobs.publish(b"c")
        assert await take(jobs, 2) == [b"b", b"c"]


@WHERE
async def test_a_full_queue_that_refuses_is_a_delay_where_the_deadline_leaves_time(
    tmp_path: Path, at_leader: bool
) -> None:
    async with producer_of(tmp_path, at_leader, **FULL) as (_, leader, client):
        jobs = await client.queue("jobs", create=False)
        await publish_all(jobs, b"a", b"b")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(jobs.publish, b"c")
            await until(lambda: leader.pressure.refused.get("backlog", 0) > 0)
            await goes_on(client)
            assert await take(jobs, 1) == [b"a"]
        assert await take(jobs, 2) == [b"b", b"c"]


@WHERE
async def test_a_full_queue_that_blocks_is_a_delay(tmp_path: Path, at_leader: bool) -> None:
    async with producer_of(tmp_path, at_leader, overflow="block", **FULL) as (cluster, leader, client):
        jobs = await client.queue("jobs", create=False)
        await publish_all(jobs, b"a", b"b")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_all, jobs, b"c", b"d")
            await until(lambda: cluster.replica(leader.node_id, "jobs").admission.waiting == 1)
            await goes_on(client)
            assert await take(jobs, 2) == [b"a", b"b"]
        assert leader.pressure.refused == {}
        assert await take(jobs, 2) == [b"c", b"d"]


@WHERE
async def test_a_full_queue_that_blocks_beyond_the_deadline_is_an_error_and_stores_nothing(
    tmp_path: Path, at_leader: bool
) -> None:
    async with producer_of(tmp_path, at_leader, overflow="block", **FULL) as (cluster, leader, client):
        jobs = await client.queue("jobs", create=False)
        await publish_all(jobs, b"a", b"b")
        error = await refused(jobs, b"no")
        assert (error.code, error.details["reason"]) == ("overloaded", "backlog")
        assert cluster.replica(leader.node_id, "jobs").admission.waiting == 0
        await goes_on(client)
        assert await take(jobs, 2) == [b"a", b"b"]
        await jobs.publish(b"c")
        assert await take(jobs, 1) == [b"c"]


@WHERE
async def test_a_full_queue_that_drops_its_oldest_takes_everything(tmp_path: Path, at_leader: bool) -> None:
    async with producer_of(tmp_path, at_leader, overflow="drop-oldest", **FULL) as (_, _, client):
        jobs = await client.queue("jobs", create=False)
        await publish_all(jobs, b"a", b"b", b"c", b"d")
        await goes_on(client)
        assert await take(jobs, 2) == [b"c", b"d"]


@WHERE
async def test_a_full_queue_with_dead_letters_takes_everything_and_moves_its_oldest(
    tmp_path: Path, at_leader: bool
) -> None:
    settings = {"overflow": "dead-letter", "dead_letter": "dead", **FULL}
    async with producer_of(tmp_path, at_leader, **settings) as (_, _, client):
        jobs = await client.queue("jobs", create=False)
        await publish_all(jobs, b"a", b"b", b"c", b"d")
        await goes_on(client)
        assert await take(jobs, 2) == [b"c", b"d"]
        assert await take(await client.queue("dead", create=False), 2) == [b"a", b"b"]


@WHERE
async def test_a_rate_makes_its_producers_slower_and_nobody_else(tmp_path: Path, at_leader: bool) -> None:
    async with producer_of(tmp_path, at_leader, max_publish_records_per_s=20) as (_, leader, client):
        jobs = await client.queue("jobs", create=False)
        values = [b"%d" % number for number in range(40)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_all, jobs, *values)
            await goes_on(client)
        assert leader.pressure.refused == {}
        assert await take(jobs, 40) == values


@WHERE
async def test_who_fills_a_queue_can_empty_it_on_the_same_connection(tmp_path: Path, at_leader: bool) -> None:
    """More waits than a connection may have unanswered: its acknowledgements must not stand behind it."""
    settings = {"overflow": "block", "max_backlog_records": 1, "partitions": 8}
    async with producer_of(tmp_path, at_leader, **settings) as (_, leader, client):
        jobs = await client.queue("jobs", create=False)
        values = [b"%d " % number + bytes(PUBLISH_IN_FLIGHT_BYTES // 32) for number in range(50)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, jobs, values)
            await until(lambda: leader.pressure.room.size_bytes > PUBLISH_IN_FLIGHT_BYTES // 8)
            taken = await take(jobs, len(values))
        assert sorted(taken) == sorted(values)


async def flood(queue: plait.Queue, values: list[bytes]) -> None:
    async with queue.producer(deadline_s=120) as producer:
        for value in values:
            await producer.send(value)


# followers


@WHERE
async def test_a_slow_follower_slows_nobody_and_catches_up(tmp_path: Path, at_leader: bool) -> None:
    machines = Machines()
    async with producer_of(tmp_path, at_leader, machines) as (cluster, leader, client):
        jobs = await client.queue("jobs", create=False)
        slow = bystander(cluster, leader)
        machines[slow.node_id].disk_goes.clear()
        values = [b"%d" % number for number in range(100)]
        await publish_all(jobs, *values)
        await goes_on(client)
        followers = cluster.replica(leader.node_id, "jobs").group.followers()
        assert next(each for each in followers if each.node == slow.node_id).lag_entries > 0
        assert leader.pressure.refused == {}
        machines[slow.node_id].disk_goes.set()
        assert await take(jobs, 100) == values
        await cluster.agreed("jobs")


@WHERE
async def test_a_follower_that_is_stopped_stops_nobody(tmp_path: Path, at_leader: bool) -> None:
    async with producer_of(tmp_path, at_leader) as (cluster, leader, client):
        jobs = await client.queue("jobs", create=False)
        number = bystander(cluster, leader).node_id
        await cluster.kill(number)
        values = [b"%d" % value for value in range(100)]
        await publish_all(jobs, *values)
        await goes_on(client)
        assert leader.pressure.refused == {}
        await cluster.start(number)
        assert await take(jobs, 100) == values
        await cluster.agreed("jobs")


# memory


@WHERE
async def test_a_leader_that_is_short_of_memory_lets_publishes_wait_and_refuses_those_with_less_time(
    tmp_path: Path, at_leader: bool
) -> None:
    machines = Machines()
    async with producer_of(tmp_path, at_leader, machines) as (cluster, leader, client):
        jobs = await client.queue("jobs", create=False)
        await publish_all(jobs, b"a", b"b")
        machines[leader.node_id].memory = Memory(used_bytes=900, machine_bytes=1_000)
        await until(lambda: leader.pressure.memory_percent >= 100)
        error = await refused(jobs, b"no")
        assert (error.code, error.details["reason"]) == ("overloaded", "memory")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(jobs.publish, b"c")
            await until(lambda: cluster.replica(leader.node_id, "jobs").admission.waiting == 1)
            assert await take(jobs, 2) == [b"a", b"b"]
            await elsewhere_goes_on(cluster, leader)
            machines[leader.node_id].memory = Memory(0, 0)
        assert await take(jobs, 1) == [b"c"]


async def test_a_node_that_is_short_of_memory_takes_nothing_on_its_way_to_another_one(tmp_path: Path) -> None:
    machines = Machines()
    async with producer_of(tmp_path, False, machines) as (cluster, leader, client):
        jobs = await client.queue("jobs", create=False)
        via = next(node for node in cluster.nodes if node is not leader)
        machines[via.node_id].memory = Memory(used_bytes=900, machine_bytes=1_000)
        await until(lambda: via.pressure.memory_percent >= 100)
        error = await refused(jobs, b"no")
        assert (error.code, error.details["reason"]) == ("overloaded", "memory")
        await leader.broker.publish("jobs", 0, batch_of(b"a"), "c").wait()
        assert await take(jobs, 1) == [b"a"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(jobs.publish, b"b")
            machines[via.node_id].memory = Memory(0, 0)
        assert await take(jobs, 1) == [b"b"]


async def elsewhere_goes_on(cluster: Cluster, short: Node) -> None:
    """What another node leads takes publishes, but for such that come through the node that is short."""
    other = await cluster.move("other")
    assert other is not short
    for node in (each for each in cluster.nodes if each is not short):
        await node.broker.publish("other", 0, batch_of(b"x"), "c").wait()
