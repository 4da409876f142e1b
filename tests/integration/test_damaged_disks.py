"""A node's disk rots while it is down: the others bring back what is gone, and it can lead again."""

from __future__ import annotations

from pathlib import Path

from replication.storage import snapshots
from replication.storage.log import GroupLog
from replication.storage.store import StorageSettings
from tests.integration.clusters import NODES, Cluster, patiently, running_cluster, until
from tests.integration.nodes import batch_of
from tests.integration.test_node import read_all

SMALL = StorageSettings(wal_file_bytes=1 << 20, janitor_interval_ms=100)
"""Files so small that a few megabytes leave some of each kind."""
RECORD_BYTES = 100_000
RECORDS = 40


def value_of(number: int) -> bytes:
    return (b"%d " % number).ljust(RECORD_BYTES, b"%d" % (number % 10))


async def fill(cluster: Cluster) -> int:
    """Publish until every node has segments and a snapshot; a node that does not lead."""
    await patiently(lambda: cluster.node(1).broker.create("topic", "events", {}))
    leader = await cluster.leader("events")
    for number in range(RECORDS):
        await leader.broker.publish("events", 0, batch_of(value_of(number)), "c").wait()
    follower_id = next(node_id for node_id in NODES if cluster.node(node_id) is not leader)
    await cluster.agreed("events")
    await until(lambda: log_of(cluster, follower_id).snapshot_index > RECORDS // 2)
    return follower_id


def log_of(cluster: Cluster, node_id: int) -> GroupLog:
    return cluster.log(node_id, "events")


def brought(cluster: Cluster, node_id: int) -> bool:
    """Another node has sent it a snapshot: when damage is looked for, it may be mended already."""
    return cluster.node(node_id).groups.snapshots.counters.received > 0


def rot(path: Path, *positions: int) -> None:
    """Change a byte at each of these positions."""
    data = bytearray(path.read_bytes())
    for position in positions:
        data[position] ^= 0x55
    path.write_bytes(data)


async def test_entries_that_have_rotted_are_brought_back_by_the_others(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, SMALL) as cluster:
        rotten_id = await fill(cluster)
        await cluster.kill(rotten_id)
        for path in sorted((cluster.folder / f"node-{rotten_id}").rglob("*.seg")):
            rot(path, *range(path.stat().st_size // 2, path.stat().st_size - 2 * RECORD_BYTES, RECORD_BYTES))
        await cluster.start(rotten_id)
        await until(lambda: cluster.has(rotten_id, "events"))
        await cluster.node(rotten_id).store.scrub(log_of(cluster, rotten_id).group)
        await until(lambda: brought(cluster, rotten_id))
        await mended(cluster, rotten_id)


async def test_a_snapshot_that_has_rotted_is_brought_back_by_the_others(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, SMALL) as cluster:
        rotten_id = await fill(cluster)
        log = log_of(cluster, rotten_id)
        await cluster.kill(rotten_id)
        row = log.snapshot_row  # the last one: another may have been made until then
        assert row is not None
        path = cluster.folder / f"node-{rotten_id}" / snapshots.file_name(row.number)
        rot(path, row.state_position)
        await cluster.start(rotten_id)
        await until(lambda: cluster.has(rotten_id, "events") and brought(cluster, rotten_id))
        await mended(cluster, rotten_id)


async def mended(cluster: Cluster, node_id: int) -> None:
    """The node has everything again, can lead, and serves what it was given anew."""
    await until(lambda: log_of(cluster, node_id).damage is None)
    await cluster.agreed("events")
    leader = await cluster.leader("events")
    if leader is not cluster.node(node_id):
        await cluster.move("events", node_id)
    await until(lambda: cluster.replica(node_id, "events").failure is None)
    found = await read_all(cluster.node(node_id).broker, "events")
    assert found == [value_of(number) for number in range(RECORDS)]
