"""Three nodes as one cluster, through the facade that gateways use: leaders come and go, promises stay."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from node.attachments import Attachment
from node.node import Node
from plait.wire.errors import NotLeader, PlaitError, Unavailable
from replication.storage.store import StorageSettings
from tests.integration.clusters import LOOK_S, NODES, WAIT_S, Cluster, patiently, running_cluster, until
from tests.integration.nodes import Inbox, batch_of, consume, idempotent
from tests.integration.test_node import read_all


async def test_any_node_takes_a_creation_and_all_of_them_have_it(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        for node_id in NODES:
            made = await patiently(lambda n=node_id: cluster.node(n).broker.create("queue", f"q{n}", {}))  # type: ignore[misc]
            assert made["name"] == f"q{node_id}"
        for node in cluster.nodes:
            names = await patiently(lambda node=node: node.broker.names("queue"))  # type: ignore[misc]
            assert [each["name"] for each in names] == ["q1", "q2", "q3"]
        assert len({node.broker.cluster_id for node in cluster.nodes}) == 1
        first = await patiently(lambda: cluster.node(1).broker.new_producer())
        assert await patiently(lambda: cluster.node(2).broker.new_producer()) != first


async def test_a_new_leader_serves_what_the_old_one_acknowledged(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {}))
        producer = await patiently(lambda: cluster.node(1).broker.new_producer())
        stored = 0
        for _ in range(3):
            leader = await cluster.leader("events")
            for _ in range(20):
                batch = idempotent(producer, stored, b"%d" % stored)
                await leader.broker.publish("events", 0, batch, "c").wait()
                stored += 1
            await cluster.kill(_id(leader))
            follower = await cluster.leader("events")
            again = await patiently(lambda b=follower.broker, d=batch: b.publish("events", 0, d, "c"))  # type: ignore[misc]
            assert (again.base_offset, again.duplicate) == (stored - 1, True)
            assert await read_all(follower.broker, "events") == [b"%d" % number for number in range(stored)]
            assert (await follower.broker.locate("events", 0, "end").wait()).offset == stored
            await cluster.start(_id(leader))
        await cluster.agreed("events")


async def test_leases_of_a_dead_node_stand_until_it_starts_again(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {"lease_ms": 3_600_000}))
        leader = await cluster.leader("jobs")
        await leader.broker.publish("jobs", 0, batch_of(b"a"), "c").wait()
        inbox, _ = await consume(leader.broker, "jobs")
        await inbox.wait_for(1)
        await cluster.kill(_id(leader))
        new = await cluster.leader("jobs")
        assert cluster.replica(_id(new), "jobs").state.shared[""].leased_count == 1, "its node may come back"
        await cluster.start(_id(leader))
        again, _ = await _receive(cluster, "jobs")
        assert again.items[0][3] >= 2
        assert again.items[0][4] == b"a"


async def test_deadlines_hold_over_a_change_of_leader(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {"lease_ms": 4_000}))
        leader = await cluster.leader("jobs")
        await leader.broker.publish("jobs", 0, batch_of(b"a"), "c").wait()
        inbox, _ = await consume(leader.broker, "jobs")
        await inbox.wait_for(1)
        await cluster.kill(_id(leader))
        again, _ = await _receive(cluster, "jobs")
        assert again.items[0][3] >= 2
        assert again.items[0][4] == b"a"


async def test_a_node_that_was_away_finds_what_was_created_and_loses_what_was_deleted(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "old", {"partitions": 2}))
        await until(lambda: all(node.metadata.catalogue.topic("old") is not None for node in cluster.nodes))
        groups = cluster.node(1).metadata.catalogue.topic("old").groups  # type: ignore[union-attr]
        away = next(node for node in cluster.nodes if not node.metadata.replica.ready)
        away_id = _id(away)
        await until(lambda: all(away.groups.replicas_of(group) for group in groups))
        await cluster.kill(away_id)
        leader = await cluster.leader()
        await patiently(lambda: leader.broker.create("topic", "new", {}))
        await patiently(lambda: leader.broker.delete("old"))
        await cluster.start(away_id)
        back = cluster.node(away_id)
        await until(lambda: back.metadata.catalogue.topic("new") is not None)
        await until(lambda: not any(back.groups.replicas_of(group) for group in groups))
        await cluster.agreed("new")


async def test_a_node_that_was_away_for_long_is_given_a_snapshot(tmp_path: Path) -> None:
    small = StorageSettings(wal_file_bytes=1 << 20, janitor_interval_ms=100)
    async with running_cluster(tmp_path, small) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {}))
        leader = await cluster.leader("jobs")
        away_id = next(_id(node) for node in cluster.nodes if node is not leader)
        await until(
            lambda: cluster.has(away_id, "jobs") and cluster.replica(away_id, "jobs").group.applied_index > 0
        )
        await cluster.kill(away_id)
        leader = await cluster.leader("jobs")
        inbox, attachment = await consume(leader.broker, "jobs")
        for number in range(40):
            value = b"%d " % number + bytes(100_000)
            await leader.broker.publish("jobs", 0, batch_of(value), "c").wait()
            await inbox.wait_for(number + 1)
            if number % 10:
                item = inbox.items[-1]
                await attachment.settle(0, "ack", 0, [(item[1], item[2], item[2])]).wait()
        log = cluster.log(_id(leader), "jobs")
        await until(lambda: log.snapshot_index > 60)
        await cluster.start(away_id)
        await cluster.agreed("jobs")
        back = cluster.replica(away_id, "jobs")
        assert back.state.backlog_records() == 4
        await attachment.detach().wait()
        keeper = await cluster.leader("jobs")
        if _id(keeper) != away_id:  # what it was sent is whole: it can lead, and deliver
            await cluster.move("jobs", away_id)
        again, _ = await _receive(cluster, "jobs", 4)
        assert [value.split(b" ")[0] for value in again.values[:4]] == [b"0", b"10", b"20", b"30"]


async def test_a_cluster_starts_again_when_all_nodes_were_down(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {"partitions": 3}))
        leader = await cluster.leader("events")
        for number in range(30):
            publish = partial(leader.broker.publish, "events", number % 3, batch_of(b"%d" % number), "c")
            await patiently(publish)
        await patiently(lambda: leader.broker.commit("billing", "events", [(0, 4)]))
        cluster_id = leader.broker.cluster_id
        for node_id in NODES:
            await cluster.kill(node_id)
        await cluster.start(*NODES)
        leader = await cluster.leader("events")
        assert leader.broker.cluster_id == cluster_id
        assert leader.broker.incarnation == 2
        for partition in range(3):
            end = await patiently(partial(leader.broker.locate, "events", partition, "end"))
            assert end.offset == 10
        assert await patiently(lambda: leader.broker.committed("billing", "events")) == [(0, 4)]
        assert (await leader.broker.publish("events", 0, batch_of(b"more"), "c").wait()).base_offset == 10


async def test_a_minority_serves_nothing_and_says_so(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {}))
        leader = await cluster.leader("events")
        await leader.broker.publish("events", 0, batch_of(b"a"), "c").wait()
        for node in cluster.nodes:
            if node is not leader:
                await cluster.kill(_id(node))
        asked = [
            leader.broker.publish("events", 0, batch_of(b"b"), "c"),
            leader.broker.locate("events", 0, "end"),
            leader.broker.fetch("events", 0, 1, 1000, 0),
            leader.broker.describe("events"),
        ]
        with trio.fail_after(20):
            for promise in asked:
                with pytest.raises(PlaitError) as found:
                    await promise.wait()  # type: ignore[attr-defined]  # promises of different things
                assert found.value.retriable


def _id(node: Node) -> int:
    return node.node_id


async def _receive(cluster: Cluster, name: str, count: int = 1) -> tuple[Inbox, Attachment]:
    """A consumer wherever it is served by now, when it has that much; attached again while leaders move."""
    with trio.fail_after(WAIT_S):
        while True:
            leader = await cluster.leader(name)
            try:
                inbox, attachment = await consume(leader.broker, name)
            except (NotLeader, Unavailable):
                await trio.sleep(LOOK_S)
                continue
            await until(lambda inbox=inbox: len(inbox.items) >= count or inbox.error is not None)  # type: ignore[misc]
            if inbox.error is None:
                return inbox, attachment
