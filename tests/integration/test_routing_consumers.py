"""A consumer on any node is given messages from wherever they are led, and goes on through changes of leaders."""

from __future__ import annotations

from pathlib import Path

import trio

from node.attachments import Attachment
from plait.wire.errors import NotFound
from tests.integration.clusters import LOOK_S, NODES, WAIT_S, patiently, running_cluster, until
from tests.integration.nodes import Inbox, batch_of, consume
from tests.integration.test_routing import follower, other_leader


async def test_messages_from_a_leader_elsewhere_are_delivered_and_settled(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {"partitions": 3}))
        via = (await follower(cluster, "jobs")).broker
        inbox, attachment = await consume(via, "jobs")
        for number in range(30):
            await via.publish("jobs", number % 3, batch_of(b"%d" % number, b"x"), "c").wait()
        await arrived(inbox, 60)
        for partition, lease_id, offset, deliveries, _ in inbox.items:
            assert deliveries == 1
            settled = await attachment.settle(partition, "ack", 0, [(lease_id, offset, offset)]).wait()
            assert (settled.records, settled.lost) == (1, [])
        described = await via.describe("jobs").wait()
        assert [(each["backlog_records"], each["consumers"]) for each in described["partitions_detail"]] == [
            (0, 1)
        ] * 3
        await attachment.detach().wait()
        described = await via.describe("jobs").wait()
        assert [each["consumers"] for each in described["partitions_detail"]] == [0] * 3


async def test_prefetch_bounds_what_is_out_and_pausing_stops_it(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {}))
        via = (await follower(cluster, "jobs")).broker
        inbox, attachment = await consume(via, "jobs", prefetch=2)
        await via.publish("jobs", 0, batch_of(b"a", b"b", b"c", b"d"), "c").wait()
        await arrived(inbox, 2)
        attachment.pause()
        await attachment.settle(0, "ack", 0, [(inbox.items[0][1], 0, 1)]).wait()
        leader = await cluster.leader("jobs")
        await until(lambda: cluster.replica(leader.node_id, "jobs").state.shared[""].leased_count == 0)
        assert inbox.values == [b"a", b"b"]
        attachment.resume()
        await arrived(inbox, 4)
        assert inbox.values == [b"a", b"b", b"c", b"d"]


async def test_what_a_consumer_holds_stays_its_own_when_the_leader_dies(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {}))
        via = await follower(cluster, "jobs")
        inbox, attachment = await consume(via.broker, "jobs", prefetch=50)
        await via.broker.publish("jobs", 0, batch_of(*(b"%d" % number for number in range(20))), "c").wait()
        await arrived(inbox, 20)
        for _ in range(2):
            leader = await other_leader(cluster, "jobs", via)
            await cluster.kill(leader.node_id)
            lease_id, offset = inbox.items[0][1], inbox.items[0][2]
            await via.broker.publish("jobs", 0, batch_of(b"more"), "c").wait()
            settled = await attachment.settle(0, "extend", 60_000, [(lease_id, offset, offset)]).wait()
            assert (settled.records, settled.lost) == (1, []), "the lease is the same, and is its own"
            await cluster.start(leader.node_id)
        await arrived(inbox, 22)
        assert inbox.error is None
        assert [item[2] for item in inbox.items] == list(range(22)), "nothing came twice and nothing was left out"
        assert {item[3] for item in inbox.items} == {1}
        await attachment.settle(0, "ack", 0, [(item[1], item[2], item[2]) for item in inbox.items]).wait()
        assert (await via.broker.describe("jobs").wait())["partitions_detail"][0]["backlog_records"] == 0


async def test_consuming_goes_on_while_leaders_change_under_load(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {}))
        consumers = [await consume(node.broker, "jobs", prefetch=7) for node in cluster.nodes]
        count = 400
        async with trio.open_nursery() as nursery:
            for inbox, attachment in consumers:
                nursery.start_soon(acknowledge, inbox, attachment)

            for number in range(count):
                via = cluster.node(NODES[number % 3]).broker
                await via.publish("jobs", 0, batch_of(b"%d" % number), "c").wait()
                if number % 100 == 50:
                    await cluster.move("jobs")
            with trio.fail_after(WAIT_S):
                await until(lambda: sum(len(inbox.items) for inbox, _ in consumers) >= count)
                await until(lambda: cluster.replica(1, "jobs").state.backlog_records() == 0)
            nursery.cancel_scope.cancel()
        items = [item for inbox, _ in consumers for item in inbox.items]
        assert all(inbox.error is None for inbox, _ in consumers)
        assert sorted(int(item[4]) for item in items) == list(range(count)), "each was delivered once"


async def test_a_consumer_is_told_when_its_queue_is_deleted(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {}))
        via = await follower(cluster, "jobs")
        inbox, _ = await consume(via.broker, "jobs")
        await via.broker.delete("jobs").wait()
        await until(lambda: inbox.error is not None)
        assert isinstance(inbox.error, NotFound)


async def test_what_consumers_of_a_dead_node_hold_comes_back_when_it_is_given_up(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {"lease_ms": 3_600_000}))
        via = await follower(cluster, "jobs")
        inbox, _ = await consume(via.broker, "jobs")
        await via.broker.publish("jobs", 0, batch_of(b"a"), "c").wait()
        await arrived(inbox, 1)
        dead = via.node_id
        await cluster.kill(dead)
        leader = await cluster.leader("jobs")
        partition = cluster.replica(leader.node_id, "jobs")
        await until(lambda: not partition.consumers.ids())
        assert partition.state.shared[""].leased_count == 1, "its node may come back"
        await leader.replicas.node_gone(dead)
        again, _ = await consume(leader.broker, "jobs")
        await arrived(again, 1)
        assert again.items[0][3:] == (2, b"a")


async def acknowledge(inbox: Inbox, attachment: Attachment) -> None:
    """Everything, as it comes."""
    done = 0
    while True:
        items = inbox.items[done:]
        done += len(items)
        ranges = [(lease_id, offset, offset) for _, lease_id, offset, _, _ in items]
        if ranges:
            await patiently(lambda ranges=ranges: attachment.settle(0, "ack", 0, ranges))  # type: ignore[misc]
        await trio.sleep(LOOK_S)


async def arrived(inbox: Inbox, count: int) -> None:
    """That many have come."""
    await until(lambda: len(inbox.items) >= count or inbox.error is not None)
    assert inbox.error is None
