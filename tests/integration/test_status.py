"""How the cluster is, asked of any node: by the facade, the SDK, and the command line against processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import plait
from node.status import LISTED_PARTITIONS
from plait.wire.frames import HEAD_BYTES_MAX, encode_plain
from tests.integration.brokers import NODES, READY_LIMIT_S, Brokers
from tests.integration.clusters import patiently, running_cluster, until
from tests.integration.nodes import batch_of, running_node
from tests.integration.test_cli import CommandLine


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    brokers = Brokers(tmp_path)
    yield brokers
    brokers.kill_all()


async def test_whoever_is_alone_tells_of_itself(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.broker.create("queue", "orders", {}).wait()
        await node.broker.publish("orders", 0, batch_of(b"a", b"b"), "test").wait()
        found = await node.broker.cluster_status().wait()
        (own,) = found["nodes"]
        assert found["cluster_id"] == node.broker.cluster_id
        assert found["catalogue_leader"] == own["node"] == 1
        assert (own["heard"], own["state"], own["incarnation"]) == (True, "active", 1)
        replicas = len(node.groups.opened)
        assert (own["leads"], own["replicas"], own["under_replicated"]) == (replicas, replicas, 0)
        assert (own["backlog_records"], own["lagging"], own["not_ready"]) == (2, [], [])


async def test_any_node_tells_of_all_and_of_those_that_it_does_not_hear(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        await patiently(lambda: leader.broker.create("queue", "orders", {"partitions": 3}))
        await until(
            lambda: sum(node.groups.standings.leads for node in cluster.nodes) == len(leader.groups.opened)
        )
        for asked in cluster.nodes:
            found = await patiently(asked.broker.cluster_status)
            assert found["asked_node"] == asked.node_id
            assert [(node["node"], node["heard"]) for node in found["nodes"]] == [(1, True), (2, True), (3, True)]
            assert sum(node["leads"] for node in found["nodes"]) == len(leader.groups.opened)
        gone = next(node for node in cluster.nodes if not node.metadata.replica.ready)
        await cluster.kill(gone.node_id)
        await until(lambda: all(not node.peers.is_up(gone.node_id) for node in cluster.nodes))
        lagging: list[dict[str, object]] = []
        with anyio.fail_after(READY_LIMIT_S):
            while len(lagging) < len(leader.groups.opened):
                found = await patiently(cluster.nodes[0].broker.cluster_status)
                lagging = [each for node in found["nodes"] for each in node.get("lagging", ())]
        shown = {node["node"]: node for node in found["nodes"]}
        assert not shown[gone.node_id]["heard"]
        assert "leads" not in shown[gone.node_id]
        assert {each["node"] for each in lagging} == {gone.node_id}
        assert {"orders/0", "orders/1", "orders/2", "catalogue"} <= {each["partition"] for each in lagging}


async def test_an_answer_has_a_bound(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        await patiently(lambda: leader.broker.create("queue", "o" * 200, {"partitions": 100}))
        gone = next(node for node in cluster.nodes if not node.metadata.replica.ready)
        await cluster.kill(gone.node_id)
        await until(lambda: all(not node.peers.is_up(gone.node_id) for node in cluster.nodes))
        found = await patiently(cluster.nodes[0].broker.cluster_status)
        assert sum(len(node.get("lagging", ())) for node in found["nodes"]) <= LISTED_PARTITIONS
        assert len(encode_plain(found)) < HEAD_BYTES_MAX // 3


async def test_descriptions_name_the_replicas_and_those_that_are_caught_up(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        await patiently(lambda: leader.broker.create("topic", "events", {}))
        await patiently(lambda: leader.broker.publish("events", 0, batch_of(b"x"), "test"))
        for node in cluster.nodes:
            found = await patiently(lambda node=node: node.broker.describe("events"))  # type: ignore[misc]  # bound
            (detail,) = found["partitions_detail"]
            assert detail["replicas"] == list(NODES)
            assert set(detail["caught_up"]) <= set(NODES)
            assert detail["leader"] in detail["caught_up"]
            assert (detail["start"], detail["end"]) == (0, 1)


async def test_the_command_line_shows_it(brokers: Brokers) -> None:
    await brokers.start(*NODES)
    async with plait.connect(brokers.addresses) as client:
        await client.queue("orders", partitions=3)
        assert [node["heard"] for node in (await client.cluster_status())["nodes"]] == [True] * 3
    brokers.kill(3)
    command = CommandLine(f"{brokers.native[1]},{brokers.native[2]}")
    found: dict[str, list[dict[str, object]]] = {"nodes": []}
    with anyio.fail_after(READY_LIMIT_S):
        while not any(node.get("lagging") for node in found["nodes"]):
            found = json.loads(await anyio.to_thread.run_sync(command.run, "cluster", "status", "--json"))
    shown = await anyio.to_thread.run_sync(command.run, "cluster", "status")
    rows = shown.splitlines()
    assert rows[1].split()[:5] == ["NODE", "NAME", "STATE", "ADDRESS", "LEADS"]
    assert [row.split()[0] for row in rows[2:5]] == ["1", "2", "3"]
    assert "active, not heard" in rows[4]
    assert "PARTITION" in shown
    described = await anyio.to_thread.run_sync(command.run, "queue", "describe", "orders")
    assert "1,2,3" in described
