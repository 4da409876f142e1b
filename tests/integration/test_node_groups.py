"""Consumer groups of a real node and of a cluster of three, through the facade that gateways use."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from node.broker import Broker
from node.consumer_groups import GroupAssignment
from node.coordinators import coordinator_of
from node.node import Node
from plait.wire.errors import (
    BadRequest,
    LimitReached,
    NameInvalid,
    NotFound,
    SettingInvalid,
    StaleGeneration,
    StorageDamaged,
    WrongKind,
)
from tests.integration.clusters import Cluster, patiently, running_cluster, until
from tests.integration.nodes import crashing_node, running_node

SESSION_MS = 60_000
SHORT_MS = 300
WAIT_MS = 20_000


async def join(broker: Broker, member: str, session_ms: int = SESSION_MS) -> GroupAssignment:
    return await broker.groups.join("billing", member, "test", ["events"], session_ms).wait()


async def hear(broker: Broker, member: str, acknowledged: int = 0, known: int = 0) -> GroupAssignment:
    """What a member is told; with `known`, once it is something else."""
    with trio.fail_after(20):
        while True:
            told = await broker.groups.heartbeat("billing", member, acknowledged, known, WAIT_MS).wait()
            if told.generation != known:
                return told


async def test_a_second_member_gets_its_share_when_the_first_has_let_go(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {"partitions": 4}).wait()
        first = await join(broker, "ann")
        assert first.partitions == {"events": [0, 1, 2, 3]}
        waiting = broker.groups.heartbeat("billing", "ann", first.generation, first.generation, WAIT_MS)
        second = await join(broker, "ben")
        assert second.partitions == {}
        kept = await waiting.wait()
        assert len(kept.partitions["events"]) == 2
        asked = broker.groups.heartbeat("billing", "ben", second.generation, second.generation, WAIT_MS)
        await broker.groups.heartbeat("billing", "ann", kept.generation, kept.generation, 0).wait()
        given = await asked.wait()
        assert sorted(kept.partitions["events"] + given.partitions["events"]) == [0, 1, 2, 3]


async def test_commits_are_fenced_and_outlive_the_node(tmp_path: Path) -> None:
    async with crashing_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {"partitions": 2}).wait()
        ann = await join(broker, "ann")
        await broker.groups.commit("billing", "ann", ann.generation, "events", [(0, 3), (1, 4)]).wait()
        ben = await join(broker, "ben")
        with pytest.raises(StaleGeneration):
            await broker.groups.commit("billing", "ben", ben.generation, "events", [(0, 9)]).wait()
        with pytest.raises(StaleGeneration):
            await broker.commit("billing", "events", [(0, 9)]).wait()
        with pytest.raises(NotFound):
            await broker.groups.commit("billing", "ann", ann.generation, "events", [(2, 0)]).wait()
        await broker.commit("search", "events", [(0, 9)]).wait()
        assert await broker.committed("billing", "events").wait() == [(0, 3), (1, 4)]
    async with running_node(tmp_path) as node:
        assert await node.broker.committed("billing", "events").wait() == [(0, 3), (1, 4)]
        told = await node.broker.groups.heartbeat("billing", "ann", 0, 0, 0).wait()
        assert len(told.partitions["events"]) == 1
        await node.broker.groups.leave("billing", "ann").wait()
        await node.broker.groups.leave("billing", "ann").wait()
        with pytest.raises(StaleGeneration):
            await node.broker.groups.heartbeat("billing", "ann", 0, 0, 0).wait()
        assert (await hear(node.broker, "ben")).partitions == {"events": [0, 1]}


async def test_whoever_is_silent_is_out_and_whoever_speaks_is_not(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {"partitions": 2}).wait()
        await join(broker, "silent", SHORT_MS)
        ben = await join(broker, "ben")
        told = await hear(broker, "ben", known=ben.generation)
        assert told.partitions == {"events": [0, 1]}
        with pytest.raises(StaleGeneration):
            await broker.groups.heartbeat("billing", "silent", 0, 0, 0).wait()


async def test_a_node_that_starts_again_gives_everybody_a_session_and_then_no_more(tmp_path: Path) -> None:
    async with crashing_node(tmp_path) as node:
        await node.broker.create("topic", "events", {"partitions": 2}).wait()
        await join(node.broker, "ann", SHORT_MS)
    async with running_node(tmp_path) as node:
        broker = node.broker
        ben = await join(broker, "ben")
        told = await hear(broker, "ben", known=ben.generation)
        assert told.partitions == {"events": [0, 1]}
        described = await broker.groups.describe("billing").wait()
        assert [each["member"] for each in described["members"]] == ["ben"]


async def test_a_topic_that_is_deleted_leaves_its_groups(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {"partitions": 2}).wait()
        ann = await join(broker, "ann")
        await broker.groups.commit("billing", "ann", ann.generation, "events", [(0, 3)]).wait()
        await broker.delete("events").wait()
        assert (await hear(broker, "ann", known=ann.generation)).partitions == {}
        await broker.create("topic", "events", {"partitions": 3}).wait()
        assert await broker.committed("billing", "events").wait() == []
        assert (await join(broker, "ann")).partitions == {"events": [0, 1, 2]}


async def test_groups_are_listed_and_described(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {"partitions": 2}).wait()
        assert await broker.groups.names().wait() == []
        ann = await join(broker, "ann")
        await join(broker, "ben")
        await broker.groups.commit("billing", "ann", ann.generation, "events", [(1, 7)]).wait()
        listed = await broker.groups.names().wait()
        assert listed == [{"name": "billing", "members": 2, "topics": ["events"]}]
        described = await broker.groups.describe("billing").wait()
        assert [(each["member"], each["client"]) for each in described["members"]] == [
            ("ann", "test"),
            ("ben", "test"),
        ]
        (topic,) = described["topics"]
        assert [each["member"] for each in topic["partitions"]] == ["ann", "ann"]
        assert {each["meant_for"] for each in topic["partitions"]} == {"ann", "ben"}
        assert [each["position"] for each in topic["partitions"]] == [-1, 7]
        with pytest.raises(NotFound):
            await broker.groups.describe("nobody").wait()


async def test_bad_joins_are_refused(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        groups = node.broker.groups
        await node.broker.create("topic", "events", {}).wait()
        await node.broker.create("queue", "jobs", {}).wait()
        for error, arguments in (
            (NotFound, ("billing", "ann", "", ["nothing"], SESSION_MS)),
            (NotFound, ("billing", "ann", "", ["plait.subscriptions"], SESSION_MS)),
            (WrongKind, ("billing", "ann", "", ["jobs"], SESSION_MS)),
            (NameInvalid, ("bad name", "ann", "", ["events"], SESSION_MS)),
            (BadRequest, ("billing", "", "", ["events"], SESSION_MS)),
            (BadRequest, ("billing", "ann", "x" * 1000, ["events"], SESSION_MS)),
            (SettingInvalid, ("billing", "ann", "", ["events"], 1)),
            (LimitReached, ("billing", "ann", "", [], SESSION_MS)),
        ):
            with pytest.raises(error):
                await groups.join(*arguments).wait()  # type: ignore[arg-type]
        assert await groups.names().wait() == []


def leads_coordinator(node: Node) -> bool:
    """Whether it leads the group's coordinator."""
    return node.replicas.leads(coordinator_of(node.metadata.catalogue, "billing"))


async def coordinating(cluster: Cluster) -> Node:
    """The node that leads the group's coordinator."""
    await until(lambda: any(map(leads_coordinator, cluster.nodes)))
    return next(node for node in cluster.nodes if leads_coordinator(node))


async def test_a_group_outlives_the_leader_of_its_coordinator(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {"partitions": 4}))
        leader = await coordinating(cluster)
        one, two = (node.broker for node in cluster.nodes if node is not leader)
        ann, ben = await join(one, "ann"), await join(two, "ben")  # whichever node they are connected to
        kept = await hear(one, "ann", known=ann.generation)
        await one.groups.heartbeat("billing", "ann", kept.generation, kept.generation, 0).wait()
        given = await hear(two, "ben", known=ben.generation)
        first = given.partitions["events"][0]
        await two.groups.commit("billing", "ben", given.generation, "events", [(first, 5)]).wait()
        waiting = one.groups.heartbeat("billing", "ann", kept.generation, kept.generation, WAIT_MS)
        await cluster.kill(leader.node_id)
        for broker, member, told in ((one, "ann", kept), (two, "ben", given)):
            again = await patiently(lambda b=broker, m=member: b.groups.heartbeat("billing", m, 0, 0, 0))  # type: ignore[misc]
            assert again == told
        assert await patiently(lambda: one.committed("billing", "events")) == [(first, 5)]
        await patiently(lambda: two.groups.leave("billing", "ben"))
        if not waiting.done or waiting.error is None:  # it waits at the new leader, or was answered by it
            told = await waiting.wait()
        told = await hear(one, "ann", known=kept.generation)
        assert told.partitions == {"events": [0, 1, 2, 3]}


async def test_a_new_leader_ends_the_sessions_of_those_who_are_silent(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {"partitions": 2}))
        leader = await coordinating(cluster)
        other = next(node for node in cluster.nodes if node is not leader)
        group = leader.replicas.group(coordinator_of(leader.metadata.catalogue, "billing"))
        assert group is not None
        await join(leader.broker, "silent", 5_000)
        ben = await join(leader.broker, "ben")
        await cluster.handed_over(group, other)
        await until(lambda: leads_coordinator(other))
        told = await hear(leader.broker, "ben", known=ben.generation)
        assert told.partitions == {"events": [0, 1]}


async def test_a_coordinator_whose_replica_has_failed_is_asked_elsewhere(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {"partitions": 2}))
        leader = await coordinating(cluster)
        ann = await join(leader.broker, "ann")
        group = leader.replicas.group(coordinator_of(leader.metadata.catalogue, "billing"))
        assert group is not None
        group.fence("as the test wants it")
        told = await patiently(lambda: leader.broker.groups.heartbeat("billing", "ann", ann.generation, 0, 0))
        assert told.partitions == ann.partitions


async def test_a_lone_coordinator_that_has_failed_says_so(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.broker.create("topic", "events", {}).wait()
        await join(node.broker, "ann")
        group = node.replicas.group(coordinator_of(node.metadata.catalogue, "billing"))
        assert group is not None
        group.fence("as the test wants it")
        with pytest.raises(StorageDamaged):
            await node.broker.groups.heartbeat("billing", "ann", 0, 0, 0).wait()


async def test_partitions_that_are_added_are_given_out(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("topic", "events", {"partitions": 2}))
        broker = cluster.node(2).broker
        ann = await join(broker, "ann")
        assert ann.partitions == {"events": [0, 1]}
        await patiently(lambda: cluster.node(3).broker.resize("events", 4, 0))
        told = await hear(broker, "ann", acknowledged=ann.generation, known=ann.generation)
        assert told.partitions == {"events": [0, 1, 2, 3]}
