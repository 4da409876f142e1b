"""What cannot be served is refused, and everything else goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.entries import KIND_COMMANDS
from plait.wire.errors import PlaitError, StorageDamaged
from replication.machine import Proposal
from tests.integration.nodes import batch_of, crashing_node, running_node


async def test_an_entry_that_cannot_be_applied_ends_its_own_partition_only(tmp_path: Path) -> None:
    async with crashing_node(tmp_path) as node:
        broker = node.broker
        for name in ("bad", "good"):
            await broker.create("topic", name, {}).wait()
            await broker.publish(name, 0, batch_of(b"a"), "c").wait()
        topic = node.metadata.catalogue.topic("bad")
        assert topic is not None
        partitions = node.replicas.partitions(topic.topic_id)
        assert partitions is not None
        group = partitions[0].group
        group.propose([Proposal(KIND_COMMANDS + 100, 1, 0, b"from a newer version")], group.term)
        with pytest.raises(PlaitError):  # it is refused, or unknown if it was under way
            await broker.publish("bad", 0, batch_of(b"b"), "c").wait()
        await broker.publish("good", 0, batch_of(b"b"), "c").wait()
    async with running_node(tmp_path) as node:
        with pytest.raises(StorageDamaged):
            await node.broker.fetch("bad", 0, 0, 1000, 0).wait()
        assert (await node.broker.publish("good", 0, batch_of(b"c"), "c").wait()).base_offset == 2
        detail = (await node.broker.describe("bad").wait())["partitions_detail"][0]
        assert "cannot be applied" in detail["failure"]
