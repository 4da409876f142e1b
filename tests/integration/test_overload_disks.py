"""Full disks in a cluster of three: on one node, on a majority, and space again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from node.broker import Broker
from node.node import Node
from plait.wire.errors import StorageFull
from replication.storage.settings import StorageSettings
from tests.chaos.disks import run
from tests.integration.clusters import NODES, Cluster, patiently, running_cluster, until
from tests.integration.nodes import batch_of, consume
from tests.integration.scarcity import CRITICAL, LOOKS_OFTEN, LOW, PLENTY, Machines
from tests.integration.test_routing_consumers import arrived


@asynccontextmanager
async def cluster_of(folder: Path, machines: Machines) -> AsyncIterator[Cluster]:
    """Three nodes; the queue "jobs" has two partitions, both led by one node, and "other" is led by another."""
    try:
        async with running_cluster(folder, LOOKS_OFTEN, adjust=machines.adjust) as cluster:
            await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {"partitions": 2}))
            await patiently(lambda: cluster.node(1).broker.create("queue", "other", {}))
            leader = await cluster.gather("jobs")
            await cluster.move("other", to=next(n.node_id for n in cluster.nodes if n is not leader))
            yield cluster
    finally:
        machines.mend()


def away_from(cluster: Cluster, *nodes: Node) -> Node:
    return next(node for node in cluster.nodes if node not in nodes)


async def stored(broker: Broker, name: str, *values: bytes) -> None:
    for value in values:
        await broker.publish(name, 0, batch_of(value), "c").wait()


@pytest.mark.parametrize("through_leader", [True, False])
async def test_a_leader_whose_disk_is_full_gives_leadership_away_and_no_publish_fails(
    tmp_path: Path, through_leader: bool
) -> None:
    machines = Machines()
    async with cluster_of(tmp_path, machines) as cluster:
        full = await cluster.leader("jobs")
        via = (full if through_leader else away_from(cluster, full)).broker
        await stored(via, "jobs", *(b"%d" % number for number in range(5)))
        machines[full.node_id].free_bytes = LOW
        await until(lambda: full.pressure.storage == "low")
        await stored(via, "jobs", *(b"%d" % number for number in range(5, 40)))
        await until(lambda: full.groups.standings.leads == 0)
        await stored(via, "other", b"x")
        inbox, _ = await consume(via, "jobs")
        await arrived(inbox, 40)
        assert inbox.values == [b"%d" % number for number in range(40)]


@pytest.mark.parametrize("through_leader", [True, False])
async def test_a_follower_whose_disk_is_full_stops_nobody(tmp_path: Path, through_leader: bool) -> None:
    machines = Machines()
    async with cluster_of(tmp_path, machines) as cluster:
        leader = await cluster.leader("jobs")
        via = leader if through_leader else away_from(cluster, leader)
        full = away_from(cluster, leader, via)
        machines[full.node_id].free_bytes = CRITICAL
        await until(lambda: leader.pressure.scarce == {full.node_id: "critical"})
        await stored(via.broker, "jobs", *(b"%d" % number for number in range(20)))
        await stored(full.broker, "jobs", b"through the full one")
        assert cluster.replica(leader.node_id, "jobs").failure is None
        await cluster.agreed("jobs")


async def test_leadership_comes_back_when_there_is_space_again(tmp_path: Path) -> None:
    machines = Machines()
    async with running_cluster(tmp_path, LOOKS_OFTEN, adjust=machines.adjust, spread_leaders=True) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {}))
        catalogue = cluster.node(1).metadata.catalogue
        wanted = catalogue.assignment(catalogue.topic("jobs").groups[0]).preferred
        await until(lambda: cluster.replica(wanted, "jobs").failure is None)
        machines[wanted].free_bytes = CRITICAL
        await until(lambda: cluster.replica(wanted, "jobs").failure is not None)
        other = await cluster.leader("jobs")
        await stored(other.broker, "jobs", b"x")
        machines[wanted].free_bytes = PLENTY
        await until(lambda: cluster.replica(wanted, "jobs").failure is None)


async def test_a_partition_that_nobody_else_has_is_refused_on_a_full_disk(tmp_path: Path) -> None:
    machines = Machines()
    async with cluster_of(tmp_path, machines) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "single", {"replicas": 1}))
        await until(lambda: any(_leads_single(node) for node in cluster.nodes))
        full = next(node for node in cluster.nodes if _leads_single(node))
        machines[full.node_id].free_bytes = LOW
        for via in cluster.nodes:
            await until(lambda: full.pressure.storage == "low")
            with pytest.raises(StorageFull) as refused:
                await via.broker.publish("single", 0, batch_of(b"x"), "c").wait()
            assert refused.value.details["reason"] == "storage_full"
            await stored(via.broker, "jobs", b"x")
        machines[full.node_id].free_bytes = PLENTY
        await until(lambda: full.pressure.storage == "none")
        await stored(full.broker, "single", b"x")


def _leads_single(node: Node) -> bool:
    topic = node.metadata.catalogue.topic("single")
    partitions = node.replicas.partitions(topic.topic_id) if topic is not None else None
    return bool(partitions) and partitions[0].failure is None


@pytest.mark.parametrize("free_bytes", [LOW, CRITICAL])
async def test_full_disks_on_a_majority_refuse_publishes_until_there_is_space_and_nothing_else(
    tmp_path: Path, free_bytes: int
) -> None:
    machines = Machines()
    async with cluster_of(tmp_path, machines) as cluster:
        await stored(cluster.node(1).broker, "jobs", *(b"%d" % number for number in range(4)))
        plenty = cluster.node(3)
        for node_id in (1, 2):
            machines[node_id].free_bytes = free_bytes
        await until(lambda: plenty.pressure.scarce.keys() == {1, 2})
        await until(lambda: plenty.replicas.leads(plenty.metadata.catalogue.topic("jobs").groups[0]))
        for via in cluster.nodes:
            with pytest.raises(StorageFull) as refused:
                await via.broker.publish("jobs", 0, batch_of(b"no"), "c").wait()
            assert refused.value.details["reason"] == "replicas_full"
            assert refused.value.details["retry_after_ms"] > 0
        for via in (cluster.node(1), plenty):
            inbox, attachment = await consume(via.broker, "jobs", prefetch=4)  # two of each partition
            await arrived(inbox, 2)
            for partition, lease_id, offset, _, _ in inbox.items[:2]:
                await attachment.settle(partition, "ack", 0, [(lease_id, offset, offset)]).wait()
            await attachment.detach().wait()
        machines[1].free_bytes = PLENTY
        for via in cluster.nodes:
            await patiently(lambda via=via: via.broker.publish("jobs", 0, batch_of(b"again"), "c"))
        left, _ = await consume(cluster.node(2).broker, "jobs")
        await arrived(left, 3)
        assert left.values == [b"again"] * 3


MEBIBYTE = 1 << 20
SMALL = StorageSettings(
    wal_file_bytes=2 * MEBIBYTE,
    low_space_bytes=24 * MEBIBYTE,
    critical_space_bytes=12 * MEBIBYTE,
    ballast_bytes=4 * MEBIBYTE,
    janitor_interval_ms=20,
)
"""Storage for disks of DISK_BYTES."""
DISK_BYTES = 64 * MEBIBYTE


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Path]:
    """A folder with a small real disk for each node."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount disks")
    folders = [tmp_path / f"node-{node_id}" for node_id in NODES]
    mounted: list[Path] = []
    try:
        for folder in folders:
            folder.mkdir()
            try:
                run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "plait-test", str(folder))
            except OSError as error:
                pytest.skip(f"no disk can be mounted here: {error}")
            mounted.append(folder)
        yield tmp_path
    finally:
        for folder in mounted:
            run("umount", "-l", str(folder))


def fill(folder: Path, left_bytes: int) -> Path:
    """A file that leaves so much room."""
    found = os.statvfs(folder)
    filler = folder / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - left_bytes)
    return filler


async def test_real_disks_run_full_and_have_space_again(disks: Path) -> None:
    async with running_cluster(disks, SMALL) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "jobs", {}))
        full = await cluster.leader("jobs")
        via = away_from(cluster, full).broker
        values = [b"%d " % number + bytes(20_000) for number in range(200)]
        await stored(via, "jobs", *values[:20])
        filler = fill(disks / f"node-{full.node_id}", 0)
        await stored(via, "jobs", *values[20:100])
        await stored(full.broker, "jobs", *values[100:200])
        await until(lambda: full.groups.standings.leads == 0)
        next_one = await cluster.leader("jobs")
        second = fill(disks / f"node-{away_from(cluster, full, next_one).node_id}", 8 * MEBIBYTE)
        await until(lambda: len(next_one.pressure.scarce) == 2)
        for node in cluster.nodes:
            with pytest.raises(StorageFull):
                await node.broker.publish("jobs", 0, batch_of(b"no"), "c").wait()
        inbox, attachment = await consume(via, "jobs", prefetch=1_000)
        await arrived(inbox, len(values))
        held = [(lease_id, offset, offset) for _, lease_id, offset, _, _ in inbox.items]
        await attachment.settle(0, "ack", 0, held).wait()
        filler.unlink()
        await patiently(lambda: via.publish("jobs", 0, batch_of(b"again"), "c"))
        second.unlink()
        await cluster.agreed("jobs")
        await arrived(inbox, len(values) + 1)
        assert inbox.values == [*values, b"again"]
