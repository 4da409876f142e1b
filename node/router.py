"""Where a publish goes on this node: to the partition that it names, or to one that is chosen for it."""

from __future__ import annotations

from cluster.catalogue import Topic
from cluster.routing import PartitionChooser
from plait.wire.batch import BatchHeader
from plait.wire.errors import NotFound

CHOSEN_BY_BROKER = -1
"""The partition number of a publish that names none."""


class Router:
    """Chooses partitions; one per node. Batches come here whole, so a key's partition is its producer's choice."""

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        self._choosers: dict[int, PartitionChooser] = {}  # by topic id, for publishes that name no partition

    def partition_of(self, topic: Topic, partition: int, header: BatchHeader) -> int:
        """The partition for a batch. Raises NotFound for one that the topic does not have.

        An idempotent producer's batches that name none all go to one: its sequence counts per partition, and what
        it sends again must meet what it sent before.
        """
        count = len(topic.groups)
        if 0 <= partition < count:
            return partition
        if partition != CHOSEN_BY_BROKER:
            raise NotFound(
                f"{topic.name} has the partitions 0 to {count - 1}, not {partition}; the batch was not stored"
            )
        if count == 1:
            return 0
        if header.producer_id >= 0:
            return header.producer_id % count
        chooser = self._choosers.get(topic.topic_id)
        if chooser is None:
            chooser = self._choosers[topic.topic_id] = PartitionChooser(count, start=self._node_id)
        return chooser.choose(None, header.size_bytes)

    def forget(self, topic_id: int) -> None:
        """A topic was deleted."""
        self._choosers.pop(topic_id, None)
